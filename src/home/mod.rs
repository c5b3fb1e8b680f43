//! Where one device keeps its things, and who it is.
//!
//! Everything lies in one folder: `DRIVEFS_HOME`, or `drivefs` in the user's data directory. Two
//! homes are two devices. Nothing outside this folder is ever written, but for the mount itself.

mod account;

use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use rustix::fs::flock;

pub use account::AccountFile;
pub use account::HomeError;

/// The folder of one device.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The home that the environment names, created if need be (mode 0700).
    pub fn from_env() -> Result<Self, HomeError> {
        let root = match std::env::var_os("DRIVEFS_HOME") {
            Some(dir) if !dir.is_empty() => PathBuf::from(dir),
            _ => data_dir()?.join("drivefs"),
        };
        Self::at(&root)
    }

    pub fn at(root: &Path) -> Result<Self, HomeError> {
        let make = |dir: &Path| {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(|e| HomeError::Io(dir.display().to_string(), e))
        };
        make(root)?;
        let root = root.canonicalize().map_err(|e| HomeError::Io(root.display().to_string(), e))?;
        let home = Self { root };
        make(&home.data())?;
        Ok(home)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Account and server address, with the device's token.
    pub fn account(&self) -> PathBuf {
        self.root.join("account.json")
    }

    pub fn database(&self) -> PathBuf {
        self.root.join("state.db")
    }

    /// Spool layers and cached blocks.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    pub fn log(&self) -> PathBuf {
        self.root.join("drivefs.log")
    }

    /// Data folder of the embedded server.
    pub fn server(&self) -> PathBuf {
        self.root.join("server")
    }

    /// Takes the home for one daemon; none when another has it.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let path = self.root.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // What an earlier daemon noted in it (`fuse::note_mount`) is its own.
                file.set_len(0)?;
                Ok(Some(file))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

fn data_dir() -> Result<PathBuf, HomeError> {
    if let Some(dir) = std::env::var_os("XDG_DATA_HOME").filter(|d| !d.is_empty()) {
        return Ok(PathBuf::from(dir));
    }
    let home = std::env::var_os("HOME").filter(|d| !d.is_empty()).ok_or(HomeError::NoHome)?;
    Ok(PathBuf::from(home).join(".local/share"))
}

/// Writes a file so that it is there whole or not at all, also after power loss.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temp = path.with_extension("tmp");
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(mode).open(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temp, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
