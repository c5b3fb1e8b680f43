//! The answer to a request for blocks, frame by frame as it arrives.

use std::collections::VecDeque;

use drivefs_core::frame::OwnedFrame;
use drivefs_core::frame::Splitter;
use reqwest::Response;

use super::Remote;
use super::RemoteError;

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
            let piece = self.response.chunk().await.map_err(|e| self.remote.broken(&e))?;
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
