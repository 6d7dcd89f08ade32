//! The user's own SQL, asked of a restored database.

use rekindle_core::Result;
use rekindle_core::port::Finding;

use super::connect::Session;

const MEND: &str = "look at the data with `rekindle peek`, or correct the check";

/// Asks them one after the other. They cannot write.
pub(super) async fn ask(session: &Session, checks: &[String]) -> Result<Vec<Finding>> {
    session.run("SET default_transaction_read_only = on; SET statement_timeout = 0; RESET search_path").await?;
    let mut findings = Vec::with_capacity(checks.len());
    for sql in checks {
        findings.push(match session.truth(sql).await {
            Ok(Some(true)) => Finding::good(format!("check `{sql}` says yes")),
            Ok(Some(false)) => Finding::bad(format!("check `{sql}` says no"), MEND),
            Ok(None) => Finding::bad(
                format!("check `{sql}` does not say yes: it has to give one row whose first column is a boolean"),
                MEND,
            ),
            Err(fault) => Finding::bad(format!("check `{sql}` failed: {}", fault.chain()), MEND),
        });
    }
    Ok(findings)
}

/// The checks are about a database that is not there.
pub(super) fn no_database(name: &str) -> Finding {
    Finding::bad(
        format!("the checks are about the database `{name}`, which was not restored"),
        "correct the database in the component's `url`",
    )
}
