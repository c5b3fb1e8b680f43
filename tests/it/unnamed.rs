//! Files without a name (`O_TMPFILE`): the server hears of them when they have one, and of nothing
//! before; what has lost its last name gets no other.

use drivefs::state::ROOT;
use drivefs::tree::TreeError;

use crate::story::Device;
use crate::story::ME;
use crate::story::World;
use crate::story::all_sync;

/// An open file without a name that holds these bytes: its inode and handle.
fn unnamed(device: &Device<'_>, bytes: &[u8]) -> (u64, u64) {
    let (attr, handle) = device.fs().tmpfile(ROOT, ME, 0o640).expect("a file without a name");
    assert_eq!(attr.links, 0);
    device.fs().write(attr.nid, handle, 0, bytes, false).expect("writes");
    (attr.nid, handle)
}

fn link(device: &Device<'_>, nid: u64, name: &str) -> Result<u32, TreeError> {
    device.fs().link(nid, ROOT, name.as_bytes()).map(|attr| attr.links)
}

fn is_there(device: &Device<'_>, nid: u64) -> bool {
    device.fs().tree().db().read(|c| c.node(nid)).expect("reads").is_some()
}

fn waits(device: &Device<'_>) -> usize {
    device.fs().tree().queue(10).expect("a queue").len()
}

#[test]
fn what_has_no_name_is_not_ahead_and_with_its_first_name_it_is_a_new_file() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    let (nid, handle) = unnamed(&alice, b"before");
    alice.fs().setxattr(nid, b"user.kept", Some(b"value"), 0).expect("sets");
    alice.fs().fsync(nid, handle).expect("syncs");
    assert_eq!(waits(&alice), 0);
    all_sync(&[&alice, &bob]);
    assert_eq!(bob.names(), Vec::<String>::new());

    assert_eq!(link(&alice, nid, "named").expect("links"), 1);
    assert!(waits(&alice) > 0);
    alice.fs().write(nid, handle, 6, b" and after", false).expect("writes");
    assert_eq!(link(&alice, nid, "second").expect("links"), 2);
    alice.fs().release(handle).expect("closes");
    all_sync(&[&alice, &bob]);
    assert_eq!(bob.read("named"), b"before and after");
    assert_eq!(bob.nid("named"), bob.nid("second"));
    let mode = bob.fs().getattr(bob.nid("named")).expect("is there").mode;
    assert_eq!(mode, 0o640);
    let kept = bob.fs().getxattr(bob.nid("named"), b"user.kept").expect("is there");
    assert_eq!(kept.as_deref(), Some(&b"value"[..]));
}

#[test]
fn what_lost_its_last_name_gets_no_other() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    // Made without a name, named, and unlinked here.
    let (nid, handle) = unnamed(&alice, b"mine");
    link(&alice, nid, "mine").expect("links");
    alice.remove("mine");
    assert!(matches!(link(&alice, nid, "again"), Err(TreeError::NotFound)));
    alice.fs().release(handle).expect("closes");

    // Removed by another device, which the kernel need not know yet.
    alice.write("theirs", b"theirs");
    all_sync(&[&alice, &bob]);
    let nid = alice.nid("theirs");
    let handle = alice.fs().open(nid, false).expect("opens");
    bob.remove("theirs");
    all_sync(&[&bob, &alice]);
    assert!(matches!(link(&alice, nid, "again"), Err(TreeError::NotFound)));
    alice.fs().release(handle).expect("closes");
    assert_eq!(alice.names(), Vec::<String>::new());
}

#[test]
fn it_goes_when_the_kernel_has_closed_and_forgotten_it() {
    let world = World::new();
    let alice = world.device("alice");
    // Closed, and known to the kernel still: a descriptor of O_PATH leads to it.
    let (nid, handle) = unnamed(&alice, b"held");
    alice.fs().release(handle).expect("closes");
    link(&alice, nid, "held").expect("links");
    assert_eq!(alice.read("held"), b"held");

    // The two messages come in any order.
    let (nid, handle) = unnamed(&alice, b"x");
    alice.fs().release(handle).expect("closes");
    assert!(is_there(&alice, nid));
    alice.fs().forget(nid, 1);
    assert!(!is_there(&alice, nid));
    let (nid, handle) = unnamed(&alice, b"x");
    alice.fs().forget(nid, 1);
    assert!(is_there(&alice, nid));
    alice.fs().release(handle).expect("closes");
    assert!(!is_there(&alice, nid));

    // With a name it stays.
    let (nid, handle) = unnamed(&alice, b"x");
    link(&alice, nid, "x").expect("links");
    alice.fs().release(handle).expect("closes");
    alice.fs().forget(nid, 1);
    assert_eq!(alice.read("x"), b"x");
}

#[test]
fn the_death_of_the_client_takes_it_along_unless_it_has_a_name() {
    let world = World::new();
    let (mut alice, bob) = (world.device("alice"), world.device("bob"));
    alice.go_offline();
    let (gone, _) = unnamed(&alice, &[7; 100_000]);
    let (kept, handle) = unnamed(&alice, b"kept");
    link(&alice, kept, "kept").expect("links");
    alice.fs().write(kept, handle, 4, b"!", false).expect("writes");
    alice.restart();
    assert!(!is_there(&alice, gone));
    assert!(matches!(link(&alice, gone, "gone"), Err(TreeError::NotFound)));
    all_sync(&[&alice, &bob]);
    assert_eq!(bob.read("kept"), b"kept!");
    assert_eq!(bob.names(), ["kept"]);
}

/// Nothing is ahead of the server while such a file is all there is; its blocks are the only copy
/// all the same.
#[test]
fn blocks_of_a_file_without_a_name_are_not_let_go() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    let bytes: Vec<u8> =
        (0..2_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (nid, handle) = unnamed(&alice, &bytes);
    alice.sync();
    let spool = alice.fs().spool().clone();
    let content = spool.content(nid).expect("a content");
    assert!(spool.freeze(&[content]).expect("freezes").is_empty());
    spool.cache().note_uses().expect("notes");
    let node = alice.fs().tree().node(nid).expect("a node");
    assert!(node.content.is_some() && node.live.is_none());
    assert_eq!(spool.holdings(&node).expect("holdings").unsent, bytes.len() as u64);

    link(&alice, nid, "named").expect("links");
    alice.fs().release(handle).expect("closes");
    all_sync(&[&alice, &bob]);
    assert!(bob.read("named") == bytes);
}
