//! Uploads through the file API that have begun: how far they are, and where their bytes lie.
//!
//! A part is a run of the file's bytes that is stored as a block of the account: `cut` ones are
//! blocks of the file, the others are what follows the last cut. Whoever collects blocks that nothing
//! refers to must leave those alone that a part names.

use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::OpKey;
use drivefs_core::id::UserId;
use uuid::Uuid;

use super::DbError;
use super::Sql;
use super::value::FromValue;
use super::value::Row;
use super::value::Value;
use super::value::params;

/// The schema step of the file API. The table of version 1 was never written to.
pub const TABLES: &str = "
DROP TABLE upload;
CREATE TABLE upload (
    user BIGINT NOT NULL, upload BLOB NOT NULL, device TEXT NOT NULL,
    -- Bytes are awaited (1), all are stored (2), the file is in the tree (3).
    state INTEGER NOT NULL,
    -- Where the file goes (JSON), in which namespace, and as which node once that is decided.
    aim TEXT NOT NULL, ns BIGINT, node BLOB, op BLOB NOT NULL,
    -- Announced length; bytes that are stored, and up to where they are cut into blocks.
    size BIGINT, received BIGINT NOT NULL, cut BIGINT NOT NULL, closed INTEGER NOT NULL,
    result TEXT, created BIGINT NOT NULL, touched BIGINT NOT NULL, PRIMARY KEY (user, upload)
);
CREATE INDEX upload_touched ON upload (touched);
CREATE INDEX upload_pending ON upload (ns) WHERE state < 3;
CREATE TABLE upload_part (
    user BIGINT NOT NULL, upload BLOB NOT NULL, at BIGINT NOT NULL, hash BLOB NOT NULL,
    len BIGINT NOT NULL, cut INTEGER NOT NULL, PRIMARY KEY (user, upload, at)
) WITHOUT ROWID;
CREATE INDEX upload_part_hash ON upload_part (user, hash);
-- The commit that made the entry, if that is known: was the name free before its last change?
ALTER TABLE dirent ADD COLUMN first_seq BIGINT;
";

/// Names an upload; nobody guesses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UploadId(pub Uuid);

impl From<UploadId> for Value {
    fn from(id: UploadId) -> Self {
        Self::Blob(id.0.as_bytes().to_vec())
    }
}

impl FromValue for UploadId {
    fn from_value(value: &Value) -> Result<Self, DbError> {
        let bytes = Vec::<u8>::from_value(value)?;
        Uuid::from_slice(&bytes).map(Self).map_err(|_| DbError::Decode("upload id"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Pending = 1,
    Stored = 2,
    Uploaded = 3,
}

/// An upload as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    pub user: UserId,
    pub upload: UploadId,
    /// Name of the device that began it.
    pub device: String,
    pub state: State,
    /// Where the file goes (JSON of the use case).
    pub aim: String,
    pub ns: Option<NamespaceId>,
    pub node: Option<NodeId>,
    pub op: OpKey,
    pub size: Option<u64>,
    /// Bytes that are on disk.
    pub received: u64,
    /// Of them, those that are cut into blocks.
    pub cut: u64,
    pub closed: bool,
    pub result: Option<String>,
    /// Seconds since the Unix epoch, as is the next.
    pub created: i64,
    pub touched: i64,
}

/// A run of bytes that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub at: u64,
    pub hash: BlockHash,
    pub len: u32,
    pub cut: bool,
}

const COLUMNS: &str = "user, upload, device, state, aim, ns, node, op, size, received, cut, closed, \
     result, created, touched";

fn upload_of(r: &Row) -> Result<Upload, DbError> {
    Ok(Upload {
        user: r.get(0)?,
        upload: r.get(1)?,
        device: r.get(2)?,
        state: match r.get::<i64>(3)? {
            1 => State::Pending,
            2 => State::Stored,
            3 => State::Uploaded,
            _ => return Err(DbError::Decode("upload state")),
        },
        aim: r.get(4)?,
        ns: r.get(5)?,
        node: r.get(6)?,
        op: r.get(7)?,
        size: r.get(8)?,
        received: r.get(9)?,
        cut: r.get(10)?,
        closed: r.get(11)?,
        result: r.get(12)?,
        created: r.get(13)?,
        touched: r.get(14)?,
    })
}

pub fn insert(sql: &mut dyn Sql, u: &Upload) -> Result<(), DbError> {
    let statement = format!(
        "INSERT INTO upload ({COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)"
    );
    sql.exec(
        &statement,
        params![
            u.user,
            u.upload,
            u.device.as_str(),
            u.state as i64,
            u.aim.as_str(),
            u.ns,
            u.node,
            u.op,
            u.size,
            u.received,
            u.cut,
            u.closed,
            u.result.as_deref(),
            u.created,
            u.touched,
        ],
    )?;
    Ok(())
}

pub fn find(sql: &mut dyn Sql, user: UserId, upload: UploadId) -> Result<Option<Upload>, DbError> {
    let statement = format!("SELECT {COLUMNS} FROM upload WHERE user = ?1 AND upload = ?2");
    sql.query_one(&statement, params![user, upload])?.as_ref().map(upload_of).transpose()
}

/// Writes what changes of an upload, if it still is as far as `before` says; false when it is not.
pub fn advance(sql: &mut dyn Sql, before: &Upload, after: &Upload) -> Result<bool, DbError> {
    let changed = sql.exec(
        "UPDATE upload SET state = ?3, aim = ?4, ns = ?5, node = ?6, size = ?7, received = ?8,
         cut = ?9, closed = ?10, result = ?11, touched = ?12
         WHERE user = ?1 AND upload = ?2 AND state = ?13 AND received = ?14 AND cut = ?15",
        params![
            before.user,
            before.upload,
            after.state as i64,
            after.aim.as_str(),
            after.ns,
            after.node,
            after.size,
            after.received,
            after.cut,
            after.closed,
            after.result.as_deref(),
            after.touched,
            before.state as i64,
            before.received,
            before.cut,
        ],
    )?;
    Ok(changed > 0)
}

pub fn remove(sql: &mut dyn Sql, user: UserId, upload: UploadId) -> Result<(), DbError> {
    remove_parts(sql, user, upload)?;
    sql.exec("DELETE FROM upload WHERE user = ?1 AND upload = ?2", params![user, upload])?;
    Ok(())
}

pub fn remove_parts(sql: &mut dyn Sql, user: UserId, upload: UploadId) -> Result<(), DbError> {
    sql.exec("DELETE FROM upload_part WHERE user = ?1 AND upload = ?2", params![user, upload])?;
    Ok(())
}

/// Forgets the parts that are not blocks of the file.
pub fn remove_tail(sql: &mut dyn Sql, user: UserId, upload: UploadId) -> Result<(), DbError> {
    sql.exec(
        "DELETE FROM upload_part WHERE user = ?1 AND upload = ?2 AND cut = 0",
        params![user, upload],
    )?;
    Ok(())
}

pub fn insert_part(
    sql: &mut dyn Sql,
    user: UserId,
    upload: UploadId,
    part: &Part,
) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO upload_part (user, upload, at, hash, len, cut)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![user, upload, part.at, part.hash, part.len, part.cut],
    )?;
    Ok(())
}

/// The parts in order; those that are blocks of the file, or the others.
pub fn parts(
    sql: &mut dyn Sql,
    user: UserId,
    upload: UploadId,
    cut: bool,
) -> Result<Vec<Part>, DbError> {
    sql.query(
        "SELECT at, hash, len, cut FROM upload_part
         WHERE user = ?1 AND upload = ?2 AND cut = ?3 ORDER BY at",
        params![user, upload, cut],
    )?
    .iter()
    .map(|r| Ok(Part { at: r.get(0)?, hash: r.get(1)?, len: r.get(2)?, cut: r.get(3)? }))
    .collect()
}

/// Uploads of an account that have not ended.
pub fn open_count(sql: &mut dyn Sql, user: UserId) -> Result<u64, DbError> {
    let row = sql.query_one(
        "SELECT count(*) FROM upload WHERE user = ?1 AND state < ?2",
        params![user, State::Uploaded as i64],
    )?;
    row.map_or(Ok(0), |r| r.get(0))
}

/// Uploads into a namespace that have not ended, the oldest first.
pub fn pending(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    since: i64,
    limit: u32,
) -> Result<Vec<Upload>, DbError> {
    let statement = format!(
        "SELECT {COLUMNS} FROM upload WHERE ns = ?1 AND state < 3 AND touched >= ?2
         ORDER BY created, upload LIMIT ?3"
    );
    sql.query(&statement, params![ns, since, limit])?.iter().map(upload_of).collect()
}

/// Some uploads that nothing was sent to since a time.
pub fn idle_since(
    sql: &mut dyn Sql,
    before: i64,
    limit: u32,
) -> Result<Vec<(UserId, UploadId)>, DbError> {
    sql.query(
        "SELECT user, upload FROM upload WHERE touched < ?1 ORDER BY touched LIMIT ?2",
        params![before, limit],
    )?
    .iter()
    .map(|r| Ok((r.get(0)?, r.get(1)?)))
    .collect()
}

/// Some uploads whose bytes are all stored since before a time, whose place is known, and that were
/// not refused.
pub fn left(
    sql: &mut dyn Sql,
    before: i64,
    limit: u32,
) -> Result<Vec<(UserId, UploadId)>, DbError> {
    sql.query(
        "SELECT user, upload FROM upload WHERE state = 2 AND touched < ?1 AND length(aim) > 1
         AND result IS NULL
         ORDER BY touched LIMIT ?2",
        params![before, limit],
    )?
    .iter()
    .map(|r| Ok((r.get(0)?, r.get(1)?)))
    .collect()
}
