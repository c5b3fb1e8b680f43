//! The answer to a request for blocks, frame by frame as it arrives.

use std::collections::VecDeque;

use bytes::Bytes;
use drivefs_core::codec;
use drivefs_core::frame::OwnedFrame;
use drivefs_core::frame::Splitter;
use drivefs_core::id::BlockHash;

use super::Remote;
use super::RemoteError;
use super::way::Response;

/// Frames of one answer. What was not asked for yet is not read from the connection either.
pub struct Frames {
    remote: Remote,
    response: Response,
    splitter: Splitter,
    ready: VecDeque<OwnedFrame>,
}

impl Frames {
    pub(super) fn new(remote: Remote, response: Response) -> Self {
        Self { remote, response, splitter: Splitter::default(), ready: VecDeque::new() }
    }

    /// The next frame; none at the end of the answer.
    pub async fn next(&mut self) -> Result<Option<OwnedFrame>, RemoteError> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(frame));
            }
            let piece = self.response.chunk().await.map_err(|e| self.remote.broken(e))?;
            let Some(piece) = piece else {
                if self.splitter.is_whole() {
                    return Ok(None);
                }
                return Err(RemoteError::Protocol("block frames are cut short".into()));
            };
            self.remote.link().heard(piece.len());
            let mut whole = Vec::new();
            self.splitter
                .push(&piece, &mut whole)
                .map_err(|e| RemoteError::Protocol(e.to_string()))?;
            self.ready.extend(whole);
        }
    }
}

/// Decodes and verifies a block that came as it is, not as a delta.
pub fn unpack(frame: OwnedFrame) -> Result<Bytes, RemoteError> {
    let hash = frame.hash;
    let bad = |what: String| RemoteError::Protocol(format!("block {hash}: {what}"));
    let block = codec::decode_owned(frame.codec, frame.encoded, frame.block_len as usize, None)
        .map_err(|e| bad(e.to_string()))?;
    if BlockHash::of(&block) != hash {
        return Err(bad("its bytes do not match its name".into()));
    }
    Ok(block.into())
}
