//! What goes over the control socket. `Status` is also what `drivefs status --json` prints.

use serde::Deserialize;
use serde::Serialize;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub enum Request {
    /// State of the drive, with up to `limit` lines of the queue.
    Status { limit: usize },
    /// Wait until all that was changed so far is on the server and all it has is here.
    Sync { path: Option<String>, timeout_secs: Option<f64> },
    /// Unmount and end.
    Stop,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Status(Box<Status>),
    /// Work goes on: what is still to be sent.
    Progress {
        files: u64,
        bytes: u64,
        online: bool,
        reason: String,
    },
    Done,
    /// It cannot be done; the text says why and what to do.
    Failed {
        message: String,
    },
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// False when no daemon runs for this home; then only what is on disk is told.
    pub mounted: bool,
    pub mount: Option<String>,
    pub online: bool,
    /// Why the server cannot be reached, or why it refuses.
    pub reason: Option<String>,
    pub server: String,
    pub email: String,
    pub device: String,
    /// Bytes over the network since the mount, heads of messages included.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Files and folders whose change is not on the server yet.
    pub queue_files: u64,
    pub queue_bytes: u64,
    pub queue: Vec<QueueEntry>,
    /// Paths of conflict files.
    pub conflicts: Vec<String>,
    pub cache: CacheStatus,
    pub quota_bytes: u64,
    pub used_bytes: u64,
    /// The last read that failed because its bytes could not be fetched; none since one worked.
    pub last_read_error: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueEntry {
    pub path: String,
    /// Bytes of content that wait; 0 for a change of names or attributes.
    pub bytes: u64,
    pub age_secs: f64,
    /// `pending` or `uploading`.
    pub state: String,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CacheStatus {
    pub bytes: u64,
    pub limit_bytes: u64,
}
