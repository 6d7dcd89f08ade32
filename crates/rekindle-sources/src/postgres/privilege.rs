//! What the backup role must be allowed to do, as SQL to run.

use super::quote::ident;

/// What to do about a table that somebody has locked.
pub(super) const LOCK_HINT: &str = "a table is locked for longer than `lock_timeout`; find who holds it with `SELECT pid, state, \
     query FROM pg_stat_activity WHERE pid = ANY (SELECT unnest(pg_blocking_pids(pid)) FROM \
     pg_stat_activity)`, then run again";

/// Everything a backup role needs on PostgreSQL 14 and newer (tried on 15).
pub(super) fn grants(role: &str) -> String {
    format!("run as superuser: {}; {}; {}", read_all(role), bypass_rls(role), large_objects(role))
}

pub(super) fn read_all(role: &str) -> String {
    format!("GRANT pg_read_all_data TO {}", ident(role))
}

pub(super) fn bypass_rls(role: &str) -> String {
    format!("ALTER ROLE {} BYPASSRLS", ident(role))
}

pub(super) fn large_objects(role: &str) -> String {
    format!("ALTER ROLE {} SET lo_compat_privileges = on", ident(role))
}

pub(super) fn restore_points(role: &str) -> String {
    format!(
        "GRANT EXECUTE ON FUNCTION pg_create_restore_point(text) TO {} (in the database it connects to)",
        ident(role)
    )
}

/// The statement that removes the reason `pg_dump` gave, when the reason is a privilege.
pub(super) fn remedy(stderr: &str, role: &str) -> Option<String> {
    let sql = if stderr.contains("row-level security") || stderr.contains("row security") {
        bypass_rls(role)
    } else if stderr.contains("permission denied for large object") {
        large_objects(role)
    } else if stderr.contains("permission denied") || stderr.contains("must be owner") {
        return Some(grants(role));
    } else {
        return None;
    };
    Some(format!("run as superuser: {sql}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trap_has_its_statement() {
        let rls = "pg_dump: error: query would be affected by row-level security policy";
        assert!(remedy(rls, "b").is_some_and(|r| r.ends_with("ALTER ROLE \"b\" BYPASSRLS")));
        let blob = "ERROR:  permission denied for large object 16400";
        assert!(remedy(blob, "b").is_some_and(|r| r.contains("lo_compat_privileges")));
        let table = "ERROR:  permission denied for table t";
        assert!(remedy(table, "b").is_some_and(|r| r.contains("pg_read_all_data")));
        assert_eq!(remedy("disk full", "b"), None);
    }
}
