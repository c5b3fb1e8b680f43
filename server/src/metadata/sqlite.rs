//! The SQLite driver of the seam: opens connections and runs statements.
//!
//! WAL with `synchronous=FULL`: a commit is on disk when it returns. Knows nothing of what the
//! statements mean.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::ErrorCode;
use rusqlite::OpenFlags;
use rusqlite::ToSql;
use rusqlite::types::ToSqlOutput;
use rusqlite::types::ValueRef;

use super::DbError;
use super::Sql;
use super::value::Row;
use super::value::Value;

/// How long a statement waits for another process's write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const STATEMENTS_CACHED: usize = 256;

/// One connection to the database file.
pub struct Sqlite {
    conn: Connection,
    last_error: Option<DbError>,
}

impl Sqlite {
    pub fn open(path: &Path) -> Result<Self, DbError> {
        Self::prepare(Connection::open(path)?)
    }

    pub fn open_for_reading(path: &Path) -> Result<Self, DbError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Self::prepare(Connection::open_with_flags(path, flags)?)?;
        db.conn.pragma_update(None, "query_only", true)?;
        Ok(db)
    }

    /// A database that nobody writes, as it is: no other journal mode, no file beside it.
    pub fn open_copy(path: &Path) -> Result<Self, DbError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        Ok(Self { conn, last_error: None })
    }

    fn prepare(conn: Connection) -> Result<Self, DbError> {
        conn.busy_timeout(BUSY_TIMEOUT)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "cache_size", -16_384)?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        Ok(Self { conn, last_error: None })
    }

    /// Runs statements that stand outside transactions or define the schema.
    pub fn batch(&mut self, sql: &str) -> Result<(), DbError> {
        Ok(self.conn.execute_batch(sql)?)
    }

    /// True when no transaction is open, be it that SQLite itself rolled it back.
    pub fn is_idle(&self) -> bool {
        self.conn.is_autocommit()
    }

    /// Why the last statement that failed did.
    pub fn take_error(&mut self) -> Option<DbError> {
        self.last_error.take()
    }

    /// A number that changes when another connection has committed.
    pub fn data_version(&self) -> Result<i64, DbError> {
        Ok(self.conn.query_row("PRAGMA data_version", [], |row| row.get(0))?)
    }
}

impl Sql for Sqlite {
    fn exec(&mut self, sql: &str, params: &[Value]) -> Result<u64, DbError> {
        let result = exec(&self.conn, sql, params);
        self.last_error = result.as_ref().err().cloned().or(self.last_error.take());
        result
    }

    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, DbError> {
        let result = query(&self.conn, sql, params);
        self.last_error = result.as_ref().err().cloned().or(self.last_error.take());
        result
    }
}

fn exec(conn: &Connection, sql: &str, params: &[Value]) -> Result<u64, DbError> {
    let mut statement = conn.prepare_cached(sql)?;
    Ok(statement.execute(rusqlite::params_from_iter(params))? as u64)
}

fn query(conn: &Connection, sql: &str, params: &[Value]) -> Result<Vec<Row>, DbError> {
    let mut statement = conn.prepare_cached(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query(rusqlite::params_from_iter(params))?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let mut values = Vec::with_capacity(columns);
        for i in 0..columns {
            values.push(match row.get_ref(i)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(v) => Value::Int(v),
                ValueRef::Blob(v) => Value::Blob(v.to_vec()),
                ValueRef::Text(v) => {
                    let text = std::str::from_utf8(v).map_err(|_| DbError::Decode("text"))?;
                    Value::Text(text.to_owned())
                }
                ValueRef::Real(_) => return Err(DbError::Decode("real number")),
            });
        }
        out.push(Row(values));
    }
    Ok(out)
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(v) => ValueRef::Integer(*v),
            Self::Text(v) => ValueRef::Text(v.as_bytes()),
            Self::Blob(v) => ValueRef::Blob(v),
            Self::TooLarge => {
                return Err(rusqlite::Error::ToSqlConversionFailure(DbError::Range.into()));
            }
        }))
    }
}

impl From<rusqlite::Error> for DbError {
    fn from(e: rusqlite::Error) -> Self {
        if let rusqlite::Error::ToSqlConversionFailure(_) = e {
            return Self::Range;
        }
        match e.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            // The last: very many processes asked for a lock at once.
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed,
            ) => Self::Busy,
            _ => Self::Other(e.to_string()),
        }
    }
}
