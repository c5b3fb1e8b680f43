//! The redo log: changes that were acknowledged and are not in the database file yet.
//!
//! Small changes share one SQLite transaction, because a commit costs more than the change. So that
//! the death of this process loses none of them, each is appended here first, as the statements
//! it ran with their values: one `write(2)` a change. When the shared transaction commits, it
//! stores the number of the next generation, and the log starts over under that number: records of
//! an older generation are in the database and count no more.
//!
//! A record: length of the body (u32), checksum (8 bytes), body. The checksum covers generation and
//! body, so that neither a torn record nor the rest of an older generation is ever replayed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::ToSql;
use rusqlite::types::ToSqlOutput;
use rusqlite::types::Value;
use rusqlite::types::ValueRef;
use rustix::fs::FlockOperation;
use rustix::fs::flock;

use super::DbError;
use crate::host;

const MAGIC: &[u8; 8] = b"dfsredo1";
/// Magic and generation.
const HEADER_BYTES: u64 = 16;
const HEAD_BYTES: usize = 12;

/// The open log.
pub(super) struct RedoLog {
    file: File,
    generation: u64,
    /// End of the last record.
    len: u64,
}

/// Opens the file of the log, or creates it, for this process alone: two that append to one log
/// would write over each other. `WouldBlock` when another has it.
pub(super) fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

impl RedoLog {
    /// Makes a locked log the one of `generation`: what it holds of that generation stays, all
    /// else is dropped.
    pub fn open(file: File, generation: u64) -> io::Result<Self> {
        let mut header = [0; HEADER_BYTES as usize];
        let whole = file.read_exact_at(&mut header, 0).is_ok();
        let mut log = Self { file, generation, len: HEADER_BYTES };
        if whole && header == log.header() {
            log.len = log.records()?.1;
        } else {
            log.restart(generation)?;
        }
        // Power loss can set the database back to a generation that was here before: nothing of
        // it may lie behind what is appended now.
        log.file.set_len(log.len)?;
        Ok(log)
    }

    /// Appends the record of one change. A record that cannot be written whole is none.
    pub fn append(&mut self, body: &[u8]) -> io::Result<()> {
        host::before_write()?;
        let mut record = Vec::with_capacity(HEAD_BYTES + body.len());
        record.extend_from_slice(&(body.len() as u32).to_le_bytes());
        record.extend_from_slice(&checksum(self.generation, body));
        record.extend_from_slice(body);
        self.file.write_all_at(&record, self.len)?;
        self.len += record.len() as u64;
        Ok(())
    }

    /// Bytes of records.
    pub fn bytes(&self) -> u64 {
        self.len - HEADER_BYTES
    }

    /// Starts over: the database holds everything up to here.
    pub fn restart(&mut self, generation: u64) -> io::Result<()> {
        self.generation = generation;
        self.len = HEADER_BYTES;
        // In place: the pages of the log stay in memory, and its checksums tell old from new.
        self.file.write_all_at(&self.header(), 0)
    }

    /// Runs all records of this generation again, in order. Returns how many.
    pub fn replay(&self, conn: &Connection) -> Result<usize, DbError> {
        let (records, _) = self.records()?;
        for body in &records {
            let mut rest = body.as_slice();
            while !rest.is_empty() {
                run_statement(conn, &mut rest)?;
            }
        }
        Ok(records.len())
    }

    fn header(&self) -> [u8; HEADER_BYTES as usize] {
        let mut header = [0; HEADER_BYTES as usize];
        header[..8].copy_from_slice(MAGIC);
        header[8..].copy_from_slice(&self.generation.to_le_bytes());
        header
    }

    /// Bodies of all whole records of this generation, and where they end.
    fn records(&self) -> io::Result<(Vec<Vec<u8>>, u64)> {
        let end = self.file.metadata()?.len();
        let mut at = HEADER_BYTES;
        let mut out = Vec::new();
        while at + HEAD_BYTES as u64 <= end {
            let mut head = [0; HEAD_BYTES];
            self.file.read_exact_at(&mut head, at)?;
            let len = u64::from(u32::from_le_bytes([head[0], head[1], head[2], head[3]]));
            let body_at = at + HEAD_BYTES as u64;
            if len == 0 || body_at + len > end {
                break;
            }
            let mut body = vec![0; len as usize];
            self.file.read_exact_at(&mut body, body_at)?;
            if checksum(self.generation, &body) != head[4..] {
                break;
            }
            out.push(body);
            at = body_at + len;
        }
        Ok((out, at))
    }
}

fn checksum(generation: u64, body: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(body);
    let mut out = [0; 8];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    out
}

/// Adds a statement to the body of a record.
pub(super) fn push_statement(
    body: &mut Vec<u8>,
    sql: &str,
    params: &[&dyn ToSql],
) -> rusqlite::Result<()> {
    push_bytes(body, sql.as_bytes());
    body.push(params.len() as u8);
    for param in params {
        let value = param.to_sql()?;
        let value = match &value {
            ToSqlOutput::Borrowed(v) => *v,
            ToSqlOutput::Owned(v) => ValueRef::from(v),
            _ => return Err(rusqlite::Error::InvalidParameterName("not a plain value".into())),
        };
        match value {
            ValueRef::Null => body.push(0),
            ValueRef::Integer(i) => {
                body.push(1);
                body.extend_from_slice(&i.to_le_bytes());
            }
            ValueRef::Real(r) => {
                body.push(2);
                body.extend_from_slice(&r.to_le_bytes());
            }
            ValueRef::Text(t) => {
                body.push(3);
                push_bytes(body, t);
            }
            ValueRef::Blob(b) => {
                body.push(4);
                push_bytes(body, b);
            }
        }
    }
    Ok(())
}

fn push_bytes(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    body.extend_from_slice(bytes);
}

fn run_statement(conn: &Connection, rest: &mut &[u8]) -> Result<(), DbError> {
    let sql = String::from_utf8(take_bytes(rest)?.to_vec()).map_err(|_| garbled())?;
    let count = take(rest, 1)?[0];
    let mut params = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        params.push(match take(rest, 1)?[0] {
            0 => Value::Null,
            1 => Value::Integer(i64::from_le_bytes(take_word(rest)?)),
            2 => Value::Real(f64::from_le_bytes(take_word(rest)?)),
            3 => {
                let text = take_bytes(rest)?.to_vec();
                Value::Text(String::from_utf8(text).map_err(|_| garbled())?)
            }
            4 => Value::Blob(take_bytes(rest)?.to_vec()),
            _ => return Err(garbled()),
        });
    }
    match conn.prepare_cached(&sql)?.execute(rusqlite::params_from_iter(params)) {
        Ok(_) => Ok(()),
        // It worked once, over just this state of the database.
        Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
            Err(DbError::Damaged(format!("the redo log does not fit: {e}")))
        }
        Err(e) => Err(e.into()),
    }
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Result<&'a [u8], DbError> {
    let (head, tail) = rest.split_at_checked(n).ok_or_else(garbled)?;
    *rest = tail;
    Ok(head)
}

fn take_word(rest: &mut &[u8]) -> Result<[u8; 8], DbError> {
    take(rest, 8)?.try_into().map_err(|_| garbled())
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], DbError> {
    let len = take(rest, 4)?;
    let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]);
    take(rest, len as usize)
}

/// A record whose checksum is right and whose body makes no sense.
fn garbled() -> DbError {
    DbError::Damaged("a record of the redo log makes no sense".into())
}
