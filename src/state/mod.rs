//! The client's database: the only place that knows SQLite.
//!
//! `db` opens and transacts; the other files hold the statements of one table each, as methods of
//! `Conn`. No rule of the product lives here.

mod batch;
mod cached;
mod db;
mod dirents;
mod error;
mod intents;
mod listed;
mod meta;
mod nodes;
mod pins;
mod redo;
#[cfg(test)]
mod tests;

pub use cached::CachedBlock;
pub use db::Conn;
pub use db::Db;
pub use db::redo_path;
pub use error::DbError;
pub use intents::BaseDirent;
pub use intents::BaseNode;
pub use intents::Occupant;
pub use meta::NamespaceRow;
pub use nodes::Node;
pub use nodes::NodeEntry;

/// Local number of a node, its inode number in the mount. 1 is the root.
pub type Nid = u64;
/// Number of a data file.
pub type FileId = u64;
/// The root of the mount.
pub const ROOT: Nid = 1;
