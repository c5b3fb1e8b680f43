//! How one block travels and lies: `raw`, `zstd`, or `zstd-delta(base)`, which is zstd with an
//! older block's bytes as prefix dictionary (RFC 8878, `ref_prefix`).

use std::borrow::Cow;
use std::io;
use std::io::Read;
use std::io::Write;

use crate::limits::BLOCK_MAX_BYTES;

/// Bytes compressed on trial from the middle of a block before the whole is.
const SAMPLE_BYTES: usize = 16 * 1024;
/// A block stays raw when its sample keeps more than this share (percent) of its length.
const WORTH_PERCENT: usize = 95;
/// Content of which a sample keeps no more than this share (percent) is worth `LEVEL_WELL`.
const SOFT_PERCENT: usize = 70;
const LEVEL_QUICK: i32 = 3;
const LEVEL_WELL: i32 = 12;
/// Window of the delta codec: base and block together (log2 bytes).
const DELTA_WINDOW_LOG: u32 = 23;

/// Encoding of one block; the number stands in packs and frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    Raw = 0,
    Zstd = 1,
    ZstdDelta = 2,
}

impl Codec {
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            2 => Some(Self::ZstdDelta),
            _ => None,
        }
    }
}

/// Why encoded bytes could not become a block.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("a block of {0} bytes is over the limit of {BLOCK_MAX_BYTES}")]
    TooLarge(usize),
    #[error("decoded length is not the announced one")]
    Length,
    #[error("a delta needs its base block")]
    NoBase,
    #[error("compressed data is damaged: {0}")]
    Damaged(#[from] io::Error),
}

/// A block ready to travel; one that stays raw is not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded<'a> {
    pub codec: Codec,
    pub bytes: Cow<'a, [u8]>,
}

/// Encodes without a base: zstd at `level` where a sample says that it pays, else raw.
pub fn encode(block: &[u8], level: i32) -> Result<Encoded<'_>, CodecError> {
    check_len(block.len())?;
    if block.len() > 4 * SAMPLE_BYTES {
        let from = (block.len() - SAMPLE_BYTES) / 2;
        let sample = &block[from..from + SAMPLE_BYTES];
        let squeezed = zstd::bulk::compress(sample, level)?;
        if squeezed.len() * 100 > SAMPLE_BYTES * WORTH_PERCENT {
            return Ok(Encoded { codec: Codec::Raw, bytes: block.into() });
        }
    }
    let squeezed = zstd::bulk::compress(block, level)?;
    if squeezed.len() < block.len() {
        Ok(Encoded { codec: Codec::Zstd, bytes: squeezed.into() })
    } else {
        Ok(Encoded { codec: Codec::Raw, bytes: block.into() })
    }
}

/// Encodes what is written once and stays, with the level that its content is worth: text and its like
/// well, what hardly gives way quickly. Slower than `encode`; for work in the background.
pub fn encode_by_content(block: &[u8]) -> Result<Encoded<'_>, CodecError> {
    check_len(block.len())?;
    let from = block.len().saturating_sub(SAMPLE_BYTES) / 2;
    let sample = &block[from..block.len().min(from + SAMPLE_BYTES)];
    let squeezed = zstd::bulk::compress(sample, LEVEL_QUICK)?;
    let gives_way = squeezed.len() * 100 <= sample.len() * SOFT_PERCENT;
    encode(block, if gives_way { LEVEL_WELL } else { LEVEL_QUICK })
}

/// Encodes against `base`, or without it where that is smaller.
pub fn encode_delta<'a>(
    block: &'a [u8],
    base: &[u8],
    level: i32,
) -> Result<Encoded<'a>, CodecError> {
    check_len(block.len())?;
    check_len(base.len())?;
    let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), level, base)?;
    encoder.window_log(DELTA_WINDOW_LOG)?;
    encoder.long_distance_matching(true)?;
    encoder.write_all(block)?;
    let delta = encoder.finish()?;
    // Clearly smaller than the block itself: no need to try the other way.
    if delta.len() * 4 < block.len() {
        return Ok(Encoded { codec: Codec::ZstdDelta, bytes: delta.into() });
    }
    let plain = encode(block, level)?;
    if delta.len() < plain.bytes.len() {
        Ok(Encoded { codec: Codec::ZstdDelta, bytes: delta.into() })
    } else {
        Ok(plain)
    }
}

/// Decodes a block of exactly `len` bytes; `base` is needed for `ZstdDelta` alone. The caller
/// checks the hash.
pub fn decode<'a>(
    codec: Codec,
    bytes: &'a [u8],
    len: usize,
    base: Option<&[u8]>,
) -> Result<Cow<'a, [u8]>, CodecError> {
    check_len(len)?;
    let block = match codec {
        Codec::Raw => bytes.into(),
        Codec::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(bytes)?;
            Cow::Owned(read_at_most(decoder, len)?)
        }
        Codec::ZstdDelta => {
            let base = base.ok_or(CodecError::NoBase)?;
            let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(bytes, base)?;
            decoder.window_log_max(DELTA_WINDOW_LOG)?;
            Cow::Owned(read_at_most(decoder, len)?)
        }
    };
    if block.len() == len { Ok(block) } else { Err(CodecError::Length) }
}

/// The same for bytes that the caller owns: those of a raw block are taken over, not copied.
pub fn decode_owned(
    codec: Codec,
    bytes: Vec<u8>,
    len: usize,
    base: Option<&[u8]>,
) -> Result<Vec<u8>, CodecError> {
    if codec != Codec::Raw {
        return decode(codec, &bytes, len, base).map(Cow::into_owned);
    }
    check_len(len)?;
    if bytes.len() == len { Ok(bytes) } else { Err(CodecError::Length) }
}

fn read_at_most(reader: impl Read, len: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::with_capacity(len);
    reader.take(len as u64 + 1).read_to_end(&mut out)?;
    Ok(out)
}

fn check_len(len: usize) -> Result<(), CodecError> {
    if len > BLOCK_MAX_BYTES { Err(CodecError::TooLarge(len)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn content_that_gives_way_is_compressed_well_and_all_of_it_comes_back() {
        let words =
            ["block", "of a", "file", "that", "is", "written", "once", "and", "stays", "here"];
        let word = |i: u32| words[(i.wrapping_mul(2_654_435_761) >> 20) as usize % words.len()];
        let text = (0..60_000).map(word).collect::<Vec<_>>().join(" ").into_bytes();
        let mut noise = vec![0; 300_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        for block in [&text[..], &noise[..], &b"x"[..], &[]] {
            let well = encode_by_content(block).expect("encodes");
            assert!(well.bytes.len() <= block.len());
            let back = decode(well.codec, &well.bytes, block.len(), None).expect("decodes");
            assert_eq!(back, block);
        }
        let well = encode_by_content(&text).expect("encodes").bytes.len();
        let quick = encode(&text, 1).expect("encodes").bytes.len();
        assert!(well * 10 < quick * 9, "{well} against {quick}");
        assert_eq!(encode_by_content(&noise).expect("encodes").codec, Codec::Raw);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_block_survives_each_codec(seed: u64, len in 0usize..300_000, repeat in 1usize..50, level in 1i32..4) {
            let unit = noise(seed, len / repeat + 1);
            let block: Vec<u8> = unit.iter().copied().cycle().take(len).collect();
            let e = encode(&block, level).expect("in limits");
            prop_assert!(e.bytes.len() <= block.len());
            prop_assert_eq!(decode(e.codec, &e.bytes, len, None).expect("own bytes"), block.clone());
            prop_assert!(decode_owned(e.codec, e.bytes.to_vec(), len + 1, None).is_err());
            prop_assert_eq!(decode_owned(e.codec, e.bytes.to_vec(), len, None).expect("own bytes"), block.clone());
            let base = noise(seed ^ 1, len);
            let d = encode_delta(&block, &base, level).expect("in limits");
            prop_assert_eq!(decode(d.codec, &d.bytes, len, Some(&base)).expect("own bytes"), block.as_slice());
        }

        #[test]
        fn hostile_bytes_are_an_error_and_never_longer_than_announced(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000), codec in 0u8..3, len in 0usize..10_000,
        ) {
            let codec = Codec::from_u8(codec).expect("known");
            if let Ok(block) = decode(codec, &bytes, len, Some(b"base")) {
                prop_assert_eq!(block.len(), len);
            }
        }

        #[test]
        fn a_damaged_block_decodes_to_an_error_or_other_bytes_of_that_length(seed: u64, at: prop::sample::Index, bit in 0u8..8) {
            let block: Vec<u8> = noise(seed, 500).repeat(20);
            let e = encode(&block, 1).expect("in limits");
            let mut bytes = e.bytes.into_owned();
            let i = at.index(bytes.len());
            bytes[i] ^= 1 << bit;
            if let Ok(got) = decode(e.codec, &bytes, block.len(), None) {
                prop_assert_eq!(got.len(), block.len());
            }
        }
    }

    #[test]
    fn a_small_change_in_a_large_random_block_costs_little() {
        let base = noise(3, 1 << 20);
        let mut block = base.clone();
        block[500_000..504_096].copy_from_slice(&noise(4, 4096));
        let changed = encode_delta(&block, &base, 1).expect("in limits");
        assert_eq!(changed.codec, Codec::ZstdDelta);
        assert!(changed.bytes.len() < 6000, "{} bytes", changed.bytes.len());
        let mut longer = b"x".to_vec();
        longer.extend_from_slice(&base);
        let inserted = encode_delta(&longer, &base, 1).expect("in limits");
        assert!(inserted.bytes.len() < 2000, "{} bytes", inserted.bytes.len());
    }

    #[test]
    fn a_decompression_bomb_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).expect("compresses");
        assert!(decode(Codec::Zstd, &bomb, 1000, None).is_err());
        assert!(matches!(
            decode(Codec::Zstd, &bomb, BLOCK_MAX_BYTES + 1, None),
            Err(CodecError::TooLarge(_))
        ));
    }
}
