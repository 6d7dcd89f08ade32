//! What the manifest keeps about a PostgreSQL component. Read by restores of later versions:
//! new fields are optional, `version` changes when old readers would go wrong.

use rekindle_core::{Fault, Result, codes};
use serde::{Deserialize, Serialize};

/// The version this program writes, and the newest one it reads.
pub const DETAILS_VERSION: u32 = 1;

/// The whole record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    pub version: u32,
    /// `logical`.
    pub method: String,
    pub server: ServerRecord,
    /// Version of the `pg_dump` that was used, and its major number.
    pub dumped_with: String,
    pub dump_major: u32,
    pub schema_only: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_tables: Vec<String>,
    /// Whether `globals.sql` is there, and with what.
    pub globals: GlobalsRecord,
    pub databases: Vec<DatabaseRecord>,
}

/// The server the data comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// As in `server_version`.
    pub version: String,
    /// As in `server_version_num`: 150018.
    pub version_number: i32,
    pub system_identifier: String,
    pub timeline: i32,
    pub standby: bool,
    pub started: jiff::Timestamp,
    /// Host and port we connected to.
    pub address: String,
    /// As `shared_preload_libraries`; none: our role may not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preload: Option<String>,
}

impl ServerRecord {
    /// As in `15` of `15.18`.
    pub fn major(&self) -> u32 {
        u32::try_from(self.version_number / 10_000).unwrap_or(0)
    }
}

/// What was saved of the roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GlobalsRecord {
    WithPasswords,
    WithoutPasswords,
    None,
}

/// One database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRecord {
    pub name: String,
    /// Path of its dump below the component.
    pub file: String,
    /// The moment of its snapshot, and the WAL position then.
    pub snapshot_at: jiff::Timestamp,
    pub lsn: String,
    /// Size in the server, in bytes.
    pub size: i64,
    pub properties: Properties,
    pub extensions: Vec<Extension>,
    pub tables: Vec<Table>,
    pub sequences: Vec<Sequence>,
    /// Number of large objects.
    pub large_objects: i64,
    /// Roles that own something in the dump.
    #[serde(default)]
    pub owners: Vec<String>,
    /// Tablespaces something in the dump asks for by name.
    #[serde(default)]
    pub tablespaces: Vec<String>,
    /// Version of the archive format, as `1.14`.
    #[serde(default)]
    pub archive_version: String,
}

/// What `CREATE DATABASE` and `ALTER DATABASE` need to make it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    pub owner: String,
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub provider: String,
    /// Locale of ICU or of the built-in provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_rules: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation_version: Option<String>,
    pub tablespace: String,
    pub connection_limit: i32,
    pub is_template: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`.
    pub settings: Vec<Setting>,
    /// Privileges on the database; none: those that every new database has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Vec<Grant>>,
}

/// One setting of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// For one role only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    pub name: String,
    pub value: String,
}

/// One privilege on the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// None: everybody (`PUBLIC`).
    pub grantee: Option<String>,
    pub privilege: String,
    pub grantable: bool,
}

/// One installed extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    pub name: String,
    pub version: String,
}

/// One table, partitioned table or materialized view that no extension owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub schema: String,
    pub name: String,
    /// `r` table, `p` partitioned table, `m` materialized view, as in `pg_class.relkind`.
    pub kind: String,
    /// Whether its rows are in the dump.
    pub dumped: bool,
    /// PostgreSQL's own estimate; -1 when it has none.
    pub estimated_rows: i64,
    /// Whether it had a row in the snapshot of the dump; none: nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_rows: Option<bool>,
    /// Counted in the snapshot of the dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_rows: Option<i64>,
}

/// One sequence, with its last value shortly before the dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    pub schema: String,
    pub name: String,
    /// None: never used, or not readable.
    pub last_value: Option<i64>,
    pub increment: i64,
    pub cycles: bool,
}

impl Details {
    /// Reads the record of a part.
    pub fn decode(value: &serde_json::Value) -> Result<Self> {
        let fault = || Fault::new(codes::PG_DETAILS, "read the manifest's record of PostgreSQL");
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        match version {
            Some(version) if version <= u64::from(DETAILS_VERSION) => {}
            Some(version) => {
                return Err(fault()
                    .because(format!("it has version {version}, this program knows {DETAILS_VERSION}"))
                    .hint("use the program that wrote the point, or a newer one"));
            }
            None => return Err(fault().because("it has no version")),
        }
        serde_json::from_value(value.clone()).map_err(|error| fault().because(error))
    }
}
