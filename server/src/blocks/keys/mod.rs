//! The master keys: they wrap the keys of packs, and are themselves only in a file or the environment.
//!
//! Ordinarily there is one. While it is rotated there are two, the newest first: what is wrapped by
//! either can be read, also by a server that was started before. Without its key no block can ever be
//! read again: the messages say so.

mod source;

pub use source::KEY_FILE;
pub use source::KEY_VARIABLE;
pub use source::RETIRED_FILE;

use std::path::Path;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;

use drivefs_core::crypto;
use drivefs_core::crypto::DecryptError;
use drivefs_core::crypto::Key;
use drivefs_core::crypto::WRAPPED_BYTES;
use drivefs_core::id::PackId;

use super::BlocksError;
use source::MasterKeys;

/// Most retired keys that a process remembers.
const FORMER_MAX: usize = 8;

/// The master keys in use; clones share them.
#[derive(Clone)]
pub struct KeyRing {
    ring: Arc<Ring>,
}

struct Ring {
    source: Box<dyn MasterKeys>,
    /// Never empty; the newest first.
    keys: RwLock<Vec<Key>>,
    /// Keys that were retired while this process runs: a pack that is under way may be under one.
    former: RwLock<Vec<Key>>,
}

impl KeyRing {
    /// The keys of the environment, else those of `DATA/master.key`, made when `may_create`.
    pub fn load(data: &Path, may_create: bool) -> Result<Self, BlocksError> {
        let source = source::choose(data);
        let keys = RwLock::new(source.load(may_create)?);
        Ok(Self { ring: Arc::new(Ring { source, keys, former: RwLock::default() }) })
    }

    /// True when the keys can be changed here, and not only by who starts the server.
    pub fn is_rotatable(&self) -> bool {
        self.ring.source.is_writable()
    }

    fn keys(&self) -> Vec<Key> {
        self.ring.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn newest(&self) -> Key {
        self.keys().swap_remove(0)
    }

    /// Names the newest key without telling it.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.newest())
    }

    /// Names all keys, the newest first.
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys().iter().map(fingerprint).collect()
    }

    /// Reads the keys again.
    pub fn reload(&self) -> Result<(), BlocksError> {
        let loaded = self.ring.source.load(false)?;
        let mut keys = self.ring.keys.write().unwrap_or_else(PoisonError::into_inner);
        let mut former = self.ring.former.write().unwrap_or_else(PoisonError::into_inner);
        for key in keys.iter() {
            if !loaded.contains(key) && !former.contains(key) {
                former.insert(0, key.clone());
            }
        }
        former.truncate(FORMER_MAX);
        *keys = loaded;
        Ok(())
    }

    /// A fresh pack key and its wrapped form.
    pub fn new_pack_key(&self, pack: PackId) -> (Key, [u8; WRAPPED_BYTES]) {
        let key = Key::from_bytes(rand::random());
        let wrapped = wrap(&self.newest(), pack, &key);
        (key, wrapped)
    }

    /// The key of a pack. When none of the keys fits, it may have been rotated since they were read.
    pub fn unwrap(&self, pack: PackId, wrapped: &[u8]) -> Result<Key, DecryptError> {
        let known = self.keys();
        let former = self.ring.former.read().unwrap_or_else(PoisonError::into_inner).clone();
        unwrap(&known, pack, wrapped).or_else(|_| unwrap(&former, pack, wrapped)).or_else(|e| {
            self.reload().map_err(|why| {
                tracing::error!(error = %why, "the master keys cannot be read again");
                e
            })?;
            let now = self.keys();
            if now == known { Err(e) } else { unwrap(&now, pack, wrapped) }
        })
    }

    /// As `unwrap`, also under keys that were retired: the head of a pack keeps the one that it was
    /// written with. For repairs.
    pub fn unwrap_head(&self, pack: PackId, wrapped: &[u8]) -> Result<Key, DecryptError> {
        self.unwrap(pack, wrapped).or_else(|e| {
            let retired = self.ring.source.retired().map_err(|why| {
                tracing::warn!(error = %why, "retired keys cannot be read");
                e
            })?;
            unwrap(&retired, pack, wrapped)
        })
    }

    /// A pack key under the newest master key.
    pub fn wrap(&self, pack: PackId, key: &Key) -> [u8; WRAPPED_BYTES] {
        wrap(&self.newest(), pack, key)
    }

    /// The pack's key wrapped by the master key called `by`; none when it already is.
    pub fn rewrapped(
        &self,
        pack: PackId,
        wrapped: &[u8],
        by: &str,
    ) -> Result<Option<[u8; WRAPPED_BYTES]>, DecryptError> {
        let mut found = self.called(by);
        if found.is_none() && self.reload().is_ok() {
            found = self.called(by);
        }
        let master = found.ok_or(DecryptError)?;
        if crypto::unwrap_key(&master, pack.as_bytes(), wrapped).is_ok() {
            return Ok(None);
        }
        let key = self.unwrap(pack, wrapped)?;
        Ok(Some(wrap(&master, pack, &key)))
    }

    fn called(&self, name: &str) -> Option<Key> {
        self.keys().into_iter().find(|key| fingerprint(key) == name)
    }

    /// Adds a fresh key as the newest. It is on disk before anything is wrapped by it.
    pub fn begin_rotation(&self) -> Result<(), BlocksError> {
        let mut keys = self.keys();
        keys.insert(0, Key::from_bytes(rand::random()));
        self.ring.source.store(&keys)?;
        self.reload()
    }

    /// Drops all keys but the newest. In the file's case they are kept aside: backups need them.
    pub fn retire(&self) -> Result<(), BlocksError> {
        let keys = self.keys();
        if keys.len() > 1 {
            self.ring.source.retire(&keys[1..])?;
            self.ring.source.store(&keys[..1])?;
            self.reload()?;
        }
        Ok(())
    }
}

fn unwrap(keys: &[Key], pack: PackId, wrapped: &[u8]) -> Result<Key, DecryptError> {
    keys.iter()
        .find_map(|master| crypto::unwrap_key(master, pack.as_bytes(), wrapped).ok())
        .ok_or(DecryptError)
}

fn wrap(master: &Key, pack: PackId, key: &Key) -> [u8; WRAPPED_BYTES] {
    crypto::wrap_key(master, rand::random(), pack.as_bytes(), key)
}

fn fingerprint(key: &Key) -> String {
    source::hex(&key.fingerprint())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn pack(n: u8) -> PackId {
        PackId::from_parts(0, [n; 10])
    }

    #[test]
    fn a_rotation_knows_both_keys_until_the_old_one_is_retired() {
        let dir = tempfile::tempdir().expect("a folder");
        let ring = KeyRing::load(dir.path(), true).expect("made");
        let old = ring.fingerprint();
        let (key, wrapped) = ring.new_pack_key(pack(1));
        // Another process begins.
        let rotating = KeyRing::load(dir.path(), false).expect("read");
        rotating.begin_rotation().expect("begins");
        let new = rotating.fingerprint();
        assert_eq!(rotating.fingerprints(), [new.clone(), old.clone()]);
        let again = rotating.rewrapped(pack(1), &wrapped, &new).expect("opens").expect("another");
        assert_eq!(rotating.rewrapped(pack(1), &again, &new), Ok(None), "it is done already");
        assert_eq!(ring.unwrap(pack(1), &again), Ok(key.clone()), "picked up without a restart");
        rotating.retire().expect("retires");
        assert_eq!(rotating.fingerprints(), [new]);
        let after = KeyRing::load(dir.path(), false).expect("read");
        assert_eq!(after.unwrap(pack(1), &again), Ok(key));
        assert!(after.unwrap(pack(1), &wrapped).is_err());
        assert!(after.unwrap_head(pack(1), &wrapped).is_ok(), "for repairs");
        let retired = fs::read_to_string(dir.path().join(RETIRED_FILE)).expect("kept");
        assert!(retired.contains(&old), "backups made before need it");
        let mode = fs::metadata(dir.path().join(RETIRED_FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

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
