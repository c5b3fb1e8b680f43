//! Encryption at rest: AES-256-GCM (NIST SP 800-38D).
//!
//! Each pack has its own random key; the nonce of a block is its index in the pack, so a nonce
//! never repeats under a key and never depends on the plaintext. The pack key is wrapped by the
//! server's master key under a random nonce.

use std::fmt;

use aes_gcm::Aes256Gcm;
use aes_gcm::Nonce;
use aes_gcm::aead::Aead;
use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::KeyInit;
use aes_gcm::aead::Payload;

/// Bytes that authenticated encryption adds to a message.
pub const TAG_BYTES: usize = 16;
/// Length of a wrapped pack key: nonce, key, tag (bytes).
pub const WRAPPED_BYTES: usize = 12 + 32 + TAG_BYTES;

/// The bytes were not made under this key and these circumstances, or were damaged since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("decryption failed: wrong key or damaged data")]
pub struct DecryptError;

/// A 256-bit key. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key itself, for who keeps it.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Names a key without telling it: the first 8 bytes of a keyed hash.
    pub fn fingerprint(&self) -> [u8; 8] {
        let hash = blake3::keyed_hash(&self.0, b"drivefs key fingerprint");
        let mut out = [0; 8];
        out.copy_from_slice(&hash.as_bytes()[..8]);
        out
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Encrypts message `index` under `key`, bound to `associated` data, and appends it to `out`.
/// Returns how many bytes that were.
pub fn seal(key: &Key, index: u32, associated: &[u8], message: &[u8], out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.reserve(message.len() + TAG_BYTES);
    out.extend_from_slice(message);
    let tag = cipher(key)
        .encrypt_inout_detached(&nonce_of(index), associated, (&mut out[start..]).into())
        .expect("AES-GCM takes messages of up to 64 GiB");
    out.extend_from_slice(&tag);
    out.len() - start
}

/// Decrypts what `seal` made with the same key, index and associated data.
pub fn open(
    key: &Key,
    index: u32,
    associated: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, DecryptError> {
    cipher(key)
        .decrypt(&nonce_of(index), Payload { msg: sealed, aad: associated })
        .map_err(|_| DecryptError)
}

/// The same within the buffer, which holds the message afterwards.
pub fn open_in_place(
    key: &Key,
    index: u32,
    associated: &[u8],
    sealed: &mut Vec<u8>,
) -> Result<(), DecryptError> {
    cipher(key).decrypt_in_place(&nonce_of(index), associated, sealed).map_err(|_| DecryptError)
}

/// Wraps a pack key under the master key; `nonce` must be fresh random bytes.
pub fn wrap_key(
    master: &Key,
    nonce: [u8; 12],
    associated: &[u8],
    key: &Key,
) -> [u8; WRAPPED_BYTES] {
    let sealed = cipher(master)
        .encrypt(&Nonce::from(nonce), Payload { msg: &key.0, aad: associated })
        .expect("a key is a short message");
    let mut out = [0; WRAPPED_BYTES];
    out[..12].copy_from_slice(&nonce);
    out[12..].copy_from_slice(&sealed);
    out
}

/// Unwraps what `wrap_key` made under the same master key and associated data.
pub fn unwrap_key(master: &Key, associated: &[u8], wrapped: &[u8]) -> Result<Key, DecryptError> {
    if wrapped.len() != WRAPPED_BYTES {
        return Err(DecryptError);
    }
    let mut nonce = [0; 12];
    nonce.copy_from_slice(&wrapped[..12]);
    let key = cipher(master)
        .decrypt(&Nonce::from(nonce), Payload { msg: &wrapped[12..], aad: associated })
        .map_err(|_| DecryptError)?;
    key.try_into().map(Key).map_err(|_| DecryptError)
}

fn cipher(key: &Key) -> Aes256Gcm {
    Aes256Gcm::new(&key.0.into())
}

fn nonce_of(index: u32) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&index.to_le_bytes());
    Nonce::from(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_the_same_key_index_and_circumstances_open(
            key: [u8; 32], other: [u8; 32], index: u32, aad: Vec<u8>, message: Vec<u8>, at: prop::sample::Index,
        ) {
            prop_assume!(key != other);
            let key = Key::from_bytes(key);
            let mut out = b"before".to_vec();
            prop_assert_eq!(seal(&key, index, &aad, &message, &mut out), message.len() + TAG_BYTES);
            prop_assert_eq!(&out[..6], b"before");
            let sealed = out.split_off(6);
            let mut in_place = sealed.clone();
            prop_assert_eq!(open_in_place(&key, index, &aad, &mut in_place), Ok(()));
            prop_assert_eq!(&in_place, &message);
            prop_assert_eq!(open(&key, index, &aad, &sealed), Ok(message));
            prop_assert_eq!(open(&Key::from_bytes(other), index, &aad, &sealed), Err(DecryptError));
            prop_assert_eq!(open(&key, index ^ 1, &aad, &sealed), Err(DecryptError));
            prop_assert_eq!(open(&key, index, b"elsewhere, and quite another text", &sealed), Err(DecryptError));
            let mut damaged = sealed.clone();
            damaged[at.index(sealed.len())] ^= 1;
            prop_assert_eq!(open(&key, index, &aad, &damaged), Err(DecryptError));
        }

        #[test]
        fn a_wrapped_key_unwraps_only_under_its_master(master: [u8; 32], key: [u8; 32], nonce: [u8; 12]) {
            let master = Key::from_bytes(master);
            let key = Key::from_bytes(key);
            let wrapped = wrap_key(&master, nonce, b"pack", &key);
            prop_assert_eq!(unwrap_key(&master, b"pack", &wrapped), Ok(key.clone()));
            prop_assert_eq!(unwrap_key(&master, b"another pack", &wrapped), Err(DecryptError));
            prop_assert_eq!(unwrap_key(&master, b"pack", &wrapped[1..]), Err(DecryptError));
        }
    }
}
