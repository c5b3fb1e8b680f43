//! Scrubbing: finds what is bad, goes on where it was, notes what it found.

use crate::fsck::flip;
use crate::fsck::packs;
use crate::world::World;
use crate::world::noise;

#[tokio::test]
async fn a_round_reads_every_pack_and_tells_bad_blocks_until_they_are_good_again() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    for i in 0..70 {
        alice.upload(&[noise(i, 500)]).await;
    }
    let drive = world.server.drive();
    drive.begin_scrub().await.unwrap();
    let first = drive.scrub_step(0).await.unwrap();
    assert!(first.running && first.packs == 64, "{first:?}");
    // A restart goes on from the stored place.
    assert_eq!(drive.scrub_position().await.unwrap(), first);
    let second = drive.scrub_step(0).await.unwrap();
    assert!(!second.running, "{second:?}");
    assert_eq!((second.packs, second.blocks), (70, 70));
    assert_eq!(drive.bad_blocks(10).await.unwrap(), []);

    let pack = packs(world.dir.path()).remove(3);
    flip(&pack, 200);
    let whole_round = async || {
        drive.begin_scrub().await.unwrap();
        while drive.scrub_step(0).await.unwrap().running {}
        drive.bad_blocks(10).await.unwrap()
    };
    let bad = whole_round().await;
    assert_eq!(bad.len(), 1);
    assert_eq!(bad[0].pack.to_string(), pack.file_name().unwrap().to_str().unwrap());
    assert!(bad[0].block.is_some(), "{bad:?}");
    let found = bad[0].found;
    assert_eq!(whole_round().await[0].found, found, "told since when");
    flip(&pack, 200);
    assert_eq!(whole_round().await, []);
}

#[tokio::test]
async fn nothing_is_read_when_no_round_is_under_way() {
    let world = World::new().await;
    let position = world.server.drive().scrub_step(0).await.unwrap();
    assert!(!position.running && position.packs == 0);
}
