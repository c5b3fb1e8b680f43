//! What power loss leaves of slots: the rows are there, some of the bytes are not.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::story::World;
use crate::story::all_sync;
use crate::story::same_files;

/// Bytes of a slot, and of its header.
const STRIDE: u64 = 64 * 1024;

/// Overwrites every slot that holds exactly these bytes, header and all. Returns how many.
fn wipe(home: &Path, content: &[u8], with: u8) -> usize {
    let mut wiped = 0;
    for folder in std::fs::read_dir(home.join("data")).expect("data") {
        for file in std::fs::read_dir(folder.expect("entry").path()).expect("folder") {
            let path = file.expect("entry").path();
            if path.extension().is_none_or(|e| e != "heap") {
                continue;
            }
            let heap = File::options().read(true).write(true).open(path).expect("a heap");
            let len = heap.metadata().expect("metadata").len();
            for start in (0..len).step_by(STRIDE as usize) {
                let mut slot = vec![0; 16 + content.len()];
                let read = heap.read_at(&mut slot, start).expect("reads");
                let count = u64::from_le_bytes(slot[8..16].try_into().expect("eight bytes"));
                if read == slot.len() && count == content.len() as u64 && &slot[16..] == content {
                    heap.write_all_at(&vec![with; slot.len()], start).expect("writes");
                    wiped += 1;
                }
            }
        }
    }
    wiped
}

#[test]
fn a_copy_in_a_slot_that_never_reached_the_disk_shows_what_was_there_before() {
    let world = World::new();
    let mut alice = world.device("alice");
    let bob = world.device("bob");
    alice.write("a", b"the first version");
    all_sync(&[&alice, &bob]);
    alice.go_offline();
    alice.patch("a", 4, b"other");
    assert_eq!(alice.read("a"), b"the other version");
    let home = alice.home();
    alice.stop();
    assert_eq!(wipe(&home, b"the other version", 0), 1);
    alice.start();
    assert_eq!(alice.read("a"), b"the first version");
    alice.patch("a", 4, b"third");
    all_sync(&[&alice, &bob]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files.get("a").map(String::as_str), Some("the third version"));
    assert_eq!(files.len(), 1);
}

#[test]
fn content_that_is_written_again_does_not_stand_on_a_damaged_copy_of_it() {
    let world = World::new();
    let mut alice = world.device("alice");
    let bob = world.device("bob");
    alice.write("a", b"the same bytes");
    all_sync(&[&alice, &bob]);
    let home = alice.home();
    alice.stop();
    assert!(wipe(&home, b"the same bytes", 0xa5) > 0);
    alice.start();
    alice.write("b", b"the same bytes");
    all_sync(&[&alice, &bob]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files.get("b").map(String::as_str), Some("the same bytes"));
}
