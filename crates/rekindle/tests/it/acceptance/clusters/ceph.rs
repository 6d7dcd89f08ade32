//! Ceph's S3 gateway.

use std::fs;

use rekindle_testkit::{Ceph, S3Door, S3Key};

use super::super::object_lock::{Locked, doctor_is_content, doctor_warns_without_a_lock, stack_in};
use super::super::stack::{assert_same_trees, below, end, noise, wait_until};

const BUCKET: &str = "locked";
/// What `docs/object-lock.md` says that the key needs, on objects and on the bucket.
const RIGHTS: [&str; 6] = [
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:PutObjectRetention",
    "s3:GetObjectRetention",
];

const BYPASS: &str = "s3:BypassGovernanceRetention";

/// Lets the agent do this with objects, and surely not that.
fn allow(door: &S3Door, rights: &[&str], denied: &[&str]) {
    let statement = |effect: &str, rights: &[&str], resource: &str| {
        let rights: Vec<String> = rights.iter().map(|right| format!("\"{right}\"")).collect();
        format!(
            r#"{{"Effect":"{effect}","Principal":{{"AWS":["arn:aws:iam:::user/agent"]}},"Action":[{}],"Resource":["arn:aws:s3:::{resource}"]}}"#,
            rights.join(",")
        )
    };
    let objects = format!("{BUCKET}/*");
    let mut statements = vec![statement("Allow", rights, &objects), statement("Allow", &["s3:ListBucket"], BUCKET)];
    if !denied.is_empty() {
        statements.push(statement("Deny", denied, &objects));
    }
    let policy = format!(r#"{{"Version":"2012-10-17","Statement":[{}]}}"#, statements.join(","));
    let put = door.request(&door.owner, ("PUT", &format!("/{BUCKET}"), "policy="), &[], policy.as_bytes());
    assert!(put.0 < 300, "{put:?}");
}

/// `doctor` says that this key gets around GOVERNANCE.
fn doctor_is_alarmed(locked: &Locked<'_>) {
    let doctor = locked.stack.place.ends(4, &["doctor"]);
    let told = doctor.out.contains("`object-lock` is set (GOVERNANCE), and this key can delete a locked object")
        && doctor.out.contains("take s3:BypassGovernanceRetention from this key");
    assert!(told, "{doctor:#?}");
}

/// Whether a version of a pack is gone after this key deleted it, plainly and with the right to bypass.
fn deletes_a_pack(locked: &Locked<'_>) -> bool {
    let (name, version) = locked.kept().into_iter().find(|(name, _)| name.starts_with("shop/data/")).unwrap();
    let query = format!("versionId={version}");
    assert_eq!(locked.delete(&name, &query, &[]), 403);
    locked.delete(&name, &query, &[("x-amz-bypass-governance-retention", "true")]) == 204
}

#[test]
#[ignore = "needs Ceph: scripts/test-clusters"]
fn ceph_compliance_holds_against_the_owner_of_the_bucket() {
    let ceph = Ceph::start();
    let door = ceph.door();
    door.make_locked_bucket(BUCKET);
    let locked = Locked::new((&door, &door.owner, BUCKET), "COMPLIANCE", "");
    doctor_is_content(&locked);
    // With versions, its gateway keeps no conditional write.
    let doctor = locked.stack.place.ends(0, &["doctor"]);
    assert!(doctor.out.contains("a second writer could write over an object (no put-if-absent)"), "{doctor:#?}");
    locked.is_extended();
    locked.survives_an_attack();
}

#[test]
#[ignore = "needs Ceph: scripts/test-clusters"]
fn ceph_governance_holds_against_a_key_that_is_denied_to_bypass_it() {
    let ceph = Ceph::start();
    let (door, agent): (S3Door, S3Key) = (ceph.door(), ceph.agent());
    door.make_locked_bucket(BUCKET);
    // The rights that the documents ask for are enough for everything.
    allow(&door, &RIGHTS, &[BYPASS]);
    let locked = Locked::new((&door, &agent, BUCKET), "GOVERNANCE", "");
    doctor_is_content(&locked);
    locked.is_extended();
    // It is the lock that holds, not the missing right to delete versions.
    let wide = [&RIGHTS[..], &["s3:DeleteObjectVersion"]].concat();
    allow(&door, &wide, &[BYPASS]);
    doctor_is_content(&locked);
    locked.survives_an_attack();
    // Ceph lets everybody bypass it who may delete versions, and is not denied to: `doctor` finds out.
    allow(&door, &wide, &[]);
    doctor_is_alarmed(&locked);
    assert!(deletes_a_pack(&locked));
}

#[test]
#[ignore = "needs Ceph: scripts/test-clusters"]
fn ceph_governance_yields_to_the_owner_and_doctor_says_so() {
    let ceph = Ceph::start();
    let door = ceph.door();
    door.make_locked_bucket(BUCKET);
    let locked = Locked::new((&door, &door.owner, BUCKET), "GOVERNANCE", "");
    doctor_is_alarmed(&locked);
    assert!(deletes_a_pack(&locked), "it is true");
    assert_ne!(locked.stack.place.run(&["verify"]).code, 0, "what is destroyed is missed");
}

#[test]
#[ignore = "needs Ceph: scripts/test-clusters"]
fn ceph_without_a_lock_is_told_and_a_storage_daemon_may_come_and_go() {
    let mut ceph = Ceph::start();
    let door = ceph.door();
    doctor_warns_without_a_lock(&door, ceph.bucket());
    door.make_bucket("plain");
    let mut stack = stack_in(&door, &door.owner, "plain", "");
    let data = stack.files("data");
    fs::write(data.join("a"), noise(1, 2 << 20)).unwrap();
    stack.complete();
    let doctor = stack.place.ends(0, &["doctor"]);
    assert!(doctor.out.contains("a second writer cannot write over an object"), "{doctor:#?}");
    // The daemon that holds every byte is killed while packs arrive; the gateway waits for it.
    fs::write(data.join("large"), noise(2, 96 << 20)).unwrap();
    let packs = || door.versions("plain").iter().filter(|(name, _)| name.starts_with("shop/data/")).count();
    let before = packs();
    let child = stack.start(&["backup"]);
    wait_until("packs", || packs() > before);
    ceph.kill_storage();
    std::thread::sleep(std::time::Duration::from_secs(3));
    ceph.restart_storage();
    let ended = end(child);
    assert_eq!(ended.code, 0, "{ended:#?}");
    stack.place.json(0, &["verify", "--read-data"]);
    stack.place.json(0, &["restore", "latest", "--to", "back"]);
    assert_same_trees(&data, &below(&stack.path("back"), &data));
}
