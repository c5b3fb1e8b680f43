//! Who may do what, tried on every route of the table: without a token, with one that is wrong or
//! revoked, as somebody else, as a viewer. A route that is not in the table fails, too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use drivefs_core::id::NodeId;
use drivefs_core::name::Name;
use drivefs_core::wire::Role;
use drivefs_server::api::Access;
use drivefs_server::api::ROUTES;
use drivefs_server::api::Route;
use drivefs_server::drive::mounts;
use drivefs_server::drive::mounts::Guest;
use drivefs_server::drive::users;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;

use crate::world::PASSWORD;
use crate::world::Person;
use crate::world::World;
use crate::world::body_of;
use crate::world::mkdir;
use crate::world::node_id;
use crate::world::noise;
use crate::world::op_key;

/// What a request is about.
struct Scene {
    ns: String,
    root: NodeId,
    file: NodeId,
    head: u64,
    hash: String,
    /// Of the owner.
    token: String,
}

/// A request that does what the route is for: its path and body.
fn request(route: &Route, at: &Scene, unique: u64) -> (String, Vec<u8>) {
    let Scene { ns, root, file, head, hash, .. } = at;
    let place = json!({ "parent": root, "name": format!("made {unique}") });
    let body = match (route.method, route.path) {
        (
            _,
            "/healthz" | "/readyz" | "/metrics" | "/openapi.json" | "/sync/v1/account"
            | "/auth/v1/logout",
        ) => Value::Null,
        ("GET", "/auth/v1/tokens") | ("DELETE", "/auth/v1/tokens/{name}") => Value::Null,
        (_, "/auth/v1/login") => {
            json!({ "email": "alice@example.com", "password": "wrong one", "device": "x" })
        }
        ("POST", "/auth/v1/tokens") => json!({ "name": format!("token {unique}") }),
        (_, "/sync/v1/missing") => json!({ "ns": ns, "hashes": [hash] }),
        (_, "/sync/v1/packs") => {
            return (format!("/sync/v1/packs?ns={ns}"), body_of(&[noise(unique, 50)]));
        }
        (_, "/sync/v1/blocks") => json!({ "ns": ns, "blocks": [{ "hash": hash }] }),
        (_, "/sync/v1/commit") => {
            let place = serde_json::from_value(place).unwrap();
            let change = mkdir(node_id(), place);
            let op = drivefs_core::wire::Op { key: op_key(), change };
            json!({ "ns": ns, "ops": [op] })
        }
        (_, "/sync/v1/changes") => json!({ "ns": ns, "cursor": 0, "limit": 10 }),
        (_, "/sync/v1/list") => json!({ "ns": ns, "parent": root, "limit": 10 }),
        (_, "/sync/v1/poll") => {
            json!({ "cursors": [{ "ns": ns, "seq": head - 1 }], "timeout_secs": 1 })
        }
        (_, "/sync/v1/versions") => json!({ "ns": ns, "of": { "node": file }, "limit": 10 }),
        (_, "/sync/v1/keep") => json!({ "ns": ns, "node": file, "version": 1, "keep": true }),
        (_, "/sync/v1/events") => json!({ "ns": ns, "span": "newest", "limit": 10 }),
        (_, "/sync/v1/past") => json!({ "ns": ns, "folder": root, "at": i64::MAX / 2, "limit": 9 }),
        (_, "/sync/v1/gone") => json!({ "ns": ns, "folder": root, "limit": 10 }),
        (_, "/sync/v1/trash") => json!({ "ns": ns, "limit": 10 }),
        (_, "/sync/v1/trash/empty") => json!({ "ns": ns }),
        _ => panic!("{route:?} needs a request here"),
    };
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    (route.path.replace("{name}", "spare"), body)
}

async fn status(world: &World, route: &Route, token: Option<&str>, at: &Scene, n: u64) -> u16 {
    if crate::authz_files::is_of_files(route.path) {
        return crate::authz_files::status(world, route, token, &at.token, n).await;
    }
    let (path, body) = request(route, at, n);
    let method: Method = route.method.parse().unwrap();
    let request = crate::world::http()
        .request(method, format!("{}{path}", world.url()))
        .header("x-drivefs-wire", "1")
        .header("content-type", "application/json")
        .body(body);
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_keeps_out_who_must_not_use_it() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let (bob, mallory) = (world.person("bob").await, world.person("mallory").await);
    let editor = world.person("erin").await;
    let guest = Guest { email: "bob@example.com".into(), role: Role::Viewer };
    let name = Name::new(b"team".to_vec()).unwrap();
    let store = world.server.store();
    let ns = mounts::add(store, "alice@example.com", Some(guest), name).await.unwrap();
    let erin = editor.account.user;
    store
        .write(move |sql| {
            drivefs_server::metadata::namespaces::put_member(sql, ns, erin, Role::Editor)
        })
        .await
        .unwrap();
    let team = alice.at(ns).await;
    let file = team.file("file", &noise(1, 100)).await;
    let hash = drivefs_core::id::BlockHash::of(&noise(1, 100)).to_string();
    let head = team.changes(0, 100).await.unwrap().cursor;
    let at =
        Scene { ns: ns.to_string(), root: team.root, file, head, hash, token: alice.token.clone() };

    let login = async |email: &str, device: &str| {
        Person::login(&world.url(), email, PASSWORD, device).await.unwrap().token
    };
    let revoked = login("alice@example.com", "stolen").await;
    users::revoke_device(store, "alice@example.com", "stolen".into()).await.unwrap();
    let out = world.person("olga").await.token;
    users::set_disabled(store, "olga@example.com", true).await.unwrap();
    let spare = login("alice@example.com", "spare").await;
    let unknown = format!("dfs_{}", "0".repeat(64));

    let mut n = 0;
    let mut tried = 0;
    for route in ROUTES {
        n += 10;
        let told = format!("{} {}", route.method, route.path);
        let none = status(&world, route, None, &at, n).await;
        match route.access {
            Access::Open => {
                assert_eq!(none, 200, "{told}");
                continue;
            }
            // The wrong password, that is.
            Access::Password => {
                assert_eq!(none, 401, "{told}");
                continue;
            }
            Access::Sealed => {
                assert!((400..500).contains(&none), "{told}: without a seal {none}");
                continue;
            }
            _ => assert_eq!(none, 401, "{told}: without a token"),
        }
        for (who, token) in [("unknown", &unknown), ("revoked", &revoked), ("disabled", &out)] {
            assert_eq!(status(&world, route, Some(token), &at, n).await, 401, "{told}: {who}");
            tried += 1;
        }
        let is_good = |status: u16| (200..300).contains(&status);
        match route.access {
            Access::Read | Access::Write => {
                let theirs = status(&world, route, Some(&mallory.token), &at, n + 1).await;
                assert_eq!(theirs, 404, "{told}: who is no member does not learn of it");
                let viewer = status(&world, route, Some(&bob.token), &at, n + 2).await;
                if route.access == Access::Read {
                    assert!(is_good(viewer), "{told}: a viewer got {viewer}");
                } else {
                    assert_eq!(viewer, 403, "{told}: a viewer");
                }
                let writer = status(&world, route, Some(&editor.token), &at, n + 3).await;
                assert!(is_good(writer), "{told}: an editor got {writer}");
                let owner = status(&world, route, Some(&alice.token), &at, n + 4).await;
                assert!(is_good(owner), "{told}: the owner got {owner}");
            }
            Access::PathRead | Access::PathWrite => {
                let owner = status(&world, route, Some(&alice.token), &at, n + 1).await;
                assert!(is_good(owner), "{told}: the owner got {owner}");
                let viewer = status(&world, route, Some(&bob.token), &at, n + 2).await;
                if route.access == Access::PathRead {
                    // (What she writes to that path is in her own tree.)
                    let theirs = status(&world, route, Some(&mallory.token), &at, n + 3).await;
                    assert!(is_good(viewer), "{told}: a viewer got {viewer}");
                    assert!(
                        matches!(theirs, 404 | 409),
                        "{told}: who has no such path got {theirs}"
                    );
                } else {
                    assert!(matches!(viewer, 403 | 409), "{told}: a viewer got {viewer}");
                }
            }
            Access::Own => {
                let theirs = status(&world, route, Some(&mallory.token), &at, n + 1).await;
                assert!(matches!(theirs, 404 | 409 | 410), "{told}: somebody else got {theirs}");
                let own = status(&world, route, Some(&alice.token), &at, n + 2).await;
                assert!(is_good(own) || own == 308, "{told}: who began it got {own}");
            }
            _ => {
                // A token of its own for each, as some routes end it; of the same names as alice's.
                login("mallory@example.com", "spare").await;
                let theirs = login("mallory@example.com", &format!("device {n}")).await;
                let got = status(&world, route, Some(&theirs), &at, n + 1).await;
                assert!(is_good(got), "{told}: its own account got {got}");
                for hers in [&alice.token, &spare] {
                    let hers = Person { token: hers.clone(), ..alice.clone() };
                    assert!(hers.account().await.is_ok(), "{told}: alice's device is not touched");
                }
            }
        }
        tried += 4;
    }
    assert!(tried > 100, "{tried} attempts");
}

/// Methods and paths of all routes, as they stand in the source.
fn written(dir: &Path, out: &mut BTreeSet<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            written(&path, out);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for call in text.split(".route(").skip(1) {
            let call = call.trim_start();
            let (call, prefixes) = match call.strip_prefix("&at(") {
                Some(call) => (call, &["", "/2"][..]),
                None => (call, &[""][..]),
            };
            let Some((route, rest)) = call.strip_prefix('"').and_then(|c| c.split_once('"')) else {
                panic!("{}: a route whose path is no text", path.display());
            };
            let rest = if prefixes.len() > 1 { rest.trim_start_matches(')') } else { rest };
            // Up to the parenthesis that closes the call.
            let mut depth = 1;
            let end = rest.find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0
            });
            let handlers = &rest[..end.unwrap_or(rest.len())];
            let mut methods = 0;
            for method in ["get", "post", "put", "patch", "delete", "head", "any"] {
                let named = handlers.match_indices(&format!("{method}(")).any(|(i, _)| {
                    !handlers[..i].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                });
                if named {
                    methods += 1;
                    let made =
                        prefixes.iter().map(|p| (method.to_uppercase(), format!("{p}{route}")));
                    out.extend(made);
                }
            }
            assert!(methods > 0, "{}: {route} has no method", path.display());
        }
    }
}

#[test]
fn every_route_has_its_rule() {
    let mut routes = BTreeSet::new();
    written(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api"), &mut routes);
    let ruled: BTreeSet<(String, String)> =
        ROUTES.iter().map(|r| (r.method.to_owned(), r.path.to_owned())).collect();
    let without: Vec<_> = routes.difference(&ruled).collect();
    let gone: Vec<_> = ruled.difference(&routes).collect();
    assert!(without.is_empty(), "without a rule in server/src/api/table.rs: {without:?}");
    assert!(gone.is_empty(), "in server/src/api/table.rs, and no route: {gone:?}");
    assert_eq!(ROUTES.len(), ruled.len(), "no rule twice");
}
