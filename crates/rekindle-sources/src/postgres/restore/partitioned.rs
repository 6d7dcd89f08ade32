//! Indexes of partitioned tables that were loaded whole and are not marked so.
//!
//! A partitioned index is valid when every partition has its part of it attached (`ALTER INDEX … ATTACH PARTITION`).
//! With several workers it was seen, rarely and under load, that all parts were attached and the index stayed
//! invalid: then `ON CONFLICT` finds no constraint. Attaching a part again makes newer servers look again (15.18
//! does); where one does not, the index is named.

use rekindle_core::Result;

use super::create::WRITABLE;
use crate::postgres::catalog::get;
use crate::postgres::connect::Session;

/// Each partitioned index that is invalid although all its parts are there, with one of them, and whether all of them
/// are valid. The innermost first: an index may be a part itself.
const UNMARKED: &str = "\
WITH RECURSIVE parts AS (
    SELECT i.indexrelid, i.indrelid, h.inhrelid AS part, p.indisvalid AS valid
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'I'
    JOIN pg_inherits h ON h.inhparent = i.indexrelid JOIN pg_index p ON p.indexrelid = h.inhrelid
    WHERE NOT i.indisvalid
), depth AS (
    SELECT c.oid, 0 AS level FROM pg_class c WHERE c.relkind = 'I' AND NOT c.relispartition
    UNION ALL
    SELECT h.inhrelid, level + 1 FROM depth JOIN pg_inherits h ON h.inhparent = depth.oid
)
SELECT p.indexrelid::regclass::text, min(p.part)::regclass::text, bool_and(p.valid)
FROM parts p JOIN depth d ON d.oid = p.indexrelid
GROUP BY p.indexrelid, p.indrelid, d.level
HAVING count(*) = (SELECT count(*) FROM pg_inherits t WHERE t.inhparent = p.indrelid)
ORDER BY d.level DESC";

/// Has the server look at them again. Gives those that it left as they were.
pub(super) async fn look_again(session: &Session) -> Result<Vec<String>> {
    let what = "look for partitioned indexes that are not marked";
    let found = session.rows(what, UNMARKED, &[]).await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    session.run(WRITABLE).await?;
    for row in &found {
        let (index, part): (String, String) = (get(row, 0)?, get(row, 1)?);
        let command = format!("ALTER INDEX {index} ATTACH PARTITION {part}");
        session.command("have a partitioned index looked at again", &command).await?;
    }
    let mut left = Vec::new();
    for row in session.rows(what, UNMARKED, &[]).await? {
        // One with an invalid part is rightly so, or waits for that one.
        if get(&row, 2)? {
            left.push(get(&row, 0)?);
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rekindle_core::Secret;
    use rekindle_testkit::{Postgres, PostgresOptions};

    use super::*;
    use crate::postgres::connect::Server;
    use crate::postgres::url::ServerUrl;

    const TREE: &str = "\
        CREATE TABLE e (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE e1 PARTITION OF e FOR VALUES FROM (0) TO (10);
        CREATE TABLE e2 PARTITION OF e FOR VALUES FROM (10) TO (90) PARTITION BY RANGE (at);
        CREATE TABLE e21 PARTITION OF e2 FOR VALUES FROM (10) TO (20);
        CREATE TABLE f (at int) PARTITION BY RANGE (at);
        CREATE TABLE f1 PARTITION OF f FOR VALUES FROM (0) TO (10);
        CREATE INDEX lacking ON ONLY f (at);
        CREATE INDEX outer_lacking ON ONLY e (at);
        CREATE INDEX middle_lacking ON ONLY e2 (at);
        CREATE INDEX e1_part ON e1 (at);
        ALTER INDEX outer_lacking ATTACH PARTITION e1_part;
        ALTER INDEX outer_lacking ATTACH PARTITION middle_lacking;
        UPDATE pg_index SET indisvalid = false WHERE indexrelid IN ('e_pkey'::regclass, 'e2_pkey'::regclass);";

    #[test]
    fn an_index_whose_parts_are_all_there_is_valid_again_and_no_other() {
        let postgres = Postgres::start(PostgresOptions::default());
        postgres.psql("postgres", TREE);
        postgres.psql("postgres", "ALTER ROLE postgres SET default_transaction_read_only = on");
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", postgres.port());
        let server = Server {
            url: ServerUrl::parse(&url).unwrap().0,
            password: Some(Secret::new(postgres.password().to_owned())),
            connect_timeout: Duration::from_secs(10),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let invalid = "SELECT string_agg(indexrelid::regclass::text, ' ' ORDER BY indexrelid::regclass::text COLLATE \"C\") FROM pg_index WHERE NOT indisvalid";
        assert_eq!(postgres.psql("postgres", invalid), "e2_pkey e_pkey lacking middle_lacking outer_lacking");
        let left = runtime.block_on(async { look_again(&server.connect("postgres").await?).await }).unwrap();
        let version: u32 = postgres.psql("postgres", "SHOW server_version_num").parse().unwrap();
        if version < 150_018 && !left.is_empty() {
            assert_eq!(left, ["e2_pkey"], "a server that does not look again: the innermost is named");
            return;
        }
        assert_eq!(left, [] as [&str; 0], "what lacks a part is rightly invalid");
        assert_eq!(postgres.psql("postgres", invalid), "lacking middle_lacking outer_lacking");
        postgres.psql("postgres", "SET default_transaction_read_only = off; INSERT INTO e VALUES (1, 5), (1, 15) ON CONFLICT (id, at) DO NOTHING");
    }
}
