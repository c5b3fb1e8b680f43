//! Opening the database and transactions.
//!
//! SQLite in WAL mode with `synchronous=NORMAL`: a commit is a few writes and no fsync, so it
//! survives the death of this process; `Db::flush` makes all commits so far survive power loss.
//! Checkpoints run on a thread and a connection of their own, so no writer waits for an fsync.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::config::DbConfig;

use super::FileId;

/// Version of `schema.sql`, in `PRAGMA user_version`.
const SCHEMA_VERSION: i64 = 1;
/// Readers that work side by side.
const READERS: usize = 4;
/// Pages (KiB, negative by SQLite's rule) that each connection caches.
const WRITER_CACHE: i64 = -16_384;
const READER_CACHE: i64 = -4_096;
/// A write-ahead log longer than this is worth a checkpoint (bytes).
const WAL_BYTES: u64 = 8 * 1024 * 1024;

/// Why the database did not answer.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    #[error("the state database is damaged: {0}")]
    Damaged(String),
    #[error("the state database was made by a newer drivefs (format {0})")]
    Newer(i64),
    #[error("no space left for the state database")]
    Full,
    #[error("state database: {0}")]
    Other(String),
}

impl From<rusqlite::Error> for DbError {
    fn from(e: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match e.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(e.to_string())
            }
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::Other(e.to_string()),
        }
    }
}

/// A connection inside a transaction; its methods are the statements.
pub struct Conn<'a>(pub(super) &'a Connection);

/// The open database.
pub struct Db {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Vec<Mutex<Connection>>,
    next_reader: AtomicUsize,
    wal: File,
    checkpointer: Mutex<Option<Connection>>,
    /// Write transactions since the last checkpoint.
    unsettled: AtomicU64,
}

impl Db {
    /// Opens the database at `path`, or creates it. Reports damage instead of working on it.
    pub fn open(path: &Path) -> Result<Self, DbError> {
        let writer = Connection::open(path)?;
        configure(&writer, WRITER_CACHE)?;
        let version: i64 = writer.query_row("PRAGMA user_version", [], |r| r.get(0))?;
        match version {
            0 => {
                let sql = include_str!("schema.sql");
                writer.execute_batch(&format!(
                    "BEGIN IMMEDIATE; {sql} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
                ))?;
            }
            SCHEMA_VERSION => {
                let verdict: String =
                    writer.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
                if verdict != "ok" {
                    return Err(DbError::Damaged(verdict));
                }
            }
            newer => return Err(DbError::Newer(newer)),
        }
        let readers = (0..READERS)
            .map(|_| {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let reader = Connection::open_with_flags(path, flags)?;
                configure(&reader, READER_CACHE)?;
                Ok(Mutex::new(reader))
            })
            .collect::<Result<Vec<_>, DbError>>()?;
        let mut wal_path = path.as_os_str().to_owned();
        wal_path.push("-wal");
        let wal = File::open(&wal_path)
            .map_err(|e| DbError::Other(format!("{}: {e}", wal_path.display())))?;
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers,
            next_reader: AtomicUsize::new(0),
            wal,
            checkpointer: Mutex::new(None),
            unsettled: AtomicU64::new(0),
        })
    }

    /// Runs `f` in a write transaction, which is undone when `f` fails.
    pub fn write<T, E: From<DbError>>(
        &self,
        f: impl FnOnce(&Conn<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let writer = lock(&self.writer);
        run(&writer, "BEGIN IMMEDIATE")?;
        match f(&Conn(&writer)) {
            Ok(value) => match run(&writer, "COMMIT") {
                Ok(()) => {
                    self.unsettled.fetch_add(1, Ordering::Relaxed);
                    Ok(value)
                }
                Err(e) => {
                    // A failed COMMIT may leave the transaction open; nothing of it may stay.
                    let _ = run(&writer, "ROLLBACK");
                    Err(e.into())
                }
            },
            Err(e) => {
                run(&writer, "ROLLBACK")?;
                Err(e)
            }
        }
    }

    /// Runs `f` on one consistent snapshot.
    pub fn read<T, E: From<DbError>>(
        &self,
        f: impl FnOnce(&Conn<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let reader = self.reader();
        run(&reader, "BEGIN")?;
        let result = f(&Conn(&reader));
        run(&reader, "COMMIT")?;
        result
    }

    /// Runs a single-statement read without the cost of a transaction around it.
    pub fn peek<T, E: From<DbError>>(
        &self,
        f: impl FnOnce(&Conn<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        f(&Conn(&self.reader()))
    }

    /// Makes all transactions so far durable against power loss.
    pub fn flush(&self) -> std::io::Result<()> {
        self.wal.sync_data()
    }

    /// Moves the write-ahead log into the database file if it has grown, without stopping readers
    /// or writers.
    pub fn checkpoint(&self) -> Result<(), DbError> {
        let long = self.wal.metadata().map_or(0, |m| m.len()) > WAL_BYTES;
        if !long || self.unsettled.swap(0, Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let mut slot = lock_slot(&self.checkpointer);
        let conn = match slot.take() {
            Some(conn) => conn,
            None => {
                let conn = Connection::open(&self.path)?;
                configure(&conn, READER_CACHE)?;
                conn
            }
        };
        conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        *slot = Some(conn);
        Ok(())
    }

    /// Opens a damaged database for reading what can still be read.
    pub fn open_damaged(path: &Path) -> Result<Damaged, DbError> {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        Ok(Damaged(conn))
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        for reader in &self.readers {
            if let Ok(guard) = reader.try_lock() {
                return guard;
            }
        }
        let i = self.next_reader.fetch_add(1, Ordering::Relaxed) % self.readers.len();
        lock(&self.readers[i])
    }
}

/// What is left of a damaged database, for reading.
pub struct Damaged(Connection);

impl Damaged {
    /// Data files with the name of the file they belong to, until the damage stops the reading.
    pub fn names_of_data_files(&self) -> Vec<(FileId, Vec<u8>)> {
        let mut out = Vec::new();
        for column in ["live", "frozen"] {
            let sql = format!(
                "SELECT n.{column}, d.name FROM node n JOIN dirent d ON d.child=n.nid \
                 WHERE n.{column} IS NOT NULL"
            );
            let Ok(mut statement) = self.0.prepare(&sql) else { continue };
            let Ok(mut rows) = statement.query([]) else { continue };
            while let Ok(Some(row)) = rows.next() {
                if let (Ok(file), Ok(name)) = (row.get::<_, i64>(0), row.get(1)) {
                    out.push((file as u64, name));
                }
            }
        }
        out
    }
}

fn lock_slot<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A panic while a connection was held leaves it usable: its transaction is rolled back by the
/// next `BEGIN` failing loudly, never silently.
fn lock(m: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(conn: &Connection, sql: &str) -> Result<(), DbError> {
    conn.prepare_cached(sql)?.execute([])?;
    Ok(())
}

fn configure(conn: &Connection, cache: i64) -> Result<(), DbError> {
    conn.busy_timeout(Duration::from_secs(30))?;
    // Without this, partial indexes make SQLite plan a statement anew at every binding.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.set_prepared_statement_cache_capacity(128);
    conn.execute_batch(&format!(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0;
         PRAGMA cache_size={cache}; PRAGMA temp_store=MEMORY;
         PRAGMA journal_size_limit=4194304;"
    ))?;
    Ok(())
}
