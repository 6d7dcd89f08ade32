//! A Prometheus of our own on restored blocks: it scrapes nothing, alerts nobody and listens on
//! loopback only. It works on hard links, so whatever it does to them the restored data stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rekindle_core::port::RunContext;
use rekindle_core::{Fault, Result, codes};
use tokio::process::{Child, Command};

use super::options::PrometheusOptions;
use super::server::Server;
use crate::files::show;
use crate::http::{HttpOptions, Login};

/// Longest time until it has opened all blocks.
const READY_MAX: Duration = Duration::from_mins(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of its log that an error shows.
const LOG_SHOWN: usize = 600;
const SYSTEM_PATHS: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/opt/prometheus", "/usr/sbin"];

/// Where a program is: in the configured directory, else on the `PATH`, else at the usual places.
pub(super) fn program(options: &PrometheusOptions, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = match &options.bin_dir {
        Some(directory) => vec![directory.clone()],
        None => std::env::split_paths(&path).chain(SYSTEM_PATHS.map(PathBuf::from)).collect(),
    };
    places.into_iter().map(|place| place.join(name)).find(|file| file.is_file())
}

/// Hard links of the blocks, in a directory of their own that goes away.
pub(super) struct Links {
    top: PathBuf,
}

impl Links {
    /// Links every block below `data`; an error when the file system cannot.
    pub(super) fn make(data: &Path, run: &str) -> std::io::Result<Self> {
        // Beside it, unless it is the top of a file system of its own.
        let name = format!(".rekindle-check-{run}");
        let parent = data.parent().unwrap_or(data);
        let here = |path: &Path| std::os::unix::fs::MetadataExt::dev(&fs::metadata(path).ok()?).into();
        let same: (Option<u64>, Option<u64>) = (here(data), here(parent));
        let top = if same.0 == same.1 { parent.join(name) } else { data.join(name) };
        fs::create_dir(&top)?;
        let links = Self { top };
        fs::create_dir(links.data())?;
        for block in super::blocks::names(data).map_err(std::io::Error::other)? {
            link(&data.join(&block), &links.data().join(&block))?;
        }
        Ok(links)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.top.join("data")
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.top) {
            tracing::warn!("`{}` could not be removed: {error}", self.top.display());
        }
    }
}

fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() { link(&entry.path(), &to)? } else { fs::hard_link(entry.path(), to)? }
    }
    Ok(())
}

/// The running server; killed when dropped.
pub(super) struct Engine {
    pub(super) server: Server,
    /// Its answer to `--version` decides how ranges are counted.
    pub(super) major: u32,
    child: Child,
    log: PathBuf,
    _links: Links,
}

impl Engine {
    /// Starts it and waits until it has opened every block.
    pub(super) async fn start(program: &Path, links: Links, context: &RunContext) -> Result<Self> {
        let (config, log) = (links.top.join("prometheus.yml"), links.top.join("log"));
        let failed = |what: &str| Fault::new(codes::PROM_BLOCK, format!("{what} `{}`", show(program)));
        let prepare = || {
            fs::write(&config, "global:\n  scrape_interval: 1h\n  evaluation_interval: 1h\n")?;
            let log = fs::File::create(&log)?;
            Ok((log.try_clone()?, log))
        };
        let (out, err) = prepare().map_err(|error: std::io::Error| failed("prepare to start").because(error))?;
        let mut child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", links.data().display()))
            .args(["--web.listen-address=127.0.0.1:0", "--storage.tsdb.retention.time=100y"])
            // Equal durations switch compaction off.
            .args(["--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=2h"])
            .env_clear()
            .current_dir(&links.top)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed("start").because(error))?;
        let started = Instant::now();
        loop {
            context.cancel.check()?;
            let said = fs::read_to_string(&log).unwrap_or_default();
            if let Ok(Some(status)) = child.try_wait() {
                return Err(
                    failed("open the restored blocks with").because(format!("it ended with {status}: {}", tail(&said)))
                );
            }
            if let Some(server) = listening(&said)
                && matches!(server.page("/-/ready").await, Ok(Some(_)))
            {
                let facts = server.facts().await?;
                let major = facts.version.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
                return Ok(Self { server, major, child, log, _links: links });
            }
            if started.elapsed() > READY_MAX {
                let why = format!("it is not ready after {} s: {}", READY_MAX.as_secs(), tail(&said));
                return Err(failed("open the restored blocks with").because(why));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The end of its log.
    pub(super) fn log_tail(&self) -> String {
        tail(&fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Ends it.
    pub(super) async fn stop(mut self) {
        let _ = self.child.kill().await;
    }
}

/// The address it says it listens on.
fn listening(log: &str) -> Option<Server> {
    let rest =
        log.split("address=127.0.0.1:").skip(1).find(|rest| !rest.starts_with("0 ") && !rest.starts_with("0\n"))?;
    let port: u16 = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    let url = format!("http://127.0.0.1:{port}");
    Server::at(&HttpOptions { url, login: Login::None, ca_file: None }).ok()
}

fn tail(log: &str) -> String {
    let start = log.len().saturating_sub(LOG_SHOWN);
    let start = (start..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(log.len());
    log[start..].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_the_log_of_every_version() {
        for log in [
            "caller=web.go:561 msg=\"Start listening for connections\" address=127.0.0.1:0\nmsg=\"Listening on\" address=127.0.0.1:4711\n",
            "msg=\"Listening on\" component=web address=127.0.0.1:4711 x=y",
        ] {
            assert_eq!(listening(log).unwrap().address(), "http://127.0.0.1:4711");
        }
        assert!(listening("address=127.0.0.1:0\n").is_none());
    }
}
