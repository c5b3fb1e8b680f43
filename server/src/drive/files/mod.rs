//! The file API's use cases: paths instead of nodes, and bytes that arrive whole.
//!
//! Adds no way to change a namespace: bytes become blocks by the ordinary packs, changes go through
//! `commit`. Knows no HTTP and no JSON shapes.

pub mod aim;
pub mod change;
pub mod complete;
pub mod entry;
pub mod error;
pub mod path;
pub mod pending;
pub mod put;
pub mod read;
pub mod revisions;
pub mod session;
pub mod since;
pub mod stamp;
pub mod walk;

mod cursor;
mod hash;
mod list;
mod plain;
mod subtree;
mod turns;

pub use error::FilesError;
pub use turns::Turns;

use std::io;
use std::pin::Pin;

use bytes::Bytes;
use drivefs_core::id::NodeId;
use drivefs_core::id::OpKey;
use futures_util::Stream;

use crate::clock;
use crate::host;

/// A body as it arrives.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

fn fresh_node() -> NodeId {
    NodeId::from_parts(clock::now_millis(), host::random())
}

fn fresh_key() -> OpKey {
    OpKey::from_parts(clock::now_millis(), host::random())
}
