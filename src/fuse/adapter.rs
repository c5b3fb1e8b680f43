//! One method a FUSE operation.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::SystemTime;

use drivefs_core::limits::NAME_MAX_BYTES;
use drivefs_core::limits::SYMLINK_MAX_BYTES;
use drivefs_core::node::NodeKind;
use fuser::BsdFileFlags;
use fuser::CopyFileRangeFlags;
use fuser::Errno;
use fuser::FileAttr;
use fuser::FileHandle;
use fuser::Filesystem;
use fuser::FopenFlags;
use fuser::INodeNo;
use fuser::IoctlFlags;
use fuser::KernelConfig;
use fuser::LockOwner;
use fuser::Notifier;
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

use super::callers::Callers;
use super::capabilities;
use super::convert::FRAGMENT_BYTES;
use super::convert::caller;
use super::convert::clears_suid;
use super::convert::file_attr;
use super::convert::file_type;
use super::convert::made_kind;
use super::convert::new_node;
use super::convert::no_attr;
use super::convert::time;
use super::convert::to_ns;
use super::errno::errno;
use super::herald;
use super::herald::Herald;
use super::interrupt;
use super::raise;
use super::reply::GENERATION;
use super::reply::TTL;
use super::reply::attr;
use super::reply::created;
use super::reply::done;
use super::reply::empty;
use super::reply::entry;
use super::reply::entry_for;
use super::reply::opened;
use super::reply::ttl;
use super::reply::xattr;
use super::strict::Strict;
use super::threads::Guarded;
use crate::fs::Allocate;
use crate::fs::DriveFs;
use crate::fs::ReadHere;
use crate::fs::Spot;
use crate::spool::is_past;
use crate::tree::RenameMode;
use crate::tree::SetAttrs;
use crate::tree::TreeError;

pub(super) struct Adapter {
    pub fs: Arc<DriveFs>,
    pub runtime: Handle,
    /// Set once the session is there.
    pub notifier: Arc<OnceLock<Notifier>>,
    /// Set for mounts with `--strict`.
    pub strict: Option<Strict>,
    pub callers: Arc<Callers>,
    /// Set once the session is there, if they may follow callers.
    pub threads: Arc<OnceLock<Guarded>>,
    pub herald: Arc<Herald>,
}

impl Adapter {
    /// A request without much data: the session threads may have to move.
    fn asked(&self, req: &Request) {
        self.moved(req, 0);
    }

    /// A request with so many bytes, in or out.
    fn moved(&self, req: &Request, bytes: usize) {
        if let Some(place) = self.callers.moved(req.pid(), bytes)
            && let Some(threads) = self.threads.get()
        {
            threads.put(place);
        }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        capabilities::ask(config);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if self.herald.asks(req)
            && let Some(was) = self.herald.lookup(&self.fs, parent.0, name.as_bytes())
        {
            return entry_for(reply, was, &Duration::ZERO);
        }
        self.asked(req);
        if is_past(parent.0) {
            return self.look_up_past(parent, name, reply);
        }
        match self.fs.lookup(parent.0, name.as_bytes()) {
            Err(TreeError::NotFound) if self.strict.is_some() => {
                self.look_up_newest(parent, name, reply);
            }
            Err(TreeError::NotFound) => {
                let name = name.to_owned();
                self.when_listed(&[parent.0], move |fs, listed| {
                    match listed.and_then(|()| fs.lookup(parent.0, name.as_bytes())) {
                        Err(TreeError::NotFound) => reply.entry(&TTL, &no_attr(), GENERATION),
                        result => entry(reply, result),
                    }
                });
            }
            // A shared folder that the fill has not come to.
            Ok(found) if found.kind == NodeKind::Mount => {
                let name = name.to_owned();
                self.when_listed(&[found.nid], move |fs, listed| {
                    entry(reply, listed.and_then(|()| fs.lookup(parent.0, name.as_bytes())));
                });
            }
            result => entry(reply, result),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.fs.forget(ino.0, nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.asked(req);
        attr(reply, self.fs.getattr(ino.0));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if self.herald.asks(req) {
            return attr(reply, self.fs.getattr(ino.0));
        }
        self.asked(req);
        let set = SetAttrs {
            mode,
            uid,
            gid,
            atime: atime.map(time),
            mtime: mtime.map(time),
            ctime: ctime.map(to_ns),
            clear_suid: uid.is_some() || gid.is_some() || (size.is_some() && clears_suid(req)),
        };
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

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        self.asked(req);
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
        if self.herald.asks(req) {
            return entry(reply, self.herald.made(&self.fs, parent.0, name.as_bytes()));
        }
        self.asked(req);
        let Some(kind) = made_kind(mode) else { return reply.error(Errno::EINVAL) };
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
        if self.herald.asks(req) {
            return entry(reply, self.herald.made(&self.fs, parent.0, name.as_bytes()));
        }
        self.asked(req);
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
        if self.herald.asks(req) {
            return entry(reply, self.herald.made(&self.fs, parent.0, link_name.as_bytes()));
        }
        self.asked(req);
        let target = target.as_os_str().as_bytes();
        if target.len() > SYMLINK_MAX_BYTES {
            return reply.error(Errno::ENAMETOOLONG);
        }
        let new = new_node(NodeKind::Symlink, 0o777, 0, Some(target.to_vec()));
        entry(reply, self.fs.make(parent.0, link_name.as_bytes(), caller(req), new));
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if self.herald.asks(req) {
            return empty(reply, self.herald.removed(&self.fs, parent.0, name.as_bytes()));
        }
        self.asked(req);
        empty(reply, self.fs.unlink(parent.0, name.as_bytes()));
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if self.herald.asks(req) {
            return empty(reply, self.herald.removed(&self.fs, parent.0, name.as_bytes()));
        }
        self.asked(req);
        let name = name.to_owned();
        let folder = self.fs.folder_at(parent.0, name.as_bytes());
        self.when_listed(folder.as_slice(), move |fs, listed| {
            empty(reply, listed.and_then(|()| fs.rmdir(parent.0, name.as_bytes())));
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if self.herald.asks(req) {
            let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
            return empty(reply, self.herald.renamed(&self.fs, from, to));
        }
        self.asked(req);
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
            let rename = |()| fs.rename(parent.0, from, newparent.0, to, mode);
            empty(reply, listed.and_then(rename));
        });
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        self.asked(req);
        entry(reply, self.fs.link(ino.0, newparent.0, newname.as_bytes()));
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
        self.asked(req);
        created(reply, self.fs.create(parent.0, name.as_bytes(), caller(req), mode));
    }

    fn tmpfile(
        &self,
        req: &Request,
        parent: INodeNo,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        self.asked(req);
        created(reply, self.fs.tmpfile(parent.0, caller(req), mode));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.herald.asks(req) {
            return opened(reply, Ok(herald::HANDLE));
        }
        self.asked(req);
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        if is_past(ino.0) {
            return self.open_past(ino, writes, reply);
        }
        let Some(strict) = self.strict.clone() else {
            return opened(reply, self.fs.open(ino.0, writes));
        };
        let (fs, named) = (self.fs.clone(), self.fs.is_named(ino.0));
        self.runtime.spawn(async move {
            match strict.newest().await {
                Err(e) => reply.error(e),
                Ok(()) if named && !fs.is_named(ino.0) => opened(reply, Err(TreeError::NotFound)),
                Ok(()) => opened(reply, fs.open(ino.0, writes)),
            }
        });
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let len = size as usize;
        self.moved(req, len);
        match self.fs.read_here(ino.0, fh.0, offset, len) {
            Ok(ReadHere::Bytes(bytes)) => reply.data(&bytes),
            Ok(ReadHere::Elsewhere(content)) => {
                // The session thread goes on; the answer comes from the task.
                let (spool, thread) = (self.fs.spool().clone(), req.pid());
                self.runtime.spawn(interrupt::read(spool, content, offset, len, thread, reply));
            }
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.moved(req, data.len());
        let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        match self.fs.write(ino.0, fh.0, offset, data, kill) {
            Ok(()) => reply.written(data.len() as u32),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let Some(strict) = self.strict.clone() else {
            // Every write is safe when it is answered; without this each close is a round trip
            // cheaper.
            return reply.error(Errno::ENOSYS);
        };
        if fh.0 == herald::HANDLE {
            return reply.ok();
        }
        let fs = self.fs.clone();
        self.runtime.spawn(async move { done(reply, strict.sent(&fs, ino.0).await) });
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
        let (fs, strict, runtime) = (self.fs.clone(), self.strict.clone(), self.runtime.clone());
        // An fsync may take long: the session thread goes on meanwhile.
        self.runtime.spawn_blocking(move || match (fs.fsync(ino.0, fh.0), strict) {
            (Ok(()), Some(strict)) => done(reply, runtime.block_on(strict.sent(&fs, ino.0))),
            (result, _) => empty(reply, result),
        });
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some(how) = Allocate::from_flags(mode) else {
            return reply.error(Errno::from_i32(libc::EOPNOTSUPP));
        };
        let kill = clears_suid(req);
        empty(reply, self.fs.fallocate(ino.0, fh.0, offset, length, how, kill));
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let (Ok(offset), libc::SEEK_DATA | libc::SEEK_HOLE) = (u64::try_from(offset), whence)
        else {
            return reply.error(Errno::EINVAL);
        };
        let (fs, notifier) = (self.fs.clone(), self.notifier.clone());
        let data = whence == libc::SEEK_DATA;
        // Off the session thread: the kernel may have to write pages back meanwhile.
        self.runtime.spawn_blocking(move || {
            let write_back = || {
                // What a program wrote through a mapping is in the kernel alone until then.
                let told = notifier.get().map(|n| n.inval_inode(ino, 0, 0));
                if let Some(Err(error)) = told {
                    tracing::debug!(%error, "the kernel did not write pages back");
                }
            };
            match fs.seek(ino.0, fh.0, offset, data, write_back) {
                Ok(Some(at)) => reply.offset(at as i64),
                Ok(None) => reply.error(Errno::ENXIO),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (fs, kill) = (self.fs.clone(), clears_suid(req));
        let from = Spot { nid: ino_in.0, handle: fh_in.0, offset: offset_in };
        let to = Spot { nid: ino_out.0, handle: fh_out.0, offset: offset_out };
        self.runtime.spawn_blocking(move || match fs.copy_range(from, to, len, kill) {
            // The kernel asks for less than 4 GiB at once.
            Ok(copied) => reply.written(u32::try_from(copied).unwrap_or(u32::MAX)),
            Err(e) => reply.error(errno(&e)),
        });
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

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.asked(req);
        if is_past(ino.0) {
            return self.open_past_folder(ino, reply);
        }
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
        let result = self.fs.readdir(fh.0, offset, false, |e| {
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
        let result = self.fs.readdir(fh.0, offset, true, |e| {
            let name = OsStr::from_bytes(&e.name);
            let attr = file_attr(&e.attr);
            // What leads into a namespace that is not here yet is looked up when it is used.
            let ttl = if e.attr.kind == NodeKind::Mount { Duration::ZERO } else { ttl(&e.attr) };
            !reply.add(INodeNo(e.attr.nid), e.next, name, &ttl, &attr, GENERATION)
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
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.asked(req);
        empty(reply, self.fs.setxattr(ino.0, name.as_bytes(), Some(value), flags));
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if self.herald.asks(req) && name == raise::KNOWN {
            return xattr(reply, size, b"yes");
        }
        self.asked(req);
        match self.fs.getxattr(ino.0, name.as_bytes()) {
            Ok(Some(value)) => xattr(reply, size, &value),
            Ok(None) => reply.error(Errno::from_i32(libc::ENODATA)),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.asked(req);
        match self.fs.listxattr(ino.0) {
            Ok(names) => xattr(reply, size, &names),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.fs.setxattr(ino.0, name.as_bytes(), None, 0));
    }
}
