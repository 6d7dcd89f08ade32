//! Our own connections: for facts, snapshots, counts and commands.

use std::time::Duration;

use rekindle_core::{Fault, Result, Secret, codes};
use tokio_postgres::config::SslMode as WireSslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Row};

use super::tls;
use super::url::{Host, ServerUrl, SslMode};

/// What we are called in `pg_stat_activity`.
pub(super) const APPLICATION: &str = "rekindle";
/// Longest run of a query on the catalogues.
const QUERY_MAX: Duration = Duration::from_mins(2);

/// A server, and the way in.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub url: ServerUrl,
    pub password: Option<Secret<String>>,
    pub connect_timeout: Duration,
}

/// A connection. Dropping it closes it; an open transaction is rolled back by the server.
pub(super) struct Session {
    client: Client,
    server: Server,
    database: String,
}

impl Server {
    /// Connects to a database of the server.
    pub(super) async fn connect(&self, database: &str) -> Result<Session> {
        let mut config = Config::new();
        match &self.url.host {
            Host::Tcp(name) => config.host(name),
            Host::Socket(path) => config.host_path(path),
        };
        config
            .port(self.url.port)
            .user(&self.url.user)
            .dbname(database)
            .application_name(APPLICATION)
            .connect_timeout(self.connect_timeout)
            .keepalives_idle(Duration::from_mins(1))
            .ssl_mode(match (&self.url.host, self.url.ssl_mode) {
                // As in libpq: nobody listens in on a Unix socket.
                (Host::Socket(_), _) | (_, SslMode::Disable) => WireSslMode::Disable,
                (_, SslMode::Prefer) => WireSslMode::Prefer,
                _ => WireSslMode::Require,
            });
        if let Some(password) = &self.password {
            config.password(password.expose());
        }
        let connecting = config.connect(tls::connector(&self.url)?);
        let (client, connection) = tokio::time::timeout(self.connect_timeout, Box::pin(connecting))
            .await
            .map_err(|_| {
                self.unreachable()
                    .because(format!("no answer within {} s (`connect_timeout`)", self.connect_timeout.as_secs()))
            })?
            .map_err(|error| self.refused(database, error))?;
        tokio::spawn(async move {
            // What ends a connection is told to whoever uses it next.
            let _ = Box::pin(connection).await;
        });
        let session = Session { client, server: self.clone(), database: database.to_owned() };
        session
            .run(&format!(
                "SET statement_timeout = {}; SET lock_timeout = 0; \
                 SET idle_in_transaction_session_timeout = 0; SET search_path = pg_catalog; \
                 SET extra_float_digits = 3; SET row_security = off",
                QUERY_MAX.as_millis()
            ))
            .await?;
        Ok(session)
    }

    fn unreachable(&self) -> Fault {
        Fault::new(codes::PG_CONNECT, format!("connect to {}", self.url)).hint(format!(
            "start the server, or look at what it is doing: `pg_isready -h {} -p {}`",
            self.url.host, self.url.port
        ))
    }

    fn refused(&self, database: &str, error: tokio_postgres::Error) -> Fault {
        let user = &self.url.user;
        let what = format!("connect to {} as `{user}`", self.url);
        let Some(code) = error.code().cloned() else {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            if cause.is_some_and(|cause| cause.contains("password missing")) {
                return Fault::new(codes::PG_AUTH, what)
                    .because("the server asks for a password, and none is configured")
                    .hint("set `password` of the component, as `env:NAME` or `file:PATH`");
            }
            return self.unreachable().because(error);
        };
        if code == SqlState::INVALID_CATALOG_NAME {
            return Fault::new(codes::PG_NO_DATABASE, format!("open the database `{database}` on {}", self.url))
                .because(error)
                .hint("correct the name in the configuration, or create the database");
        }
        if code.code().starts_with("28") || code == SqlState::INSUFFICIENT_PRIVILEGE {
            return Fault::new(codes::PG_AUTH, what)
                .because(error)
                .hint(format!("check the password and `pg_hba.conf` for the role `{user}`"));
        }
        self.unreachable().because(error)
    }
}

impl Session {
    /// The database it is connected to.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    pub(super) async fn rows(&self, what: &str, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        self.client.query(sql, parameters).await.map_err(|error| self.fault(what, error))
    }

    pub(super) async fn row(&self, what: &str, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Row> {
        self.client.query_one(sql, parameters).await.map_err(|error| self.fault(what, error))
    }

    /// A user's question: the first column of its only row, when that is a boolean.
    pub(super) async fn truth(&self, sql: &str) -> Result<Option<bool>> {
        let rows = self.rows("run a check", sql, &[]).await?;
        let [row] = rows.as_slice() else { return Ok(None) };
        Ok(if row.is_empty() { None } else { row.try_get::<_, Option<bool>>(0).ok().flatten() })
    }

    /// Statements without parameters and without rows, in our own words.
    pub(super) async fn run(&self, sql: &str) -> Result<()> {
        self.command("run a command", sql).await
    }

    pub(super) async fn command(&self, what: &str, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(|error| self.fault(what, error))
    }

    /// The same, with PostgreSQL's own error.
    pub(super) async fn try_command(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(sql).await
    }

    /// Asks the server to end what this session is doing.
    pub(super) fn canceller(&self) -> Canceller {
        Canceller { token: self.client.cancel_token(), url: self.server.url.clone() }
    }

    pub(super) fn fault(&self, what: &str, error: tokio_postgres::Error) -> Fault {
        let what = format!("{what} on {}", self.server.url);
        if error.is_closed() {
            return Fault::new(codes::PG_RESTARTED, what)
                .because(error)
                .hint("see the server's log for why it closed the connection; then run again");
        }
        match error.code() {
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => Fault::new(codes::PG_PRIVILEGE, what)
                .because(error)
                .hint(super::privilege::grants(&self.server.url.user)),
            Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => {
                Fault::new(codes::PG_LOCKED, what).because(error).hint(super::privilege::LOCK_HINT)
            }
            _ => Fault::new(codes::PG_QUERY, what).because(error),
        }
    }
}

/// Ends a running query from outside.
pub(super) struct Canceller {
    token: tokio_postgres::CancelToken,
    url: ServerUrl,
}

impl Canceller {
    pub(super) async fn cancel(self) {
        if let Ok(connector) = tls::connector(&self.url) {
            let cancelling = self.token.cancel_query(connector);
            // The connection is closed next; this only spares the server some work.
            let _ = tokio::time::timeout(Duration::from_secs(5), Box::pin(cancelling)).await;
        }
    }
}
