//! The sync protocol between client and server: JSON bodies of `/auth/v1` and `/sync/v1`.
//!
//! Every request carries the header `x-drivefs-wire` with `WIRE_VERSION`; a server that does not
//! speak it answers `unsupported_wire_version`. Blocks travel as `frame` bodies.

mod events;
mod history;

pub use events::CommitEvents;
pub use events::Event;
pub use events::EventFolder;
pub use events::EventKind;
pub use events::EventPlace;
pub use events::EventsReply;
pub use events::EventsRequest;
pub use events::MassChange;
pub use events::Span;
pub use events::Told;
pub use history::EmptyReply;
pub use history::EmptyRequest;
pub use history::GoneEntry;
pub use history::GoneReply;
pub use history::GoneRequest;
pub use history::KeepReply;
pub use history::KeepRequest;
pub use history::LostFolder;
pub use history::PastEntry;
pub use history::PastReply;
pub use history::PastRequest;
pub use history::TrashEntry;
pub use history::TrashReply;
pub use history::TrashRequest;
pub use history::VersionRow;
pub use history::VersionsReply;
pub use history::VersionsRequest;
pub use history::WayBack;
pub use history::Which;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::id::BlockHash;
use crate::id::Epoch;
use crate::id::NamespaceId;
use crate::id::NodeId;
use crate::id::OpKey;
use crate::id::Seq;
use crate::id::UserId;
use crate::id::VersionNo;
use crate::name::Name;
use crate::node::Attrs;
use crate::node::NodeKind;
use crate::node::TimeNs;
use crate::node::Xattrs;

/// Version of this protocol.
pub const WIRE_VERSION: u32 = 1;
/// Header that carries it.
pub const WIRE_HEADER: &str = "x-drivefs-wire";

/// Raw bytes, in JSON as standard base64.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = String, format = Byte))]
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What went wrong, for programs. The text beside it is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed or breaks a limit.
    BadRequest,
    /// The server does not speak this version of the protocol.
    UnsupportedWireVersion,
    /// E-mail and password do not fit, or the account is disabled.
    BadCredentials,
    /// The token is unknown, revoked or expired.
    Unauthorized,
    /// The account may not do this.
    Forbidden,
    NotFound,
    /// State has moved on; fetch it and decide again.
    Conflict,
    /// Body or file over its limit.
    TooLarge,
    /// The account's quota does not allow it.
    QuotaExceeded,
    /// The server has no room left to store it.
    StorageFull,
    /// Blocks that a commit or read names are not there.
    MissingBlocks,
    /// The cursor is older than the server remembers: list anew.
    CursorExpired,
    /// The cursor is of commits that the server does not have: its data was restored from a backup.
    CursorLost,
    /// Slow down; the header `retry-after` says for how long (seconds).
    TooManyRequests,
    /// The blocks are in a slow archive; they are being brought back. Try again later.
    BeingRestored,
    /// The server cannot answer now; try again.
    Unavailable,
    Internal,
}

/// Body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    pub error: ErrorInfo,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ErrorInfo {
    pub code: ErrorCode,
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

// ---------------------------------------------------------------- accounts

/// `POST /auth/v1/login`, without a token.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LoginRequest {
    pub email: String,
    pub password: String,
    /// Name of the device, unique in the account; a login under a known name replaces its token.
    pub device: String,
}

#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LoginReply {
    /// Shown once; the server keeps its hash only.
    pub token: String,
    pub account: Account,
}

/// `GET /sync/v1/account`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Account {
    pub user: UserId,
    pub email: String,
    /// Name of the device or token that asks.
    pub device: String,
    /// The namespace that the mount's root shows.
    pub root: NamespaceId,
    pub quota_bytes: u64,
    pub used_bytes: u64,
    /// Largest file that the server takes (bytes).
    pub file_max_bytes: u64,
    /// Identity of the server's data; another one means another (or restored) server.
    pub server_id: String,
}

/// `POST /auth/v1/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TokenRequest {
    pub name: String,
    /// Lifetime in seconds; none means until revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_secs: Option<u64>,
}

#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TokenReply {
    pub token: String,
}

/// `GET /auth/v1/tokens`: every device and token of the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TokenList {
    pub tokens: Vec<TokenInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TokenInfo {
    pub name: String,
    /// True for tokens made for scripts, false for logged-in devices.
    pub script: bool,
    /// Seconds since the Unix epoch, as are the next two.
    pub created: i64,
    pub last_seen: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
}

// ---------------------------------------------------------------- blocks

/// `POST /sync/v1/missing`: which of these blocks the namespace's owner does not hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MissingRequest {
    pub ns: NamespaceId,
    pub hashes: Vec<BlockHash>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MissingReply {
    pub missing: Vec<BlockHash>,
}

/// Answer to `POST /sync/v1/packs?ns=NS`, whose body is block frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PackReply {
    /// Blocks that were new to the account.
    pub stored: u32,
}

/// `POST /sync/v1/blocks`; the answer is block frames in the order asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BlocksRequest {
    pub ns: NamespaceId,
    pub blocks: Vec<WantedBlock>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WantedBlock {
    pub hash: BlockHash,
    /// A block that the asker has, which the server may use as base of a delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BlockHash>,
}

// ---------------------------------------------------------------- commits

/// A place in the tree: an entry called `name` in the directory `parent`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Place {
    pub parent: NodeId,
    pub name: Name,
}

/// Where content comes from when its blocks belong to another account or namespace: the version
/// the asker may read, whose blocks the server links instead of asking for bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Source {
    pub ns: NamespaceId,
    pub node: NodeId,
}

/// `POST /sync/v1/commit`: ops applied in order, in one transaction, under one seq.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CommitRequest {
    pub ns: NamespaceId,
    /// Up to where the asker knows the namespace: nothing is done for who builds on commits that
    /// the server does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Point>,
    pub ops: Vec<Op>,
    /// It undoes what was done from one device: e-mail, slash, name of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewinds: Option<String>,
}

/// A commit in the history of a namespace. The same seq under another epoch is another commit:
/// the server's data was restored from a backup in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Point {
    pub epoch: Epoch,
    pub seq: Seq,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Op {
    pub key: OpKey,
    #[serde(flatten)]
    pub change: Change,
}

/// One change of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Change {
    /// New content for a file: a new version. With `create` the file is made at that free place
    /// (and `base_version` is 0); else the head must be `base_version`.
    Put {
        node: NodeId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        create: Option<Place>,
        base_version: VersionNo,
        /// Encoded `manifest::Root`.
        content: Blob,
        attrs: Attrs,
        /// For a new file; changes go by `setxattr`.
        #[serde(default, skip_serializing_if = "Xattrs::is_empty")]
        xattrs: Xattrs,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<Source>,
    },
    Mkdir {
        node: NodeId,
        place: Place,
        attrs: Attrs,
        #[serde(default, skip_serializing_if = "Xattrs::is_empty")]
        xattrs: Xattrs,
    },
    Symlink {
        node: NodeId,
        place: Place,
        target: Blob,
        attrs: Attrs,
        #[serde(default, skip_serializing_if = "Xattrs::is_empty")]
        xattrs: Xattrs,
    },
    Mknod {
        node: NodeId,
        place: Place,
        kind: NodeKind,
        rdev: u32,
        attrs: Attrs,
        #[serde(default, skip_serializing_if = "Xattrs::is_empty")]
        xattrs: Xattrs,
    },
    /// One more name for a file.
    Link { node: NodeId, place: Place },
    /// Moves `node` from one place to another. The target is free, or holds `replace`, which loses
    /// that name, if its content is no newer than `replaced_version`; with `exchange` the two change
    /// places.
    Move {
        node: NodeId,
        from: Place,
        to: Place,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replace: Option<NodeId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaced_version: Option<VersionNo>,
        #[serde(default)]
        exchange: bool,
    },
    /// Takes a name from a file, symlink or special file. The last one only if no content is newer
    /// than `version`, the newest that the asker knows of.
    Unlink {
        node: NodeId,
        place: Place,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<VersionNo>,
    },
    /// Removes an empty directory.
    Rmdir { node: NodeId, place: Place },
    /// Sets attributes; content stays.
    Setattr { node: NodeId, attrs: Attrs },
    /// Sets one extended attribute, or removes it.
    Setxattr {
        node: NodeId,
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<Blob>,
    },
    /// Takes a node out of the trash, as it was, to a free place. Of a folder it is the folder
    /// alone: what was in it follows by ops of its own.
    Restore { node: NodeId, place: Place },
    /// Gives a file the content of one of its older versions, as a new one. The head must be
    /// `base_version`.
    Revert { node: NodeId, base_version: VersionNo, version: VersionNo },
}

impl Change {
    /// The node that the change is about.
    pub fn node(&self) -> NodeId {
        match self {
            Self::Put { node, .. }
            | Self::Mkdir { node, .. }
            | Self::Symlink { node, .. }
            | Self::Mknod { node, .. }
            | Self::Link { node, .. }
            | Self::Move { node, .. }
            | Self::Unlink { node, .. }
            | Self::Rmdir { node, .. }
            | Self::Setattr { node, .. }
            | Self::Setxattr { node, .. }
            | Self::Restore { node, .. }
            | Self::Revert { node, .. } => *node,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CommitReply {
    /// The namespace's seq after the commit.
    pub seq: Seq,
    /// Epoch of that seq.
    #[serde(default, skip_serializing_if = "is_zero_64")]
    pub epoch: Epoch,
    /// One result for each op, in order.
    pub results: Vec<OpResult>,
}

/// What became of one op. Ops are independent: one that fails leaves the others as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum OpResult {
    Done {
        seq: Seq,
        /// Head version of the node after the op; 0 for what has no content.
        version: VersionNo,
    },
    /// A precondition does not hold: the tree has moved on. Pull, then plan again.
    Conflict { message: String },
    /// The op can never succeed as it is, or not until something else changes (quota).
    Rejected { code: ErrorCode, message: String },
}

// ---------------------------------------------------------------- changes

/// `POST /sync/v1/changes`: what changed after `cursor`, whole commits, at most about `limit` rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ChangesRequest {
    pub ns: NamespaceId,
    /// 0 lists the namespace from the start.
    pub cursor: Seq,
    pub limit: u32,
    /// The newest point of each epoch that the asker knows of, oldest first: of what it has seen,
    /// and of what it has committed itself, which may be behind the cursor.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trail: Vec<Point>,
    /// Removed rows as well where the list begins at the start.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tombstones: bool,
    /// In a list from the start: `head` of its first page. What was removed before that need not be
    /// remembered any more.
    #[serde(default, skip_serializing_if = "is_zero_64")]
    pub began: Seq,
}

/// Rows in their present state. Nodes come with every dirent that names them; apply nodes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ChangesReply {
    pub nodes: Vec<NodeRow>,
    pub dirents: Vec<DirentRow>,
    /// All changes up to here are in this or an earlier page.
    pub cursor: Seq,
    /// True when another page is ready.
    pub more: bool,
    /// Root directory of the namespace.
    pub root: NodeId,
    pub role: Role,
    /// Epoch of `cursor`.
    #[serde(default, skip_serializing_if = "is_zero_64")]
    pub epoch: Epoch,
    /// Seq of the namespace when this was read.
    #[serde(default, skip_serializing_if = "is_zero_64")]
    pub head: Seq,
    /// The last seq of the trail's history that is also the server's.
    #[serde(default, skip_serializing_if = "is_zero_64")]
    pub common: Seq,
}

/// What a member may do in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Viewer,
    Editor,
    Owner,
}

/// A node as the server has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NodeRow {
    pub node: NodeId,
    pub kind: NodeKind,
    pub attrs: Attrs,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rdev: u32,
    /// Target of a symlink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Blob>,
    /// Namespace that a mount node leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<NamespaceId>,
    #[serde(default, skip_serializing_if = "Xattrs::is_empty")]
    pub xattrs: Xattrs,
    /// Encoded `manifest::Root` of the head version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Blob>,
    #[serde(default, skip_serializing_if = "is_zero_64")]
    pub version: VersionNo,
    pub seq: Seq,
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleted: bool,
    /// Where it last was, if it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Place>,
    /// Device that committed the head version, and when (server clock).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
    #[serde(default)]
    pub committed: TimeNs,
}

/// An entry of a directory; without a child it was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DirentRow {
    pub parent: NodeId,
    pub name: Name,
    pub child: Option<NodeId>,
    pub seq: Seq,
}

/// `POST /sync/v1/list`: one directory, in name order, for a client that lacks it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ListRequest {
    pub ns: NamespaceId,
    pub parent: NodeId,
    /// Only names behind this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Name>,
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ListReply {
    pub nodes: Vec<NodeRow>,
    pub dirents: Vec<DirentRow>,
    pub more: bool,
    /// Seq of the namespace that this page shows.
    pub seq: Seq,
}

/// `POST /sync/v1/poll`: held until one of the namespaces is past its cursor, or the time is up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PollRequest {
    pub cursors: Vec<PollCursor>,
    pub timeout_secs: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PollCursor {
    pub ns: NamespaceId,
    pub seq: Seq,
    /// Epoch of that seq; 0 when it is not known.
    #[serde(default, skip_serializing_if = "is_zero_64")]
    pub epoch: Epoch,
}

/// A hint: these namespaces have something new. Never data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PollReply {
    pub changed: Vec<NamespaceId>,
    /// Wait this long before the next poll (seconds).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_secs: Option<u64>,
}

fn is_zero(v: &u32) -> bool {
    *v == 0
}

fn is_zero_64(v: &u64) -> bool {
    *v == 0
}

fn is_false(v: &bool) -> bool {
    !*v
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_op_reads_as_the_documents_show_it() {
        let op = Op {
            key: OpKey::from_parts(1, [2; 10]),
            change: Change::Unlink {
                node: NodeId::from_parts(3, [4; 10]),
                place: Place {
                    parent: NodeId::from_parts(5, [6; 10]),
                    name: Name::new(*b"a.txt").expect("valid"),
                },
                version: None,
            },
        };
        let json = serde_json::to_value(&op).expect("serialises");
        assert_eq!(json["op"], "unlink");
        assert_eq!(json["place"]["name"], "a.txt");
        assert_eq!(serde_json::from_value::<Op>(json).expect("comes back"), op);
    }

    #[test]
    fn an_unknown_op_is_an_error() {
        let json = r#"{"key":"00000000-0001-7202-8202-020202020202","op":"format_disk"}"#;
        assert!(serde_json::from_str::<Op>(json).is_err());
    }
}
