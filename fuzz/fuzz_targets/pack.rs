//! A pack of hostile bytes is an error; an index that opens names only what is inside.
#![no_main]

use drivefs_core::crypto;
use drivefs_core::crypto::Key;
use drivefs_core::id::UserId;
use drivefs_core::limits::BLOCK_MAX_BYTES;
use drivefs_core::pack;
use libfuzzer_sys::fuzz_target;

/// Bytes of one entry of an index, and its nonce.
const ITEM_BYTES: usize = 45;
const INDEX_NONCE: u32 = u32::MAX;
const OWNER: UserId = UserId(7);

fuzz_target!(|data: &[u8]| {
    let key = Key::from_bytes([3; 32]);
    if let Ok(head) = pack::parse_head(data) {
        assert_eq!(head.pack.as_bytes().as_slice(), &data[6..22]);
    }
    let _ = pack::parse_index(data, OWNER, &key);
    // The same as the plaintext of a well sealed index behind some blocks.
    let (body, index) = data.split_at(data.len() / 2);
    let index = &index[..index.len() / ITEM_BYTES * ITEM_BYTES];
    let mut sealed = body.to_vec();
    let len = crypto::seal(&key, INDEX_NONCE, &OWNER.0.to_le_bytes(), index, &mut sealed);
    sealed.extend_from_slice(&(len as u32).to_le_bytes());
    sealed.extend_from_slice(&((index.len() / ITEM_BYTES) as u32).to_le_bytes());
    sealed.extend_from_slice(b"KCAPD");
    if let Ok(blocks) = pack::parse_index(&sealed, OWNER, &key) {
        for at in blocks {
            assert!(at.offset as usize + at.sealed_len as usize <= body.len());
            assert!(at.block_len as usize <= BLOCK_MAX_BYTES);
            let bytes = body[at.offset as usize..][..at.sealed_len as usize].to_vec();
            let _ = pack::open_block(&key, OWNER, &at, bytes);
        }
    }
});
