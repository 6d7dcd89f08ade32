//! The figures a manifest gives about a component: rows per table, keys per database, samples.
//!
//! Each kind keeps its own details; this is the one place that reads figures out of all of them.
//! What cannot be read is left out: figures are for comparing, never for proving.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::id::ComponentKind;
use crate::manifest::ComponentRecord;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Rows,
    Keys,
    Samples,
    Series,
}

impl Unit {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Keys => "keys",
            Self::Samples => "samples",
            Self::Series => "series",
        }
    }
}

/// A counted thing: a table, a database of Redis, …
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Counted {
    pub unit: Unit,
    /// `shop.public.orders`, `database 0`; empty when it is the whole component.
    pub name: String,
}

/// A figure, and whether it was counted or estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Figure {
    pub value: u64,
    pub exact: bool,
}

/// Every figure of a component.
pub fn figures(record: &ComponentRecord) -> BTreeMap<Counted, Figure> {
    match record.kind {
        ComponentKind::Postgres => postgres(&record.details),
        ComponentKind::Redis => redis(&record.details),
        ComponentKind::Prometheus => prometheus(&record.details),
        ComponentKind::Grafana => grafana(&record.details),
        ComponentKind::Files => BTreeMap::new(),
    }
}

/// Names of tables, sequences, extensions and databases of a PostgreSQL component, each with its
/// word; empty for other kinds.
pub fn schema(record: &ComponentRecord) -> Vec<String> {
    let mut names = Vec::new();
    for database in list(&record.details, "databases") {
        let name = text(database, "name");
        names.push(format!("database {name}"));
        for (key, word) in [("tables", "table"), ("sequences", "sequence")] {
            for one in list(database, key) {
                let word = if text(one, "kind") == "m" { "materialized view" } else { word };
                names.push(format!("{word} {name}.{}.{}", text(one, "schema"), text(one, "name")));
            }
        }
        for one in list(database, "extensions") {
            names.push(format!("extension {name}.{} {}", text(one, "name"), text(one, "version")));
        }
    }
    names.sort();
    names.dedup();
    names
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("?")
}

fn exact(unit: Unit, name: impl Into<String>, value: u64) -> (Counted, Figure) {
    (Counted { unit, name: name.into() }, Figure { value, exact: true })
}

fn postgres(details: &Value) -> BTreeMap<Counted, Figure> {
    let mut all = BTreeMap::new();
    for database in list(details, "databases") {
        // Rows of a partitioned table are those of its partitions, which stand here as well.
        for table in list(database, "tables").iter().filter(|table| text(table, "kind") != "p") {
            let name = format!("{}.{}.{}", text(database, "name"), text(table, "schema"), text(table, "name"));
            let counted = table.get("exact_rows").and_then(Value::as_u64);
            // -1 means that PostgreSQL has no estimate; `as_u64` leaves it out.
            let estimated = table.get("estimated_rows").and_then(Value::as_u64);
            if let Some(value) = counted.or(estimated) {
                all.insert(Counted { unit: Unit::Rows, name }, Figure { value, exact: counted.is_some() });
            }
        }
    }
    all
}

fn redis(details: &Value) -> BTreeMap<Counted, Figure> {
    let databases = details.pointer("/rdb/databases").and_then(Value::as_object);
    let keys = |(number, count): (&String, &Value)| {
        Some(exact(Unit::Keys, format!("database {number}"), count.get("keys")?.as_u64()?))
    };
    databases.into_iter().flatten().filter_map(keys).collect()
}

fn prometheus(details: &Value) -> BTreeMap<Counted, Figure> {
    let of = |unit, key| Some(exact(unit, "", details.get(key)?.as_u64()?));
    [of(Unit::Samples, "samples"), of(Unit::Series, "series")].into_iter().flatten().collect()
}

fn grafana(details: &Value) -> BTreeMap<Counted, Figure> {
    let tables = details.get("tables").and_then(Value::as_object);
    let rows = |(table, rows): (&String, &Value)| Some(exact(Unit::Rows, table.clone(), rows.as_u64()?));
    tables.into_iter().flatten().filter_map(rows).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(kind: &str, details: &Value) -> ComponentRecord {
        serde_json::from_value(json!({
            "id": "c", "kind": kind, "tree": "", "captured_at": "2026-01-01T00:00:00Z",
            "tally": {"entries": 0, "bytes": 0, "unchanged_bytes": 0, "fingerprint": "0"},
            "streams": [], "added_bytes": 0, "stored_bytes": 0,
            "notes": {"counts": {}, "listed": []}, "details": details,
        }))
        .unwrap()
    }

    fn read(kind: &str, details: &Value) -> Vec<String> {
        let all = figures(&record(kind, details));
        let text = |(counted, figure): (&Counted, &Figure)| {
            let mark = if figure.exact { "" } else { "~" };
            format!("{} {}={mark}{}", counted.unit.as_str(), counted.name, figure.value)
        };
        all.iter().map(text).collect()
    }

    #[test]
    fn every_kind_gives_its_figures() {
        let table = |name: &str, kind: &str, estimate: i64, exact: Option<i64>| json!({"schema": "public", "name": name, "kind": kind, "dumped": true, "estimated_rows": estimate, "exact_rows": exact});
        let postgres = json!({"databases": [{"name": "shop", "tables": [
            table("a", "r", 9, Some(10)), table("b", "r", 7, None), table("c", "r", -1, None), table("d", "p", 7, Some(7)),
        ], "sequences": [{"schema": "public", "name": "s"}], "extensions": [{"name": "citext", "version": "1.6"}]}]});
        assert_eq!(read("postgres", &postgres), ["rows shop.public.a=10", "rows shop.public.b=~7"]);
        let names = schema(&record("postgres", &postgres));
        assert_eq!(names[..2], ["database shop", "extension shop.citext 1.6"]);
        assert_eq!(names.len(), 7);
        let redis = json!({"rdb": {"databases": {"0": {"keys": 3, "expires": 1, "expired": 0}, "7": {"keys": 1}}}});
        assert_eq!(read("redis", &redis), ["keys database 0=3", "keys database 7=1"]);
        assert_eq!(read("prometheus", &json!({"samples": 5, "series": 2})), ["samples =5", "series =2"]);
        assert_eq!(read("grafana", &json!({"tables": {"dashboard": 4}})), ["rows dashboard=4"]);
        assert_eq!(read("files", &Value::Null), [""; 0]);
        assert_eq!(read("postgres", &json!("odd")), [""; 0]);
    }
}
