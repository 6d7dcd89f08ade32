//! Files that must be accepted, and what comes out of them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rekindle_config::{Config, Databases, Kind, OnChange, PostgresMethod, Value, load, parse};
use rekindle_core::codes;
use rekindle_core::wal::WalMode;

fn good(text: &str) -> Config {
    parse(Path::new("/etc/rekindle/rekindle.toml"), text).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_example_is_accepted_and_means_what_it_says() {
    let config = good(include_str!("../../../../examples/rekindle.toml"));
    assert_eq!(config.stack.name, "prompt-card-system");
    assert_eq!(config.stack.max_skew, Some(Duration::from_mins(5)));
    assert_eq!(config.repository.compression, Some(3));
    assert!(matches!(config.repository.access.access_key_id, Some(Value::Reference(_))));
    let names: Vec<&str> = config.components.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(names, ["database", "ledger", "cache", "uploads", "compose"], "the order of the file");
    let Kind::Postgres(database) = &config.components[0].kind else { panic!() };
    assert!(database.globals && database.exact_counts && !database.schema_only);
    assert_eq!(database.databases, Databases::OfUrl);
    assert_eq!(config.components[0].objective.proof_seconds, Some(8 * 86_400));
    assert_eq!(database.method, PostgresMethod::Logical);
    let Kind::Postgres(ledger) = &config.components[1].kind else { panic!() };
    let PostgresMethod::Physical(physical) = &ledger.method else { panic!() };
    assert_eq!(physical.wal, WalMode::Stream);
    assert_eq!(physical.slot_for("shop", &config.components[1].id).as_str(), "rekindle_ledger");
    let Kind::Files(uploads) = &config.components[3].kind else { panic!() };
    assert_eq!(uploads.paths[1], Path::new("/app/config"));
    assert_eq!(uploads.unreadable, Some(OnChange::Partial));
    let engine = "unix:///var/run/docker.sock";
    let place = config.components[2].container.as_ref().unwrap();
    assert_eq!((place.name.as_str(), place.docker_host.as_deref()), ("prompt-redis", Some(engine)));
    assert_eq!(config.components[0].hooks.container.as_deref(), Some("prompt-postgres"));
    let Kind::Files(compose) = &config.components[4].kind else { panic!() };
    assert_eq!(compose.paths, [PathBuf::from("/etc/rekindle/docker-compose.yml")]);
    assert_eq!(compose.compose.as_ref().unwrap().docker_host.as_deref(), Some(engine));
    assert_eq!(config.stack.app_services, ["frontend", "backend"]);
    assert_eq!(config.stack.start_timeout, Some(Duration::from_mins(3)));
    let hooks = &config.components[3].hooks;
    assert_eq!(hooks.before[0].argv, ["/usr/local/bin/app", "flush"]);
    assert_eq!(hooks.on_error[0].argv, ["/bin/sh", "-c", "logger uploads failed"]);
    let retention = config.retention.unwrap().policy;
    assert_eq!((retention.daily, retention.yearly, retention.min_keep), (30, 0, 3));
    assert_eq!(retention.within_seconds, Some(2 * 86_400));
}

#[test]
fn the_example_of_a_whole_stack_has_every_word_of_its_backup_script() {
    let config = good(include_str!("../../../../examples/prompt-card-system/rekindle.toml"));
    let kinds: Vec<String> = config.components.iter().map(|one| one.kind().to_string()).collect();
    assert_eq!(kinds, ["postgres", "redis", "files", "files", "prometheus", "grafana", "files"]);
    let groups: Vec<&str> = config.groups.keys().map(String::as_str).collect();
    assert_eq!(groups, ["app", "config"]);
    let own = |one: &&rekindle_config::Component| one.id.as_str() != "compose";
    let mut components = config.components.iter().filter(own);
    assert!(components.all(|one| one.schedule.is_some() && one.objective.rpo_seconds.is_some()));
    let contained = config.components.iter().filter(|one| one.container.is_some()).map(|one| one.id.as_str());
    assert_eq!(contained.collect::<Vec<_>>(), ["postgres", "redis", "metrics", "dashboards"]);
}

#[test]
fn a_base_backup_needs_no_database_and_keeps_no_log_unless_asked() {
    let config = good(
        "[stack]\nname='Shop'\n[repository]\nurl='file:///r'\npassword='file:key'\n\
         [component.db]\nkind='postgres'\nurl='postgres://u@h'\nmethod='physical'\n",
    );
    let Kind::Postgres(database) = &config.components[0].kind else { panic!() };
    let PostgresMethod::Physical(physical) = &database.method else { panic!() };
    assert_eq!(physical.wal, WalMode::None);
    let slot = physical.slot_for(&config.stack.name, &config.components[0].id);
    assert!(slot.as_str().starts_with("rekindle_shop_db_"), "{slot}");
}

#[test]
fn paths_are_made_plain_and_secrets_start_from_the_files_directory() {
    let config = good(
        "[stack]\nname='s'\n[repository]\nurl='file:///r'\npassword='file:key'\n\
         [component.a]\nkind='files'\npaths=['/a/./b/', '//c']\n",
    );
    let Kind::Files(files) = &config.components[0].kind else { panic!() };
    assert_eq!(files.paths, [PathBuf::from("/a/b"), PathBuf::from("/c")]);
    assert_eq!(config.repository.password.as_file(), Some(Path::new("/etc/rekindle/key")));
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rekindle.toml");
    std::fs::write(&file, include_str!("../../../../examples/rekindle.toml")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(load(&file).is_ok());
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(load(&file).unwrap_err().to_string().contains("chmod 600"));
}

#[test]
fn what_is_not_there_or_no_text_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let absent = load(&directory.path().join("none.toml")).unwrap_err();
    assert_eq!(absent.list[0].code, codes::CONFIG_ABSENT);
    assert!(load(directory.path()).unwrap_err().to_string().contains("not a file"));
    let file = directory.path().join("latin1.toml");
    std::fs::write(&file, b"# \xe4").unwrap();
    assert!(load(&file).unwrap_err().to_string().contains("byte 2 is not UTF-8"));
}
