//! The batch: small changes that share a transaction until it commits a moment later.
//!
//! Each is in the redo log before it is acknowledged. A change that fails half-way, and a commit
//! that fails, end in the last commit and the log run again: exactly what was acknowledged.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;

use super::Conn;
use super::DbError;
use super::redo::RedoLog;

/// A batch of changes commits after this time, or when its redo log has grown to this (bytes).
const BATCH_TIME: Duration = Duration::from_millis(50);
pub(super) const BATCH_BYTES: u64 = 4 * 1024 * 1024;
/// How soon a batch that could not commit is tried again.
const RETRY_TIME: Duration = Duration::from_secs(1);
/// Key in `meta`: the generation of the redo log that is not in the database yet.
pub(super) const GENERATION_KEY: &str = "redo_generation";

/// What the settling thread shares.
pub(super) struct Core {
    pub writer: Mutex<Writer>,
    /// The batch holds changes that readers do not see: reads go to the writer.
    pub ahead: AtomicBool,
    /// Transactions since the last checkpoint.
    pub unsettled: AtomicU64,
    /// Changes that readers see, counted before those who made them go on.
    pub changes: AtomicU64,
}

/// The connection that writes, and the changes that it has not committed.
pub(super) struct Writer {
    pub conn: Connection,
    pub log: RedoLog,
    pub generation: u64,
    /// A transaction is open that holds all records of the log.
    pub open: bool,
    /// The log could not be started over.
    pub stale_log: bool,
    /// Somebody is in the middle of a transaction. Seen by the next one only after a panic: what
    /// that one did must not be committed.
    pub torn: bool,
}

impl Writer {
    /// Begins the batch, unless it has begun.
    pub fn begin(&mut self) -> Result<(), DbError> {
        self.mend()?;
        if self.open {
            return Ok(());
        }
        if self.stale_log {
            self.log.restart(self.generation)?;
            self.stale_log = false;
        }
        if self.log.bytes() > 0 {
            return self.rebuild();
        }
        run(&self.conn, "BEGIN IMMEDIATE")?;
        self.open = true;
        Ok(())
    }

    /// Goes back to the last commit and runs the log again: a change that failed half-way, or a
    /// commit that failed, leaves exactly the changes that were acknowledged.
    pub fn rebuild(&mut self) -> Result<(), DbError> {
        self.roll_back()?;
        run(&self.conn, "BEGIN IMMEDIATE")?;
        if let Err(e) = self.log.replay(&self.conn) {
            let _ = run(&self.conn, "ROLLBACK");
            return Err(e);
        }
        self.open = true;
        Ok(())
    }

    /// Goes back to the last commit. Until that has worked nothing else may use the connection.
    pub fn roll_back(&mut self) -> Result<(), DbError> {
        self.torn = true;
        self.open = false;
        if !self.conn.is_autocommit() {
            run(&self.conn, "ROLLBACK")?;
        }
        self.torn = false;
        Ok(())
    }

    /// Takes back what a transaction did that ended in a panic.
    pub fn mend(&mut self) -> Result<(), DbError> {
        if self.torn { self.roll_back() } else { Ok(()) }
    }

    /// Makes sure that this connection shows every acknowledged change.
    pub fn catch_up(&mut self) -> Result<(), DbError> {
        self.mend()?;
        if !self.open && !self.stale_log && self.log.bytes() > 0 { self.rebuild() } else { Ok(()) }
    }

    /// Commits the batch.
    pub fn settle(&mut self) -> Result<(), DbError> {
        self.catch_up()?;
        if !self.open {
            return Ok(());
        }
        let next = self.generation + 1;
        let conn = Conn::plain(&self.conn);
        let committed = conn
            .set_meta(GENERATION_KEY, &next.to_le_bytes())
            .and_then(|()| run(&self.conn, "COMMIT"));
        if let Err(e) = committed {
            self.rebuild()?;
            return Err(e);
        }
        self.open = false;
        self.generation = next;
        self.stale_log = true;
        self.log.restart(next)?;
        self.stale_log = false;
        Ok(())
    }
}

impl Core {
    pub fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits the batch, so that readers and a new process find everything in the database.
    pub fn settle(&self, writer: &mut Writer) -> Result<(), DbError> {
        writer.settle()?;
        if self.ahead.swap(false, Ordering::AcqRel) {
            self.unsettled.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Commits each batch a moment after it began. Ends with the database.
pub(super) fn settle(core: &Core, batches: &mpsc::Receiver<()>) {
    while batches.recv().is_ok() {
        let mut wait = BATCH_TIME;
        loop {
            // The longer a batch, the cheaper each of its changes. A reader may have settled this
            // one early: then what the channel tells meanwhile is the next one.
            let until = Instant::now() + wait;
            loop {
                match batches.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(()) => {}
                    Err(mpsc::RecvTimeoutError::Timeout) => break,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
            match core.settle(&mut core.writer()) {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(%error, "a batch could not be committed, trying again");
                    wait = RETRY_TIME;
                }
            }
        }
    }
}

pub(super) fn run(conn: &Connection, sql: &str) -> Result<(), DbError> {
    conn.prepare_cached(sql)?.execute([])?;
    Ok(())
}
