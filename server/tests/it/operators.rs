//! What operators do with keys, devices and the audit list, in process.

use std::sync::Arc;

use drivefs_server::drive::rotate;
use drivefs_server::drive::users;
use drivefs_server::metadata::audit;

use crate::fsck::check;
use crate::world::PASSWORD;
use crate::world::Person;
use crate::world::World;
use crate::world::noise;

async fn told(world: &World) -> Vec<String> {
    let entries = world.server.store().read(|sql| audit::list(sql, None, 0, 1000)).await.unwrap();
    entries.into_iter().map(|e| format!("{} {} {}", e.kind, e.account, e.device)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_key_changes_while_files_are_read_and_written() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let mut written = 0;
    for _ in 0..20 {
        alice.file(&format!("f{written}"), &noise(written, 1000)).await;
        written += 1;
    }
    let drive = world.server.drive().clone();
    let before = drive.keys.fingerprint();
    for _ in 0..3 {
        let rotating = tokio::spawn({
            let drive = drive.clone();
            async move { rotate::rotate(&drive, &Arc::default()).await.unwrap() }
        });
        while !rotating.is_finished() {
            alice.file(&format!("f{written}"), &noise(written, 1000)).await;
            written += 1;
        }
        let rotated = rotating.await.unwrap();
        assert!(!rotated.resumed && rotated.unreadable.is_empty(), "{rotated:?}");
        assert_eq!(drive.keys.fingerprints(), [rotated.new]);
    }
    assert_ne!(drive.keys.fingerprint(), before);
    let options = fsck_options();
    let report = check(&world, options).await;
    assert!(report.clean && report.findings.is_empty(), "{:#?}", report.findings);
    assert!(told(&world).await.iter().any(|t| t.starts_with("key_rotated")));
}

fn fsck_options() -> drivefs_server::drive::fsck::Options {
    drivefs_server::drive::fsck::Options { repair: false, quick: false, orphan_grace_secs: 3600 }
}

#[tokio::test]
async fn logins_tokens_and_accounts_leave_their_trace() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let store = world.server.store();
    let wrong = Person::login(&world.url(), "alice@example.com", "not it at all", "x").await;
    assert_eq!(wrong.err().unwrap().status, 401);
    let body = serde_json::json!({ "name": "cron" });
    alice.post::<serde_json::Value>("/auth/v1/tokens", &body).await.unwrap();
    alice.call::<()>(reqwest::Method::DELETE, "/auth/v1/tokens/cron", Vec::new()).await.unwrap();
    users::revoke_device(store, "alice@example.com", "laptop".into()).await.unwrap();
    assert_eq!(alice.account().await.unwrap_err().status, 401);
    users::set_disabled(store, "alice@example.com", true).await.unwrap();
    let out = Person::login(&world.url(), "alice@example.com", PASSWORD, "x").await;
    assert_eq!(out.err().unwrap().status, 401);
    assert_eq!(
        told(&world).await,
        [
            "user_added alice@example.com ",
            "login alice@example.com laptop",
            "login_failed alice@example.com x",
            "token_made alice@example.com cron",
            "token_revoked alice@example.com cron",
            "token_revoked alice@example.com laptop",
            "user_disabled alice@example.com ",
            "login_failed alice@example.com x",
        ]
    );
}

#[tokio::test]
async fn who_guesses_passwords_has_to_wait_and_that_is_noted_once() {
    let world = World::new().await;
    world.person("alice").await;
    for status in [401, 401, 401, 401, 401, 429, 429] {
        let wrong = Person::login(&world.url(), "alice@example.com", "not it at all", "x").await;
        assert_eq!(wrong.err().unwrap().status, status);
    }
    let told = told(&world).await;
    let limited = told.iter().filter(|line| line.starts_with("login_limited"));
    assert_eq!(limited.collect::<Vec<_>>(), ["login_limited alice@example.com x"]);
}

#[tokio::test]
async fn a_device_that_stayed_away_for_long_logs_in_again_and_tokens_have_a_longest_life() {
    let world = World::with(|config| {
        config.session_idle_secs = Some(1000);
        config.token_max_secs = Some(86_400);
    })
    .await;
    let alice = world.person("alice").await;
    let body = |secs: Option<u64>| serde_json::json!({ "name": "cron", "expires_secs": secs });
    for secs in [None, Some(86_401)] {
        let refused = alice.post::<serde_json::Value>("/auth/v1/tokens", &body(secs)).await;
        assert_eq!(refused.unwrap_err().status, 400);
    }
    alice.post::<serde_json::Value>("/auth/v1/tokens", &body(Some(86_400))).await.unwrap();
    assert!(alice.account().await.is_ok());
    crate::fsck::meddle(&world, "UPDATE device SET last_seen = last_seen - 1001").await;
    let refused = alice.account().await.unwrap_err();
    assert_eq!(refused.status, 401);
    assert!(refused.message.contains("expired"), "{}", refused.message);
}
