//! One method a FUSE operation.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use drivefs_core::limits::NAME_MAX_BYTES;
use drivefs_core::limits::SYMLINK_MAX_BYTES;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;
use fuser::BsdFileFlags;
use fuser::CopyFileRangeFlags;
use fuser::Errno;
use fuser::FileAttr;
use fuser::FileHandle;
use fuser::FileType;
use fuser::Filesystem;
use fuser::FopenFlags;
use fuser::Generation;
use fuser::INodeNo;
use fuser::InitFlags;
use fuser::IoctlFlags;
use fuser::KernelConfig;
use fuser::LockOwner;
use fuser::OpenAccMode;
use fuser::OpenFlags;
use fuser::RenameFlags;
use fuser::ReplyAttr;
use fuser::ReplyCreate;
use fuser::ReplyData;
use fuser::ReplyDirectory;
use fuser::ReplyDirectoryPlus;
use fuser::ReplyEmpty;
use fuser::ReplyEntry;
use fuser::ReplyIoctl;
use fuser::ReplyLseek;
use fuser::ReplyOpen;
use fuser::ReplyStatfs;
use fuser::ReplyWrite;
use fuser::ReplyXattr;
use fuser::Request;
use fuser::TimeOrNow;
use fuser::WriteFlags;
use tokio::runtime::Handle;

use super::errno::errno;
use super::errno::spool;
use crate::fs::Attr;
use crate::fs::Caller;
use crate::fs::DriveFs;
use crate::fs::ReadHere;
use crate::journal::now;
use crate::tree::NewNode;
use crate::tree::RenameMode;
use crate::tree::SetAttrs;
use crate::tree::TreeError;

/// How long the kernel may keep names and attributes: changes invalidate them.
const TTL: Duration = Duration::from_secs(24 * 3600);
const REQUEST_BYTES: u32 = 1024 * 1024;
/// Unit of statfs and of block counts in stat (bytes).
const FRAGMENT_BYTES: u64 = 4096;
/// Numbers are used once, so no generation is needed.
const GENERATION: Generation = Generation(0);

pub(super) struct Adapter {
    fs: Arc<DriveFs>,
    runtime: Handle,
}

impl Adapter {
    pub fn new(fs: Arc<DriveFs>, runtime: Handle) -> Self {
        Self { fs, runtime }
    }
}

impl Adapter {
    /// Runs `then` when these folders show all that they have: at once, but for folders that the
    /// first fill of the replica has not brought yet. Those are asked for by a task.
    fn when_listed(
        &self,
        folders: &[u64],
        then: impl FnOnce(&DriveFs, Result<(), TreeError>) + Send + 'static,
    ) {
        let unlisted = self.fs.unlisted(folders);
        if unlisted.is_empty() {
            return then(&self.fs, Ok(()));
        }
        let fs = self.fs.clone();
        self.runtime.spawn(async move {
            let listed = fs.list_folders(&unlisted).await;
            then(&fs, listed);
        });
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_ASYNC_DIO,
        ];
        for flag in wanted {
            if let Err(missing) = config.add_capabilities(flag) {
                tracing::info!(?missing, "the kernel lacks a capability");
            }
        }
        // An older kernel names the most it takes.
        if let Err(most) = config.set_max_write(REQUEST_BYTES) {
            let _ = config.set_max_write(most);
        }
        if let Err(most) = config.set_max_readahead(REQUEST_BYTES) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.fs.lookup(parent.0, name.as_bytes()) {
            Err(TreeError::NotFound) => {
                let name = name.to_owned();
                self.when_listed(&[parent.0], move |fs, listed| {
                    match listed.and_then(|()| fs.lookup(parent.0, name.as_bytes())) {
                        Err(TreeError::NotFound) => reply.entry(&TTL, &no_attr(), GENERATION),
                        result => entry(reply, result),
                    }
                });
            }
            result => entry(reply, result),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        attr(reply, self.fs.getattr(ino.0));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mtime = mtime.map(|t| match t {
            TimeOrNow::Now => now(),
            TimeOrNow::SpecificTime(t) => to_ns(t),
        });
        let set = SetAttrs { mode, uid, gid, mtime, ctime: ctime.map(to_ns) };
        let only_times = mode.is_none() && uid.is_none() && gid.is_none() && size.is_none();
        match self.fs.setattr(ino.0, &set, size) {
            // The page cache tells the times of a file that was deleted meanwhile: as good as done.
            Err(TreeError::NotFound) if only_times => {
                let gone = FileAttr { ino, ..no_attr() };
                reply.attr(&Duration::ZERO, &gone);
            }
            result => attr(reply, result),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.fs.tree().node(ino.0) {
            Ok(node) => match node.target {
                Some(target) => reply.data(&target),
                None => reply.error(Errno::EINVAL),
            },
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let kind = match mode & libc::S_IFMT {
            libc::S_IFREG | 0 => NodeKind::File,
            libc::S_IFIFO => NodeKind::Fifo,
            libc::S_IFSOCK => NodeKind::Socket,
            libc::S_IFCHR => NodeKind::CharDevice,
            libc::S_IFBLK => NodeKind::BlockDevice,
            _ => return reply.error(Errno::EINVAL),
        };
        let new = new_node(kind, mode, rdev, None);
        entry(reply, self.fs.make(parent.0, name.as_bytes(), caller(req), new));
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let new = new_node(NodeKind::Dir, mode, 0, None);
        entry(reply, self.fs.make(parent.0, name.as_bytes(), caller(req), new));
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().as_bytes();
        if target.len() > SYMLINK_MAX_BYTES {
            return reply.error(Errno::ENAMETOOLONG);
        }
        let new = new_node(NodeKind::Symlink, 0o777, 0, Some(target.to_vec()));
        entry(reply, self.fs.make(parent.0, link_name.as_bytes(), caller(req), new));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.fs.tree().unlink(parent.0, name.as_bytes()));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        let folder = self.fs.folder_at(parent.0, name.as_bytes());
        self.when_listed(folder.as_slice(), move |fs, listed| {
            empty(reply, listed.and_then(|()| fs.tree().rmdir(parent.0, name.as_bytes())));
        });
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = if flags.is_empty() {
            RenameMode::Replace
        } else if flags == RenameFlags::RENAME_NOREPLACE {
            RenameMode::NoReplace
        } else if flags == RenameFlags::RENAME_EXCHANGE {
            RenameMode::Exchange
        } else {
            return reply.error(Errno::EINVAL);
        };
        let (name, newname) = (name.to_owned(), newname.to_owned());
        let target = self.fs.folder_at(newparent.0, newname.as_bytes());
        self.when_listed(target.as_slice(), move |fs, listed| {
            let (from, to) = (name.as_bytes(), newname.as_bytes());
            let rename = |()| fs.tree().rename(parent.0, from, newparent.0, to, mode);
            empty(reply, listed.and_then(rename));
        });
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let linked = self.fs.tree().link(ino.0, newparent.0, newname.as_bytes());
        entry(reply, linked.map(|node| self.fs.attr_of(&node)));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.fs.create(parent.0, name.as_bytes(), caller(req), mode) {
            Ok((attr, handle)) => reply.created(
                &TTL,
                &file_attr(&attr),
                GENERATION,
                FileHandle(handle),
                FopenFlags::FOPEN_KEEP_CACHE,
            ),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        match self.fs.open(ino.0, writes) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE),
            // The name leads to a newer inode by now: let the kernel look it up again.
            Err(TreeError::NotFound) => reply.error(Errno::from_i32(libc::ESTALE)),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let len = size as usize;
        match self.fs.read_here(ino.0, fh.0, offset, len) {
            Ok(ReadHere::Bytes(bytes)) => reply.data(&bytes),
            Ok(ReadHere::Elsewhere(content)) => {
                // The session thread goes on; the answer comes from the task.
                let from = self.fs.spool().clone();
                self.runtime.spawn(async move {
                    match from.read(&content, offset, len).await {
                        Ok(bytes) => reply.data(&bytes),
                        Err(e) => reply.error(spool(&e)),
                    }
                });
            }
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.fs.write(ino.0, fh.0, offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Every write is safe when it is answered; without this each close is a round trip cheaper.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.fs.release(fh.0));
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let fs = self.fs.clone();
        // An fsync may take long: the session thread goes on meanwhile.
        self.runtime.spawn_blocking(move || empty(reply, fs.fsync(ino.0, fh.0)));
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let grow = || {
            let end = offset.saturating_add(length);
            if self.fs.getattr(ino.0)?.size < end {
                self.fs.setattr(ino.0, &SetAttrs::default(), Some(end))?;
            }
            Ok(())
        };
        match mode {
            0 => empty(reply, grow()),
            // Space is found when bytes come: nothing to reserve.
            libc::FALLOC_FL_KEEP_SIZE => reply.ok(),
            _ => reply.error(Errno::from_i32(libc::EOPNOTSUPP)),
        }
    }

    // Not taken over: the kernel does these itself, by reads and writes or with locks of its own.

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: i64,
        _whence: i32,
        reply: ReplyLseek,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::from_i32(libc::ENOTTY));
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        self.when_listed(&[ino.0], move |fs, listed| {
            match listed.and_then(|()| fs.opendir(ino.0)) {
                Ok(handle) => reply.opened(FileHandle(handle), flags),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let result = self.fs.readdir(fh.0, offset, |e| {
            let kind = file_type(e.attr.kind);
            !reply.add(INodeNo(e.attr.nid), e.next, kind, OsStr::from_bytes(&e.name))
        });
        match result {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let result = self.fs.readdir(fh.0, offset, |e| {
            let name = OsStr::from_bytes(&e.name);
            let attr = file_attr(&e.attr);
            !reply.add(INodeNo(e.attr.nid), e.next, name, &TTL, &attr, GENERATION)
        });
        match result {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.fs.releasedir(fh.0);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let fs = self.fs.clone();
        self.runtime.spawn_blocking(move || empty(reply, fs.fsync_dir()));
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let space = self.fs.space();
        let blocks = space.quota / FRAGMENT_BYTES;
        let free = space.quota.saturating_sub(space.used) / FRAGMENT_BYTES;
        let (files, names) = (u64::from(u32::MAX), NAME_MAX_BYTES as u32);
        let size = FRAGMENT_BYTES as u32;
        reply.statfs(blocks, free, free, files, files, size, names, size);
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.fs.setxattr(ino.0, name.as_bytes(), Some(value), flags));
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.fs.getxattr(ino.0, name.as_bytes()) {
            Ok(Some(value)) => xattr(reply, size, &value),
            Ok(None) => reply.error(Errno::from_i32(libc::ENODATA)),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.fs.listxattr(ino.0) {
            Ok(names) => xattr(reply, size, &names),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.fs.setxattr(ino.0, name.as_bytes(), None, 0));
    }
}

fn empty(reply: ReplyEmpty, result: Result<(), TreeError>) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(&e)),
    }
}

fn entry(reply: ReplyEntry, result: Result<Attr, TreeError>) {
    match result {
        Ok(attr) => reply.entry(&TTL, &file_attr(&attr), GENERATION),
        Err(e) => reply.error(errno(&e)),
    }
}

fn attr(reply: ReplyAttr, result: Result<Attr, TreeError>) {
    match result {
        Ok(attr) => reply.attr(&TTL, &file_attr(&attr)),
        Err(e) => reply.error(errno(&e)),
    }
}

fn xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > size as usize {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}

fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid() }
}

fn new_node(kind: NodeKind, mode: u32, rdev: u32, target: Option<Vec<u8>>) -> NewNode {
    NewNode { kind, mode, uid: None, gid: None, rdev, target }
}

fn file_type(kind: NodeKind) -> FileType {
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

fn file_attr(a: &Attr) -> FileAttr {
    let mtime = from_ns(a.mtime);
    FileAttr {
        ino: INodeNo(a.nid),
        size: a.size,
        blocks: a.size.div_ceil(FRAGMENT_BYTES) * (FRAGMENT_BYTES / 512),
        atime: mtime,
        mtime,
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
fn no_attr() -> FileAttr {
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

fn from_ns(ns: TimeNs) -> SystemTime {
    if ns >= 0 {
        UNIX_EPOCH + Duration::from_nanos(ns as u64)
    } else {
        UNIX_EPOCH - Duration::from_nanos(ns.unsigned_abs())
    }
}

fn to_ns(t: SystemTime) -> TimeNs {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => i64::try_from(d.as_nanos()).unwrap_or(i64::MAX),
        // fuser 0.18 takes the nanoseconds of a time before 1970 off where they are to be added
        // (`system_time_from_time`); its seconds are right.
        Err(e) => {
            let d = e.duration();
            let secs = i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
            secs.saturating_mul(-1_000_000_000).saturating_add(i64::from(d.subsec_nanos()))
        }
    }
}
