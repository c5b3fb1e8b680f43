//! The engine that keeps the replica and the server in step.
//!
//! One control task decides (`Engine::run`); uploads and the long poll are tasks that report to
//! it. Each round pulls, then prepares content, then plans and commits what is ready. It keeps no
//! state that a crash could lose: intents stand in the database, and a round plans anew from them.

mod backoff;
mod engine;
mod pins;
mod plan;
mod poll;
mod prepare;
mod pull;
mod push;
mod relist;
mod rush;
mod upload;

pub use backoff::Backoff;
pub use engine::Engine;
pub use engine::EngineHandle;
pub use engine::EngineStatus;
pub use pins::Pins;
pub use pins::size_below;
pub use pull::pull_all;
pub use pull::pull_some;

use crate::remote::RemoteError;
use crate::tree::TreeError;

/// Why a round did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Upload(#[from] upload::UploadError),
}

impl SyncError {
    /// True when the token is not good any more.
    pub fn is_locked_out(&self) -> bool {
        matches!(
            self,
            Self::Remote(RemoteError::Unauthorized(_))
                | Self::Upload(upload::UploadError::Remote(RemoteError::Unauthorized(_)))
        )
    }

    /// True when the server cannot be reached.
    pub fn is_offline(&self) -> bool {
        matches!(
            self,
            Self::Remote(RemoteError::Offline(_))
                | Self::Upload(upload::UploadError::Remote(RemoteError::Offline(_)))
        )
    }
}
