//! What happened, one row a commit, and the counters of mass changes.
//!
//! Rows of a namespace are in the order of their times, too.

use drivefs_core::codec;
use drivefs_core::codec::Codec;
use drivefs_core::codec::Encoded;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::Seq;
use drivefs_core::id::UserId;
use drivefs_core::limits::BLOCK_MAX_BYTES;
use drivefs_core::node::TimeNs;
use drivefs_core::wire::Span;
use drivefs_core::wire::Told;

use super::DbError;
use super::Sql;
use super::value::Row;
use super::value::params;

/// Compression of a row: speed counts more than length.
const LEVEL: i32 = 1;
/// Rows shorter than this are not compressed (bytes).
const PLAIN_BYTES: usize = 512;

/// A row to be written.
pub struct NewEvents<'a> {
    pub seq: Seq,
    pub at: TimeNs,
    pub user: UserId,
    pub device: &'a str,
    pub told: &'a Told,
    /// Events of the namespace, all rows and this one.
    pub total: u64,
}

/// A row as it was written.
pub struct StoredEvents {
    pub seq: Seq,
    pub at: TimeNs,
    pub user: UserId,
    pub device: String,
    pub told: Told,
}

/// Where the record of a namespace ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    pub seq: Seq,
    pub at: TimeNs,
    pub total: u64,
}

pub fn insert(sql: &mut dyn Sql, ns: NamespaceId, new: &NewEvents<'_>) -> Result<(), DbError> {
    let mut text = serde_json::to_vec(new.told).map_err(|_| DbError::Decode("event"))?;
    if text.len() > BLOCK_MAX_BYTES {
        // A thousand names of the longest: the commit counts more than its record, and the record
        // says that it is not whole.
        text = serde_json::to_vec(&Told::default()).map_err(|_| DbError::Decode("event"))?;
        set_begins(sql, ns, new.at)?;
    }
    let encoded = if text.len() < PLAIN_BYTES {
        Encoded { codec: Codec::Raw, bytes: text.as_slice().into() }
    } else {
        codec::encode(&text, LEVEL).map_err(|_| DbError::Decode("event"))?
    };
    sql.exec(
        "INSERT INTO event (ns, seq, at_ns, user, device, total, notable, codec, length, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            ns,
            new.seq,
            new.at,
            new.user,
            new.device,
            new.total,
            new.told.is_notable(),
            encoded.codec as u8,
            text.len(),
            &encoded.bytes[..],
        ],
    )?;
    Ok(())
}

/// The newest row.
pub fn last(sql: &mut dyn Sql, ns: NamespaceId) -> Result<Option<Mark>, DbError> {
    let row = sql.query_one(
        "SELECT seq, at_ns, total FROM event WHERE ns = ?1 ORDER BY seq DESC LIMIT 1",
        params![ns],
    )?;
    row.as_ref().map(mark_of).transpose()
}

/// The oldest rows.
pub fn oldest(sql: &mut dyn Sql, ns: NamespaceId, limit: u32) -> Result<Vec<Mark>, DbError> {
    let rows = sql.query(
        "SELECT seq, at_ns, total FROM event WHERE ns = ?1 ORDER BY seq LIMIT ?2",
        params![ns, limit],
    )?;
    rows.iter().map(mark_of).collect()
}

/// The last commit on record that was made at `time` or earlier; 0 when there is none.
pub fn before(sql: &mut dyn Sql, ns: NamespaceId, time: TimeNs) -> Result<Seq, DbError> {
    let row = sql.query_one(
        "SELECT seq FROM event WHERE ns = ?1 AND at_ns <= ?2 ORDER BY at_ns DESC LIMIT 1",
        params![ns, time],
    )?;
    row.map_or(Ok(0), |r| r.get(0))
}

/// Removes the rows up to one, and notes where the record begins.
pub fn prune(sql: &mut dyn Sql, ns: NamespaceId, upto: &Mark) -> Result<(), DbError> {
    sql.exec("DELETE FROM event WHERE ns = ?1 AND seq <= ?2", params![ns, upto.seq])?;
    set_begins(sql, ns, upto.at)
}

fn set_begins(sql: &mut dyn Sql, ns: NamespaceId, at: TimeNs) -> Result<(), DbError> {
    sql.exec(
        "UPDATE namespace SET events_ns = ?2 WHERE ns = ?1 AND events_ns < ?2",
        params![ns, at],
    )?;
    Ok(())
}

/// Of what happened up to this time not everything is on record; 0 when all is.
pub fn begins(sql: &mut dyn Sql, ns: NamespaceId) -> Result<TimeNs, DbError> {
    let row = sql.query_one("SELECT events_ns FROM namespace WHERE ns = ?1", params![ns])?;
    row.map_or(Ok(0), |r| r.get(0))
}

pub fn page(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    span: Span,
    notable: bool,
    limit: u32,
) -> Result<Vec<StoredEvents>, DbError> {
    let (condition, bound) = match span {
        Span::After(seq) => ("seq > ?2 ORDER BY seq", i64::try_from(seq).unwrap_or(i64::MAX)),
        // By the short index of what is notable, not by that of all times.
        Span::Since(time) if notable => ("+at_ns > ?2 ORDER BY seq", time),
        Span::Since(time) => ("at_ns > ?2 ORDER BY at_ns", time),
        Span::Before(seq) => ("seq < ?2 ORDER BY seq DESC", i64::try_from(seq).unwrap_or(i64::MAX)),
        Span::Newest => ("seq < ?2 ORDER BY seq DESC", i64::MAX),
    };
    let which = if notable { "AND notable = 1" } else { "" };
    let statement = format!(
        "SELECT seq, at_ns, user, device, codec, length, detail FROM event
         WHERE ns = ?1 {which} AND {condition} LIMIT ?3"
    );
    sql.query(&statement, params![ns, bound, limit])?.iter().map(stored_of).collect()
}

fn mark_of(r: &Row) -> Result<Mark, DbError> {
    Ok(Mark { seq: r.get(0)?, at: r.get(1)?, total: r.get(2)? })
}

fn stored_of(r: &Row) -> Result<StoredEvents, DbError> {
    let codec = Codec::from_u8(r.get(4)?).ok_or(DbError::Decode("event"))?;
    let (length, detail): (usize, Vec<u8>) = (r.get(5)?, r.get(6)?);
    let text = codec::decode(codec, &detail, length, None).map_err(|_| DbError::Decode("event"))?;
    let told = serde_json::from_slice(&text).map_err(|_| DbError::Decode("event"))?;
    Ok(StoredEvents { seq: r.get(0)?, at: r.get(1)?, user: r.get(2)?, device: r.get(3)?, told })
}

/// The counter of what a device deletes and rewrites (JSON); none before the first time.
pub fn counter(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    user: UserId,
    device: &str,
) -> Result<Option<String>, DbError> {
    let row = sql.query_one(
        "SELECT state FROM mass_counter WHERE ns = ?1 AND user = ?2 AND device = ?3",
        params![ns, user, device],
    )?;
    row.map(|r| r.get(0)).transpose()
}

pub fn set_counter(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    user: UserId,
    device: &str,
    state: &str,
) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO mass_counter (ns, user, device, state) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (ns, user, device) DO UPDATE SET state = ?4",
        params![ns, user, device, state],
    )?;
    Ok(())
}

/// Names in a namespace, counted up to `limit`.
pub fn names_up_to(sql: &mut dyn Sql, ns: NamespaceId, limit: u64) -> Result<u64, DbError> {
    // Ids are never empty: this is a range of the index, without removed entries.
    let row = sql.query_one(
        "SELECT count(*) FROM (SELECT 1 FROM dirent WHERE ns = ?1 AND child > ?2 LIMIT ?3) t",
        params![ns, &b""[..], limit],
    )?;
    row.map_or(Ok(0), |r| r.get(0))
}
