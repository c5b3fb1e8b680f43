//! What the server tells of what happened.

use drivefs_core::id::NodeId;
use drivefs_core::limits::MASS_FILES;
use drivefs_core::node::CONFLICT_XATTR;
use drivefs_core::node::Xattrs;
use drivefs_core::wire::Blob;
use drivefs_core::wire::Change;
use drivefs_core::wire::CommitEvents;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::EventKind;
use drivefs_core::wire::EventKind::Added;
use drivefs_core::wire::EventKind::Conflict;
use drivefs_core::wire::EventKind::Deleted;
use drivefs_core::wire::EventKind::Edited;
use drivefs_core::wire::EventKind::Linked;
use drivefs_core::wire::EventKind::Moved;
use drivefs_core::wire::EventKind::Restored;
use drivefs_core::wire::EventKind::Reverted;
use drivefs_core::wire::EventKind::Unlinked;
use drivefs_core::wire::EventPlace;
use drivefs_core::wire::EventsReply;
use drivefs_core::wire::EventsRequest;
use drivefs_core::wire::OpResult;
use drivefs_core::wire::Role;
use drivefs_core::wire::Span;
use drivefs_server::metadata::DbError;

use crate::history::shared;
use crate::world::PASSWORD;
use crate::world::Person;
use crate::world::Refused;
use crate::world::World;
use crate::world::create;
use crate::world::exchange;
use crate::world::mkdir;
use crate::world::node_id;
use crate::world::place;
use crate::world::put;
use crate::world::relocate;

async fn ask(
    who: &Person,
    of: Option<NodeId>,
    span: Span,
    limit: u32,
) -> Result<EventsReply, Refused> {
    who.post("/sync/v1/events", &EventsRequest { ns: who.ns, of, span, limit, notable: false })
        .await
}

async fn after(who: &Person, seq: u64) -> EventsReply {
    ask(who, None, Span::After(seq), 2000).await.unwrap()
}

/// Kind and paths of each event, as `moved a/b -> c`.
fn told(commits: &[CommitEvents]) -> Vec<String> {
    let mut out = Vec::new();
    for commit in commits {
        let path = |p: &EventPlace| {
            commit.told.path(p).iter().map(ToString::to_string).collect::<Vec<_>>().join("/")
        };
        for e in &commit.told.events {
            let places: Vec<String> = e.from.iter().chain(&e.to).map(path).collect();
            out.push(format!("{:?} {}", e.kind, places.join(" -> ")));
        }
    }
    out
}

fn line(kind: EventKind, places: &str) -> String {
    format!("{kind:?} {places}")
}

#[tokio::test]
async fn every_op_tells_what_it_did_by_whom_and_where_things_were_then() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let docs = alice.dir(alice.root, "docs").await;
    let file = node_id();
    let (v1, v2) = (alice.content(b"one").await, alice.content(b"two").await);
    let at = |name: &str| place(docs, name);
    alice.one(create(file, at("a"), v1.clone())).await;
    alice.one(put(file, 1, v2.clone())).await;
    alice.one(put(file, 2, v2.clone())).await;
    alice.one(Change::Link { node: file, place: at("b") }).await;
    alice.one(Change::Unlink { node: file, place: at("b"), version: None }).await;
    alice.one(relocate(docs, alice.place("docs"), alice.place("papers"), None)).await;
    assert_eq!(alice.one(Change::Revert { node: file, base_version: 2, version: 1 }).await, 3);
    alice.one(Change::Unlink { node: file, place: at("a"), version: None }).await;
    alice.one(Change::Restore { node: file, place: at("c") }).await;
    let other = alice.file("x", b"x").await;
    alice.one(relocate(other, alice.place("x"), at("c"), Some(file))).await;
    let reply = after(&alice, 0).await;
    let seqs: Vec<u64> = reply.commits.iter().map(|c| c.seq).collect();
    assert!(seqs.is_sorted() && reply.next.is_none() && reply.begins == 0);
    assert_eq!(reply.seq, *seqs.last().unwrap());
    assert_eq!(
        told(&reply.commits),
        [
            line(Added, "docs"),
            line(Added, "docs/a"),
            line(Edited, "docs/a"),
            line(Linked, "docs/b"),
            line(Unlinked, "docs/b"),
            line(Moved, "docs -> papers"),
            line(Reverted, "papers/a"),
            line(Deleted, "papers/a"),
            line(Restored, "papers/c"),
            line(Added, "x"),
            line(Deleted, "papers/c"),
            line(Moved, "x -> papers/c"),
        ]
    );
    for commit in &reply.commits {
        assert_eq!((commit.user.as_str(), commit.device.as_str()), ("alice@example.com", "laptop"));
        assert!(commit.told.mass.is_none());
    }
    let reverted = &reply.commits[6].told.events[0];
    assert_eq!((reverted.before, reverted.after, reverted.of), (2, 3, 1));
    let times: Vec<_> = reply.commits.iter().map(|c| c.time).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
}

#[tokio::test]
async fn refused_ops_tell_nothing_and_conflict_files_and_exchanges_are_told_as_such() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let (a, b) = (alice.dir(alice.root, "a").await, alice.dir(alice.root, "b").await);
    let content = alice.content(b"x").await;
    let seq = after(&alice, 0).await.seq;
    let marked = Change::Put {
        node: node_id(),
        create: Some(place(a, "copy")),
        base_version: 0,
        content: content.clone(),
        attrs: crate::world::attrs(),
        xattrs: Xattrs::from([(CONFLICT_XATTR.to_owned(), Blob(b"{}".to_vec()))]),
        source: None,
    };
    let reply = alice
        .commit(vec![
            create(node_id(), alice.place("a"), content.clone()),
            exchange(a, alice.place("a"), alice.place("b")),
            marked,
            create(node_id(), place(b, "in b"), content),
        ])
        .await
        .unwrap();
    assert!(matches!(reply.results[0], OpResult::Conflict { .. }));
    let events = after(&alice, seq).await;
    assert_eq!(
        told(&events.commits),
        [
            line(Moved, "a -> b"),
            line(Moved, "b -> a"),
            line(Conflict, "b/copy"),
            line(Added, "a/in b"),
        ]
    );
    // A commit of nothing but attributes, and one that was refused, have none.
    alice.one(Change::Setattr { node: a, attrs: crate::world::attrs() }).await;
    alice.conflicts(mkdir(node_id(), alice.place("a"))).await;
    assert!(after(&alice, events.seq).await.commits.is_empty());
}

#[tokio::test]
async fn pages_go_both_ways_and_can_be_limited_to_a_folder() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let (a, b) = (alice.dir(alice.root, "a").await, alice.dir(alice.root, "b").await);
    for i in 0..10 {
        alice.dir(if i % 2 == 0 { a } else { b }, &i.to_string()).await;
    }
    let all = told(&after(&alice, 0).await.commits);
    assert_eq!(all.len(), 12);
    for (from, reverse) in [(Span::After(0), false), (Span::Newest, true)] {
        let (mut span, mut seen) = (from, Vec::new());
        loop {
            let page = ask(&alice, None, span, 5).await.unwrap();
            seen.extend(told(&page.commits));
            match page.next {
                Some(next) => span = next,
                None => break,
            }
        }
        if reverse {
            seen.reverse();
        }
        assert_eq!(seen, all);
    }
    let of_a = ask(&alice, Some(a), Span::After(0), 2000).await.unwrap();
    assert_eq!(told(&of_a.commits).len(), 6, "itself and what is in it");
    let time = after(&alice, 0).await.commits[4].time;
    let since = ask(&alice, None, Span::Since(time), 2000).await.unwrap();
    assert_eq!(told(&since.commits), all[5..]);
}

#[tokio::test]
async fn only_members_hear_of_it() {
    let world = World::new().await;
    let (_, alice, bob) = shared(&world, Role::Viewer).await;
    alice.file("f", b"x").await;
    assert_eq!(told(&after(&bob, 0).await.commits), [line(Added, "f")]);
    let eve = world.person("eve").await;
    let spying = Person { ns: alice.ns, ..eve };
    let refused = ask(&spying, None, Span::Newest, 10).await.expect_err("no member");
    assert_eq!((refused.status, refused.code), (404, ErrorCode::NotFound));
}

#[tokio::test]
async fn what_is_too_old_goes_and_the_record_says_where_it_begins() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    alice.dir(alice.root, "old").await;
    let first = after(&alice, 0).await.commits[0].clone();
    world
        .server
        .store()
        .write(|sql| {
            sql.exec("UPDATE event SET at_ns = at_ns - 91 * 86400000000000", &[])?;
            Ok::<_, DbError>(())
        })
        .await
        .unwrap();
    for i in 0..70 {
        alice.dir(alice.root, &i.to_string()).await;
    }
    let reply = after(&alice, 0).await;
    assert_eq!(told(&reply.commits)[0], line(Added, "0"));
    assert_eq!(reply.begins, first.time - 91 * 86_400_000_000_000);
}

#[tokio::test]
async fn a_device_that_deletes_very_much_is_told_of_once() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let content = alice.content(b"x").await;
    let dir = alice.dir(alice.root, "photos").await;
    let nodes: Vec<NodeId> = (0..MASS_FILES + 100).map(|_| node_id()).collect();
    let at = |i: usize| place(dir, &i.to_string());
    let adds = (0..nodes.len()).map(|i| create(nodes[i], at(i), content.clone())).collect();
    alice.commit(adds).await.unwrap();
    // Nothing counts that has stood for moments only.
    let removed = Change::Unlink { node: nodes[0], place: at(0), version: None };
    alice.one(removed).await;
    age(&world).await;
    let seq = after(&alice, 0).await.seq;
    let phone = Person::login(&alice.url, "alice@example.com", PASSWORD, "phone").await.unwrap();
    for chunk in (1..nodes.len()).collect::<Vec<_>>().chunks(100) {
        let gone =
            chunk.iter().map(|i| Change::Unlink { node: nodes[*i], place: at(*i), version: None });
        phone.commit(gone.collect()).await.unwrap();
    }
    let commits = after(&phone, seq).await.commits;
    let told: Vec<_> = commits.iter().filter_map(|c| c.told.mass.clone()).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (told[0].rewritten, told[0].folder.as_slice()),
        (0, &[crate::world::name("photos")][..])
    );
    assert!(told[0].deleted >= 300, "{told:?}");
    assert!(told[0].since < commits[0].time && told[0].since >= commits[0].time - 1);
}

#[tokio::test]
async fn who_asks_for_what_is_notable_gets_that_alone() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    alice.dir(alice.root, "a").await;
    let content = alice.content(b"x").await;
    let mut marked = create(node_id(), alice.place("copy"), content);
    if let Change::Put { xattrs, .. } = &mut marked {
        xattrs.insert(CONFLICT_XATTR.to_owned(), Blob(b"{}".to_vec()));
    }
    alice.commit(vec![mkdir(node_id(), alice.place("b")), marked]).await.unwrap();
    let request =
        EventsRequest { ns: alice.ns, of: None, span: Span::After(0), limit: 10, notable: true };
    let reply: EventsReply = alice.post("/sync/v1/events", &request).await.unwrap();
    assert_eq!(told(&reply.commits), [line(Conflict, "copy")]);
}

/// Makes all versions older than the window of mass changes.
async fn age(world: &World) {
    world
        .server
        .store()
        .write(|sql| {
            sql.exec("DROP TRIGGER file_version_is_immutable", &[])?;
            sql.exec("UPDATE file_version SET committed_ns = committed_ns - 600000000000", &[])?;
            Ok::<_, DbError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_revert_needs_the_head_it_was_meant_for_and_a_version_that_is_there() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let file = alice.file("f", b"first").await;
    let second = alice.content(b"the second").await;
    alice.one(put(file, 1, second)).await;
    let revert = |base_version, version| Change::Revert { node: file, base_version, version };
    alice.conflicts(revert(1, 1)).await;
    assert_eq!(alice.rejected(revert(2, 9)).await, ErrorCode::NotFound);
    assert_eq!(alice.one(revert(2, 2)).await, 2, "nothing to do");
    let used = alice.used().await;
    assert_eq!(alice.one(revert(2, 1)).await, 3);
    assert_eq!(alice.used().await, used - 5);
    assert_eq!(alice.one(revert(3, 2)).await, 4, "and back again");
    assert_eq!(alice.used().await, used);
    let page = alice.changes(0, 100).await.unwrap();
    let row = page.nodes.iter().find(|n| n.node == file).unwrap();
    assert!(row.version == 4 && row.attrs.mtime > 5, "{row:?}");
    let (_, team, bob) = shared_as_viewer(&world).await;
    let theirs = team.file("t", b"x").await;
    let refused = bob.commit(vec![Change::Revert { node: theirs, base_version: 1, version: 1 }]);
    assert_eq!(refused.await.expect_err("a viewer").code, ErrorCode::Forbidden);
}

async fn shared_as_viewer(world: &World) -> (drivefs_core::id::NamespaceId, Person, Person) {
    use drivefs_server::drive::mounts;
    let (carol, bob) = (world.person("carol").await, world.person("bob").await);
    let guest = mounts::Guest { email: "bob@example.com".into(), role: Role::Viewer };
    let name = crate::world::name("team");
    let ns = mounts::add(world.server.store(), "carol@example.com", Some(guest), name);
    let ns = ns.await.unwrap();
    (ns, carol.at(ns).await, bob.at(ns).await)
}
