//! What is decoded has the announced length or is an error; what was encoded comes back.
#![no_main]

use drivefs_core::codec;
use drivefs_core::codec::Codec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [kind, low, high, rest @ ..] = data else { return };
    let len = usize::from(*low) | usize::from(*high) << 8;
    let (base, bytes) = rest.split_at(rest.len() / 3);
    if let Some(codec) = Codec::from_u8(kind % 3)
        && let Ok(block) = codec::decode(codec, bytes, len, Some(base))
    {
        assert_eq!(block.len(), len);
    }
    let block = bytes;
    for encoded in [
        codec::encode(block, 1).expect("encodes"),
        codec::encode_by_content(block).expect("encodes"),
        codec::encode_delta(block, base, 1).expect("encodes"),
    ] {
        let back = codec::decode(encoded.codec, &encoded.bytes, block.len(), Some(base));
        assert_eq!(back.expect("decodes"), block);
    }
});
