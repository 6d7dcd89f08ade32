//! Settings of the recovering server, and what is left of the original's.

use std::fs;
use std::path::Path;

use rekindle_core::Result;
use rekindle_core::timeline::{RecoveryPlan, Stop};

use super::io_fault;

const AUTO: &str = "postgresql.auto.conf";
/// Every way to set a target. An earlier recovery may have left one behind.
const TARGETS: [&str; 5] =
    ["recovery_target", "recovery_target_lsn", "recovery_target_name", "recovery_target_time", "recovery_target_xid"];
/// Of an earlier recovery or of the original's role: never taken over.
const FORGOTTEN: [&str; 9] = [
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_timeline",
    "restore_command",
    "recovery_end_command",
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
];

/// The settings of a target, in the order in which PostgreSQL takes them: it allows one, and an
/// empty one after it would take it back.
pub(super) fn target(plan: &RecoveryPlan) -> Vec<(&'static str, String)> {
    let mut settings: Vec<(&'static str, String)> = TARGETS.into_iter().map(|name| (name, String::new())).collect();
    settings.extend(wanted(plan));
    settings.extend([
        ("recovery_target_inclusive", if plan.target.inclusive { "on" } else { "off" }.to_owned()),
        ("recovery_target_timeline", plan.chain.timeline.to_string()),
        ("recovery_target_action", "promote".to_owned()),
    ]);
    settings
}

fn wanted(plan: &RecoveryPlan) -> Option<(&'static str, String)> {
    Some(match &plan.target.stop {
        Stop::Time(at) => ("recovery_target_time", at.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()),
        Stop::Xid(xid) => ("recovery_target_xid", xid.to_string()),
        Stop::Lsn(lsn) => ("recovery_target_lsn", lsn.to_string()),
        Stop::Name(name) => ("recovery_target_name", name.clone()),
        Stop::Immediate => ("recovery_target", "immediate".to_owned()),
        Stop::Latest => return None,
    })
}

/// The name that a line of a configuration file sets.
fn name_of(line: &str) -> Option<String> {
    let line = line.trim_start();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))?;
    (end > 0).then(|| line[..end].to_ascii_lowercase())
}

/// Removes what an earlier recovery or the original's role left in the automatic settings.
/// `copy`: the cluster is a copy beside the original and must not write into its archive.
pub(super) fn clean(data: &Path, copy: bool, more: &[(&str, String)]) -> Result<()> {
    let file = data.join(AUTO);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(io_fault("read", &file, error)),
    };
    let ours = |name: &str| TARGETS.contains(&name) || FORGOTTEN.contains(&name) || (copy && name == "archive_mode");
    let mut lines: Vec<String> =
        text.lines().filter(|line| !name_of(line).is_some_and(|name| ours(&name))).map(str::to_owned).collect();
    if copy {
        lines.push("# rekindle: this is a restored copy; it must not write into the original's archive.".to_owned());
        lines.push("archive_mode = 'off'".to_owned());
    }
    // In postgresql.conf they would still stand; here they win.
    lines.push("primary_conninfo = ''".to_owned());
    lines.push("primary_slot_name = ''".to_owned());
    lines.extend(more.iter().map(|(name, value)| format!("{name} = {}", quoted(value))));
    lines.push(String::new());
    fs::write(&file, lines.join("\n")).map_err(|error| io_fault("write", &file, error))
}

/// A value as configuration files write it.
pub(super) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// Distributions keep these outside of the data directory; without them a server does not start.
/// Gives the names of the files that were made.
pub(super) fn complete(data: &Path) -> Result<Vec<&'static str>> {
    let files = [
        (
            "postgresql.conf",
            "# The original's settings were not in its data directory; these are defaults.\nport = 5433\n",
        ),
        ("pg_hba.conf", "# The original's rules were not in its data directory.\nlocal all all peer\n"),
        ("pg_ident.conf", ""),
    ];
    let mut made = Vec::new();
    for (name, text) in files {
        let file = data.join(name);
        if !file.exists() {
            fs::write(&file, text).map_err(|error| io_fault("write", &file, error))?;
            made.push(name);
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_recovery_left_is_gone() {
        let data = tempfile::tempdir().unwrap();
        let text = "# Do not edit\nwork_mem = '8MB'\n recovery_target_time = '2020-01-01'\nRESTORE_COMMAND='x'\n\
                    primary_conninfo='host=a password=b'\narchive_mode = on\nrecovery_targeted.x = 1\n";
        fs::write(data.path().join(AUTO), text).unwrap();
        clean(data.path(), true, &[("restore_command", "it's a \\ test".to_owned())]).unwrap();
        let now = fs::read_to_string(data.path().join(AUTO)).unwrap();
        assert!(now.contains("work_mem = '8MB'") && now.contains("recovery_targeted.x = 1"), "{now}");
        assert!(now.contains("archive_mode = 'off'") && !now.contains("archive_mode = on"), "{now}");
        assert!(!now.contains("2020-01-01") && !now.contains("host=a") && !now.contains("RESTORE"), "{now}");
        assert!(now.contains("restore_command = 'it''s a \\\\ test'"), "{now}");
        clean(data.path(), true, &[]).unwrap();
        let again = fs::read_to_string(data.path().join(AUTO)).unwrap();
        assert!(!again.contains("restore_command"), "{again}");
        assert_eq!(again.matches("archive_mode").count(), 1, "{again}");
    }
}
