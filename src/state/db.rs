//! Opening the database and transactions.
//!
//! SQLite in WAL mode with `synchronous=NORMAL`: a commit is a few writes and no fsync, so it
//! survives the death of this process; `Db::flush` makes all commits so far survive power loss.
//! Checkpoints run on a thread and a connection of their own, so no writer waits for an fsync.
//!
//! Two kinds of writes: `change`, for what a program waits for, joins a batch that commits a moment
//! later and is safe in the redo log until then; `write` is a transaction of its own.

use std::cell::Cell;
use std::cell::RefCell;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::ToSql;
use rusqlite::config::DbConfig;

use super::DbError;
use super::FileId;
use super::batch::BATCH_BYTES;
use super::batch::Core;
use super::batch::GENERATION_KEY;
use super::batch::Writer;
use super::batch::run;
use super::batch::settle;
use super::redo;
use super::redo::RedoLog;
use super::redo::push_statement;
use crate::host;

/// Version of the schema, in `PRAGMA user_version`: `schema.sql` is version 1, and each step leads
/// to the next.
const SCHEMA_VERSION: i64 = 1 + STEPS.len() as i64;
const STEPS: [&str; 3] =
    [include_str!("schema-2.sql"), include_str!("schema-3.sql"), include_str!("schema-4.sql")];
/// Readers that work side by side.
const READERS: usize = 4;
/// Pages (KiB, negative by SQLite's rule) that each connection caches.
const WRITER_CACHE: i64 = -16_384;
const READER_CACHE: i64 = -4_096;
/// A write-ahead log longer than this is worth a checkpoint (bytes).
const WAL_BYTES: u64 = 8 * 1024 * 1024;
/// A database up to this size is checked as a whole when it is opened (bytes); a larger one by
/// `Db::check`, which may take seconds.
const CHECK_AT_OPEN_BYTES: u64 = 16 * 1024 * 1024;

/// A connection inside a transaction; its methods are the statements.
pub struct Conn<'a> {
    pub(super) sql: &'a Connection,
    /// Takes down what a change that joins a batch does.
    redo: Option<&'a RefCell<Vec<u8>>>,
}

impl<'a> Conn<'a> {
    /// For reading, and for a transaction of its own.
    pub(super) fn plain(sql: &'a Connection) -> Self {
        Self { sql, redo: None }
    }

    /// Runs a statement that changes rows. Returns how many.
    pub(super) fn execute(&self, sql: &str, params: &[&dyn ToSql]) -> Result<usize, DbError> {
        let rows = self.sql.prepare_cached(sql)?.execute(params)?;
        if let Some(redo) = self.redo {
            push_statement(&mut redo.borrow_mut(), sql, params)?;
        }
        Ok(rows)
    }
}

/// The open database.
pub struct Db {
    core: Arc<Core>,
    path: PathBuf,
    readers: Vec<Mutex<Connection>>,
    next_reader: AtomicUsize,
    wal: File,
    checkpointer: Mutex<Option<Connection>>,
    /// Tells the thread that settles batches that one began; gone when the database closes.
    began: Option<mpsc::Sender<()>>,
    settler: Option<thread::JoinHandle<()>>,
}

impl Db {
    /// Opens the database at `path`, or creates it. Reports damage instead of working on it.
    pub fn open(path: &Path) -> Result<Self, DbError> {
        // Before anything is read: another process may be about to change it.
        let locked = redo::lock(&redo_path(path))?;
        let size = std::fs::metadata(path).map_or(0, |m| m.len());
        let conn = Connection::open(path)?;
        configure(&conn, WRITER_CACHE)?;
        let version: i64 = conn.query_row("PRAGMA user_version", [], |r| r.get(0))?;
        match version {
            0 => {
                let sql = include_str!("schema.sql");
                conn.execute_batch(&format!(
                    "BEGIN IMMEDIATE; {sql} PRAGMA user_version=1; COMMIT;"
                ))?;
                // The names of database and logs, for what `flush` promises.
                if let Some(folder) = path.parent() {
                    File::open(folder)?.sync_all()?;
                }
            }
            1..=SCHEMA_VERSION if size <= CHECK_AT_OPEN_BYTES => check(&conn)?,
            1..=SCHEMA_VERSION => {}
            newer => return Err(DbError::Newer(newer)),
        }
        let generation = Conn::plain(&conn)
            .meta(GENERATION_KEY)?
            .and_then(|v| v.try_into().ok())
            .map_or(0, u64::from_le_bytes);
        let log = RedoLog::open(locked, generation)?;
        let mut writer =
            Writer { conn, log, generation, open: false, stale_log: false, torn: false };
        // What an earlier process acknowledged and did not commit.
        writer.settle()?;
        // After the log, whose statements are those of the old schema.
        upgrade(&writer.conn, version.max(1))?;
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
        let core = Arc::new(Core {
            writer: Mutex::new(writer),
            ahead: AtomicBool::new(false),
            unsettled: AtomicU64::new(0),
            changes: AtomicU64::new(0),
        });
        let (mut began, mut settler) = (None, None);
        // A simulation has one thread: its batches are committed by reads and by `flush`.
        if !host::is_simulated() {
            let (sender, batches) = mpsc::channel();
            let settling = core.clone();
            let thread = thread::Builder::new().name("settle".into());
            settler = Some(thread.spawn(move || settle(&settling, &batches))?);
            began = Some(sender);
        }
        Ok(Self {
            core,
            path: path.to_owned(),
            readers,
            next_reader: AtomicUsize::new(0),
            wal,
            checkpointer: Mutex::new(None),
            began,
            settler,
        })
    }

    /// Runs `f` as one small change that a program waits for. When this returns, the death of the
    /// process cannot undo it; when `f` fails, nothing of it happened.
    pub fn change<T, E: From<DbError>>(
        &self,
        f: impl FnOnce(&Conn<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let _alone = Alone::enter();
        host::before_write().map_err(DbError::from)?;
        let mut writer = self.core.writer();
        writer.begin()?;
        let redo = RefCell::new(Vec::new());
        writer.torn = true;
        let result = f(&Conn { sql: &writer.conn, redo: Some(&redo) });
        writer.torn = false;
        let body = redo.into_inner();
        match result {
            Ok(value) => {
                if body.is_empty() {
                    return Ok(value);
                }
                let before = writer.log.bytes();
                if let Err(e) = writer.log.append(&body) {
                    writer.rebuild()?;
                    return Err(DbError::from(e).into());
                }
                self.core.changes.fetch_add(1, Ordering::AcqRel);
                if !self.core.ahead.swap(true, Ordering::AcqRel) {
                    // The thread is there as long as this is.
                    let _ = self.began.as_ref().map(|began| began.send(()));
                }
                if writer.log.bytes() / BATCH_BYTES > before / BATCH_BYTES {
                    // The change itself is safe: if this fails it is tried again, not with every
                    // change, because each failure runs the log again.
                    if let Err(error) = self.core.settle(&mut writer) {
                        tracing::warn!(%error, "a batch could not be committed");
                    }
                }
                Ok(value)
            }
            Err(e) => {
                if !body.is_empty() || writer.conn.is_autocommit() {
                    writer.rebuild()?;
                }
                Err(e)
            }
        }
    }

    /// Runs `f` in a transaction of its own, which is undone when `f` fails.
    pub fn write<T, E: From<DbError>>(
        &self,
        f: impl FnOnce(&Conn<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let _alone = Alone::enter();
        host::before_write().map_err(DbError::from)?;
        let mut writer = self.core.writer();
        self.core.settle(&mut writer)?;
        run(&writer.conn, "BEGIN IMMEDIATE")?;
        writer.torn = true;
        let result = f(&Conn::plain(&writer.conn));
        writer.torn = false;
        match result {
            Ok(value) => match commit(&writer) {
                Ok(()) => {
                    self.core.unsettled.fetch_add(1, Ordering::Relaxed);
                    self.core.changes.fetch_add(1, Ordering::AcqRel);
                    Ok(value)
                }
                Err(e) => {
                    // A failed COMMIT may leave the transaction open; nothing of it may stay.
                    writer.roll_back()?;
                    Err(e.into())
                }
            },
            Err(e) => {
                writer.roll_back()?;
                Err(e)
            }
        }
    }

    /// Runs `f` on one consistent snapshot.
    pub fn read<T, E: From<DbError>>(
        &self,
        f: impl FnOnce(&Conn<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let _alone = Alone::enter();
        if self.core.ahead.load(Ordering::Acquire) {
            self.core.settle(&mut self.core.writer())?;
        }
        let reader = self.reader();
        run(&reader, "BEGIN")?;
        let result = f(&Conn::plain(&reader));
        run(&reader, "COMMIT")?;
        result
    }

    /// Runs a single-statement read without the cost of a transaction around it.
    pub fn peek<T, E: From<DbError>>(
        &self,
        f: impl FnOnce(&Conn<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let _alone = Alone::enter();
        if self.core.ahead.load(Ordering::Acquire) {
            let mut writer = self.core.writer();
            writer.catch_up()?;
            return f(&Conn::plain(&writer.conn));
        }
        f(&Conn::plain(&self.reader()))
    }

    /// How many changes there were. While it stays the same, what was read is what is there.
    pub fn changes(&self) -> u64 {
        self.core.changes.load(Ordering::Acquire)
    }

    /// Makes all changes so far durable against power loss.
    pub fn flush(&self) -> Result<(), DbError> {
        self.core.settle(&mut self.core.writer())?;
        Ok(self.wal.sync_data()?)
    }

    /// Reads the whole database and reports damage. May take seconds.
    pub fn check(&self) -> Result<(), DbError> {
        let conn = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        check(&conn)
    }

    /// Moves the write-ahead log into the database file if it has grown, without stopping readers
    /// or writers.
    pub fn checkpoint(&self) -> Result<(), DbError> {
        let long = self.wal.metadata().map_or(0, |m| m.len()) > WAL_BYTES;
        if !long || self.core.unsettled.swap(0, Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let mut slot = lock(&self.checkpointer);
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

    /// What another process that has the database open committed last: for telling people. Changes
    /// of the last moment are not in it.
    pub fn peek_committed<T>(
        path: &Path,
        f: impl FnOnce(&Conn<'_>) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        conn.busy_timeout(Duration::from_secs(1))?;
        f(&Conn::plain(&conn))
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

impl Drop for Db {
    fn drop(&mut self) {
        // The thread ends with its channel; it holds the log, whose lock the next one waits for.
        drop(self.began.take());
        if let Some(settler) = self.settler.take()
            && settler.join().is_err()
        {
            tracing::error!("the thread that commits batches panicked");
        }
        if let Err(error) = self.core.settle(&mut self.core.writer()) {
            tracing::warn!(%error, "the last changes stay in the redo log");
        }
    }
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Held while a thread is inside a transaction: one inside another would wait for itself.
struct Alone;

impl Alone {
    fn enter() -> Self {
        assert!(!INSIDE.replace(true), "no transaction inside another");
        Self
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        INSIDE.set(false);
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

fn commit(writer: &Writer) -> Result<(), DbError> {
    host::before_write()?;
    run(&writer.conn, "COMMIT")
}

/// Where the changes lie that the database at `path` does not have yet.
pub fn redo_path(path: &Path) -> PathBuf {
    path.with_extension("redo")
}

/// A panic while a reader was held leaves it usable: its next `BEGIN` fails loudly. The writer's is
/// mended (`Writer::torn`).
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check(conn: &Connection) -> Result<(), DbError> {
    let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(DbError::Damaged(verdict)) }
}

/// Brings the tables from an older version to this one, each step in one transaction.
fn upgrade(conn: &Connection, from: i64) -> Result<(), DbError> {
    for (step, to) in STEPS.iter().zip(2..).filter(|(_, to)| *to > from) {
        conn.execute_batch(&format!("BEGIN IMMEDIATE; {step} PRAGMA user_version={to}; COMMIT;"))?;
    }
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
