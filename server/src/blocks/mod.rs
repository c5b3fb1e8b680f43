//! Where packs lie: the only place that knows the object store.
//!
//! A pack that was put is on disk, file and folder. Keys never leave this module in the clear, and
//! bytes leave it only after they were decrypted and checked against their hash.

pub mod keys;
pub mod space;
pub mod store;

pub use keys::KeyRing;
pub use store::BlockStore;

/// Why the block store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BlocksError {
    #[error("the disk of the block store is full")]
    Full,
    #[error("these blocks are in an archive and are being brought back")]
    Cold,
    #[error("pack {pack}: {what}")]
    Damaged { pack: String, what: String },
    #[error("block store: {0}")]
    Store(String),
    #[error("{0}")]
    Key(String),
}
