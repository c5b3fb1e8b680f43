//! Blocks on the wire, the body of `packs` requests and `blocks` answers.
//!
//! `body  = "DFB" version:u8 frame*`
//! `frame = hash:32 codec:u8 block_len:u32 encoded_len:u32 [base:32 if delta] encoded`
//!
//! Little-endian. A frame names its block; whoever receives it decodes and checks the hash.

use crate::codec::Codec;
use crate::id::BlockHash;
use crate::limits::BLOCK_MAX_BYTES;

const MAGIC: &[u8; 3] = b"DFB";
const VERSION: u8 = 1;
/// Length of the body's own head (bytes).
pub const HEAD_BYTES: usize = 4;

/// Why a body of frames could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("not a body of block frames")]
    Magic,
    #[error("block frames of an unknown version")]
    Version,
    #[error("block frames are cut short")]
    Short,
    #[error("a block frame names an unknown codec")]
    Codec,
    #[error("a block frame breaks a limit")]
    Limit,
}

/// One block as it travels; the bytes are borrowed from the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub hash: BlockHash,
    pub codec: Codec,
    /// Length of the decoded block (bytes).
    pub block_len: u32,
    /// The base block, for `Codec::ZstdDelta` and only for it.
    pub base: Option<BlockHash>,
    pub encoded: &'a [u8],
}

/// Starts a body.
pub fn begin() -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    out
}

/// Appends one frame to a body.
pub fn push(out: &mut Vec<u8>, frame: &Frame<'_>) {
    assert_eq!(frame.base.is_some(), frame.codec == Codec::ZstdDelta, "a delta names its base");
    out.extend_from_slice(&frame.hash.0);
    out.push(frame.codec as u8);
    out.extend_from_slice(&frame.block_len.to_le_bytes());
    out.extend_from_slice(&(frame.encoded.len() as u32).to_le_bytes());
    if let Some(base) = &frame.base {
        out.extend_from_slice(&base.0);
    }
    out.extend_from_slice(frame.encoded);
}

/// Reads all frames of a body, or fails as a whole.
pub fn parse(body: &[u8]) -> Result<Vec<Frame<'_>>, FrameError> {
    let (head, mut rest) = body.split_at_checked(HEAD_BYTES).ok_or(FrameError::Magic)?;
    if &head[..3] != MAGIC {
        return Err(FrameError::Magic);
    }
    if head[3] != VERSION {
        return Err(FrameError::Version);
    }
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let hash = BlockHash::from_slice(take(&mut rest, 32)?).map_err(|_| FrameError::Short)?;
        let codec = Codec::from_u8(take(&mut rest, 1)?[0]).ok_or(FrameError::Codec)?;
        let block_len = take_u32(&mut rest)?;
        let encoded_len = take_u32(&mut rest)?;
        if block_len as usize > BLOCK_MAX_BYTES || encoded_len as usize > 2 * BLOCK_MAX_BYTES {
            return Err(FrameError::Limit);
        }
        let base = match codec {
            Codec::ZstdDelta => {
                let bytes = take(&mut rest, 32)?;
                Some(BlockHash::from_slice(bytes).map_err(|_| FrameError::Short)?)
            }
            _ => None,
        };
        let encoded = take(&mut rest, encoded_len as usize)?;
        frames.push(Frame { hash, codec, block_len, base, encoded });
    }
    Ok(frames)
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Result<&'a [u8], FrameError> {
    let (head, tail) = rest.split_at_checked(n).ok_or(FrameError::Short)?;
    *rest = tail;
    Ok(head)
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, FrameError> {
    let b = take(rest, 4)?;
    Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_come_back_as_they_were_pushed(
            blocks in proptest::collection::vec((any::<[u8; 32]>(), 0u8..3, proptest::collection::vec(any::<u8>(), 0..200)), 0..20),
        ) {
            let mut body = begin();
            let frames: Vec<Frame<'_>> = blocks
                .iter()
                .map(|(hash, codec, encoded)| {
                    let codec = Codec::from_u8(*codec).expect("known");
                    let base = (codec == Codec::ZstdDelta).then_some(BlockHash(*hash));
                    Frame { hash: BlockHash(*hash), codec, block_len: 77, base, encoded }
                })
                .collect();
            frames.iter().for_each(|f| push(&mut body, f));
            prop_assert_eq!(parse(&body).expect("own body"), frames);
            if body.len() > HEAD_BYTES {
                prop_assert!(parse(&body[..body.len() - 1]).is_err());
            }
        }

        #[test]
        fn hostile_bodies_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut body = begin();
            body.extend_from_slice(&bytes);
            let _ = parse(&body);
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn another_version_is_told_apart_from_garbage() {
        assert_eq!(parse(b"DFB\x02"), Err(FrameError::Version));
        assert_eq!(parse(b"nope"), Err(FrameError::Magic));
    }
}
