//! The master key: wraps the keys of packs, and is itself only in a file or the environment.
//!
//! The file is made once, atomically and on disk before it is used; one that others may read is
//! refused. Without this key no block can ever be read again: the messages say so.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use drivefs_core::crypto;
use drivefs_core::crypto::Key;
use drivefs_core::crypto::WRAPPED_BYTES;
use drivefs_core::id::PackId;

use super::BlocksError;

/// Name of the environment variable that overrides the key file.
pub const KEY_VARIABLE: &str = "DRIVEFS_MASTER_KEY";
const KEY_FILE: &str = "master.key";

/// The master key in use.
#[derive(Clone)]
pub struct KeyRing {
    master: Key,
}

impl KeyRing {
    /// The key of the environment, else that of `DATA/master.key`, made when `may_create`.
    pub fn load(data: &Path, may_create: bool) -> Result<Self, BlocksError> {
        if let Ok(text) = std::env::var(KEY_VARIABLE) {
            return Self::parse(&text, KEY_VARIABLE);
        }
        let path = data.join(KEY_FILE);
        let shown = path.display().to_string();
        match fs::metadata(&path) {
            Ok(meta) if meta.permissions().mode() & 0o077 != 0 => Err(BlocksError::Key(format!(
                "{shown} is open to other users; make it yours alone: chmod 600 {shown}"
            ))),
            Ok(_) => {
                let text = fs::read_to_string(&path).map_err(|e| unreadable(&shown, &e))?;
                Self::parse(&text, &shown)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound && may_create => {
                create(data, &path).map_err(|e| unreadable(&shown, &e))?;
                Self::load(data, false)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(BlocksError::Key(format!(
                "{shown} is gone, but this server holds data sealed with it: put the file back \
                 from its backup, or set {KEY_VARIABLE}"
            ))),
            Err(e) => Err(unreadable(&shown, &e)),
        }
    }

    fn parse(text: &str, source: &str) -> Result<Self, BlocksError> {
        let bytes = unhex(text.trim()).ok_or_else(|| {
            BlocksError::Key(format!("{source} does not hold a key: it must be 64 hex characters"))
        })?;
        Ok(Self { master: Key::from_bytes(bytes) })
    }

    /// Names the key without telling it.
    pub fn fingerprint(&self) -> String {
        hex(&self.master.fingerprint())
    }

    /// A fresh pack key and its wrapped form.
    pub fn new_pack_key(&self, pack: PackId) -> (Key, [u8; WRAPPED_BYTES]) {
        let key = Key::from_bytes(rand::random());
        let wrapped = crypto::wrap_key(&self.master, rand::random(), pack.as_bytes(), &key);
        (key, wrapped)
    }

    pub fn unwrap(&self, pack: PackId, wrapped: &[u8]) -> Result<Key, crypto::DecryptError> {
        crypto::unwrap_key(&self.master, pack.as_bytes(), wrapped)
    }
}

/// Writes a fresh key beside its place and links it there, so that the place never holds half a
/// key and never loses another's.
fn create(data: &Path, path: &Path) -> io::Result<()> {
    let draft = data.join(format!("{KEY_FILE}.{:016x}", rand::random::<u64>()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    writeln!(file, "{}", hex(&rand::random::<[u8; 32]>()))?;
    file.sync_all()?;
    let linked = match fs::hard_link(&draft, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    fs::remove_file(&draft)?;
    linked?;
    File::open(data)?.sync_all()
}

fn unreadable(path: &str, e: &io::Error) -> BlocksError {
    BlocksError::Key(format!("cannot use the master key {path}: {e}"))
}

fn hex(bytes: &[u8]) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = KeyRing::load(dir.path(), true).expect("made");
        let again = KeyRing::load(dir.path(), true).expect("read");
        assert_eq!(first.fingerprint(), again.fingerprint());
        let meta = fs::metadata(dir.path().join(KEY_FILE)).expect("there");
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "no draft stays");
    }

    #[test]
    fn a_key_file_open_to_others_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        KeyRing::load(dir.path(), true).expect("made");
        let path = dir.path().join(KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        let Err(BlocksError::Key(message)) = KeyRing::load(dir.path(), true) else {
            panic!("refused")
        };
        assert!(message.contains("chmod 600"), "{message}");
    }

    #[test]
    fn a_lost_key_file_is_not_replaced_where_data_depends_on_it() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(KeyRing::load(dir.path(), false).is_err());
    }
}
