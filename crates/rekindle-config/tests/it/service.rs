//! `[serve]`, `[pause]` and `[notify]`.

use std::path::Path;
use std::time::Duration;

use rekindle_config::{Channel, Config, EmailTls, Problems, parse};

const BASE: &str = "[stack]\nname='s'\n[repository]\nurl='file:///r'\npassword='file:k'\n\
                    [component.f]\nkind='files'\npaths=['/x']\nschedule='@hourly'\n";

fn read(more: &str) -> Result<Config, Problems> {
    parse(Path::new("/etc/rekindle/rekindle.toml"), &format!("{BASE}{more}"))
}

#[test]
fn without_the_tables_metrics_are_on_loopback_and_nobody_is_told() {
    let config = read("").unwrap();
    assert_eq!(config.serve.listen.unwrap().to_string(), "127.0.0.1:9464");
    assert!(config.serve.verify.is_none() && config.pauses.is_empty() && config.receivers.is_empty());
    assert_eq!(read("[serve]\nlisten='off'\n").unwrap().serve.listen, None);
}

#[test]
fn the_example_says_all_of_it() {
    let text = include_str!("../../../../examples/rekindle.toml");
    let config = parse(Path::new("/etc/rekindle/rekindle.toml"), text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.serve.verify_data.as_deref(), Some("5%"));
    assert_eq!((config.pauses[0].name.as_str(), config.pauses[0].length), ("release", Duration::from_hours(2)));
    let names: Vec<&str> = config.receivers.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["ops", "check", "mail", "hook", "phone", "duty"]);
    let Channel::Email(mail) = &config.receivers[2].channel else { panic!() };
    assert_eq!((mail.tls, mail.to.len()), (EmailTls::StartTls, 1));
}

#[test]
fn what_cannot_work_is_named_with_a_remedy() {
    for (more, said) in [
        ("[serve]\nlisten='9464'\n", "it is not an address"),
        ("[serve]\ntime-zone='Mars/Olympus'\n", "no such zone"),
        ("[serve]\nverify-data='5%'\n", "nothing is verified"),
        ("[serve]\ntextfile='/x/y.txt'\n", ".prom"),
        ("[serve]\nverfiy='@daily'\n", "did you mean `verify`"),
        ("[pause.x]\nstart='0 * * * *'\nlength='1h'\n", "never ends"),
        ("[pause.'a b']\nstart='0 * * * *'\nlength='1m'\n", "usable name"),
        ("[notify.x]\nurl='file:h'\n", "`notify.x.kind`"),
        ("[notify.x]\nkind='slak'\nurl='file:h'\n", "did you mean `slack`"),
        ("[notify.x]\nkind='slack'\nurl='https://hooks.slack.com/services/x'\n", "notify.x.url"),
        ("[notify.x]\nkind='slack'\nurl='file:h'\nevents=['fialed']\n", "did you mean `failed`"),
        ("[notify.x]\nkind='ping'\nurl='ftp://x'\n", "scheme"),
        ("[notify.x]\nkind='email'\nhost='h'\nfrom='a@b'\nto=['ops']\n", "not a mail address"),
        (
            "[notify.x]\nkind='email'\nhost='h'\nfrom='a@b'\nto=['c@d']\ntls='none'\nusername='u'\npassword='file:p'\n",
            "in clear",
        ),
        ("[notify]\nx='y'\n", "must be a table"),
    ] {
        let problems = read(more).expect_err(more);
        assert!(problems.to_string().contains(said), "{more}: {problems}");
        assert!(problems.list.iter().all(|one| one.hint.is_some()), "{more}: {problems}");
    }
}
