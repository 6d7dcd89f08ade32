//! What stands at the configured databases.

use rekindle_core::Result;

use super::super::PostgresComponent;
use super::super::catalog::{self, get};
use super::super::details::Details;
use super::admin;

/// Tables, views, sequences and so on that people made.
const OBJECTS: &str = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
    AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')";

/// The first database of the point that exists on the server and holds something.
pub(in super::super) async fn occupied(
    component: &PostgresComponent,
    details: &serde_json::Value,
) -> Result<Option<String>> {
    let details = Details::decode(details)?;
    let server = component.server();
    let session = admin(&server, &[]).await?;
    let there = catalog::names(&session, "list the databases", "SELECT datname::text FROM pg_database").await?;
    for record in details.databases.iter().filter(|record| there.contains(&record.name)) {
        let session = server.connect(&record.name).await?;
        let row = session.row("look into the database", OBJECTS, &[]).await?;
        let objects: i64 = get(&row, 0)?;
        if objects > 0 {
            return Ok(Some(format!("the database `{}` on {} holds {objects} objects", record.name, server.url)));
        }
    }
    Ok(None)
}
