//! Tokens: 256 random bits as `dfs_` and 64 hex characters; the server keeps a hash alone.

use crate::host;

/// The blake3 hash of a token's text.
pub type TokenHash = [u8; 32];

const PREFIX: &str = "dfs_";

/// A fresh token: its text, shown once, and its hash.
pub fn make() -> (String, TokenHash) {
    let mut text = String::from(PREFIX);
    for byte in host::random::<[u8; 32]>() {
        text.push_str(&format!("{byte:02x}"));
    }
    let hash = hash(&text);
    (text, hash)
}

/// The hash under which a token is looked up. That the look-up takes its time by hash tells
/// nothing about tokens.
pub fn hash(text: &str) -> TokenHash {
    *blake3::hash(text.as_bytes()).as_bytes()
}

/// The token in an `Authorization` header's value.
pub fn from_header(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && token.trim().starts_with(PREFIX))
        .then(|| token.trim())
}
