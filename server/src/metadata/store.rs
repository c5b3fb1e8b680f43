//! The door to the database: `read` on a small pool of connections, `write` through the writer.
//!
//! Never blocks an async thread. Every read sees one snapshot.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::Semaphore;
use tokio::sync::oneshot;

use super::DbError;
use super::Sql;
use super::schema;
use super::snapshot;
use super::sqlite::Sqlite;
use super::writer;
use super::writer::Message;
use super::writer::Task;
use crate::host;

/// Read connections; more than cores because some wait for the disk.
const READERS: usize = 4;

/// The metadata store; clones share it.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    readers: Arc<Readers>,
    path: Arc<PathBuf>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Where writes go.
#[derive(Clone)]
enum Writer {
    Thread(mpsc::Sender<Message>),
    /// In a simulation, which has one thread.
    Here(Arc<Mutex<Sqlite>>),
}

impl Writer {
    fn send(&self, message: Message) -> Result<(), DbError> {
        match self {
            Self::Thread(queue) => queue.send(message).map_err(|_| DbError::Closed),
            Self::Here(db) => {
                host::before_write().map_err(|_| DbError::Full)?;
                let mut db = db.lock().map_err(|_| DbError::Closed)?;
                writer::run_one(&mut db, message);
                Ok(())
            }
        }
    }
}

struct Readers {
    permits: Semaphore,
    idle: Mutex<Vec<Sqlite>>,
}

impl Store {
    /// Opens the database file, making or refusing its schema. Blocks: for start-up.
    pub fn open(path: &Path) -> Result<Self, DbError> {
        snapshot::before_upgrade(path)?;
        let mut db = Sqlite::open(path)?;
        schema::ensure(&mut db)?;
        let idle =
            (0..READERS).map(|_| Sqlite::open_for_reading(path)).collect::<Result<Vec<_>, _>>()?;
        let readers = Readers { permits: Semaphore::new(READERS), idle: Mutex::new(idle) };
        let (writer, thread) = if host::is_simulated() {
            (Writer::Here(Arc::new(Mutex::new(db))), None)
        } else {
            let (queue, jobs) = mpsc::channel();
            let thread = std::thread::Builder::new()
                .name("metadata-writer".into())
                .spawn(move || writer::run(db, &jobs))
                .map_err(|e| DbError::Other(e.to_string()))?;
            (Writer::Thread(queue), Some(thread))
        };
        Ok(Self {
            writer,
            readers: Arc::new(readers),
            path: Arc::new(path.to_owned()),
            thread: Arc::new(Mutex::new(thread)),
        })
    }

    /// Runs `work` in a transaction. When this returns `Ok`, the work is on disk; when `work`
    /// fails, nothing of it is kept. Dropping the future does not undo the work.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: FnOnce(&mut dyn Sql) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Message::Write(Box::new(Task::new(work, reply)));
        metrics::gauge!("drivefs_writes_waiting").increment(1.0);
        if let Err(e) = self.writer.send(job) {
            metrics::gauge!("drivefs_writes_waiting").decrement(1.0);
            return Err(e.into());
        }
        answer.await.map_err(|_| DbError::Closed)?
    }

    /// Runs `work` on a snapshot, on a blocking thread.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: FnOnce(&mut dyn Sql) -> Result<T, E> + Send + 'static,
    {
        let readers = Arc::clone(&self.readers);
        let permit = Arc::clone(&readers);
        let _permit = permit.permits.acquire().await.map_err(|_| DbError::Closed)?;
        host::blocking(move || {
            let mut lease = Lease::take(readers)?;
            let db = lease.db.as_mut().ok_or(DbError::Closed)?;
            db.exec("BEGIN", &[])?;
            let result = work(db);
            db.exec("COMMIT", &[])?;
            result
        })
        .await
        .map_err(|_| DbError::Other("a read panicked".into()))?
    }

    /// Length of the database file and of its log (bytes); 0 for what is not there.
    pub fn file_bytes(&self) -> (u64, u64) {
        let mut log = self.path.as_os_str().to_owned();
        log.push("-wal");
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        (length(&self.path), length(Path::new(&log)))
    }

    /// Read connections in use, of how many.
    pub fn readers_busy(&self) -> (usize, usize) {
        (READERS.saturating_sub(self.readers.permits.available_permits()), READERS)
    }

    /// True when another process has committed since this was last asked.
    pub async fn foreign_commits(&self) -> Result<bool, DbError> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(Message::ForeignCommits(reply))?;
        answer.await.map_err(|_| DbError::Closed)
    }

    /// Finishes what is queued and closes the writing connection. Blocks: for the end.
    pub fn close(&self) {
        let _ = self.writer.send(Message::Stop);
        let thread = self.thread.lock().ok().and_then(|mut slot| slot.take());
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// A read connection on loan; comes back by itself, unless its read panicked half-way.
struct Lease {
    readers: Arc<Readers>,
    db: Option<Sqlite>,
}

impl Lease {
    fn take(readers: Arc<Readers>) -> Result<Self, DbError> {
        let db = readers.idle.lock().map_err(|_| DbError::Closed)?.pop();
        Ok(Self { readers, db })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut db) = self.db.take() else { return };
        if !db.is_idle() && db.batch("ROLLBACK").is_err() {
            tracing::error!("a read connection is lost");
            return;
        }
        if let Ok(mut idle) = self.readers.idle.lock() {
            idle.push(db);
        }
    }
}
