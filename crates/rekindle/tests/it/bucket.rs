//! A repository in a bucket, with everything about it in the configuration.

use rekindle_testkit::{S3, S3Options};

use crate::run::Place;

#[test]
fn a_configured_bucket_is_written_and_read() {
    let s3 = S3::start(S3Options::default());
    let place = Place::new();
    place.write("data/a.txt", "one\n");
    place.write("key", "canary-password\n");
    place.write("secret", &s3.secret_key());
    let config = format!(
        "[stack]\nname = \"test\"\n[repository]\nurl = \"s3://{}/some/prefix\"\nendpoint = \"{}\"\nregion = \"{}\"\n\
         path-style = true\naccess-key-id = \"{}\"\nsecret-access-key = \"file:secret\"\npassword = \"file:key\"\n\
         [component.files]\nkind = \"files\"\npaths = [\"{}/data\"]\n",
        s3.bucket(),
        s3.endpoint(),
        s3.region(),
        s3.access_key(),
        place.path().display(),
    );
    place.write("rekindle.toml", &config);
    place.ends(0, &["init"]);
    place.ends(0, &["backup"]);
    place.ends(0, &["verify", "--read-data"]);
    let doctor = place.ends(0, &["doctor", "-vv"]);
    assert!(doctor.out.contains("storage: what is written can be read at once"), "{doctor:#?}");
    assert!(!format!("{doctor:?}").contains(s3.secret_key().trim()), "the secret key is shown");
    place.ends(0, &["restore", "latest", "--to", "back"]);
    // A wrong secret is said to be one, and is not shown.
    place.write("secret", "canary-wrong");
    let refused = place.ends(20, &["list"]);
    refused.says("RK-ST-003", &[]);
    assert!(!format!("{refused:?}").contains("canary"), "{refused:#?}");
}
