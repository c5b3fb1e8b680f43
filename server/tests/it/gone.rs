//! What was deleted out of a folder: by name, by place, page by page, and for whom.

use drivefs_core::id::NodeId;
use drivefs_core::wire::Change;
use drivefs_core::wire::EmptyReply;
use drivefs_core::wire::EmptyRequest;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::GoneEntry;
use drivefs_core::wire::GoneReply;
use drivefs_core::wire::GoneRequest;
use drivefs_core::wire::Role;

use crate::history::shared;
use crate::world::Person;
use crate::world::Refused;
use crate::world::World;
use crate::world::create;
use crate::world::name;
use crate::world::node_id;
use crate::world::place;

async fn ask(
    person: &Person,
    folder: NodeId,
    called: Option<&str>,
    after: Option<&str>,
    limit: u32,
) -> Result<GoneReply, Refused> {
    let (called, after) = (called.map(name), after.map(name));
    let request = GoneRequest { ns: person.ns, folder, name: called, after, limit };
    person.post("/sync/v1/gone", &request).await
}

fn told(entries: &[GoneEntry]) -> Vec<(String, NodeId)> {
    entries.iter().map(|e| (e.name.to_string(), e.node)).collect()
}

async fn file_in(person: &Person, dir: NodeId, called: &str) -> NodeId {
    let node = node_id();
    let content = person.content(called.as_bytes()).await;
    person.one(create(node, place(dir, called), content)).await;
    node
}

async fn remove(person: &Person, node: NodeId, dir: NodeId, called: &str) {
    person.one(Change::Unlink { node, place: place(dir, called), version: None }).await;
}

#[tokio::test]
async fn of_each_name_the_last_is_told_page_by_page_and_of_one_name_all() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let dir = alice.dir(alice.root, "docs").await;
    file_in(&alice, dir, "stays").await;
    let mut last = Vec::new();
    let mut of_b = Vec::new();
    for (called, times) in [("a", 1), ("b", 5), ("c", 2)] {
        for _ in 0..times {
            let node = file_in(&alice, dir, called).await;
            remove(&alice, node, dir, called).await;
            last.retain(|(known, _)| known != called);
            last.push((called.to_owned(), node));
            if called == "b" {
                of_b.insert(0, (called.to_owned(), node));
            }
        }
    }
    let sub = alice.dir(dir, "sub").await;
    alice.one(Change::Rmdir { node: sub, place: place(dir, "sub") }).await;
    last.push(("sub".to_owned(), sub));
    for limit in [1, 2, 3, 100] {
        let (mut all, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = ask(&alice, dir, None, after.as_deref(), limit).await.unwrap();
            all.extend(told(&page.entries));
            after = page.next.map(|n| n.to_string());
            if after.is_none() {
                break;
            }
        }
        assert_eq!(all, last, "{limit} rows a page");
    }
    let b = ask(&alice, dir, Some("b"), None, 100).await.unwrap();
    assert_eq!((told(&b.entries), b.next), (of_b, None));
    assert!(b.entries.is_sorted_by(|x, y| x.deleted > y.deleted));
    assert!(b.entries.iter().all(|e| e.attrs.mode & 0o777 != 0));
    for nothing in ["stays", "never"] {
        assert!(ask(&alice, dir, Some(nothing), None, 9).await.unwrap().entries.is_empty());
    }
}

#[tokio::test]
async fn a_deleted_folder_tells_too_until_the_trash_is_emptied() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let dir = alice.dir(alice.root, "docs").await;
    let file = file_in(&alice, dir, "a").await;
    remove(&alice, file, dir, "a").await;
    alice.one(Change::Rmdir { node: dir, place: alice.place("docs") }).await;
    let gone = ask(&alice, dir, None, None, 9).await.unwrap();
    assert_eq!(told(&gone.entries), [("a".to_owned(), file)]);
    let request = EmptyRequest { ns: alice.ns };
    alice.post::<EmptyReply>("/sync/v1/trash/empty", &request).await.unwrap();
    let refused = ask(&alice, dir, None, None, 9).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotFound);
    assert!(ask(&alice, alice.root, None, None, 9).await.unwrap().entries.is_empty());
    assert_eq!(ask(&alice, file, None, None, 9).await.unwrap_err().code, ErrorCode::NotFound);
}

#[tokio::test]
async fn members_see_it_and_others_do_not() {
    let world = World::new().await;
    let (_, alice, bob) = shared(&world, Role::Viewer).await;
    let mallory = world.person("mallory").await;
    let file = file_in(&alice, alice.root, "a").await;
    assert_eq!(
        ask(&bob, file, None, None, 9).await.unwrap_err().code,
        ErrorCode::BadRequest,
        "only folders have something in them"
    );
    remove(&alice, file, alice.root, "a").await;
    let seen = ask(&bob, bob.root, None, None, 9).await.unwrap();
    assert_eq!(told(&seen.entries), [("a".to_owned(), file)]);
    let request =
        GoneRequest { ns: alice.ns, folder: alice.root, name: None, after: None, limit: 9 };
    let refused = mallory.post::<GoneReply>("/sync/v1/gone", &request).await.unwrap_err();
    assert!(matches!(refused.code, ErrorCode::NotFound | ErrorCode::Forbidden), "{refused:?}");
}
