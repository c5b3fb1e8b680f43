//! What goes over the control socket. `Status` is also what `drivefs status --json` prints.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;
use serde::Deserialize;
use serde::Serialize;

use crate::tree::Restored;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub enum Request {
    /// State of the drive, with up to `limit` lines of the queue.
    Status {
        limit: usize,
    },
    /// Wait until all that was changed so far is on the server and all it has is here.
    Sync {
        path: Option<String>,
        timeout_secs: Option<f64>,
    },
    /// Keep a file or folder on this device; answered when all of it is here.
    Pin {
        path: String,
    },
    Unpin {
        path: String,
    },
    Cache,
    /// Drop the clean blocks of a file or folder.
    Evict {
        path: String,
    },
    Why {
        path: String,
    },
    /// All conflict files.
    Conflicts,
    /// Resolve the conflict at a path: that of the conflict file or of its origin.
    Resolve {
        path: String,
        keep: Keep,
    },
    /// Where a path lies on the server, be it gone here.
    Locate {
        path: String,
    },
    /// The path of a node.
    PathOf {
        node: NodeId,
    },
    /// The namespaces in the mount.
    Spaces,
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
    /// Bytes are on their way here.
    Fetching {
        files: u64,
        files_total: u64,
        bytes: u64,
        bytes_total: u64,
        online: bool,
    },
    Pinned(Pinned),
    Unpinned {
        pins: u64,
    },
    Cache(CacheStatus),
    Evicted(Evicted),
    Why(Box<Why>),
    Conflicts(Conflicts),
    Resolved(Resolved),
    Located(Box<Located>),
    Path {
        path: Option<String>,
    },
    Spaces {
        spaces: Vec<Space>,
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
    /// The first fill of the replica is under way: folders are listed on demand meanwhile.
    #[serde(default)]
    pub filling: bool,
    /// The server does not take this device's token any more; `reason` says why.
    #[serde(default)]
    pub locked_out: bool,
    /// What became of the last restored backup of the server's data that this device met.
    #[serde(default)]
    pub restored: Option<Restored>,
    /// What the daily check found wrong with the state database, and what to do about it.
    #[serde(default)]
    pub damage: Option<String>,
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
    /// Mass changes by other devices within a day, oldest first.
    #[serde(default)]
    pub mass_changes: Vec<Alarm>,
    /// The last read that failed because its bytes could not be fetched; none since one worked.
    pub last_read_error: Option<String>,
}

/// A device deleted or rewrote very many files in a short time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Alarm {
    /// RFC 3339, UTC; the server's clock.
    pub time: String,
    /// The same in nanoseconds.
    pub at: TimeNs,
    pub user: String,
    pub device: String,
    pub deleted: u64,
    pub edited: u64,
    /// The folder that all of it was in.
    pub path: String,
    /// What takes it back.
    pub command: String,
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

/// The cache of this device; also what `drivefs cache --json` prints.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Cached content, and the most that is kept (`--cache-size`).
    pub bytes: u64,
    pub limit_bytes: u64,
    /// Content in the cache that is pinned, and that the server does not have yet: never evicted.
    #[serde(default)]
    pub pinned_bytes: u64,
    #[serde(default)]
    pub waiting_bytes: u64,
    /// Free space on the cache's disk, and how much of it the cache leaves alone.
    #[serde(default)]
    pub free_bytes: u64,
    #[serde(default)]
    pub keep_free_bytes: u64,
    /// Since the mount: pieces of reads answered from memory and from this disk.
    #[serde(default)]
    pub memory_hits: u64,
    #[serde(default)]
    pub disk_hits: u64,
    /// Since the mount: blocks from the server, and how many of them before they were asked for.
    #[serde(default)]
    pub fetched_blocks: u64,
    #[serde(default)]
    pub fetched_bytes: u64,
    #[serde(default)]
    pub ahead_blocks: u64,
    #[serde(default)]
    pub requests: u64,
    #[serde(default)]
    pub ahead_requests: u64,
    #[serde(default)]
    pub evicted_blocks: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pinned {
    pub path: String,
    pub files: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Evicted {
    pub path: String,
    pub files: u64,
    pub dropped_bytes: u64,
    /// What stays: the server does not have it yet, or it is pinned.
    pub waiting_bytes: u64,
    pub pinned_bytes: u64,
}

/// What `drivefs conflicts --json` prints.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Conflicts {
    /// The list of files is still coming in: there may be more.
    pub filling: bool,
    pub conflicts: Vec<Conflict>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Conflict {
    /// The conflict file.
    pub path: String,
    pub node: String,
    pub bytes: u64,
    pub on_server: bool,
    /// The file that keeps the name, where it is now; none when it was removed.
    pub origin: Option<String>,
    /// What that was called when they came apart.
    pub origin_name: Option<String>,
    pub origin_node: Option<String>,
    pub origin_bytes: Option<u64>,
    /// The version of it that the conflict file was an edit of; 0 when both were made separately.
    pub base_version: Option<u64>,
    /// The device that wrote the conflict file, and when it was kept.
    pub device: Option<String>,
    pub at_secs: Option<i64>,
    pub date: Option<String>,
}

/// What a resolution keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The conflict file's content, as the newest version of the origin.
    Mine,
    /// What has the name now.
    Theirs,
    /// Both, as ordinary files.
    Both,
    /// The changes of both since the version that they have in common.
    Merge,
}

/// What `drivefs resolve --json` prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resolved {
    pub kept: Keep,
    /// The file that has the result.
    pub path: String,
    /// The conflict file that went.
    pub removed: Option<String>,
}

/// What `drivefs why --json` prints.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Why {
    pub path: String,
    /// `file`, `folder` or `other`.
    pub kind: String,
    /// `synced`, `pending`, `uploading`, `conflict` or `offline`; of a folder, the worst below it.
    pub state: String,
    pub online: bool,
    /// The server does not take this device's token any more.
    #[serde(default)]
    pub locked_out: bool,
    /// Why the server cannot be reached, or why it refuses.
    pub reason: Option<String>,
    pub files: u64,
    pub bytes: u64,
    /// Bytes that need no network.
    pub here_bytes: u64,
    pub blocks: u64,
    pub here_blocks: u64,
    /// The pin that keeps it here: its own path, or that of a folder above.
    pub pinned_by: Option<String>,
    pub version: Option<u64>,
    pub node: String,
    /// Changes at and below it that are not on the server yet.
    pub waiting: u64,
    pub waiting_bytes: u64,
    /// The oldest of them.
    pub queue: Vec<QueueEntry>,
    pub error: Option<String>,
    /// When the refused change is tried again.
    pub next_try_secs: Option<f64>,
    pub last_read_error: Option<String>,
    /// What to do, in words.
    pub advice: Vec<String>,
}

/// A path of the mount as the server knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Located {
    /// The path that was asked, below the mount.
    pub path: String,
    pub ns: NamespaceId,
    /// Path of the namespace's root in the mount; empty for the mount itself.
    pub space: String,
    /// Names from that root.
    pub names: Vec<Name>,
    /// What is there; none for what is gone.
    pub node: Option<LocatedNode>,
    /// Something at or below it is not on the server yet.
    pub waiting: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LocatedNode {
    pub node: NodeId,
    pub kind: NodeKind,
    pub folder: bool,
}

/// A namespace in the mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Space {
    pub ns: NamespaceId,
    /// Path of its root in the mount; empty for the mount itself.
    pub path: String,
    pub read_only: bool,
}
