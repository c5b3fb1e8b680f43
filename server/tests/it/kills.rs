//! kill -9 in the midst of backup, restore and rotation: the next run goes on, nothing is lost.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::process::Running;
use crate::process::program;
use crate::process::run;
use crate::process::text;
use crate::world::PASSWORD;
use crate::world::Person;
use crate::world::noise;

const EMAIL: &str = "alice@example.com";

/// Runs a command and kills it after a while; true when it had ended well by itself.
fn cut_off(args: &[&str], data: &Path, after: Duration) -> bool {
    let said = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let mut child = program()
        .args(args)
        .arg("--data")
        .arg(data)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let end = Instant::now() + after;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().unwrap() {
            // The one before was killed between its last step and its end.
            let done = args[0] == "restore" && data.join("metadata.db").exists();
            let said = std::fs::read_to_string(&said).unwrap();
            assert!(status.success() || done, "{args:?} failed before it was killed: {said}");
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    false
}

/// Cuts a command off again and again, each time a little later, until it has ended well; answers
/// how often it was killed.
fn cut_off_until_done(args: &[&str], data: &Path) -> u32 {
    for round in 0..200u32 {
        if cut_off(args, data, Duration::from_millis(20 + u64::from(round) * 25)) {
            return round;
        }
    }
    panic!("{args:?} never ends");
}

fn json(data: &Path, args: &[&str]) -> Value {
    let out = run(data, args, "");
    assert!(out.status.success(), "{args:?}: {}{}", text(&out.stdout), text(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn add_alice(data: &Path) {
    let add = ["user", "add", "--email", EMAIL, "--password-stdin"];
    assert!(run(data, &add, PASSWORD).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_and_restore_cut_off_again_and_again_end_whole() {
    let dir = tempfile::tempdir().unwrap();
    let places = tempfile::tempdir().unwrap();
    let at = |name: &str| places.path().join(name).display().to_string();
    let (to, back) = (at("backup"), places.path().join("back"));
    add_alice(dir.path());
    let server = Running::start(dir.path());
    let alice = Person::login(&server.url, EMAIL, PASSWORD, "laptop").await.unwrap();
    for i in 0..300 {
        alice.file(&format!("f{i}"), &noise(i, 3000)).await;
    }
    let kills = cut_off_until_done(&["backup", &to], dir.path());
    assert!(kills > 0, "not killed once");
    alice.file("later", &noise(999, 3000)).await;
    let taken = json(dir.path(), &["backup", &to, "--json"]);
    assert_eq!((&taken["packs"], &taken["packs_copied"]), (&301.into(), &1.into()));
    json(dir.path(), &["backup", &to, "--verify", "--json"]);
    // One that is cut off leaves the one before in place.
    alice.file("more", &noise(1000, 3000)).await;
    cut_off(&["backup", &to], dir.path(), Duration::from_millis(15));
    json(dir.path(), &["backup", &to, "--verify", "--json"]);
    server.kill();

    let key = dir.path().join("master.key").display().to_string();
    let kills = cut_off_until_done(&["restore", &to, "--key", &key], &back);
    assert!(kills > 0, "not killed once");
    let report = json(&back, &["fsck", "--json"]);
    assert_eq!(report["clean"], true, "{report:#}");
    assert!(report["packs"].as_u64().unwrap() >= 301);
    let server = Running::start(&back);
    let alice = Person::login(&server.url, EMAIL, PASSWORD, "laptop").await.unwrap();
    assert!(alice.changes(0, 1000).await.unwrap().dirents.len() >= 301);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_cut_off_again_and_again_is_finished_beside_a_server_that_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    add_alice(dir.path());
    let server = Running::start(dir.path());
    let alice = Person::login(&server.url, EMAIL, PASSWORD, "laptop").await.unwrap();
    for i in 0..100 {
        alice.file(&format!("f{i}"), &noise(i, 500)).await;
    }
    let fingerprint = |report: Value| report["new"].as_str().unwrap().to_owned();
    let mut keys = Vec::new();
    let mut written = 100;
    for _ in 0..3 {
        let data = dir.path().to_owned();
        let rotating = tokio::task::spawn_blocking(move || {
            for round in 0..15 {
                if cut_off(&["rotate-key"], &data, Duration::from_millis(8 + 4 * round)) {
                    break;
                }
            }
        });
        while !rotating.is_finished() {
            alice.file(&format!("f{written}"), &noise(written, 500)).await;
            written += 1;
        }
        rotating.await.unwrap();
        keys.push(fingerprint(json(dir.path(), &["rotate-key", "--json"])));
        let report = json(dir.path(), &["fsck", "--json"]);
        assert_eq!(report["clean"], true, "{report:#}");
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 3, "each rotation ends with another key");
    // A server that is started in the midst of one finishes it by itself, and knows both keys.
    server.kill();
    cut_off(&["rotate-key"], dir.path(), Duration::from_millis(25));
    let server = Running::start(dir.path());
    let alice = Person { url: server.url.clone(), ..alice };
    alice.file("after", &noise(7777, 500)).await;
    assert_eq!(server.terminate(), 0);
    let report = json(dir.path(), &["fsck", "--json"]);
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(report["packs"].as_u64().unwrap(), written + 1);
}

#[test]
fn keys_of_the_environment_are_rotated_by_a_server_that_was_started_with_both() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = ("1".repeat(64), "2".repeat(64));
    let with = |keys: &str, args: &[&str]| {
        let mut command = program();
        command.args(args).arg("--data").arg(dir.path()).env("DRIVEFS_MASTER_KEY", keys);
        command.output().unwrap()
    };
    let add = ["user", "add", "--email", EMAIL, "--password-stdin"];
    assert!(run(dir.path(), &add, PASSWORD).status.success());
    assert!(with(&old, &["fsck"]).status.success(), "the key is noted");
    let alone = with(&old, &["rotate-key"]);
    assert_eq!(alone.status.code(), Some(1));
    assert!(text(&alone.stderr).contains("NEW,OLD"), "{}", text(&alone.stderr));
    let wrong = with(&new, &["fsck"]);
    assert!(text(&wrong.stderr).contains("not the one"), "{}", text(&wrong.stderr));
    let both = format!("{new},{old}");
    let rotated = with(&both, &["rotate-key", "--json"]);
    assert!(rotated.status.success(), "{}", text(&rotated.stderr));
    assert!(with(&new, &["fsck"]).status.success());
    let gone = with(&old, &["fsck"]);
    assert!(text(&gone.stderr).contains("not the one"), "{}", text(&gone.stderr));
}

#[test]
fn commands_on_nothing_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    for args in [&["fsck"][..], &["scrub"], &["backup", "/tmp/x"], &["rotate-key"], &["audit"]] {
        let out = run(&nowhere, args, "");
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        assert!(text(&out.stderr).contains("--data DIR"), "{args:?}: {}", text(&out.stderr));
    }
    add_alice(dir.path());
    let inside = dir.path().join("backup").display().to_string();
    let out = run(dir.path(), &["backup", &inside], "");
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("inside the server's data"));
}
