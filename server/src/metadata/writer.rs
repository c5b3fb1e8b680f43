//! The one thread that writes, with group commit.
//!
//! It takes all queued jobs up to a bound, runs each inside a savepoint of one transaction, commits
//! once, and answers only then: who got an answer has it on disk. A job that fails is rolled back
//! to its savepoint and harms nobody else.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use tokio::sync::oneshot;

use super::DbError;
use super::Sql;
use super::sqlite::Sqlite;

/// Most jobs in one transaction.
const GROUP_MAX: usize = 64;

/// What the queue carries.
pub enum Message {
    Write(Box<dyn Job>),
    /// Has another process committed since this was last asked?
    ForeignCommits(oneshot::Sender<bool>),
    Stop,
}

/// One unit of work for the writer.
pub trait Job: Send {
    /// Does the work; false rolls it back.
    fn run(&mut self, sql: &mut dyn Sql) -> bool;
    /// Hands out the result once the fate of the transaction is known.
    fn answer(self: Box<Self>, committed: Result<(), DbError>);
}

/// A closure and the way back to who waits for it.
pub struct Task<T, E, F> {
    work: Option<F>,
    result: Option<Result<T, E>>,
    span: tracing::Span,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Task<T, E, F> {
    pub fn new(work: F, reply: oneshot::Sender<Result<T, E>>) -> Self {
        Self { work: Some(work), result: None, span: tracing::Span::current(), reply }
    }
}

impl<T, E, F> Job for Task<T, E, F>
where
    T: Send,
    E: From<DbError> + Send,
    F: FnOnce(&mut dyn Sql) -> Result<T, E> + Send,
{
    fn run(&mut self, sql: &mut dyn Sql) -> bool {
        let work = self.work.take().expect("a job runs once");
        // A panic is a bug of one job; it must not take the writer and all others with it.
        self.result = self.span.in_scope(|| catch_unwind(AssertUnwindSafe(|| work(sql))).ok());
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, committed: Result<(), DbError>) {
        let result = match (self.result, committed) {
            (Some(Ok(value)), Ok(())) => Ok(value),
            (Some(Ok(_)), Err(e)) => Err(e.into()),
            (Some(Err(e)), _) => Err(e),
            (None, _) => Err(DbError::Other("a write panicked".into()).into()),
        };
        // Nobody waits any more: the work is done all the same.
        let _ = self.reply.send(result);
    }
}

/// The thread's body: returns when told to stop or when nobody can send any more.
pub fn run(mut db: Sqlite, queue: &Receiver<Message>) {
    let mut seen = db.data_version().unwrap_or(0);
    let mut pending = None;
    while let Some(message) = pending.take().or_else(|| queue.recv().ok()) {
        match message {
            Message::Stop => return,
            Message::ForeignCommits(reply) => {
                let now = db.data_version().unwrap_or(seen);
                let _ = reply.send(now != seen);
                seen = now;
            }
            Message::Write(first) => {
                let mut group = vec![first];
                while group.len() < GROUP_MAX {
                    match queue.try_recv() {
                        Ok(Message::Write(job)) => group.push(job),
                        Ok(other) => {
                            pending = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                commit_group(&mut db, group);
            }
        }
    }
}

/// One message where there is no thread: nobody else commits, and nobody waits to be told to stop.
pub fn run_one(db: &mut Sqlite, message: Message) {
    match message {
        Message::Write(job) => commit_group(db, vec![job]),
        Message::ForeignCommits(reply) => {
            let _ = reply.send(false);
        }
        Message::Stop => {}
    }
}

fn commit_group(db: &mut Sqlite, mut group: Vec<Box<dyn Job>>) {
    metrics::histogram!("drivefs_group_commit_jobs").record(group.len() as f64);
    metrics::gauge!("drivefs_writes_waiting").decrement(group.len() as f64);
    let started = Instant::now();
    let committed = run_group(db, &mut group);
    if let Err(e) = &committed {
        tracing::error!(error = %e, jobs = group.len(), "transaction failed");
        if !db.is_idle()
            && let Err(e) = db.batch("ROLLBACK")
        {
            tracing::error!(error = %e, "rollback failed");
        }
    }
    metrics::histogram!("drivefs_group_commit_seconds").record(started.elapsed().as_secs_f64());
    for job in group {
        job.answer(committed.clone());
    }
}

fn run_group(db: &mut Sqlite, group: &mut [Box<dyn Job>]) -> Result<(), DbError> {
    db.exec("BEGIN IMMEDIATE", &[])?;
    for job in group.iter_mut() {
        db.exec("SAVEPOINT job", &[])?;
        let keep = job.run(db);
        if db.is_idle() {
            // SQLite gave up the whole transaction (disk full, I/O error): nothing is kept.
            let gone = || DbError::Other("the transaction was given up".into());
            return Err(db.take_error().unwrap_or_else(gone));
        }
        if !keep {
            db.exec("ROLLBACK TO job", &[])?;
        }
        db.exec("RELEASE job", &[])?;
    }
    db.exec("COMMIT", &[])?;
    Ok(())
}
