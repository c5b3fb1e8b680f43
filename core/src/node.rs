//! What a node is, apart from its place in the tree: kind, attributes, extended attributes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

/// What kind of thing a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum NodeKind {
    File = 1,
    Dir = 2,
    Symlink = 3,
    Fifo = 4,
    Socket = 5,
    CharDevice = 6,
    BlockDevice = 7,
    /// Leads into the root of another namespace and looks like a folder.
    Mount = 8,
}

impl NodeKind {
    /// The kind stored as this number, as it stands in databases.
    pub fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::File,
            2 => Self::Dir,
            3 => Self::Symlink,
            4 => Self::Fifo,
            5 => Self::Socket,
            6 => Self::CharDevice,
            7 => Self::BlockDevice,
            8 => Self::Mount,
            _ => return None,
        })
    }

    /// True for kinds that `mknod` makes and that carry no content.
    pub fn is_special(self) -> bool {
        matches!(self, Self::Fifo | Self::Socket | Self::CharDevice | Self::BlockDevice)
    }

    /// True for what looks like a folder in a mount.
    pub fn is_folder(self) -> bool {
        matches!(self, Self::Dir | Self::Mount)
    }
}

/// Nanoseconds since the Unix epoch; covers the years 1677 to 2262.
pub type TimeNs = i64;

/// The attributes of a node that all devices share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Attrs {
    /// Permission bits, with set-user-id, set-group-id and sticky: at most 0o7777.
    pub mode: u32,
    /// Owner set by an explicit chown; none means "whoever mounts".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group set by an explicit chown; none means "whoever mounts".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    pub mtime: TimeNs,
    /// Time of birth.
    pub btime: TimeNs,
}

/// Permission bits that a node may have.
pub const MODE_MASK: u32 = 0o7777;

/// Extended attribute that makes a file a conflict file, and tells what it stems from.
pub const CONFLICT_XATTR: &str = "user.drivefs.conflict-of";

/// Extended attributes by name; values are raw bytes.
pub type Xattrs = BTreeMap<String, crate::wire::Blob>;
