//! Slots and heaps: what is in them, which of them may go, and what a crash leaves.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use drivefs_core::id::BlockHash;
use proptest::prelude::*;

use super::BlockCache;
use super::DataFiles;
use super::direct::PAGE;
use super::direct::Pace;
use super::direct::Run;
use super::direct::RunWriter;
use super::slots::SLOT_BYTES;
use super::slots::SLOTS;
use super::slots::Slice;
use super::slots::Slots;
use super::slots::heap_id;
use super::slots::is_heap;
use super::slots::is_slot;
use super::slots::number_of;
use super::slots::owner_of;
use super::slots::place_of;
use super::slots::read_slot;
use super::slots::slot_id;
use super::slots::slots_of;
use crate::state::Db;
use crate::state::DbError;
use crate::state::FileId;

#[test]
fn a_slot_lies_in_its_heap_and_is_found_by_any_of_its_bytes() {
    for (number, index) in [(1, 0), (7, 1), (1 << 40, SLOTS - 1)] {
        let id = slot_id(number, index);
        let (heap, start) = place_of(id);
        assert!(is_slot(id) && is_heap(heap) && !is_slot(heap) && !is_heap(id));
        assert_eq!(number_of(id), number);
        assert_eq!(number_of(heap), number);
        assert_eq!(owner_of(heap, start), id);
        assert_eq!(owner_of(heap, start + SLOT_BYTES - 1), id);
        let (first, last) = slots_of(heap);
        assert!(first <= id && id <= last);
    }
    assert_eq!(place_of(9), (9, 0));
    assert_eq!(owner_of(9, 1 << 40), 9);
}

#[test]
fn a_slot_knows_its_length_and_hides_what_was_cut_off() {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let slice = Slice::new(slot_id(3, 2), file);
    assert_eq!(slice.stored_len().unwrap(), 0);
    slice.write_at(b"hello world", 0, 0, 11).unwrap();
    assert_eq!(slice.stored_len().unwrap(), 11);
    slice.write_at(b"!", 11, 11, 12).unwrap();
    slice.set_len(12, 5).unwrap();
    slice.set_len(5, 8).unwrap();
    assert_eq!(slice.stored_len().unwrap(), 8);
    let mut back = [1; 8];
    slice.file.read_exact_at(&mut back, slice.start).unwrap();
    assert_eq!(&back, b"hello\0\0\0");
}

#[test]
fn a_heap_goes_when_all_its_slots_came_back_and_none_is_open() {
    let mut slots = Slots::default();
    assert_eq!(slots.take(), None);
    slots.start_heap(5);
    let all: Vec<_> = (0..SLOTS).map(|_| slots.take().unwrap()).collect();
    assert_eq!(slots.take(), None);
    slots.start_heap(6);
    let file = Arc::new(tempfile::tempfile().unwrap());
    let slice = Arc::new(Slice::new(all[0], file));
    slots.opened(all[0], &slice);
    all.iter().for_each(|id| slots.retire(*id));
    let (free, heaps) = slots.take_retired();
    assert_eq!((free.len(), heaps.len()), (SLOTS as usize - 1, 0));
    drop(slice);
    let (free, heaps) = slots.take_retired();
    assert_eq!((free, heaps), (vec![all[0]], vec![heap_id(5)]));
}

#[test]
fn a_slot_that_comes_back_twice_does_not_stand_for_another() {
    let mut slots = Slots::default();
    slots.start_heap(5);
    let all: Vec<_> = (0..SLOTS).map(|_| slots.take().unwrap()).collect();
    slots.start_heap(6);
    // All but the last one, the first twice: the last one is still out.
    all[..SLOTS as usize - 1].iter().for_each(|id| slots.retire(*id));
    slots.retire(all[0]);
    assert!(slots.take_retired().1.is_empty());
    slots.retire(all[SLOTS as usize - 1]);
    assert_eq!(slots.take_retired().1, [heap_id(5)]);
}

#[test]
fn a_write_that_was_cut_off_behind_the_header_is_as_long_as_the_header_says() {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let slice = Slice::new(slot_id(1, 0), file.clone());
    slice.write_at(&[7; 100], 0, 0, 100).unwrap();
    file.set_len(50).unwrap();
    slice.reach(slice.stored_len().unwrap()).unwrap();
    // As a cached block is read: to the last byte.
    file.read_exact_at(&mut [0; 100], slice.start).unwrap();
    assert_eq!(read_slot(&file, 0).unwrap().unwrap().len(), 100);
    assert_eq!(read_slot(&file, 1).unwrap(), None);
}

#[derive(Debug, Clone)]
enum Op {
    Write {
        slot: u64,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetLen {
        slot: u64,
        len: u64,
    },
    /// The process dies: only the headers know the lengths.
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = (1..3000_usize, any::<u8>()).prop_map(|(n, b)| vec![b; n]);
    prop_oneof![
        6 => (0..4_u64, 0..SLOT_BYTES - 3000, bytes)
            .prop_map(|(slot, offset, bytes)| Op::Write { slot, offset, bytes }),
        3 => (0..4_u64, 0..200_u64, any::<u8>())
            .prop_map(|(slot, len, b)| Op::Write { slot, offset: 0, bytes: vec![b; len as usize + 1] }),
        3 => (0..4_u64, 0..=SLOT_BYTES).prop_map(|(slot, len)| Op::SetLen { slot, len }),
        1 => Just(Op::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn slots_are_like_vectors_of_bytes(ops in proptest::collection::vec(op(), 1..60)) {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut model: HashMap<u64, Vec<u8>> = HashMap::new();
        let mut lens: HashMap<u64, u64> = HashMap::new();
        for op in ops {
            match op {
                Op::Write { slot, offset, bytes } => {
                    let slice = Slice::new(slot_id(9, slot), file.clone());
                    let want = model.entry(slot).or_default();
                    let before = *lens.entry(slot).or_default();
                    let end = offset as usize + bytes.len();
                    let len = before.max(end as u64);
                    slice.write_at(&bytes, offset, before, len).unwrap();
                    want.resize(want.len().max(end), 0);
                    want[offset as usize..end].copy_from_slice(&bytes);
                    lens.insert(slot, len);
                }
                Op::SetLen { slot, len } => {
                    let slice = Slice::new(slot_id(9, slot), file.clone());
                    let before = lens.insert(slot, len).unwrap_or(0);
                    slice.set_len(before, len).unwrap();
                    model.entry(slot).or_default().resize(len as usize, 0);
                }
                Op::Crash => lens.iter_mut().for_each(|(slot, len)| {
                    *len = Slice::new(slot_id(9, *slot), file.clone()).stored_len().unwrap();
                }),
            }
            for (slot, want) in &model {
                let slice = Slice::new(slot_id(9, *slot), file.clone());
                prop_assert_eq!(slice.stored_len().unwrap(), want.len() as u64);
                let mut got = vec![1; want.len()];
                slice.read_or_zeros(&mut got, 0).unwrap();
                prop_assert!(&got == want);
                let salvaged = read_slot(&file, *slot).unwrap().unwrap_or_default();
                prop_assert!(&salvaged == want);
            }
        }
    }
}

fn open(dir: &std::path::Path) -> (Arc<Db>, BlockCache) {
    let db = Arc::new(Db::open(&dir.join("state.db")).unwrap());
    let files = DataFiles::open_dir(&dir.join("data")).unwrap();
    let cache = BlockCache::open(db.clone(), files, None, 1 << 30).unwrap();
    (db, cache)
}

#[test]
fn a_number_taken_in_a_transaction_that_fails_is_never_given_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let (db, cache) = open(dir.path());
    cache.files().reserve(&db).unwrap();
    let mut first: FileId = 0;
    let failed: Result<(), DbError> = db.change(|c| {
        first = cache.files().allocate_slot_in(c)?;
        Err(DbError::Full)
    });
    failed.unwrap_err();
    let second = cache.files().allocate_slot(&db).unwrap();
    assert_ne!(first, second);
    drop((db, cache));
    let (db, cache) = open(dir.path());
    let third = cache.files().allocate_slot(&db).unwrap();
    assert!(number_of(third) > number_of(second), "{third:x} after {second:x}");
}

fn data_bytes(file: &File) -> u64 {
    use std::os::unix::fs::MetadataExt;
    file.metadata().unwrap().blocks() * 512
}

#[test]
fn the_sweep_clears_slots_that_nothing_refers_to_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let (db, cache) = open(dir.path());
    let kept = vec![1; 5000];
    let hash = BlockHash::of(&kept);
    let placed = cache.write_block(&hash, &kept, true).unwrap();
    db.change(|c| cache.index(c, &[placed])).unwrap();
    // Written and never indexed: a crash came between.
    let lost = vec![2; 50_000];
    let placed = cache.write_block(&BlockHash::of(&lost), &lost, true).unwrap();
    let heap = cache.files().open(placed.file).unwrap();
    let before = data_bytes(&heap);
    drop((db, cache));
    let (db, cache) = open(dir.path());
    let newest = cache.files().allocate(&db).unwrap();
    assert_eq!(cache.sweep(newest).unwrap(), 1);
    assert_eq!(cache.reclaim().unwrap(), 1);
    assert!(data_bytes(&heap) + 40_000 < before);
    assert_eq!(cache.sweep(newest).unwrap(), 0);
    assert_eq!(cache.get_local(&hash).unwrap().as_deref(), Some(kept.as_slice()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_run_lies_as_it_was_given_however_it_is_written(
        blocks in proptest::collection::vec((1usize..300_000, 0u64..9000), 1..20),
        first_page in 0u64..3, again in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let files = DataFiles::open_dir(dir.path()).unwrap();
        let mut writer = RunWriter::default();
        let (fast, slow) = (Pace::default(), Pace::default());
        (0..9).for_each(|_| slow.note(1, std::time::Duration::from_secs(1000)));
        if again {
            // Memory that an earlier run left behind must not show.
            let old = vec![0xff; 3 << 20];
            files.create(9).unwrap();
            writer.write(&files, &Run { file: 9, blocks: vec![(0, &old)] }, &fast).unwrap();
        }
        let mut expected = vec![0; (first_page * PAGE) as usize];
        let bytes: Vec<Vec<u8>> = blocks.iter().map(|(len, _)| vec![*len as u8 | 1; *len]).collect();
        let mut placed = Vec::new();
        for (block, (_, gap)) in bytes.iter().zip(&blocks) {
            placed.push((expected.len() as u64, block.as_slice()));
            expected.extend_from_slice(block);
            expected.resize(expected.len() + *gap as usize, 0);
        }
        for (id, pace) in [(1, &fast), (2, &slow)] {
            files.create(id).unwrap();
            writer.write(&files, &Run { file: id, blocks: placed.clone() }, pace).unwrap();
            let mut found = std::fs::read(dir.path().join(format!("{id:02x}/{id}"))).unwrap();
            found.resize(expected.len().max(found.len()), 0);
            expected.resize(found.len(), 0);
            prop_assert!(found == expected, "file {}", id);
        }
    }
}
