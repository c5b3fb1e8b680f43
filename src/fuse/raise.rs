//! The program that raises events: makes the calls whose events a remote change deserves, through
//! the mount. The daemon knows its requests and answers each as done, because the change is.
//!
//! A process of its own, and never a thread of the daemon: a daemon that waits for itself while it
//! is killed would never end, and its mount with it. What it does cannot leave the mount: folders
//! are opened below its root by names that are no links, and checked by their inode numbers.

use std::ffi::OsStr;
use std::io;
use std::io::BufRead;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RenameFlags;
use rustix::fs::ResolveFlags;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::io::Errno;

/// The command of this program that does it: mount point and device number (`major:minor`) follow.
pub(super) const COMMAND: &str = "raise-events";

/// The attribute that the daemon shows to its helper, and to nobody else.
pub(super) const KNOWN: &str = "user.drivefs.raise-events";

/// A folder by the way to it from the root of the mount, and a name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    pub inode: u64,
    /// Relative; empty for the root.
    pub way: Vec<u8>,
    pub name: Vec<u8>,
}

/// A call to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    /// What is made has this type (S_IFMT).
    Make(Spot, u32),
    Remove(Spot, u32),
    Write(Spot),
    Touch(Spot),
    Move(Spot, Spot),
}

/// Fields of a call on the wire, each followed by a NUL: verb, type, and twice a spot.
const FIELDS: usize = 8;

impl Call {
    pub fn encode(&self) -> Vec<u8> {
        let (verb, kind, at, to) = match self {
            Self::Make(at, kind) => ("make", *kind, at, None),
            Self::Remove(at, kind) => ("remove", *kind, at, None),
            Self::Write(at) => ("write", 0, at, None),
            Self::Touch(at) => ("touch", 0, at, None),
            Self::Move(at, to) => ("move", 0, at, Some(to)),
        };
        let to = to.unwrap_or(at);
        let (inode, to_inode) = (at.inode.to_string(), to.inode.to_string());
        let kind = kind.to_string();
        let fields: [&[u8]; FIELDS] = [
            verb.as_bytes(),
            kind.as_bytes(),
            inode.as_bytes(),
            &at.way,
            &at.name,
            to_inode.as_bytes(),
            &to.way,
            &to.name,
        ];
        let mut out = Vec::new();
        for field in fields {
            out.extend_from_slice(field);
            out.push(0);
        }
        out
    }

    /// The next call; none at the end.
    fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut fields = Vec::with_capacity(FIELDS);
        for _ in 0..FIELDS {
            let mut field = Vec::new();
            from.read_until(0, &mut field)?;
            if field.pop() != Some(0) {
                return Ok(None);
            }
            fields.push(field);
        }
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not a call");
        let number = |i: usize| -> io::Result<u64> {
            std::str::from_utf8(&fields[i]).ok().and_then(|t| t.parse().ok()).ok_or_else(wrong)
        };
        let spot = |i: usize| -> io::Result<Spot> {
            let (way, name) = (fields[i + 1].clone(), fields[i + 2].clone());
            Ok(Spot { inode: number(i)?, way, name })
        };
        let (kind, at) = (number(1)? as u32, spot(2)?);
        Ok(Some(match fields[0].as_slice() {
            b"make" => Self::Make(at, kind),
            b"remove" => Self::Remove(at, kind),
            b"write" => Self::Write(at),
            b"touch" => Self::Touch(at),
            b"move" => Self::Move(at, spot(5)?),
            _ => return Err(wrong()),
        }))
    }
}

/// Reads calls from standard input until its end and answers each with a line: 0 or the errno.
pub fn raise_events(mount: &Path, device: &str) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    while let Some(call) = Call::read(&mut input)? {
        let errno = make(mount, device, &call).err().map_or(0, Errno::raw_os_error);
        writeln!(output, "{errno}")?;
        output.flush()?;
    }
    Ok(())
}

fn make(mount: &Path, device: &str, call: &Call) -> Result<(), Errno> {
    let root = rustix::fs::open(mount, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    // After an unmount the folder below would be here.
    let there = rustix::fs::fstat(&root)?.st_dev;
    if format!("{}:{}", rustix::fs::major(there), rustix::fs::minor(there)) != device {
        return Err(Errno::NODEV);
    }
    // Another daemon, which came after the death of ours, would take the calls for real.
    let path = format!("/proc/self/fd/{}", root.as_raw_fd());
    rustix::fs::getxattr(path, KNOWN, &mut [0; 8])?;
    match call {
        Call::Make(at, kind) => {
            let folder = open(&root, at)?;
            let (name, mode) = (OsStr::from_bytes(&at.name), Mode::from_raw_mode(0o600));
            match *kind {
                libc::S_IFDIR => rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o700)),
                libc::S_IFLNK => rustix::fs::symlinkat(".", &folder, name),
                kind => rustix::fs::mknodat(&folder, name, FileType::from_raw_mode(kind), mode, 0),
            }?;
            // A file that comes with its content was written, too.
            if *kind == libc::S_IFREG { write(&folder, name) } else { Ok(()) }
        }
        Call::Remove(at, kind) => {
            let dir = *kind == libc::S_IFDIR;
            let flags = if dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            rustix::fs::unlinkat(open(&root, at)?, OsStr::from_bytes(&at.name), flags)
        }
        Call::Write(at) => write(&open(&root, at)?, OsStr::from_bytes(&at.name)),
        Call::Touch(at) => touch(&open(&root, at)?, OsStr::from_bytes(&at.name)),
        Call::Move(from, to) => {
            let (old, new) = (open(&root, from)?, open(&root, to)?);
            let (from, to) = (OsStr::from_bytes(&from.name), OsStr::from_bytes(&to.name));
            rustix::fs::renameat_with(old, from, new, to, RenameFlags::NOREPLACE)
        }
    }
}

/// The folder of a spot; fails when another one is there by now.
fn open(root: &OwnedFd, at: &Spot) -> Result<OwnedFd, Errno> {
    let way = if at.way.is_empty() { b".".as_slice() } else { &at.way };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let folder = rustix::fs::openat2(root, OsStr::from_bytes(way), flags, Mode::empty(), resolve)?;
    if rustix::fs::fstat(&folder)?.st_ino != at.inode {
        return Err(Errno::STALE);
    }
    Ok(folder)
}

/// Raises what a program that writes raises: open, modify, close. Who may not write the file can
/// still tell that something changed.
fn write(folder: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(&folder, name, flags, Mode::empty()) {
        Ok(file) => rustix::fs::ftruncate(&file, rustix::fs::fstat(&file)?.st_size as u64),
        Err(_) => touch(folder, name),
    }
}

fn touch(folder: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(way: &str, name: &str) -> Spot {
        Spot { inode: 7, way: way.into(), name: name.into() }
    }

    #[test]
    fn calls_come_out_as_they_went_in() {
        let calls = [
            Call::Make(spot("", "line\nbreak"), libc::S_IFDIR),
            Call::Remove(spot("a/b", "c"), libc::S_IFREG),
            Call::Write(spot("a", "x")),
            Call::Touch(spot("a", "x")),
            Call::Move(spot("a", "x"), spot("b/c", "y")),
        ];
        let bytes: Vec<u8> = calls.iter().flat_map(Call::encode).collect();
        let mut from = bytes.as_slice();
        for call in calls {
            assert_eq!(Call::read(&mut from).expect("a call"), Some(call));
        }
        assert_eq!(Call::read(&mut from).expect("the end"), None);
    }

    #[test]
    fn nothing_is_done_where_no_daemon_waits_for_it_or_outside_of_the_mount() {
        let dir = tempfile::tempdir().expect("a folder");
        let call = Call::Make(spot("", "made"), libc::S_IFREG);
        assert_eq!(make(dir.path(), "0:0", &call), Err(Errno::NODEV));
        let dev = rustix::fs::stat(dir.path()).expect("it is there").st_dev;
        let device = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
        assert!(make(dir.path(), &device, &call).is_err(), "no daemon knows us there");
        let root = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).expect("it opens");
        assert_eq!(open(&root, &spot("", "made")).err(), Some(Errno::STALE));
        std::os::unix::fs::symlink("/", dir.path().join("out")).expect("a link");
        assert_eq!(open(&root, &spot("out", "made")).err(), Some(Errno::LOOP));
        assert_eq!(open(&root, &spot("..", "made")).err(), Some(Errno::XDEV));
        assert!(!dir.path().join("made").exists());
    }
}
