//! A daemon that was killed and stays: found, and its connection aborted.
//!
//! A thread that tells the kernel of a change waits there for the folder's lock, which a program may
//! hold whose own request died with the session threads. Neither lets the other go, and the kernel
//! ends a connection by itself when the last thread is gone only. Aborting it frees both. All that is
//! looked at here is outside of the mount, where nothing answers.

use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::mountpoint::device_of;

/// How long a process that was killed may take to end before its connection is aborted.
const GRACE: Duration = Duration::from_millis(500);
/// How long it may take after that.
const END_WAIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What the first thread of a daemon is called.
const NAME: &[u8] = b"drivefs";
/// The file that a daemon holds open for its life, in its home.
const LOCK: &str = "lock";

/// A daemon of which only threads are left that cannot end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outlived {
    home: PathBuf,
    mount: Mount,
}

/// What a daemon notes in its lock: the kernel's device number (`major:minor`), and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    device: String,
    dir: PathBuf,
}

impl Mount {
    fn encode(&self) -> Vec<u8> {
        [self.device.as_bytes(), b"\n", self.dir.as_os_str().as_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let at = bytes.iter().position(|&b| b == b'\n')?;
        let device = String::from_utf8(bytes[..at].to_vec()).ok()?;
        connection(&device)?;
        let dir = PathBuf::from(OsStr::from_bytes(&bytes[at + 1..]));
        dir.is_absolute().then_some(Self { device, dir })
    }
}

/// Notes in the home's lock what is mounted, for who finds the daemon dead one day.
pub fn note_mount(lock: &File, dir: &Path) -> io::Result<()> {
    lock.set_len(0)?;
    if let Some(device) = device_of(dir)? {
        lock.write_all_at(&Mount { device, dir: dir.to_owned() }.encode(), 0)?;
    }
    Ok(())
}

/// Ends what is left of a killed daemon of this home. True if there was something.
pub fn free_home(root: &Path) -> io::Result<bool> {
    free(|daemon| daemon.home == root)
}

/// Ends what is left of a killed daemon whose drive is mounted at `dir`. True if there was something.
pub fn free_mount(dir: &Path) -> io::Result<bool> {
    let Ok(dir) = dir.canonicalize() else { return Ok(false) };
    match device_of(&dir)? {
        Some(device) => free(|daemon| daemon.mount.device == device && daemon.mount.dir == dir),
        None => Ok(false),
    }
}

fn free(is: impl Fn(&Outlived) -> bool) -> io::Result<bool> {
    let find = || -> io::Result<Option<Outlived>> { Ok(find_all()?.into_iter().find(&is)) };
    let begin = Instant::now();
    let mut aborted = false;
    let mut was_there = false;
    while let Some(daemon) = find()? {
        was_there = true;
        if !aborted && begin.elapsed() >= GRACE {
            abort(&daemon.mount.device, &daemon.mount.dir)?;
            aborted = true;
        }
        if begin.elapsed() > GRACE + END_WAIT {
            let dir = daemon.mount.dir.display();
            return Err(io::Error::other(format!(
                "the daemon of {dir} was killed, and does not end although its connection was \
                 aborted; a program may hold it: `fuser -m {dir}` lists them"
            )));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(was_there)
}

/// Aborts a connection: all that waits for its daemon fails, now and later. The caller knows that the
/// daemon is dead.
pub(super) fn abort(device: &str, dir: &Path) -> io::Result<()> {
    let written = handle(device).and_then(|file| file.write_all_at(b"1", 0));
    let Err(error) = written else { return Ok(()) };
    let root = rustix::process::geteuid().is_root();
    if root && device_of(dir)?.as_deref() == Some(device) {
        return match rustix::mount::unmount(dir, UnmountFlags::FORCE) {
            // It aborts before it looks who uses the mount.
            Ok(()) | Err(Errno::BUSY) => Ok(()),
            Err(e) => Err(e.into()),
        };
    }
    let dir = dir.display();
    Err(io::Error::other(format!(
        "the daemon of {dir} was killed while it told the kernel of a change, and waits for ever; \
         its connection could not be aborted ({error}). As root: `umount -f {dir}`"
    )))
}

/// The file of the kernel that aborts a connection when it is written. Once it is open it means this
/// very connection, also when another one gets its number.
pub(super) fn handle(device: &str) -> io::Result<File> {
    let number = connection(device).ok_or(io::ErrorKind::InvalidInput)?;
    File::options().write(true).open(format!("/sys/fs/fuse/connections/{number}/abort"))
}

/// The kernel's number of a connection: devices that are none have the major number 0.
fn connection(device: &str) -> Option<u32> {
    device.strip_prefix("0:")?.parse().ok()
}

fn find_all() -> io::Result<Vec<Outlived>> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")? {
        let process = process?;
        let number = process.file_name().to_string_lossy().parse::<u32>();
        // What ended meanwhile, or is somebody else's, is none of ours.
        if let Ok(process) = number
            && let Ok(stat) = fs::read(format!("/proc/{process}/stat"))
            && is_dead_daemon(&stat)
            && let Some(daemon) = left_of(process)
        {
            found.push(daemon);
        }
    }
    Ok(found)
}

/// By `stat`: `number (name) state ...`, and the name may contain anything.
fn is_dead_daemon(stat: &[u8]) -> bool {
    let open = stat.iter().position(|&b| b == b'(');
    let close = stat.iter().rposition(|&b| b == b')');
    match (open, close) {
        (Some(open), Some(close)) if open < close => {
            &stat[open + 1..close] == NAME && stat[close + 1..].starts_with(b" Z")
        }
        _ => false,
    }
}

/// What a thread that is left still holds open tells whose it is.
fn left_of(process: u32) -> Option<Outlived> {
    for thread in fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten() {
        let Ok(open) = fs::read_dir(thread.path().join("fd")) else { continue };
        for file in open.flatten() {
            let Ok(path) = fs::read_link(file.path()) else { continue };
            if path.file_name() != Some(OsStr::new(LOCK)) {
                continue;
            }
            let Ok(noted) = fs::read(&path) else { continue };
            if let (Some(home), Some(mount)) = (path.parent(), Mount::decode(&noted)) {
                return Some(Outlived { home: home.to_owned(), mount });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dead_daemon_is_one() {
        assert!(is_dead_daemon(b"12 (drivefs) Z 1 12 12"));
        for other in
            ["12 (drivefs) S 1 12", "12 (bash) Z 1 12", "12 (x) (drivefs) Z 1", "12 (drivefs", ""]
        {
            assert!(!is_dead_daemon(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn what_is_noted_comes_out_as_it_went_in() {
        for dir in ["/", "/a b/line\nbreak"] {
            let mount = Mount { device: "0:51".into(), dir: dir.into() };
            assert_eq!(Mount::decode(&mount.encode()), Some(mount));
        }
        for wrong in ["", "0:51", "8:1\n/mnt", "0:x\n/mnt", "0:51\nrelative"] {
            assert_eq!(Mount::decode(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_longer_note_of_an_earlier_daemon_leaves_nothing() {
        let lock = tempfile::NamedTempFile::new().expect("a file");
        lock.as_file().write_all_at(b"0:51\n/somewhere/else", 0).expect("it is written");
        // Nothing is mounted there.
        note_mount(lock.as_file(), Path::new("/nowhere")).expect("it is noted");
        assert_eq!(fs::read(lock.path()).expect("it is there"), b"");
    }

    #[test]
    fn who_lives_is_left_alone() {
        assert!(!free_home(Path::new("/nowhere")).expect("it looks"));
        assert!(!free_mount(Path::new("/")).expect("it looks"));
    }
}
