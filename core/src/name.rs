//! Names of directory entries: any bytes that POSIX allows.
//!
//! In JSON a name that is valid UTF-8 stands as it is; any other is written `/x` and its bytes
//! in hexadecimal. The slash cannot occur in a name, so the two never meet.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;

use crate::limits::NAME_MAX_BYTES;

/// The hidden history folder that every directory has; no entry may be called so.
pub const VERSIONS_DIR: &[u8] = b".versions";

const HEX_MARK: &str = "/x";

/// Why some bytes cannot be the name of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name cannot be empty")]
    Empty,
    #[error("a name cannot be longer than {NAME_MAX_BYTES} bytes")]
    TooLong,
    #[error("a name cannot contain '/' or NUL")]
    ForbiddenByte,
    #[error("'.' and '..' are not names")]
    Dots,
    #[error("'.versions' is reserved for the history of the folder")]
    Reserved,
}

/// A checked name of a directory entry.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = String))]
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Vec<u8>);

impl Name {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, NameError> {
        let bytes = bytes.into();
        match bytes.as_slice() {
            b"" => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dots),
            VERSIONS_DIR => Err(NameError::Reserved),
            b if b.len() > NAME_MAX_BYTES => Err(NameError::TooLong),
            b if b.iter().any(|&c| c == b'/' || c == 0) => Err(NameError::ForbiddenByte),
            _ => Ok(Self(bytes)),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The name of the conflict file beside this one:
    /// `report (alice-laptop's conflicted copy 2026-11-22).txt`, then ` 2`, ` 3`, ... for `n > 1`.
    /// Stem bytes are dropped from its end where the result would be too long.
    pub fn conflicted_copy(&self, device: &str, date: &str, n: u32) -> Self {
        let device: String =
            device.chars().filter(|c| !c.is_control() && *c != '/').take(32).collect();
        self.with_note(&format!("{device}'s conflicted copy {date}{}", count(n)))
    }

    /// The name of what comes back from history while this name is taken:
    /// `report (restored 2026-11-22).txt`, then ` 2`, ` 3`, ... for `n > 1`.
    pub fn restored_copy(&self, date: &str, n: u32) -> Self {
        self.with_note(&format!("restored {date}{}", count(n)))
    }

    fn with_note(&self, note: &str) -> Self {
        let note = format!(" ({note})");
        let dot = self.0.iter().rposition(|&c| c == b'.').filter(|&i| i > 0);
        let (stem, extension) = self.0.split_at(dot.unwrap_or(self.0.len()));
        let extension = if extension.len() > 32 { &extension[..32] } else { extension };
        let room = NAME_MAX_BYTES.saturating_sub(note.len() + extension.len());
        let mut bytes = stem[..floor_char(stem, room)].to_vec();
        bytes.extend_from_slice(note.as_bytes());
        bytes.extend_from_slice(extension);
        Self(bytes)
    }
}

fn count(n: u32) -> String {
    if n > 1 { format!(" {n}") } else { String::new() }
}

/// The largest cut at or below `at` that does not split a UTF-8 sequence.
fn floor_char(bytes: &[u8], at: usize) -> usize {
    if at >= bytes.len() {
        return bytes.len();
    }
    let mut cut = at;
    while cut > 0 && at - cut < 4 && bytes[cut] & 0xc0 == 0x80 {
        cut -= 1;
    }
    cut
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => s.serialize_str(text),
            Err(_) => {
                let mut text = String::from(HEX_MARK);
                for byte in &self.0 {
                    text.push_str(&format!("{byte:02x}"));
                }
                s.serialize_str(&text)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let bytes = match text.strip_prefix(HEX_MARK) {
            Some(hex) => unhex(hex).ok_or_else(|| serde::de::Error::custom("bad hex in a name"))?,
            None => text.into_bytes(),
        };
        Self::new(bytes).map_err(serde::de::Error::custom)
    }
}

fn unhex(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_posix_name_survives_json(bytes in proptest::collection::vec(1u8.., 1..256)) {
            if let Ok(name) = Name::new(bytes) {
                let json = serde_json::to_string(&name).expect("names serialise");
                prop_assert_eq!(serde_json::from_str::<Name>(&json).expect("and come back"), name);
            }
        }

        #[test]
        fn a_conflicted_copy_is_a_valid_other_name(
            bytes in proptest::collection::vec(1u8.., 1..256), device in ".{0,60}", n in 1u32..200,
        ) {
            if let Ok(name) = Name::new(bytes) {
                for copy in [
                    name.conflicted_copy(&device, "2026-11-22", n),
                    name.restored_copy("2026-11-22", n),
                ] {
                    prop_assert!(Name::new(copy.as_bytes()).is_ok());
                    prop_assert_ne!(&copy, &name);
                }
            }
        }
    }

    #[test]
    fn names_that_cannot_be_are_told_apart() {
        assert_eq!(Name::new(*b""), Err(NameError::Empty));
        assert_eq!(Name::new(*b".."), Err(NameError::Dots));
        assert_eq!(Name::new(*b"a/b"), Err(NameError::ForbiddenByte));
        assert_eq!(Name::new(*b"a\0"), Err(NameError::ForbiddenByte));
        assert_eq!(Name::new(vec![b'a'; 256]), Err(NameError::TooLong));
        assert_eq!(Name::new(*b".versions"), Err(NameError::Reserved));
        assert!(Name::new(vec![b'a'; 255]).is_ok());
    }

    #[test]
    fn a_conflicted_copy_keeps_the_extension_last() {
        let name = Name::new(*b"report.txt").expect("valid");
        assert_eq!(
            name.conflicted_copy("alice-laptop", "2026-11-22", 1).to_string(),
            "report (alice-laptop's conflicted copy 2026-11-22).txt"
        );
        assert_eq!(
            name.conflicted_copy("alice-laptop", "2026-11-22", 2).to_string(),
            "report (alice-laptop's conflicted copy 2026-11-22 2).txt"
        );
        assert_eq!(
            name.restored_copy("2026-11-22", 1).to_string(),
            "report (restored 2026-11-22).txt"
        );
    }
}
