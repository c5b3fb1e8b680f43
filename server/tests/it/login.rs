//! Accounts, tokens, and the protocol version.

use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::TokenList;
use drivefs_core::wire::TokenReply;
use drivefs_core::wire::TokenRequest;
use drivefs_server::clock;
use drivefs_server::drive::users;
use drivefs_server::metadata::DbError;
use reqwest::Method;

use crate::world::PASSWORD;
use crate::world::Person;
use crate::world::Refused;
use crate::world::World;
use crate::world::http;

const EMAIL: &str = "alice@example.com";

async fn code_of(person: &Person) -> (u16, ErrorCode, String) {
    let Refused { status, code, message, .. } = person.account().await.expect_err("refused");
    (status, code, message)
}

#[tokio::test]
async fn a_login_gives_a_token_and_says_who_it_is() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let account = alice.account().await.unwrap();
    assert_eq!(account, alice.account);
    assert_eq!((account.email.as_str(), account.device.as_str()), (EMAIL, "laptop"));
    assert_eq!(account.root.shard(), account.user.shard());
    assert!(alice.token.starts_with("dfs_"));
    let upper = Person::login(&world.url(), "ALICE@Example.com ", PASSWORD, "other").await;
    assert!(upper.is_ok(), "addresses are the same in any case");
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_account_look_the_same() {
    let world = World::new().await;
    world.person("alice").await;
    let wrong = Person::login(&world.url(), EMAIL, "not the one", "x").await.err().unwrap();
    let nobody = Person::login(&world.url(), "no@body", PASSWORD, "x").await.err().unwrap();
    assert_eq!((wrong.status, wrong.code), (401, ErrorCode::BadCredentials));
    assert_eq!(wrong, nobody);
}

#[tokio::test]
async fn guessing_is_slowed_down_and_told_for_how_long() {
    let world = World::new().await;
    world.person("alice").await;
    for _ in 0..5 {
        let e = Person::login(&world.url(), EMAIL, "guess", "x").await.err().unwrap();
        assert_eq!(e.code, ErrorCode::BadCredentials);
    }
    let e = Person::login(&world.url(), EMAIL, PASSWORD, "x").await.err().unwrap();
    assert_eq!((e.status, e.code), (429, ErrorCode::TooManyRequests));
    assert!(e.retry_after.unwrap() > 0);
    users::add(world.server.store(), "bob@example.com", PASSWORD, 1).await.unwrap();
    assert!(Person::login(&world.url(), "bob@example.com", PASSWORD, "x").await.is_ok());
}

#[tokio::test]
async fn a_disabled_account_is_out_at_once_and_can_come_back() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    users::set_disabled(world.server.store(), EMAIL, true).await.unwrap();
    let (status, code, message) = code_of(&alice).await;
    assert_eq!((status, code), (401, ErrorCode::Unauthorized));
    assert!(message.contains("disabled"), "{message}");
    let e = Person::login(&world.url(), EMAIL, PASSWORD, "x").await.err().unwrap();
    assert_eq!(e.code, ErrorCode::BadCredentials);
    users::set_disabled(world.server.store(), EMAIL, false).await.unwrap();
    assert!(alice.account().await.is_ok());
}

#[tokio::test]
async fn expired_revoked_and_unknown_tokens_are_told_apart() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let request = TokenRequest { name: "backup".into(), expires_secs: Some(3600) };
    let TokenReply { token } = alice.post("/auth/v1/tokens", &request).await.unwrap();
    let script = Person { token, ..alice.clone() };
    assert_eq!(script.account().await.unwrap().device, "backup");
    let again: Result<TokenReply, _> = alice.post("/auth/v1/tokens", &request).await;
    assert_eq!(again.err().unwrap().code, ErrorCode::Conflict);

    let list: TokenList = alice.call(Method::GET, "/auth/v1/tokens", vec![]).await.unwrap();
    let names: Vec<_> = list.tokens.iter().map(|t| (t.name.as_str(), t.script)).collect();
    assert_eq!(names, [("backup", true), ("laptop", false)]);

    let past = clock::now_secs() - 1;
    world
        .server
        .store()
        .write(move |sql| {
            let statement = "UPDATE device SET expires = ?1 WHERE name = 'backup'";
            sql.exec(statement, &[past.into()]).map(drop)?;
            Ok::<_, DbError>(())
        })
        .await
        .unwrap();
    assert!(code_of(&script).await.2.contains("expired"));

    let () = alice.call(Method::DELETE, "/auth/v1/tokens/backup", vec![]).await.unwrap();
    assert!(code_of(&script).await.2.contains("revoked"));
    let gone: Result<(), _> = alice.call(Method::DELETE, "/auth/v1/tokens/backup", vec![]).await;
    assert_eq!(gone.err().unwrap().status, 404);

    let stranger = Person { token: format!("dfs_{}", "0".repeat(64)), ..alice.clone() };
    assert!(code_of(&stranger).await.2.contains("not know"));
    let () = alice.call(Method::POST, "/auth/v1/logout", vec![]).await.unwrap();
    assert!(code_of(&alice).await.2.contains("revoked"));
}

#[tokio::test]
async fn a_login_under_a_known_device_name_replaces_its_token() {
    let world = World::new().await;
    let first = world.person("alice").await;
    let second = Person::login(&world.url(), EMAIL, PASSWORD, "laptop").await.unwrap();
    assert!(second.account().await.is_ok());
    assert!(code_of(&first).await.2.contains("revoked"));
}

#[tokio::test]
async fn another_protocol_version_is_refused_with_advice() {
    let world = World::new().await;
    let http = http();
    for (version, advice) in [("2", "upgrade the server"), ("0", "upgrade the client")] {
        let url = format!("{}/sync/v1/account", world.url());
        let response = http.get(url).header("x-drivefs-wire", version).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 400);
        let text = response.text().await.unwrap();
        assert!(text.contains("unsupported_wire_version") && text.contains(advice), "{text}");
    }
    let bare = http.post(format!("{}/auth/v1/login", world.url())).send().await.unwrap();
    assert!(bare.text().await.unwrap().contains("unsupported_wire_version"));
}

#[tokio::test]
async fn operators_see_health_and_metrics_without_a_token() {
    let world = World::new().await;
    for (path, word) in [("healthz", "ok"), ("readyz", "ready"), ("metrics", "drivefs_")] {
        let response = http().get(format!("{}/{path}", world.url())).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert!(response.text().await.unwrap().contains(word), "{path}");
    }
    let nowhere = http().get(format!("{}/nowhere", world.url())).send().await.unwrap();
    assert_eq!(nowhere.status().as_u16(), 404);
}

#[tokio::test]
async fn malformed_bodies_are_bad_requests() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    for path in ["commit", "changes", "list", "poll", "missing", "blocks"] {
        let reply: Result<(), _> =
            alice.call(Method::POST, &format!("/sync/v1/{path}"), b"{".to_vec()).await;
        assert_eq!(reply.err().unwrap().code, ErrorCode::BadRequest, "{path}");
    }
    let large: Result<(), _> = alice.call(Method::POST, "/sync/v1/list", vec![b' '; 1 << 20]).await;
    let large = large.err().unwrap();
    assert_eq!((large.status, large.code), (413, ErrorCode::TooLarge));
}
