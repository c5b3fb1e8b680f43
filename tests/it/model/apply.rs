//! Does an operation on both sides by the same system calls, and compares what they answer.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::FallocateFlags;
use rustix::fs::FileType;
use rustix::fs::Gid;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RenameFlags;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::fs::UTIME_NOW;
use rustix::fs::UTIME_OMIT;
use rustix::fs::Uid;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::op::Access;
use super::op::Alloc;
use super::op::At;
use super::op::How;
use super::op::Make;
use super::op::NAMES;
use super::op::Op;
use super::op::SLOTS;
use super::op::Set;
use super::op::Time;
use super::op::XATTRS;
use super::snapshot;
use super::snapshot::Facts;
use super::world::World;

/// What an operation answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Count(usize),
    /// Length and hash of bytes.
    Bytes(usize, blake3::Hash),
    Names(BTreeSet<Vec<u8>>),
    Facts(Facts),
}

type Result<T> = std::result::Result<T, Errno>;

/// One side: a folder and what is open in it.
struct Side {
    top: PathBuf,
    /// Makes the bytes of one case unlike those of others: the server must not have them yet.
    salt: u64,
    open: [Option<File>; SLOTS],
}

/// Both sides of one case.
pub struct Runner<'w> {
    world: &'w World,
    plain: Side,
    mount: Side,
    log: Vec<String>,
}

impl<'w> Runner<'w> {
    pub fn new(world: &'w World, name: &str) -> Self {
        let hash = blake3::hash(name.as_bytes());
        let salt = u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"));
        let side = |top| Side { top, salt, open: Default::default() };
        Self {
            world,
            plain: side(world.plain(name)),
            mount: side(world.mount_one(name)),
            log: Vec::new(),
        }
    }

    /// Does one operation on both sides; an error says how they differ.
    pub fn step(&mut self, op: &Op) -> std::result::Result<(), String> {
        match op {
            Op::Sync => {
                self.log.push("Sync".into());
                return self.world.sync();
            }
            Op::Kill => {
                self.log.push("Kill".into());
                return self.kill();
            }
            _ => {}
        }
        let places = Places::of(&self.plain.top);
        let found = self.mount.apply(op, &places);
        if is_by_design(op, &found) || self.plain.is_gone_by_design(op, &found) {
            return Ok(());
        }
        let wanted = self.plain.apply(op, &places);
        self.world.count(wanted.is_ok());
        self.log.push(format!("{} -> {}", places.show(op), show(&wanted)));
        if same(&wanted, &found) {
            if wanted.is_ok() {
                self.mount.level_times(op);
                self.plain.level_times(op);
            }
            return Ok(());
        }
        let (wanted, found) = (show(&wanted), show(&found));
        Err(format!("the mount: {found}; a plain folder: {wanted}\n{}", self.log.join("\n")))
    }

    fn kill(&mut self) -> std::result::Result<(), String> {
        self.world.kill_one()?;
        for side in [&mut self.plain, &mut self.mount] {
            side.open = Default::default();
        }
        self.world.mount_one_again();
        Ok(())
    }

    /// Closes everything; tells what was done.
    pub fn end(self) -> String {
        self.log.join("\n")
    }
}

fn show(answer: &Result<Answer>) -> String {
    match answer {
        Ok(a) => format!("{a:?}"),
        Err(e) => std::io::Error::from(*e).to_string(),
    }
}

fn same(wanted: &Result<Answer>, found: &Result<Answer>) -> bool {
    match (wanted, found) {
        (Ok(Answer::Facts(a)), Ok(Answer::Facts(b))) => a.agrees(b),
        (a, b) => a == b,
    }
}

/// docs/SEMANTICS.md: "punching holes is EOPNOTSUPP"; the same holds for the other ways to move
/// bytes inside a file. Such a call has changed nothing, so the plain folder does not make it.
fn is_by_design(op: &Op, found: &Result<Answer>) -> bool {
    let Op::Fallocate { how, .. } = op else { return false };
    !matches!(how, Alloc::Grow | Alloc::KeepSize) && matches!(found, Err(Errno::OPNOTSUPP))
}

/// What is there before an operation, as the plain folder shows it.
struct Places {
    all: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Places {
    fn of(top: &Path) -> Self {
        let mut places = Self { all: Vec::new(), folders: vec![PathBuf::new()] };
        let mut next = 0;
        while let Some(dir) = places.folders.get(next).cloned() {
            next += 1;
            let mut entries: Vec<_> = std::fs::read_dir(top.join(&dir))
                .expect("the plain folder is read")
                .map(|e| e.expect("an entry"))
                .collect();
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries {
                let path = dir.join(entry.file_name());
                if entry.file_type().expect("a type").is_dir() {
                    places.folders.push(path.clone());
                }
                places.all.push(path);
            }
        }
        places
    }

    fn path(&self, at: &At) -> PathBuf {
        let name = |n: u8| OsStr::from_bytes(NAMES[n as usize % NAMES.len()]);
        let known = |k: u8| match self.all.len() {
            0 => PathBuf::from(name(0)),
            count => self.all[k as usize % count].clone(),
        };
        match *at {
            At::Known(k) => known(k),
            At::In(d, n) => self.folders[d as usize % self.folders.len()].join(name(n)),
            At::Below(k, n) => known(k).join(name(n)),
        }
    }

    /// The operation with its paths spelled out.
    fn show(&self, op: &Op) -> String {
        let paths: Vec<_> = op.places().into_iter().map(|at| self.path(at)).collect();
        format!("{op:?} {paths:?}")
    }
}

impl Op {
    fn places(&self) -> Vec<&At> {
        match self {
            Op::Link { from, to } | Op::Rename { from, to, .. } => vec![from, to],
            Op::Open { at, .. }
            | Op::WriteFile { at, .. }
            | Op::ReadFile { at }
            | Op::Mkdir { at, .. }
            | Op::Mkfifo { at, .. }
            | Op::Symlink { at, .. }
            | Op::Readlink { at }
            | Op::Unlink { at }
            | Op::Rmdir { at }
            | Op::Chmod { at, .. }
            | Op::Chown { at, .. }
            | Op::Utimens { at, .. }
            | Op::Setxattr { at, .. }
            | Op::Getxattr { at, .. }
            | Op::Listxattr { at }
            | Op::Removexattr { at, .. }
            | Op::Stat { at }
            | Op::List { at }
            | Op::OpenUnnamed { at, .. }
            | Op::Save { at, .. } => vec![at],
            Op::Name { to, .. } => vec![to],
            _ => vec![],
        }
    }
}

impl Side {
    fn apply(&mut self, op: &Op, places: &Places) -> Result<Answer> {
        let path = |at: &At| self.top.join(places.path(at));
        match op {
            Op::Open { slot, at, access, make, truncate, append, mode } => {
                let mut flags = open_flags(*access, *make);
                flags.set(OFlags::TRUNC, *truncate);
                flags.set(OFlags::APPEND, *append);
                let file = rustix::fs::open(path(at), flags, bits(*mode))?;
                self.open[*slot as usize] = Some(File::from(file));
            }
            Op::OpenUnnamed { slot, at, access, make, mode } => {
                // O_EXCL without O_CREAT: it shall never have a name.
                let mut flags = open_flags(*access, Make::No) | OFlags::TMPFILE;
                flags.set(OFlags::EXCL, *make == Make::Exclusive);
                let file = rustix::fs::open(path(at), flags, bits(*mode))?;
                self.open[*slot as usize] = Some(File::from(file));
            }
            Op::Name { slot, to } => {
                let file = self.open[self.slot(*slot)].as_ref().ok_or(Errno::BADF)?;
                let from = format!("/proc/self/fd/{}", file.as_raw_fd());
                rustix::fs::linkat(CWD, from, CWD, path(to), AtFlags::SYMLINK_FOLLOW)?;
            }
            Op::Close { slot } => drop(self.open[self.slot(*slot)].take()),
            Op::Sync | Op::Kill => unreachable!("done by the runner"),
            Op::Write { .. }
            | Op::Read { .. }
            | Op::Truncate { .. }
            | Op::Fallocate { .. }
            | Op::Copy { .. }
            | Op::Fsync { .. }
            | Op::FstatAndMode { .. } => return self.apply_to_handle(op),
            Op::WriteFile { at, len, seed, append } => {
                write_file(&path(at), &self.bytes(*len, *seed), *append)?;
            }
            Op::Save { at, len, seed } => {
                let (path, temp) = (path(at), self.top.join(".saving"));
                write_file(&temp, &self.bytes(*len, *seed), false)?;
                if let Err(e) = rustix::fs::rename(&temp, &path) {
                    rustix::fs::unlink(&temp)?;
                    return Err(e);
                }
            }
            Op::ReadFile { at } => {
                let flags = open_flags(Access::Read, Make::No);
                let file = File::from(rustix::fs::open(path(at), flags, Mode::empty())?);
                return read(&file, 0, 4 << 20);
            }
            Op::Mkdir { at, mode } => rustix::fs::mkdir(path(at), bits(*mode))?,
            Op::Mkfifo { at, mode } => {
                rustix::fs::mknodat(CWD, path(at), FileType::Fifo, bits(*mode), 0)?;
            }
            Op::Symlink { at, target } => {
                // Relative, absolute and dangling ones, and one of the longest.
                let target: Vec<u8> = match target % 4 {
                    0 => b"a".to_vec(),
                    1 => b"../nowhere/\xff".to_vec(),
                    2 => b"/etc/hostname".to_vec(),
                    _ => vec![b'l'; 4095],
                };
                rustix::fs::symlink(OsStr::from_bytes(&target), path(at))?;
            }
            Op::Readlink { at } => {
                let target = rustix::fs::readlink(path(at), Vec::new())?;
                return Ok(hashed(target.as_bytes()));
            }
            Op::Link { from, to } => {
                rustix::fs::linkat(CWD, path(from), CWD, path(to), AtFlags::empty())?;
            }
            Op::Rename { from, to, how } => {
                let flags = match how {
                    How::Plain => RenameFlags::empty(),
                    How::NoReplace => RenameFlags::NOREPLACE,
                    How::Exchange => RenameFlags::EXCHANGE,
                    How::Both => RenameFlags::NOREPLACE | RenameFlags::EXCHANGE,
                };
                rustix::fs::renameat_with(CWD, path(from), CWD, path(to), flags)?;
            }
            Op::Unlink { at } => rustix::fs::unlink(path(at))?,
            Op::Rmdir { at } => rustix::fs::rmdir(path(at))?,
            _ => return self.apply_to_attributes(op, places),
        }
        Ok(Answer::Done)
    }

    fn apply_to_attributes(&self, op: &Op, places: &Places) -> Result<Answer> {
        let path = |at: &At| self.top.join(places.path(at));
        match op {
            Op::Chmod { at, mode } => {
                let path = path(at);
                // chmod follows symlinks, and their targets are no part of the test.
                if facts(&path)?.kind == 'l' {
                    return Ok(Answer::Done);
                }
                rustix::fs::chmod(path, bits(*mode))?;
            }
            Op::Chown { at, uid, gid } => {
                let (uid, gid) = (Uid::from_raw(u32::from(*uid)), Gid::from_raw(u32::from(*gid)));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(CWD, path(at), Some(uid), Some(gid), flags)?;
            }
            Op::Utimens { at, mtime } => {
                let time = |sec, nsec| Timespec { tv_sec: sec, tv_nsec: nsec };
                let mtime = match mtime {
                    Time::Now => time(0, UTIME_NOW),
                    Time::Omit => time(0, UTIME_OMIT),
                    Time::At(sec, nsec) => time(*sec, i64::from(*nsec)),
                };
                let times =
                    Timestamps { last_access: time(0, UTIME_OMIT), last_modification: mtime };
                rustix::fs::utimensat(CWD, path(at), &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Op::Setxattr { at, name, len, set } => {
                let flags = match set {
                    Set::Any => XattrFlags::empty(),
                    Set::Create => XattrFlags::CREATE,
                    Set::Replace => XattrFlags::REPLACE,
                };
                let value = self.bytes(u32::from(*len), *name);
                rustix::fs::lsetxattr(path(at), XATTRS[*name as usize], &value, flags)?;
            }
            Op::Getxattr { at, name } => {
                let mut value = Vec::with_capacity(4096);
                let into = rustix::buffer::spare_capacity(&mut value);
                rustix::fs::lgetxattr(path(at), XATTRS[*name as usize], into)?;
                return Ok(hashed(&value));
            }
            Op::Listxattr { at } => return Ok(Answer::Names(snapshot::xattr_names(&path(at))?)),
            Op::Removexattr { at, name } => {
                rustix::fs::lremovexattr(path(at), XATTRS[*name as usize])?;
            }
            Op::Stat { at } => return Ok(Answer::Facts(facts(&path(at))?)),
            Op::List { at } => return list(&path(at)),
            other => unreachable!("{other:?} is done elsewhere"),
        }
        Ok(Answer::Done)
    }

    /// Bytes that tell one seed from another at every offset.
    fn bytes(&self, len: u32, seed: u8) -> Vec<u8> {
        let mut state = (u64::from(seed) + 1).wrapping_mul(self.salt | 1);
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 24) as u8
            })
            .collect()
    }

    /// The kernel does not tell a FUSE file system that a FIFO is open, and an open folder does not
    /// keep a removed one alive: what has no content is gone with its last name.
    fn is_gone_by_design(&self, op: &Op, found: &Result<Answer>) -> bool {
        let (Op::FstatAndMode { slot, .. }, Err(Errno::NOENT)) = (op, found) else { return false };
        let Some(file) = &self.open[self.slot(*slot)] else { return false };
        let of = file.metadata().expect("what is open has attributes");
        !of.is_file() && (of.nlink() == 0 || of.is_dir())
    }

    /// Whether allocating space that changes no byte is a change of the file (ext4 says so, others
    /// do not) is each file system's own: after it both sides get one time.
    fn level_times(&self, op: &Op) {
        let Op::Fallocate { slot, .. } = op else { return };
        let time = |sec, nsec| Timespec { tv_sec: sec, tv_nsec: nsec };
        let times = Timestamps {
            last_access: time(0, UTIME_OMIT),
            last_modification: time(1_234_567_890, 123_456_789),
        };
        let file = self.open[self.slot(*slot)].as_ref().expect("it was just used");
        rustix::fs::futimens(file, &times).expect("the time is set");
    }

    /// One of the open slots, if any.
    fn slot(&self, number: u8) -> usize {
        let open: Vec<_> = (0..SLOTS).filter(|&i| self.open[i].is_some()).collect();
        open.get(number as usize % open.len().max(1)).copied().unwrap_or(0)
    }

    fn apply_to_handle(&mut self, op: &Op) -> Result<Answer> {
        // When nothing is open it is as with a closed descriptor.
        let file = |slot: u8| self.open[self.slot(slot)].as_ref().ok_or(Errno::BADF);
        match op {
            Op::Write { slot, offset, len, seed } => {
                let bytes = self.bytes(*len, *seed);
                rustix::io::pwrite(file(*slot)?, &bytes, u64::from(*offset)).map(Answer::Count)
            }
            Op::Read { slot, offset, len } => read(file(*slot)?, u64::from(*offset), *len as usize),
            Op::Truncate { slot, size } => {
                rustix::fs::ftruncate(file(*slot)?, u64::from(*size)).map(|()| Answer::Done)
            }
            Op::Fallocate { slot, how, offset, len } => {
                let keep = FallocateFlags::KEEP_SIZE;
                let flags = match how {
                    Alloc::Grow => FallocateFlags::empty(),
                    Alloc::KeepSize => keep,
                    Alloc::PunchHole => FallocateFlags::PUNCH_HOLE | keep,
                    Alloc::ZeroRange => FallocateFlags::ZERO_RANGE,
                    Alloc::ZeroRangeKeepSize => FallocateFlags::ZERO_RANGE | keep,
                    Alloc::CollapseRange => FallocateFlags::COLLAPSE_RANGE,
                    Alloc::InsertRange => FallocateFlags::INSERT_RANGE,
                };
                let (offset, len) = (u64::from(*offset), u64::from(*len));
                rustix::fs::fallocate(file(*slot)?, flags, offset, len).map(|()| Answer::Done)
            }
            Op::Copy { from, to, from_offset, to_offset, len } => {
                copy(file(*from)?, *from_offset, file(*to)?, *to_offset, *len as usize)
            }
            Op::Fsync { slot } => rustix::fs::fsync(file(*slot)?).map(|()| Answer::Done),
            Op::FstatAndMode { slot, mode } => {
                let file = file(*slot)?;
                if let Some(mode) = mode {
                    rustix::fs::fchmod(file, bits(*mode))?;
                }
                Ok(Answer::Facts(Facts::of(&file.metadata().map_err(errno)?)))
            }
            other => unreachable!("{other:?} is done elsewhere"),
        }
    }
}

fn errno(e: std::io::Error) -> Errno {
    Errno::from_io_error(&e).unwrap_or_else(|| panic!("not an error of a system call: {e}"))
}

fn open_flags(access: Access, make: Make) -> OFlags {
    // A FIFO must not block the test.
    let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    flags |= match access {
        Access::Read => OFlags::RDONLY,
        Access::Write => OFlags::WRONLY,
        Access::ReadWrite => OFlags::RDWR,
    };
    flags.set(OFlags::CREATE, make != Make::No);
    flags.set(OFlags::EXCL, make == Make::Exclusive);
    flags
}

fn bits(mode: u16) -> Mode {
    Mode::from_raw_mode(u32::from(mode))
}

fn hashed(bytes: &[u8]) -> Answer {
    Answer::Bytes(bytes.len(), blake3::hash(bytes))
}

/// Reads as a program does that wants all of it: until the end, an error, or enough.
fn read(file: &File, offset: u64, len: usize) -> Result<Answer> {
    let mut out = vec![0; len];
    let mut filled = 0;
    while filled < len {
        let count = rustix::io::pread(file, &mut out[filled..], offset + filled as u64)?;
        if count == 0 {
            break;
        }
        filled += count;
    }
    Ok(hashed(&out[..filled]))
}

fn copy(from: &File, at: u32, to: &File, to_at: u32, len: usize) -> Result<Answer> {
    let (mut at, mut to_at, mut copied) = (u64::from(at), u64::from(to_at), 0);
    // A copy may stop early, as a write may.
    loop {
        let left = len - copied;
        match rustix::fs::copy_file_range(from, Some(&mut at), to, Some(&mut to_at), left)? {
            0 => return Ok(Answer::Count(copied)),
            count => copied += count,
        }
        if copied == len {
            return Ok(Answer::Count(copied));
        }
    }
}

fn write_file(path: &Path, bytes: &[u8], append: bool) -> Result<()> {
    let mut flags = open_flags(Access::Write, Make::Yes);
    flags |= if append { OFlags::APPEND } else { OFlags::TRUNC };
    let file = rustix::fs::open(path, flags, bits(0o644))?;
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::write(&file, &bytes[written..])?;
    }
    Ok(())
}

fn facts(path: &Path) -> Result<Facts> {
    std::fs::symlink_metadata(path).map(|m| Facts::of(&m)).map_err(errno)
}

/// Names with their types, as readdir tells them.
fn list(path: &Path) -> Result<Answer> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(path).map_err(errno)? {
        let entry = entry.map_err(errno)?;
        let kind = snapshot::kind(&entry.file_type().map_err(errno)?);
        let mut line = entry.file_name().as_bytes().to_vec();
        line.extend_from_slice(&[b' ', kind as u8]);
        assert!(names.insert(line), "readdir tells {:?} twice", entry.file_name());
    }
    Ok(Answer::Names(names))
}
