//! Marks what the server hands out to get it back unchanged. The secret is the data's, so that any
//! server over it knows the marks of the others.

/// Derives a key for each purpose from one secret.
#[derive(Clone)]
pub struct Seal {
    secret: [u8; 32],
}

impl Seal {
    pub fn from_secret(secret: &str) -> Self {
        Self { secret: *blake3::hash(secret.as_bytes()).as_bytes() }
    }

    /// The mark of some bytes for one purpose.
    pub fn mark(&self, context: &str, bytes: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.key(context), bytes).as_bytes()
    }

    /// True when a mark is that of the bytes; takes the same time whatever differs.
    pub fn is_mark(&self, context: &str, bytes: &[u8], mark: &[u8]) -> bool {
        let Ok(mark) = <[u8; 32]>::try_from(mark) else { return false };
        blake3::keyed_hash(&self.key(context), bytes) == blake3::Hash::from_bytes(mark)
    }

    fn key(&self, context: &str) -> [u8; 32] {
        blake3::derive_key(context, &self.secret)
    }
}
