//! Hostile bytes are an error or a manifest that encodes to themselves.
#![no_main]

use drivefs_core::id::BlockHash;
use drivefs_core::manifest::Root;
use drivefs_core::manifest::SegmentRef;
use drivefs_core::manifest::decode_segment;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(root) = Root::decode(data) {
        assert_eq!(root.encode(), data);
        let _ = root.size();
    }
    let Some((numbers, segment)) = data.split_at_checked(12) else { return };
    let word = |at: usize| u32::from_le_bytes(numbers[at..at + 4].try_into().expect("four bytes"));
    let listed = SegmentRef {
        hash: BlockHash::of(segment),
        entries: word(0),
        bytes: u64::from(word(4)) << 32 | u64::from(word(8)),
    };
    if let Ok(entries) = decode_segment(segment, &listed) {
        assert_eq!(entries.len(), listed.entries as usize);
        assert_eq!(entries.iter().map(|e| u64::from(e.len)).sum::<u64>(), listed.bytes);
    }
});
