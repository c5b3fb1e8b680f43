//! Attributes and times, from the drive's words to the kernel's and back.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;
use fuser::FileAttr;
use fuser::FileType;
use fuser::INodeNo;
use fuser::Request;
use fuser::TimeOrNow;

use crate::fs::Attr;
use crate::fs::Caller;
use crate::journal::now;
use crate::tree::NewNode;

/// Unit of statfs and of block counts in stat (bytes).
pub(super) const FRAGMENT_BYTES: u64 = 4096;

pub(super) fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Dir | NodeKind::Mount => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::Socket => FileType::Socket,
        NodeKind::CharDevice => FileType::CharDevice,
        NodeKind::BlockDevice => FileType::BlockDevice,
    }
}

/// The kind of what mknod(2) shall make.
pub(super) fn made_kind(mode: u32) -> Option<NodeKind> {
    Some(match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => NodeKind::File,
        libc::S_IFIFO => NodeKind::Fifo,
        libc::S_IFSOCK => NodeKind::Socket,
        libc::S_IFCHR => NodeKind::CharDevice,
        libc::S_IFBLK => NodeKind::BlockDevice,
        _ => return None,
    })
}

/// The type as mode_t has it.
pub(super) fn ifmt(kind: NodeKind) -> u32 {
    match kind {
        NodeKind::File => libc::S_IFREG,
        NodeKind::Dir | NodeKind::Mount => libc::S_IFDIR,
        NodeKind::Symlink => libc::S_IFLNK,
        NodeKind::Fifo => libc::S_IFIFO,
        NodeKind::Socket => libc::S_IFSOCK,
        NodeKind::CharDevice => libc::S_IFCHR,
        NodeKind::BlockDevice => libc::S_IFBLK,
    }
}

pub(super) fn file_attr(a: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(a.nid),
        size: a.size,
        blocks: a.size.div_ceil(FRAGMENT_BYTES) * (FRAGMENT_BYTES / 512),
        atime: from_ns(a.atime),
        mtime: from_ns(a.mtime),
        ctime: from_ns(a.ctime),
        crtime: from_ns(a.btime),
        kind: file_type(a.kind),
        perm: a.mode as u16,
        nlink: a.links,
        uid: a.uid,
        gid: a.gid,
        rdev: a.rdev,
        blksize: FRAGMENT_BYTES as u32,
        flags: 0,
    }
}

/// "There is nothing, and you may remember that": an entry without an inode.
pub(super) fn no_attr() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub(super) fn from_ns(ns: TimeNs) -> SystemTime {
    if ns >= 0 {
        UNIX_EPOCH + Duration::from_nanos(ns as u64)
    } else {
        UNIX_EPOCH - Duration::from_nanos(ns.unsigned_abs())
    }
}

/// A time as fuser 0.18 hands it over. Before 1970 it takes nanoseconds, which count forward, for
/// a part of what lies before: -2 s and 5 ns arrives as 2.000000005 s before the epoch.
pub(super) fn to_ns(t: SystemTime) -> TimeNs {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => i64::try_from(d.as_nanos()).unwrap_or(i64::MAX),
        Err(e) => {
            let before = e.duration();
            let secs = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            secs.saturating_mul(-1_000_000_000).saturating_add(i64::from(before.subsec_nanos()))
        }
    }
}

/// A time as utimensat(2) gives it.
pub(super) fn time(t: TimeOrNow) -> TimeNs {
    match t {
        TimeOrNow::Now => now(),
        TimeOrNow::SpecificTime(t) => to_ns(t),
    }
}

/// True for callers whose writes take set-user-ID and set-group-ID away. The kernel means those
/// without CAP_FSETID, and tells it with writes only.
pub(super) fn clears_suid(req: &Request) -> bool {
    req.uid() != 0
}

pub(super) fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid() }
}

pub(super) fn new_node(kind: NodeKind, mode: u32, rdev: u32, target: Option<Vec<u8>>) -> NewNode {
    NewNode { kind, mode, uid: None, gid: None, rdev, target }
}
