//! Background jobs: what the server does on its own, one at a time, paced, and on from where it was
//! cut off.
//!
//! A lock on a file of the data folder keeps processes apart; it goes with the process. Where a job
//! stands is in its row, so that any process can go on.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use drivefs_core::id::PackId;
use rustix::fs::FlockOperation;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock;
use crate::drive::Drive;
use crate::drive::DriveError;
use crate::drive::collect;
use crate::drive::collect::Grace;
use crate::drive::compact::Compacted;
use crate::drive::prune;
use crate::drive::prune::Pruned;
use crate::drive::tiers::Moved;
use crate::metadata::DbError;
use crate::metadata::jobs;
use crate::metadata::jobs::Job;
use crate::metadata::server;

/// How often the server looks whether a job is due.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// A job that fails is tried again after so long (seconds), doubled each time, ...
const RETRY_SECS: i64 = 60;
/// ... up to this.
const RETRY_SECS_MAX: i64 = 6 * 3600;
/// A job works for one part of its time and leaves this many to everybody else.
const PAUSE_PARTS: u32 = 4;
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often a job that is under way notes where it is.
const NOTE_EVERY: Duration = Duration::from_secs(5);
/// Number of the last round of the collection.
const ROUND_NOTE: &str = "collect_round";

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Versions that no rule keeps, and what was long in the trash.
    Prune,
    /// Blocks that nothing refers to.
    Collect,
    /// Packs with little left in them.
    Compact,
    /// Packs that nobody has read for long.
    Cold,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Prune, Self::Collect, Self::Compact, Self::Cold];

    pub fn name(self) -> &'static str {
        match self {
            Self::Prune => "prune",
            Self::Collect => "collect",
            Self::Compact => "compact",
            Self::Cold => "cold",
        }
    }

    pub fn called(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// From one run to the next (seconds).
    fn every(self) -> i64 {
        match self {
            Self::Prune => 6 * 3600,
            Self::Collect | Self::Compact | Self::Cold => 24 * 3600,
        }
    }
}

/// How a job is run.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    pub grace: Grace,
    /// Leaves time to others.
    pub paced: bool,
}

/// The right to run jobs of a data folder, until it is dropped.
pub struct Turn {
    _lock: File,
}

impl Turn {
    /// None while another process runs one.
    pub fn take(data: &Path) -> anyhow::Result<Option<Self>> {
        let path = data.join("jobs.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _lock: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

/// A job under way.
enum Work {
    Prune(prune::Position, Pruned),
    Collect(Box<collect::Round>),
    Compact(Option<PackId>, Compacted),
    Cold(Option<PackId>, Moved),
}

impl Work {
    /// Goes on where the row says, or begins.
    async fn begin(drive: &Drive, kind: Kind, row: &Job, grace: Grace) -> anyhow::Result<Self> {
        let at = row.position.as_deref();
        let before = if at.is_some() { row.report.as_deref() } else { None };
        Ok(match kind {
            Kind::Prune => {
                Self::Prune(read(at).unwrap_or_default(), read(before).unwrap_or_default())
            }
            Kind::Compact => {
                Self::Compact(read(at).unwrap_or_default(), read(before).unwrap_or_default())
            }
            Kind::Cold => {
                Self::Cold(read(at).unwrap_or_default(), read(before).unwrap_or_default())
            }
            Kind::Collect => {
                let last = drive.store.read(|sql| server::note(sql, ROUND_NOTE)).await?;
                let last = last.map(|text| text.parse::<u64>()).transpose()?;
                let mut round = collect::Round::begin(drive, grace, last, read(at)).await?;
                round.done = read(before).unwrap_or_default();
                // On record before anything is doomed in it.
                let number = round.position().round.to_string();
                drive.store.write(move |sql| server::set_note(sql, ROUND_NOTE, &number)).await?;
                Self::Collect(Box::new(round))
            }
        })
    }

    /// One step; false when all is done.
    async fn step(&mut self, drive: &Drive, grace: Grace) -> Result<bool, DriveError> {
        match self {
            Self::Prune(at, done) => match drive.prune(*at, done).await? {
                Some(next) => {
                    *at = next;
                    Ok(true)
                }
                None => Ok(false),
            },
            Self::Collect(round) => round.step(drive).await,
            Self::Compact(after, done) => {
                *after = drive.compact(*after, grace.block, done).await?;
                Ok(after.is_some())
            }
            Self::Cold(after, done) => {
                *after = drive.move_out(*after, done).await?;
                Ok(after.is_some())
            }
        }
    }

    fn position(&self) -> String {
        match self {
            Self::Prune(at, _) => text(at),
            Self::Collect(round) => text(&round.position()),
            Self::Compact(after, _) | Self::Cold(after, _) => text(after),
        }
    }

    fn report(&self) -> String {
        match self {
            Self::Prune(_, done) => text(done),
            Self::Collect(round) => text(&round.done),
            Self::Compact(_, done) => text(done),
            Self::Cold(_, done) => text(done),
        }
    }
}

/// What cannot be read (any more) is begun anew.
fn read<T: DeserializeOwned>(json: Option<&str>) -> Option<T> {
    serde_json::from_str(json?).ok()
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers and names serialise")
}

/// Runs a job to its end, or until `stop`: then it goes on where it was. Answers what it did (JSON).
pub async fn run(
    drive: &Drive,
    kind: Kind,
    manner: Manner,
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<String> {
    let mut row = row_of(drive, kind).await?;
    let mut work = Work::begin(drive, kind, &row, manner.grace).await?;
    if row.position.is_none() {
        row.began = Some(clock::now_secs());
    }
    let mut noted: Option<Instant> = None;
    loop {
        if noted.is_none_or(|at| at.elapsed() > NOTE_EVERY) || *stop.borrow() {
            (row.position, row.report) = (Some(work.position()), Some(work.report()));
            put(drive, &row).await?;
            noted = Some(Instant::now());
        }
        if *stop.borrow() {
            return Ok(work.report());
        }
        let began = Instant::now();
        match work.step(drive, manner.grace).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(e) => {
                row.failures = row.failures.saturating_add(1);
                let wait = RETRY_SECS << row.failures.min(10);
                row.due = clock::now_secs() + wait.min(RETRY_SECS_MAX);
                row.error = Some(e.to_string());
                (row.position, row.report) = (Some(work.position()), Some(work.report()));
                put(drive, &row).await?;
                return Err(e.into());
            }
        }
        if manner.paced {
            let mut stop = stop.clone();
            let pause = (began.elapsed() * PAUSE_PARTS).min(PAUSE_MAX);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
    }
    let now = clock::now_secs();
    row.ended = Some(now);
    row.due = row.began.unwrap_or(now).max(now - kind.every()) + kind.every();
    (row.position, row.error, row.failures) = (None, None, 0);
    row.report = Some(work.report());
    put(drive, &row).await?;
    tracing::info!(job = kind.name(), report = %work.report(), "done");
    Ok(work.report())
}

async fn put(drive: &Drive, row: &Job) -> Result<(), DbError> {
    let row = row.clone();
    drive.store.write(move |sql| jobs::put(sql, &row)).await
}

/// The row of a job; one that never ran is due after half its time.
async fn row_of(drive: &Drive, kind: Kind) -> Result<Job, DbError> {
    let found = drive.store.read(move |sql| jobs::find(sql, kind.name())).await?;
    Ok(found.unwrap_or_else(|| Job {
        kind: kind.name().to_owned(),
        due: clock::now_secs() + kind.every() / 2,
        position: None,
        report: None,
        began: None,
        ended: None,
        error: None,
        failures: 0,
    }))
}

/// Until `stop`: brings back what somebody waits for, and runs what is due if these are `jobs` of this
/// process.
pub async fn serve(drive: Drive, data: PathBuf, jobs: bool, mut stop: watch::Receiver<bool>) {
    loop {
        while let Ok(true) = bring_back(&drive, &data).await {}
        if jobs && let Err(error) = run_due(&drive, &data, &stop).await {
            tracing::error!(error = format!("{error:#}"), "a background job failed");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Brings back packs that somebody waits for; true when there were some. What fails is tried again
/// the next time.
async fn bring_back(drive: &Drive, data: &Path) -> anyhow::Result<bool> {
    let Some(_turn) = Turn::take(data)? else { return Ok(false) };
    let mut moved = Moved::default();
    let any = drive.bring_back(&mut moved).await.inspect_err(|error| {
        tracing::error!(%error, "a pack in the second store cannot be brought back");
    })?;
    if moved.back > 0 {
        tracing::info!(packs = moved.back, "brought back from the second store");
    }
    Ok(any && moved.back > 0)
}

async fn run_due(drive: &Drive, data: &Path, stop: &watch::Receiver<bool>) -> anyhow::Result<()> {
    let mut due = Vec::new();
    for kind in Kind::ALL {
        let known = drive.store.read(move |sql| jobs::find(sql, kind.name())).await?;
        let row = row_of(drive, kind).await?;
        if known.is_none() {
            put(drive, &row).await?;
        }
        if row.due <= clock::now_secs() {
            due.push(kind);
        }
    }
    if due.is_empty() {
        return Ok(());
    }
    let Some(_turn) = Turn::take(data)? else { return Ok(()) };
    let manner = Manner { grace: Grace::default(), paced: true };
    let mut failed = None;
    for kind in due {
        if *stop.borrow() {
            break;
        }
        if let Err(e) = run(drive, kind, manner, stop).await {
            failed = Some(e.context(kind.name()));
        }
    }
    failed.map_or(Ok(()), Err)
}
