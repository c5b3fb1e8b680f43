//! `--strict`: close-to-open across devices. An open sees what was closed anywhere before it, and
//! a close returns when the server has the file.
//!
//! What cannot be promised fails: without the server open, close and fsync answer EIO. What was
//! written is safe on this device all the same, and goes up later.

use std::sync::Arc;
use std::time::Duration;

use fuser::Errno;
use tokio::time::Instant;

use super::errno::errno;
use crate::fs::DriveFs;
use crate::remote::Link;
use crate::spool::is_past;
use crate::sync::EngineHandle;
use crate::tree::Sent;

/// Longest wait of an open for the newest state.
const NEWEST_WAIT: Duration = Duration::from_secs(5);
/// How often a wait looks at the link when no round ends.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Asks the engine on behalf of open, close and fsync.
#[derive(Clone)]
pub struct Strict {
    engine: EngineHandle,
    link: Arc<Link>,
}

impl Strict {
    pub fn new(engine: EngineHandle, link: Arc<Link>) -> Self {
        Self { engine, link }
    }

    /// Takes in all that the server has by now.
    pub async fn newest(&self) -> Result<(), Errno> {
        let goal = self.engine.begin_pull();
        let until = Instant::now() + NEWEST_WAIT;
        while !self.engine.is_pulled(&goal) {
            if !self.link.is_online() || Instant::now() >= until {
                return Err(Errno::EIO);
            }
            self.engine.next_round(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until the server has this file as it is now, name and content.
    pub async fn sent(&self, fs: &DriveFs, nid: u64) -> Result<(), Errno> {
        if is_past(nid) {
            return Ok(());
        }
        if fs.tree().sent_file(nid, u64::MAX).map_err(|e| errno(&e))? == Sent::Yes {
            return Ok(());
        }
        let goal = self.engine.begin_sync().map_err(|e| errno(&e))?;
        loop {
            match fs.tree().sent_file(nid, goal.position).map_err(|e| errno(&e))? {
                Sent::Yes => return Ok(()),
                Sent::NotYet if self.link.is_online() => {}
                Sent::NotYet => return Err(Errno::EIO),
                Sent::Refused(why) => {
                    tracing::warn!(%why, "a strict close failed");
                    return Err(Errno::EIO);
                }
            }
            self.engine.next_round(LOOK_EVERY).await;
        }
    }
}
