//! Taking a restore in place back: the kept databases get their names again.

use rekindle_core::port::{RestoreReport, RunContext};
use rekindle_core::{Fault, Result, codes};

use super::target::free;
use super::{Restored, admin, create, server_of, swap};
use crate::postgres::PostgresComponent;
use crate::postgres::{catalog, recovery};

/// What the restored databases are called afterwards.
const SUFFIX: &str = "_rolled_back";

pub(in crate::postgres) async fn roll_back(
    component: &PostgresComponent,
    report: &RestoreReport,
    context: &RunContext,
) -> Result<()> {
    if report.details.get("databases").is_none() {
        return recovery::roll_back(report);
    }
    let restored: Restored = serde_json::from_value(report.details.clone())
        .map_err(|error| Fault::new(codes::PG_DETAILS, "read the report of the restore").because(error))?;
    let server = server_of(component, &restored)?;
    let touched: Vec<&str> = restored.databases.iter().map(|one| one.restored_as.as_str()).collect();
    let first = admin(&server, &touched).await?;
    let mut taken = catalog::names(&first, "list the databases", "SELECT datname::text FROM pg_database").await?;
    let mut renames = Vec::new();
    for one in &restored.databases {
        renames.push((one.restored_as.clone(), free(&one.restored_as, SUFFIX, &mut taken)?));
        renames.extend(one.kept_old.iter().map(|old| (old.clone(), one.restored_as.clone())));
    }
    context.monitor.phase(component.id.as_str(), "roll back");
    let second = server.connect(first.database()).await?;
    second.run(create::WRITABLE).await?;
    swap::rename_all(&first, &second, &renames).await
}
