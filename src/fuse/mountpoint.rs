//! The folder to mount on: checked before, repaired after the death of a daemon, unmounted.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::mount::UnmountFlags;

use super::outlived;

/// How long a mount may take to tell whether its daemon lives.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Why a folder cannot be mounted on, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum MountPointError {
    #[error("{0} does not exist; make it with `mkdir -p {0}`")]
    Missing(String),
    #[error("{0} is not a folder")]
    NotDir(String),
    #[error("{0} is already a mounted drivefs; `drivefs umount {0}` ends it")]
    Mounted(String),
    #[error("{0} is a mount point of something else ({1})")]
    Busy(String, String),
    #[error("{0} is not empty; mounting would hide its files (`-o nonempty` does it anyway)")]
    NotEmpty(String),
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

/// A folder that can be mounted on.
#[derive(Debug, Clone)]
pub struct MountPoint {
    pub path: PathBuf,
    /// The mount of a daemon that died was taken away.
    pub repaired: bool,
}

impl MountPoint {
    /// Checks a folder. A drivefs mount whose daemon is dead is unmounted first.
    pub fn check(dir: &Path, nonempty: bool) -> Result<Self, MountPointError> {
        let name = dir.display().to_string();
        let failed = |e| MountPointError::Io(name.clone(), e);
        let mut repaired = outlived::free_mount(dir).map_err(failed)?;
        if is_dead(dir).map_err(failed)? {
            unmount(dir, true).map_err(failed)?;
            repaired = true;
        }
        let meta = match fs::metadata(dir) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(MountPointError::Missing(name));
            }
            Err(e) => return Err(failed(e)),
        };
        if !meta.is_dir() {
            return Err(MountPointError::NotDir(name));
        }
        let path = dir.canonicalize().map_err(failed)?;
        match is_mounted(&path).map_err(failed)? {
            Some(Mounted::Drivefs) => return Err(MountPointError::Mounted(name)),
            Some(Mounted::Other(kind)) => return Err(MountPointError::Busy(name, kind)),
            None => {}
        }
        if !nonempty && fs::read_dir(&path).map_err(failed)?.next().is_some() {
            return Err(MountPointError::NotEmpty(name));
        }
        Ok(Self { path, repaired })
    }
}

/// A mount whose daemon is gone answers "not connected" to everything.
/// Fails when a mount does not answer at all.
pub fn is_dead(dir: &Path) -> io::Result<bool> {
    let (sender, answer) = channel();
    let asked = dir.to_owned();
    // On a thread that may stay: who asks a daemon that is stopped waits as long as that is.
    thread::Builder::new().name("statvfs".into()).spawn(move || {
        // Not stat(2): the kernel may still have the answer to that.
        let answer = rustix::fs::statvfs(&asked);
        // Who asked may have given up.
        let _ = sender.send(answer.err());
    })?;
    let error = answer.recv_timeout(ANSWER_WAIT).map_err(|_| {
        let dir = dir.display();
        io::Error::other(format!(
            "the mount does not answer: its daemon is stopped or hangs. If it is stopped, let it \
             go on; else end it (`drivefs status` tells its home), or as root `umount -f {dir}`"
        ))
    })?;
    Ok(matches!(error, Some(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED)))
}

/// What is mounted on a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounted {
    Drivefs,
    /// Something else, by its file system type.
    Other(String),
}

/// What is mounted exactly at `path`, if anything.
pub fn is_mounted(path: &Path) -> io::Result<Option<Mounted>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let wanted = path.to_string_lossy();
    let mut found = None;
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let at = left.split(' ').nth(4).map(unescape);
        if at.as_deref() == Some(&*wanted) {
            // The type is "fuse" where the kernel was asked directly, "fuse.drivefs" through the
            // helper; the source is "drivefs" in both.
            let mut words = right.split(' ');
            let (kind, source) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            found = Some(if kind.starts_with("fuse") && source == "drivefs" {
                Mounted::Drivefs
            } else {
                Mounted::Other(kind.to_owned())
            });
        }
    }
    Ok(found)
}

/// The device number (`major:minor`) of the drive mounted at `path`, without asking the drive.
pub fn device_of(path: &Path) -> io::Result<Option<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let wanted = path.to_string_lossy();
    // Of several mounts on one folder the last one shows.
    let mut lines = table.lines().rev().filter_map(|line| {
        let mut words = line.split(' ').skip(2);
        let (device, at) = (words.next()?, words.nth(1)?);
        (unescape(at) == *wanted).then(|| device.to_owned())
    });
    Ok(lines.next())
}

/// Octal escapes of mountinfo (proc(5)): space, tab, newline, backslash.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Unmounts; `lazy` takes the name away at once even while files are open.
pub fn unmount(dir: &Path, lazy: bool) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        return Ok(rustix::mount::unmount(dir, flags)?);
    }
    let program = std::env::var_os("FUSERMOUNT_PATH").unwrap_or_else(|| "fusermount3".into());
    let mut command = Command::new(program);
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(dir).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.contains("busy") {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    Err(io::Error::other(text))
}
