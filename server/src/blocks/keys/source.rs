//! Where master keys come from: a file beside the data, or the environment.
//!
//! The file is made once, atomically and on disk before it is used; one that others may read is
//! refused. It holds a key a line, the newest first; the environment the same with commas.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use drivefs_core::crypto::Key;

use super::super::BlocksError;

/// Name of the environment variable that overrides the key file.
pub const KEY_VARIABLE: &str = "DRIVEFS_MASTER_KEY";
pub const KEY_FILE: &str = "master.key";
/// Keys that were rotated out, with their fingerprints.
pub const RETIRED_FILE: &str = "master.key.retired";
/// Most keys that are known at once.
const KEYS_MAX: usize = 8;

/// A place that keeps master keys.
pub trait MasterKeys: Send + Sync {
    /// The keys, the newest first, at least one. Makes one when there is none and it may.
    fn load(&self, may_create: bool) -> Result<Vec<Key>, BlocksError>;
    /// True when `store` and `retire` can work.
    fn is_writable(&self) -> bool;
    /// Keeps these keys and no others. They are on disk when this returns.
    fn store(&self, keys: &[Key]) -> Result<(), BlocksError>;
    /// Keeps keys aside that are not in use any more.
    fn retire(&self, keys: &[Key]) -> Result<(), BlocksError>;
    /// Those kept aside.
    fn retired(&self) -> Result<Vec<Key>, BlocksError>;
}

/// The environment where it has keys, else the file of a data folder.
pub fn choose(data: &Path) -> Box<dyn MasterKeys> {
    match std::env::var(KEY_VARIABLE) {
        Ok(text) => Box::new(EnvironmentKeys { text }),
        Err(std::env::VarError::NotPresent) => Box::new(FileKeys { data: data.to_owned() }),
        // Refused when it is read as a key.
        Err(std::env::VarError::NotUnicode(_)) => Box::new(EnvironmentKeys { text: String::new() }),
    }
}

struct EnvironmentKeys {
    text: String,
}

impl MasterKeys for EnvironmentKeys {
    fn load(&self, _may_create: bool) -> Result<Vec<Key>, BlocksError> {
        parse(self.text.split(','), KEY_VARIABLE)
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn store(&self, _keys: &[Key]) -> Result<(), BlocksError> {
        Err(BlocksError::Key(format!("{KEY_VARIABLE} is set from outside, and changed there")))
    }

    fn retire(&self, keys: &[Key]) -> Result<(), BlocksError> {
        self.store(keys)
    }

    fn retired(&self) -> Result<Vec<Key>, BlocksError> {
        Ok(Vec::new())
    }
}

struct FileKeys {
    data: PathBuf,
}

impl FileKeys {
    fn write(&self, name: &str, text: &str) -> Result<(), BlocksError> {
        let path = self.data.join(name);
        let draft = self.data.join(format!("{name}.{:016x}", rand::random::<u64>()));
        let written = fill(&draft, text).and_then(|()| {
            fs::rename(&draft, &path)?;
            File::open(&self.data)?.sync_all()
        });
        written.map_err(|e| {
            // The error that counts is the first; it may not even be there.
            let _ = fs::remove_file(&draft);
            BlocksError::Key(format!("cannot write {}: {e}", path.display()))
        })
    }
}

impl MasterKeys for FileKeys {
    fn load(&self, may_create: bool) -> Result<Vec<Key>, BlocksError> {
        let path = self.data.join(KEY_FILE);
        let shown = path.display().to_string();
        match fs::metadata(&path) {
            Ok(meta) if meta.permissions().mode() & 0o077 != 0 => Err(BlocksError::Key(format!(
                "{shown} is open to other users; make it yours alone: chmod 600 {shown}"
            ))),
            Ok(_) => {
                let text = fs::read_to_string(&path).map_err(|e| unreadable(&shown, &e))?;
                parse(text.lines(), &shown)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound && may_create => {
                create(&self.data, &path).map_err(|e| unreadable(&shown, &e))?;
                self.load(false)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(BlocksError::Key(format!(
                "{shown} is gone, but this server holds data sealed with it: put the file back \
                 from its backup, or set {KEY_VARIABLE}"
            ))),
            Err(e) => Err(unreadable(&shown, &e)),
        }
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn store(&self, keys: &[Key]) -> Result<(), BlocksError> {
        let text: String = keys.iter().map(|key| format!("{}\n", hex(key.as_bytes()))).collect();
        self.write(KEY_FILE, &text)
    }

    fn retire(&self, keys: &[Key]) -> Result<(), BlocksError> {
        let path = self.data.join(RETIRED_FILE);
        let mut text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|e| unreadable(&path.display().to_string(), &e))?,
        };
        for key in keys {
            let line = format!("{} {}\n", hex(&key.fingerprint()), hex(key.as_bytes()));
            if !text.contains(&line) {
                text.push_str(&line);
            }
        }
        self.write(RETIRED_FILE, &text)
    }

    fn retired(&self) -> Result<Vec<Key>, BlocksError> {
        let path = self.data.join(RETIRED_FILE);
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(|e| unreadable(&path.display().to_string(), &e))?,
        };
        let keys = text.lines().filter_map(|line| line.split(' ').nth(1)).filter_map(unhex);
        Ok(keys.map(Key::from_bytes).collect())
    }
}

fn parse<'a>(texts: impl Iterator<Item = &'a str>, source: &str) -> Result<Vec<Key>, BlocksError> {
    let wrong = |what: &str| BlocksError::Key(format!("{source} does not hold a key: {what}"));
    let keys: Option<Vec<Key>> = texts
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| unhex(text).map(Key::from_bytes))
        .collect();
    let keys = keys.ok_or_else(|| wrong("it must be 64 hex characters"))?;
    if keys.is_empty() {
        return Err(wrong("it is empty; it must be 64 hex characters"));
    }
    if keys.len() > KEYS_MAX {
        return Err(wrong("there are too many keys in it"));
    }
    Ok(keys)
}

/// Writes a fresh key beside its place and links it there, so that the place never holds half a
/// key and never loses another's.
fn create(data: &Path, path: &Path) -> io::Result<()> {
    let draft = data.join(format!("{KEY_FILE}.{:016x}", rand::random::<u64>()));
    fill(&draft, &format!("{}\n", hex(&rand::random::<[u8; 32]>())))?;
    let linked = match fs::hard_link(&draft, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    fs::remove_file(&draft)?;
    linked?;
    File::open(data)?.sync_all()
}

fn fill(draft: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn unreadable(path: &str, e: &io::Error) -> BlocksError {
    BlocksError::Key(format!("cannot use the master key {path}: {e}"))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; 32];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}
