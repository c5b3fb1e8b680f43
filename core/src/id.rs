//! One type per kind of identifier, so that the compiler keeps them apart.
//!
//! Text forms: UUIDs hyphenated, 64-bit ids and hashes in lower-case hexadecimal.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use uuid::Uuid;

/// A text that is not a well-formed identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct IdError(pub &'static str);

/// Counter of commits in one namespace; every changed row carries that of its last change.
pub type Seq = u64;
/// Names one run of a server's process; 0 stands for "not known".
pub type Epoch = u64;
/// Counter of content states of one file node; 0 means "never stored on the server".
pub type VersionNo = u64;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = String, format = "uuid"))]
        pub struct $name(pub Uuid);

        impl $name {
            /// A version 7 UUID (RFC 9562) from a wall clock in milliseconds and 10 random bytes.
            pub fn from_parts(unix_millis: u64, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(unix_millis, &random).into_uuid())
            }

            /// The wall clock that it was made with (milliseconds); 0 when it is no version 7 UUID.
            pub fn unix_millis(&self) -> u64 {
                let time = self.0.get_timestamp().map(|t| t.to_unix());
                time.map_or(0, |(secs, nanos)| secs * 1_000 + u64::from(nanos) / 1_000_000)
            }

            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
                Uuid::from_slice(bytes).map(Self).map_err(|_| IdError($what))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                Uuid::parse_str(s).map(Self).map_err(|_| IdError($what))
            }
        }
    };
}

uuid_id!(
    /// A file, directory, symlink, special file or mount point, for as long as it exists.
    NodeId,
    "node id"
);
uuid_id!(
    /// An immutable object in the store that holds the encrypted blocks of one upload.
    PackId,
    "pack id"
);
uuid_id!(
    /// Idempotency key of one op: a retry under the same key gets the first answer.
    OpKey,
    "op key"
);

macro_rules! u64_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = String))]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl $name {
            /// Builds an id in a logical shard (12 bits) from 51 random bits; the sign bit of the
            /// 64 stays clear so that every database stores it as a plain signed integer.
            pub fn in_shard(shard: u16, random: u64) -> Self {
                let shard = u64::from(shard) & 0xfff;
                Self((shard << 51) | (random & ((1 << 51) - 1)))
            }

            /// Logical shard of this id, 0 to 4095.
            pub fn shard(self) -> u16 {
                ((self.0 >> 51) & 0xfff) as u16
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                if s.len() != 16 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(IdError($what));
                }
                match u64::from_str_radix(s, 16) {
                    Ok(v) if v <= i64::MAX as u64 => Ok(Self(v)),
                    _ => Err(IdError($what)),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let s = String::deserialize(d)?;
                s.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

u64_id!(
    /// A tree with its own change order: a user's root or one shared folder.
    NamespaceId,
    "namespace id"
);
u64_id!(
    /// An account; the owner of namespaces, blocks and quota.
    UserId,
    "user id"
);

/// The blake3 hash of a block's plaintext: its name everywhere.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = String))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockHash(pub [u8; 32]);

impl BlockHash {
    pub fn of(plaintext: &[u8]) -> Self {
        Self(*blake3::hash(plaintext).as_bytes())
    }

    pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
        bytes.try_into().map(Self).map_err(|_| IdError("block hash"))
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlockHash {
    type Err = IdError;
    fn from_str(s: &str) -> Result<Self, IdError> {
        blake3::Hash::from_hex(s).map(|h| Self(*h.as_bytes())).map_err(|_| IdError("block hash"))
    }
}

impl Serialize for BlockHash {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlockHash {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let s = String::deserialize(d)?;
        s.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_64_bit_id_survives_its_text_and_keeps_its_shard(shard in 0u16..4096, random: u64) {
            let id = NamespaceId::in_shard(shard, random);
            prop_assert_eq!(id.shard(), shard);
            prop_assert_eq!(id.to_string().parse::<NamespaceId>(), Ok(id));
            prop_assert!(i64::try_from(id.0).is_ok());
        }

        #[test]
        fn a_hash_survives_its_text(bytes: [u8; 32]) {
            let hash = BlockHash(bytes);
            prop_assert_eq!(hash.to_string().parse::<BlockHash>(), Ok(hash));
        }

        #[test]
        fn hostile_text_is_an_error(text in ".{0,80}") {
            if let Ok(id) = text.parse::<NamespaceId>() {
                prop_assert_eq!(id.to_string(), text.to_lowercase());
            }
            let _ = text.parse::<BlockHash>();
            let _ = text.parse::<NodeId>();
        }
    }

    #[test]
    fn node_ids_sort_by_time() {
        let early = NodeId::from_parts(1_000, [0xff; 10]);
        let late = NodeId::from_parts(2_000, [0; 10]);
        assert!(early < late);
    }
}
