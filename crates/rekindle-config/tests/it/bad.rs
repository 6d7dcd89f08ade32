//! Files that must be refused, each with a place, a reason and a remedy.

use std::fmt::Write as _;
use std::path::Path;

use rekindle_config::parse;

/// What a fragment stands in for, and the fragment. The rest of the file is right.
const CASES: &[(Part, &str)] = &[
    // Syntax.
    (File, "[stack"),
    (File, "stack]"),
    (File, "= 1"),
    (File, "name"),
    (File, "name = "),
    (File, "name = \"x"),
    (File, "name = x"),
    (File, "a = 1 b = 2"),
    (File, "a = 1\na = 2"),
    (File, "[stack]\nname = 'a'\n[stack]\nname = 'b'"),
    (File, "\u{1}"),
    (File, "a = \"\\q\""),
    (File, "a = [1, 2"),
    (File, "a = { b = 1"),
    (File, "stack: name"),
    // The top.
    (File, ""),
    (File, "stack = 1"),
    (File, "stack = []\nrepository = 'x'\ncomponent = true"),
    (File, "[[stack]]\nname = 'x'"),
    (Extra, "[repositori]"),
    (Extra, "[components.x]"),
    (Extra, "[notify.slack]\nurl = 'x'"),
    (Extra, "[[copy]]\nurl = 's3://b'"),
    (Extra, "keep-daily = 3"),
    // [stack]
    (Stack, ""),
    (Stack, "nam = 'x'"),
    (Stack, "name = 5"),
    (Stack, "name = ''"),
    (Stack, "name = '  '"),
    (Stack, "name = 'a b'"),
    (Stack, "name = '../x'"),
    (Stack, "name = 'ü'"),
    (Stack, "name = 's'\nhost = '-'"),
    (Stack, "name = 's'\nstate-dir = ''"),
    (Stack, "name = 's'\nstate_dir = '/x'"),
    (Stack, "name = 's'\nmax-skew = 5"),
    (Stack, "name = 's'\nmax-skew = '5'"),
    (Stack, "name = 's'\nmax-skew = '5 minutes'"),
    (Stack, "name = 's'\nurl = 'file:///x'"),
    (Stack, "name = 's'\ndocker-host = 'ssh://host'"),
    (Stack, "name = 's'\ndocker-host = 'unix:///x'"),
    (Stack, "name = 's'\nstart-timeout = '1m'"),
    (Stack, "name = 's'\napp-services = ['web']"),
    (Stack, "name = 's'\ncompose = '/c.yml'\napp-services = ['web', 'web']"),
    (Redis, "url = 'redis://h'\ncontainer = 'a b'"),
    (Redis, "url = 'redis://h'\ncontainer = '-x'"),
    (Redis, "url = 'redis://h'\nhooks = { container = '/x' }"),
    // [repository]
    (Repository, "url = 'file:///r'"),
    (Repository, "password = 'file:/k'"),
    (Repository, "url = 'r'\npassword = 'file:/k'"),
    (Repository, "url = 'file://r'\npassword = 'file:/k'"),
    (Repository, "url = 'file:///a/../r'\npassword = 'file:/k'"),
    (Repository, "url = 's4://b'\npassword = 'file:/k'"),
    (Repository, "url = 'ftp://b'\npassword = 'file:/k'"),
    (Repository, "url = 's3://'\npassword = 'file:/k'"),
    (Repository, "url = 's3://a b'\npassword = 'file:/k'"),
    (Repository, "url = 's3://key:canary@b'\npassword = 'file:/k'"),
    (Repository, "url = ''\npassword = 'file:/k'"),
    (Repository, "url = 's3://b'\npassword = 'canary'"),
    (Repository, "url = 's3://b'\npassword = 'canary:canary'"),
    (Repository, "url = 's3://b'\npassword = 'fil:/k'"),
    (Repository, "url = 's3://b'\npassword = 'file:'"),
    (Repository, "url = 's3://b'\npassword = 'env:'"),
    (Repository, "url = 's3://b'\npassword = 'env:A B'"),
    (Repository, "url = 's3://b'\npassword = 'env:1A'"),
    (Repository, "url = 's3://b'\npassword = 'command:'"),
    (Repository, "url = 's3://b'\npassword = \"command:pass 'x\""),
    (Repository, "url = 's3://b'\npassword = 'credential:../x'"),
    (Repository, "url = 's3://b'\npassword = ['file:/k']"),
    (Repository, "url = 's3://b'\npassword = ''"),
    (Repository, "url = 's3://b'\npassword = 'file:/k'\ncompression = 99"),
    (Repository, "url = 's3://b'\npassword = 'file:/k'\ncompression = 'max'"),
    (Repository, "url = 's3://b'\npassword = 'file:/k'\ncompression = 3.5"),
    (Repository, "url = 's3://b'\npassword = 'file:/k'\nendpoint = 'minio:9000'"),
    (Repository, "url = 's3://b'\npassword = 'file:/k'\nendpoint = 'http://h:99999'"),
    (Repository, "url = 's3://b'\npassword = 'file:/k'\npath-style = 'yes'"),
    (Repository, "url = 's3://b'\npassword = 'file:/k'\naccess-key-id = 'A'"),
    (Repository, "url = 's3://b'\npassword = 'file:/k'\nsecret-access-key = 'env:S'"),
    (Repository, "url = 's3://b'\npassword = 'file:/k'\naccess-key-id = 'A'\nsecret-access-key = 'canary'"),
    (
        Repository,
        "url = 's3://b'\npassword = 'file:/k'\naccess-key-id = 'A'\nsecret-access-key = 'env:S'\nprofile = 'p'",
    ),
    (Repository, "url = 's3://b'\npassword = 'file:/k'\nsession-token = 'env:T'"),
    (Repository, "url = 's3://b'\npassword = 'file:/k'\nregoin = 'eu'"),
    (Repository, "url = 'file:///r'\npassword = 'file:/k'\nregion = 'eu'\nendpoint = 'https://h'"),
    (Repository, "url = 'gs://b'\npassword = 'file:/k'\naccount = 'a'"),
    (Repository, "url = 'az://b'\npassword = 'file:/k'\naccount-key = 'env:K'"),
    (Repository, "url = 'file:///srv/data/repo'\npassword = 'file:/k'"),
    (Repository, "url = 'file:///srv'\npassword = 'file:/k'"),
    // [component.…]
    (Component, ""),
    (Component, "[component]"),
    (Component, "[component]\nx = 1"),
    (Component, "[component.Data]\nkind = 'files'\npaths = ['/a']"),
    (Component, "[component.rekindle]\nkind = 'files'\npaths = ['/a']"),
    (Component, "[component.'a/b']\nkind = 'files'\npaths = ['/a']"),
    (Component, "[component.x]"),
    (Component, "[component.x]\nkind = 5"),
    (Component, "[component.x]\nkind = 'postgre'"),
    (Component, "[component.x]\nkind = 'mysql'"),
    (Component, "[component.x]\nkind = 'grafana'\nurl = 'http://h'"),
    (Component, "[component.x]\nkind = 'grafana'\nusername = 'a'"),
    (
        Component,
        "[component.x]\nkind = 'grafana'\nurl = 'http://h'\nusername = 'a'\npassword = 'file:/p'\ntoken = 'file:/t'",
    ),
    (Component, "[component.x]\nkind = 'prometheus'"),
    (Component, "[component.x]\nkind = 'prometheus'\nurl = 'h:9090'\nmethod = 'tar'"),
    (Component, "[component.x]\nkind = 'prometheus'\nurl = 'http://u:p@h'"),
    (Component, "[component.x]\nkind = 'prometheus'\nurl = 'http://h'\nca-file = '/c'\nusername = 'a'"),
    (Component, "[component.x]\nkind = 'prometheus'\nurl = 'http://h'\nconfig-paths = ['etc']"),
    // Groups.
    (Extra, "[group]\napp = []"),
    (Extra, "[group]\napp = 'data'"),
    (Extra, "[group]\napp = ['dta', 'x', 1]"),
    (Extra, "[group]\nfull = ['data']\nApp = ['data']\ndata = ['data']"),
    // Objectives, schedules, hooks.
    (Files, "objective = { rop = '1h' }"),
    (Files, "objective = { rpo = 3600 }"),
    (Files, "objective = { rpo = '0s' }"),
    (Files, "objective = '1h'"),
    (Files, "schedule = 'hourly'"),
    (Files, "schedule = '61 * * * *'"),
    (Files, "schedule = '* * * * * *'"),
    (Files, "schedule = '0 0 30 2 *'"),
    (Files, "schedule = '0 3 * * *'\nobjective = { rpo = '1h' }"),
    (Files, "schedule = '0 * * * *'\nobjective = { rpo = '1h' }"),
    (Files, "schedule = '0 3 * * 1-5'\nobjective = { rpo = '25h' }"),
    (Files, "hooks = { before = 'stop app' }"),
    (Files, "hooks = { before = [[]] }"),
    (Files, "hooks = { before = [1] }"),
    (Files, "hooks = { before = [['a', 1]] }"),
    (Files, "hooks = { onerror = ['x'] }"),
    (Files, "hooks = { timeout = 'soon' }"),
    (Extra, "[hooks]\nafter = ''"),
    // Files.
    (Component, "[component.x]\nkind = 'files'"),
    (Component, "[component.x]\nkind = 'files'\npath = ['/a']"),
    (Component, "[component.x]\nkind = 'files'\npaths = '/a'"),
    (Component, "[component.x]\nkind = 'files'\npaths = []"),
    (Component, "[component.x]\nkind = 'files'\npaths = ['a']"),
    (Component, "[component.x]\nkind = 'files'\npaths = ['~/a']"),
    (Component, "[component.x]\nkind = 'files'\npaths = ['/a/../b']"),
    (Component, "[component.x]\nkind = 'files'\npaths = ['/a', '/a']"),
    (Component, "[component.x]\nkind = 'files'\npaths = ['/a', '/a/b']"),
    (Component, "[component.x]\nkind = 'files'\npaths = ['/a', 5]"),
    (Files, "exclude = '*.log'"),
    (Files, "exclude = ['']"),
    (Files, "one-file-system = 1"),
    (Files, "policy = { vanished = 'ignore' }"),
    (Files, "policy = { unreadable = 'parital' }"),
    (Files, "policy = { gone = 'note' }"),
    (Files, "password = 'env:X'"),
    (Files, "databases = 'all'"),
    // PostgreSQL.
    (Component, "[component.x]\nkind = 'postgres'"),
    (Postgres, "url = 'postgres://u:canary@h/db'"),
    (Postgres, "url = 'postgres://h/db?password=canary'"),
    (Postgres, "url = 'postgres://u@h'"),
    (Postgres, "url = 'postgres://h/db'"),
    (Postgres, "url = 'mysql://u@h/db'"),
    (Postgres, "url = 'postgers://u@h/db'"),
    (Postgres, "url = 'host=h dbname=db'"),
    (Postgres, "url = 'postgres://h:0/db'"),
    (Postgres, "url = 'postgres://h:pg/db'"),
    (Postgres, "url = 'postgres://u@h/db'\nmethod = 'physical'\ndatabases = 'all'"),
    (Postgres, "url = 'postgres://u@h/db'\nmethod = 'physical'\nexact-counts = true"),
    (Postgres, "url = 'postgres://u@h/db'\nmethod = 'physical'\nwal = 'receive'"),
    (Postgres, "url = 'postgres://u@h/db'\nmethod = 'physical'\nwal = 'stream'\nslot = 'My-Slot'"),
    (Postgres, "url = 'postgres://u@h/db'\nmethod = 'physical'\nslot = 'unused'"),
    (Postgres, "url = 'postgres://u@h/db'\nwal = 'stream'"),
    (Postgres, "url = 'postgres://u@h/db'\nmethod = 'logcial'"),
    (Postgres, "url = 'postgres://u@h/db'\ndatabases = 'app'"),
    (Postgres, "url = 'postgres://u@h/db'\ndatabases = []"),
    (Postgres, "url = 'postgres://u@h/db'\ndatabases = ['a', 'a']"),
    (Postgres, "url = 'postgres://u@h/db'\ntables = ['a']\nexclude-tables = ['b']"),
    (Postgres, "url = 'postgres://u@h/db'\ntables = ['a']\ndatabases = 'all'"),
    (Postgres, "url = 'postgres://u@h/db'\nschema-only = true\nexact-counts = true"),
    (Postgres, "url = 'postgres://u@h/db'\nsslmode = 'on'"),
    (Postgres, "url = 'postgres://u@h/db'\nsslmode = 'disable'\nca-file = '/ca'"),
    (Postgres, "url = 'postgres://u@h/db'\nlock-timeout = 10"),
    (Postgres, "url = 'postgres://u@h/db'\npasswd = 'env:P'"),
    (Postgres, "url = 'postgres://u@h/db'\npassword = 'canary'\nobjective = { rpo = 'x' }\nfoo = 1"),
    // Redis.
    (Redis, "url = 'http://h'"),
    (Redis, "url = 'redis://:canary@h'"),
    (Redis, "url = 'unix://run/redis.sock'"),
    (Redis, "url = 'redis://h'\nusername = 'u'"),
    (Redis, "url = 'redis://h'\nca-file = '/ca'"),
    (Redis, "url = 'redis://h'\ndata_dir = '/d'"),
    (Redis, "url = 'redis://h'\npassword = 5"),
    // [retention]
    (Extra, "[retention]"),
    (Extra, "[retention]\nmin-keep = 5"),
    (Extra, "[retention]\nkeep-dayly = 5"),
    (Extra, "[retention]\nkeep_daily = 5"),
    (Extra, "[retention]\nkeep-daily = 0"),
    (Extra, "[retention]\nkeep-daily = -1"),
    (Extra, "[retention]\nkeep-daily = '30'"),
    (Extra, "[retention]\nkeep-daily = 3\nmin-keep = 0"),
    (Extra, "[retention]\nkeep-within = 7"),
    (Extra, "[retention]\nkeep-daily = 99999999999999999999"),
];

use Part::{Component, Extra, File, Files, Postgres, Redis, Repository, Stack};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    File,
    Stack,
    Repository,
    Component,
    Files,
    Postgres,
    Redis,
    Extra,
}

fn file(part: Part, fragment: &str) -> String {
    if part == File {
        return fragment.to_owned();
    }
    let or = |this: Part, good: &str| {
        if part == this { fragment.to_owned() } else { good.to_owned() }
    };
    let component = match part {
        Component => fragment.to_owned(),
        Postgres => format!("[component.db]\nkind = 'postgres'\n{fragment}"),
        Redis => format!("[component.cache]\nkind = 'redis'\n{fragment}"),
        _ => format!("[component.data]\nkind = 'files'\npaths = ['/srv/data']\n{}", or(Files, "")),
    };
    format!(
        "[stack]\n{}\n[repository]\n{}\n{component}\n{}\n",
        or(Stack, "name = 's'"),
        or(Repository, "url = 'file:///r'\npassword = 'file:/k'"),
        or(Extra, ""),
    )
}

#[test]
fn every_bad_file_is_refused_with_place_reason_and_remedy() {
    assert!(CASES.len() >= 100);
    let mut said = String::new();
    for (part, fragment) in CASES {
        let text = file(*part, fragment);
        let problems = parse(Path::new("x.toml"), &text).expect_err(&text);
        let _ = writeln!(said, "{part:?}: {}", fragment.replace('\n', " ⏎ ").escape_debug());
        for problem in &problems.list {
            assert!(problem.line.is_some() && problem.hint.is_some(), "{problem:?}");
            let fault = problem.fault(&problems.file);
            assert_eq!(fault.exit_code(), 5);
            let shown = format!("{}: {}\n    hint: {}", fault.code().id, fault.chain(), fault.hint_text().unwrap());
            assert!(!shown.contains("canary"), "a secret is shown: {shown}");
            let _ = writeln!(said, "  {shown}");
        }
    }
    insta::assert_snapshot!("bad_files", said);
}
