//! Versions, kept versions, and the past of folders.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::limits::VERSIONS_KEPT_MAX;
use drivefs_core::wire::Change;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::KeepReply;
use drivefs_core::wire::KeepRequest;
use drivefs_core::wire::PastEntry;
use drivefs_core::wire::PastReply;
use drivefs_core::wire::PastRequest;
use drivefs_core::wire::Role;
use drivefs_core::wire::VersionsReply;
use drivefs_core::wire::VersionsRequest;
use drivefs_core::wire::Which;
use drivefs_server::clock;
use drivefs_server::drive::mounts;
use drivefs_server::drive::mounts::Guest;

use crate::world::Person;
use crate::world::Refused;
use crate::world::World;
use crate::world::content_of;
use crate::world::create;
use crate::world::name;
use crate::world::node_id;
use crate::world::noise;
use crate::world::place;
use crate::world::put;

/// A namespace that alice shares with bob.
pub async fn shared(world: &World, role: Role) -> (NamespaceId, Person, Person) {
    let (alice, bob) = (world.person("alice").await, world.person("bob").await);
    let guest = Guest { email: "bob@example.com".into(), role };
    let made = mounts::add(world.server.store(), "alice@example.com", Some(guest), name("team"));
    let ns = made.await.unwrap();
    (ns, alice.at(ns).await, bob.at(ns).await)
}

pub fn path(names: &[&str]) -> Which {
    Which::Path(names.iter().map(|n| name(n)).collect())
}

async fn versions(
    person: &Person,
    of: Which,
    before: Option<u64>,
    limit: u32,
) -> Result<VersionsReply, Refused> {
    let request = VersionsRequest { ns: person.ns, of, before, limit };
    person.post("/sync/v1/versions", &request).await
}

async fn keep(person: &Person, node: NodeId, version: u64, keep: bool) -> Result<u32, Refused> {
    let request = KeepRequest { ns: person.ns, node, version, keep };
    let reply: KeepReply = person.post("/sync/v1/keep", &request).await?;
    Ok(reply.kept)
}

async fn past(person: &Person, folder: NodeId, at: i64) -> Vec<PastEntry> {
    let request = PastRequest { ns: person.ns, folder, at, after: None, limit: 100 };
    let reply: PastReply = person.post("/sync/v1/past", &request).await.unwrap();
    assert_eq!(reply.next, None);
    reply.entries
}

/// Writes a text over a file's version.
async fn write(person: &Person, node: NodeId, base: u64, text: &[u8]) -> u64 {
    let content = person.content(text).await;
    person.one(put(node, base, content)).await
}

/// A moment between what was done before and what is done next.
async fn moment() -> i64 {
    let time = clock::now_ns();
    while clock::now_ns() < time + 1_000_000 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    time
}

fn unlink(node: NodeId, parent: NodeId, name: &str) -> Change {
    Change::Unlink { node, place: place(parent, name), version: None }
}

#[tokio::test]
async fn versions_come_newest_first_with_who_made_them_and_their_content() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let dir = alice.dir(alice.root, "docs").await;
    let file = node_id();
    let first = alice.content(b"one").await;
    alice.one(create(file, place(dir, "a.txt"), first)).await;
    for (base, text) in [(1, "two!"), (2, "three"), (3, "four")] {
        write(&alice, file, base, text.as_bytes()).await;
    }
    let all = versions(&alice, Which::Node(file), None, 10).await.unwrap();
    let told: Vec<_> = all.versions.iter().map(|v| (v.version, v.size)).collect();
    assert_eq!(told, [(4, 4), (3, 5), (2, 4), (1, 3)]);
    assert!(all.versions.iter().all(|v| v.device == "laptop" && !v.kept));
    assert!(all.versions.is_sorted_by(|a, b| a.committed > b.committed));
    assert_eq!(all.versions[3].content, content_of(&[b"one"]));
    assert_eq!((all.row.version, all.row.deleted, all.more), (4, false, false));
    assert_eq!(all.path, [name("docs"), name("a.txt")]);

    let by_path = versions(&alice, path(&["docs", "a.txt"]), None, 2).await.unwrap();
    assert_eq!((by_path.row.node, by_path.versions.len(), by_path.more), (file, 2, true));
    let rest = versions(&alice, Which::Node(file), Some(3), 2).await.unwrap();
    assert_eq!(rest.versions, all.versions[2..]);
    assert!(!rest.more);
}

#[tokio::test]
async fn a_file_that_is_gone_is_found_by_its_last_place_and_what_is_there_comes_first() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let dir = alice.dir(alice.root, "docs").await;
    let old = node_id();
    let content = alice.content(b"old").await;
    alice.one(create(old, place(dir, "a"), content)).await;
    alice.one(unlink(old, dir, "a")).await;
    alice.one(Change::Rmdir { node: dir, place: alice.place("docs") }).await;
    let gone = versions(&alice, path(&["docs", "a"]), None, 5).await.unwrap();
    assert!(gone.row.deleted && gone.row.node == old);
    assert_eq!(gone.path, [name("docs"), name("a")]);
    // The folder is made again, the file not yet.
    let again = alice.dir(alice.root, "docs").await;
    let still = versions(&alice, path(&["docs", "a"]), None, 5).await.unwrap();
    assert_eq!(still.row.node, old);
    let new = node_id();
    let content = alice.content(b"new").await;
    alice.one(create(new, place(again, "a"), content)).await;
    let there = versions(&alice, path(&["docs", "a"]), None, 5).await.unwrap();
    assert_eq!((there.row.node, there.row.deleted), (new, false));
}

#[tokio::test]
async fn a_restored_version_is_a_new_one_and_needs_no_bytes() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let file = alice.file("f", &noise(1, 9000)).await;
    write(&alice, file, 1, b"spoiled").await;
    let old = versions(&alice, Which::Node(file), None, 9).await.unwrap().versions.remove(1);
    assert_eq!(alice.one(put(file, 2, old.content.clone())).await, 3);
    let all = versions(&alice, Which::Node(file), None, 9).await.unwrap().versions;
    assert_eq!(all.iter().map(|v| v.size).collect::<Vec<_>>(), [9000, 7, 9000]);
    assert_eq!((&all[0].content, alice.used().await), (&old.content, 9000));
}

#[tokio::test]
async fn versions_are_kept_up_to_a_number_and_let_go() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let file = alice.file("f", b"1").await;
    write(&alice, file, 1, b"2").await;
    assert_eq!(keep(&alice, file, 1, true).await, Ok(1));
    assert_eq!(keep(&alice, file, 1, true).await, Ok(1), "twice is once");
    let rows = versions(&alice, Which::Node(file), None, 5).await.unwrap().versions;
    assert_eq!(rows.iter().map(|v| v.kept).collect::<Vec<_>>(), [false, true]);
    assert_eq!(keep(&alice, file, 1, false).await, Ok(0));
    assert_eq!(keep(&alice, file, 7, true).await.expect_err("no such").code, ErrorCode::NotFound);

    let most = u64::from(VERSIONS_KEPT_MAX);
    for base in 2..=most {
        write(&alice, file, base, format!("text {base}").as_bytes()).await;
    }
    for version in 1..=most {
        keep(&alice, file, version, true).await.unwrap();
    }
    write(&alice, file, most + 1, b"one more").await;
    let over = keep(&alice, file, most + 2, true).await.expect_err("over the limit");
    assert_eq!(over.code, ErrorCode::BadRequest);
    assert!(over.message.contains("200"), "{}", over.message);
    assert_eq!(keep(&alice, file, 1, false).await, Ok(VERSIONS_KEPT_MAX - 1), "nothing was kept");
    assert_eq!(keep(&alice, file, most + 2, true).await, Ok(VERSIONS_KEPT_MAX));
}

#[tokio::test]
async fn the_past_of_a_folder_tells_what_differs_and_what_was_deleted() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let dir = alice.dir(alice.root, "d").await;
    let make = async |label: &str, text: &[u8]| {
        let node = node_id();
        let content = alice.content(text).await;
        alice.one(create(node, place(dir, label), content)).await;
        node
    };
    make("same", b"same").await;
    let edited = make("edited", b"before").await;
    let gone = make("gone", b"gone").await;
    let replaced = make("replaced", b"first").await;
    let sub = alice.dir(dir, "sub").await;
    let early = moment().await;
    write(&alice, edited, 1, b"after").await;
    alice.one(unlink(gone, dir, "gone")).await;
    alice.one(unlink(replaced, dir, "replaced")).await;
    let newer = make("replaced", b"second").await;
    make("new", b"new").await;
    let told = past(&alice, dir, early).await;
    let short: Vec<_> = told
        .iter()
        .map(|e| (e.name.to_string(), e.node, e.deleted, e.newer, e.version, e.head))
        .collect();
    assert_eq!(
        short,
        [
            ("edited".into(), edited, false, false, 1, 2),
            ("gone".into(), gone, true, false, 1, 1),
            ("replaced".into(), newer, false, true, 0, 1),
            ("replaced".into(), replaced, true, false, 1, 1),
            ("sub".into(), sub, false, false, 0, 0),
        ]
    );
    assert_eq!(told[0].content, Some(content_of(&[b"before"])));
    assert_eq!(told[1].content, Some(content_of(&[b"gone"])));
    assert_eq!(past(&alice, dir, clock::now_ns()).await.len(), 1, "now is as it is");
    // Page by page it is the same.
    let (mut after, mut pages) = (None, Vec::new());
    loop {
        let request = PastRequest { ns: alice.ns, folder: dir, at: early, after, limit: 1 };
        let reply: PastReply = alice.post("/sync/v1/past", &request).await.unwrap();
        pages.extend(reply.entries);
        after = reply.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, told);
}

#[tokio::test]
async fn what_has_no_versions_and_what_is_not_there_is_said() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let dir = alice.dir(alice.root, "d").await;
    let file = alice.file("f", b"x").await;
    for (of, code) in [
        (Which::Node(dir), ErrorCode::BadRequest),
        (Which::Path(Vec::new()), ErrorCode::BadRequest),
        (path(&["nothing"]), ErrorCode::NotFound),
        (path(&["f", "below a file"]), ErrorCode::NotFound),
        (Which::Node(node_id()), ErrorCode::NotFound),
        (Which::Path(vec![name("x"); 5000]), ErrorCode::BadRequest),
    ] {
        assert_eq!(versions(&alice, of, None, 1).await.expect_err("refused").code, code);
    }
    let none = PastRequest { ns: alice.ns, folder: file, at: 0, after: None, limit: 1 };
    let refused: Refused =
        alice.post::<PastReply>("/sync/v1/past", &none).await.expect_err("a file");
    assert_eq!(refused.code, ErrorCode::BadRequest);
    let zero = versions(&alice, Which::Node(file), Some(0), 0).await.unwrap();
    assert!(zero.versions.is_empty() && !zero.more);
}

/// Every route of history and trash: no token, a stranger, a viewer, and what is no request.
#[tokio::test]
async fn nobody_gets_in_without_right() {
    let world = World::new().await;
    let (ns, team, bob) = shared(&world, Role::Viewer).await;
    let carol = world.person("carol").await;
    let file = team.file("f", b"x").await;
    let of = serde_json::json!({ "node": file });
    let routes = [
        ("versions", serde_json::json!({ "ns": ns, "of": of, "limit": 1 }), false),
        ("keep", serde_json::json!({ "ns": ns, "node": file, "version": 1, "keep": true }), true),
        ("past", serde_json::json!({ "ns": ns, "folder": team.root, "at": 0, "limit": 1 }), false),
        ("trash", serde_json::json!({ "ns": ns, "limit": 1 }), false),
        ("trash/empty", serde_json::json!({ "ns": ns }), true),
    ];
    for (route, body, writes) in routes {
        let url = format!("/sync/v1/{route}");
        let ask = async |person: &Person, body: &serde_json::Value| {
            person.post::<serde_json::Value>(&url, body).await
        };
        let nobody = Person { token: String::new(), ..team.clone() };
        let e = ask(&nobody, &body).await.expect_err("no token");
        assert_eq!((e.status, e.code), (401, ErrorCode::Unauthorized), "{route}");
        let e = ask(&carol, &body).await.expect_err("a stranger");
        assert_eq!((e.status, e.code), (404, ErrorCode::NotFound), "{route}");
        match ask(&bob, &body).await {
            Ok(_) => assert!(!writes, "{route}"),
            Err(e) => {
                assert!(writes, "{route}: {e:?}");
                assert_eq!((e.status, e.code), (403, ErrorCode::Forbidden), "{route}");
            }
        }
        assert!(ask(&team, &body).await.is_ok(), "{route}");
        for bad in [serde_json::json!({}), serde_json::json!([1]), serde_json::json!({ "ns": "x" })]
        {
            let e = ask(&team, &bad).await.expect_err("no request");
            assert_eq!((e.status, e.code), (400, ErrorCode::BadRequest), "{route}");
        }
    }
    let e = bob
        .commit(vec![Change::Restore { node: file, place: bob.place("g") }])
        .await
        .expect_err("read only");
    assert_eq!(e.code, ErrorCode::Forbidden);
}

#[tokio::test]
async fn a_number_that_nothing_can_have_is_refused_and_not_an_error_of_the_server() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let file = node_id();
    let content = alice.content(b"one").await;
    alice.one(create(file, alice.place("a.txt"), content.clone())).await;
    for number in [1 << 63, u64::MAX] {
        let code = |refused: Refused| (refused.status, refused.code);
        let bad = (400, ErrorCode::BadRequest);
        assert_eq!(keep(&alice, file, number, true).await.map_err(code), Err(bad));
        let all = versions(&alice, Which::Node(file), Some(number), 10).await.unwrap();
        assert_eq!(all.versions.len(), 1, "all are before that one");
        let elsewhere = Person { ns: NamespaceId(number), ..alice.clone() };
        let told = versions(&elsewhere, path(&["a.txt"]), None, 10).await;
        assert_eq!(told.map_err(code), Err(bad));
    }
    assert_eq!(keep(&alice, file, 1, true).await.map_err(|e| e.status), Ok(1), "it goes on");
}
