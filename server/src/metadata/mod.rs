//! Server metadata behind one seam: the only place that knows the database.
//!
//! Statements are written once, in the subset that SQLite and PostgreSQL share (`?1` parameters,
//! `ON CONFLICT`, `RETURNING`), in one file per domain. All writes go through one thread with
//! group commit (`store`); a write that was answered is on disk.

pub mod accounts;
pub mod audit;
pub mod blocks;
pub mod changes;
pub mod check;
pub mod entries;
pub mod epochs;
pub mod events;
pub mod jobs;
pub mod kept;
pub mod mounts;
pub mod namespaces;
pub mod nodes;
pub mod ops;
pub mod past;
pub mod policies;
pub mod scrubbed;
pub mod server;
pub mod snapshot;
pub mod space;
pub mod tiers;
pub mod tokens;
pub mod trash;
pub mod uploads;
pub mod value;
pub mod versions;

mod schema;
mod sqlite;
mod store;
mod writer;

pub use store::Store;

use value::Row;
use value::Value;

/// Why the database did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DbError {
    #[error("the disk of the database is full")]
    Full,
    #[error("the database is busy")]
    Busy,
    #[error(
        "the database has schema version {found}, this program knows up to {known}: \
         use a newer drivefs-server"
    )]
    Newer { found: i64, known: i64 },
    #[error(
        "the data has format {found}, this program knows up to {known}: use a newer drivefs-server"
    )]
    NewerFormat { found: i64, known: i64 },
    #[error("a row has an unexpected {0}")]
    Decode(&'static str),
    #[error("a number is too large: 2^63 or more")]
    Range,
    #[error("the database is closed")]
    Closed,
    #[error("database: {0}")]
    Other(String),
}

/// A connection inside a transaction.
pub trait Sql {
    /// Runs a statement that returns no rows; answers how many it changed.
    fn exec(&mut self, sql: &str, params: &[Value]) -> Result<u64, DbError>;

    /// Runs a statement and collects its rows.
    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, DbError>;

    /// The first row, if there is one.
    fn query_one(&mut self, sql: &str, params: &[Value]) -> Result<Option<Row>, DbError> {
        Ok(self.query(sql, params)?.into_iter().next())
    }
}
