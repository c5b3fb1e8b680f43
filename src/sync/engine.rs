//! The control task: rounds of pull, prepare, push.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use tokio::sync::Notify;
use tokio::sync::mpsc;

use super::SyncError;
use super::backoff::Backoff;
use super::poll;
use super::pull::pull_some;
use super::rush::Rush;
use super::rush::WINDOW;
use super::upload::UploadError;
use super::upload::Uploaded;
use crate::host;
use crate::remote::Remote;
use crate::remote::RemoteError;
use crate::state::Nid;
use crate::tree::Tree;
use crate::tree::TreeError;
use crate::tree::Unanswered;

/// Longest sleep between rounds when nothing asks for one.
const IDLE: Duration = Duration::from_secs(60);
/// Bounds of the pause between two rounds; below the lower one it is not worth a timer.
const SHORT_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Pause after a round by what it committed: a stream of changes goes in larger commits.
const GATHER_PER_OP: Duration = Duration::from_millis(2);
const GATHER_MOST: Duration = Duration::from_millis(100);
/// How often a server is asked whether it takes the token again. A new login is noticed at once.
pub(super) const LOCKED_OUT_WAIT: Duration = Duration::from_secs(60);
/// A refused change is tried again after this time.
pub(super) const REFUSED_WAIT: Duration = Duration::from_secs(20);

/// Pages pulled before a round goes on to what is to be sent.
const PULL_PAGES: usize = 50;

/// The engine. `run` consumes it; an `EngineHandle` talks to it.
pub struct Engine {
    pub(super) remote: Remote,
    pub(super) tree: Arc<Tree>,
    pub(super) root: NamespaceId,
    pub(super) shared: Arc<Shared>,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    inbox: mpsc::UnboundedReceiver<Report>,
    /// Nodes that an upload job has in hand.
    pub(super) busy: HashSet<NodeId>,
    /// The same by number: a rename can give the number another id meanwhile.
    pub(super) busy_nids: HashSet<Nid>,
    /// Jobs under way: small ones, large ones.
    pub(super) jobs: (usize, usize),
    /// Contents that are on the server and wait for their commit.
    pub(super) uploaded: HashMap<NodeId, Uploaded>,
    /// Nodes whose blocks the server could not link from where they came: they are uploaded.
    pub(super) unlinkable: HashSet<NodeId>,
    /// Nodes whose change was refused, until when.
    pub(super) refused: HashMap<NodeId, Instant>,
    /// When a file that stays open was last frozen.
    pub(super) last_freeze: HashMap<NodeId, Instant>,
    /// Commits whose answer is not known; none before those of an earlier process were looked up.
    pub(super) unanswered: Option<HashMap<NamespaceId, Unanswered>>,
    /// The tree has moved on under a planned op.
    pub(super) conflicts: u32,
    /// Ops committed in this round.
    pub(super) committed: usize,
    rush: Rush,
}

/// What an upload job reports.
pub(super) struct Report {
    pub nodes: Vec<NodeId>,
    pub nids: Vec<Nid>,
    pub small: bool,
    pub result: Result<Vec<Uploaded>, UploadError>,
    /// Files that could not be prepared, and why.
    pub failed: Vec<(NodeId, String)>,
}

/// What the engine shares with those who wait for it.
#[derive(Default)]
pub(super) struct Shared {
    pub kick: Notify,
    /// Fires after each round.
    pub rounds: Notify,
    /// Intents up to here are sent even while their files are open.
    pub force: AtomicU64,
    /// Refused changes are to be tried again at once.
    pub retry: AtomicBool,
    /// Pulls asked for, and the number up to which they are done.
    pub pulls_wanted: AtomicU64,
    pub pulls_done: AtomicU64,
    pub status: Mutex<EngineStatus>,
}

/// How the engine is doing, for `status`.
#[derive(Debug, Clone, Default)]
pub struct EngineStatus {
    /// Why the last round failed; none when it did not.
    pub error: Option<String>,
    /// Files being uploaded right now.
    pub uploading: Vec<NodeId>,
    /// Changes that were refused, and when they are tried again.
    pub refused: HashMap<NodeId, Instant>,
}

/// Asks things of a running engine.
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
    tree: Arc<Tree>,
}

impl Engine {
    pub fn new(remote: Remote, tree: Arc<Tree>, root: NamespaceId) -> (Self, EngineHandle) {
        let shared = Arc::new(Shared::default());
        shared.pulls_wanted.store(1, Ordering::Relaxed);
        let (reports, inbox) = mpsc::unbounded_channel();
        let handle = EngineHandle { shared: shared.clone(), tree: tree.clone() };
        let engine = Self {
            remote,
            tree,
            root,
            shared,
            reports,
            inbox,
            busy: HashSet::new(),
            busy_nids: HashSet::new(),
            jobs: (0, 0),
            uploaded: HashMap::new(),
            unlinkable: HashSet::new(),
            refused: HashMap::new(),
            last_freeze: HashMap::new(),
            unanswered: None,
            conflicts: 0,
            committed: 0,
            rush: Rush::new(host::instant()),
        };
        (engine, handle)
    }

    /// Runs until dropped.
    pub async fn run(mut self) {
        let poll = poll::run(self.remote.clone(), self.tree.clone(), self.shared.clone());
        let poll = tokio::spawn(poll);
        let _stop_poll = AbortOnDrop(poll.abort_handle());
        let woken = self.tree.journal().woken();
        let mut backoff = Backoff::default();
        loop {
            let (began, activity) = (host::instant(), self.tree.journal().activity());
            let wait = match self.step().await {
                Ok(wait) => {
                    backoff.reset();
                    wait
                }
                Err(error) if error.is_locked_out() => LOCKED_OUT_WAIT,
                Err(_) => backoff.wait(),
            };
            // Under a stream of changes rounds take a part of the time, not all of it: whoever
            // changes things needs the processor and the database too, and many changes in one
            // commit cost little more than one.
            let gather = GATHER_PER_OP.saturating_mul(self.committed as u32).min(GATHER_MOST);
            let pause = host::since(began).saturating_mul(2).min(LONGEST_PAUSE).max(gather);
            self.shared.rounds.notify_waiters();
            // While the server is away local changes are no reason to knock; a hint is.
            let failed = wait_is_backoff(&self.shared);
            tokio::select! {
                () = host::sleep(wait) => {}
                () = self.shared.kick.notified() => {}
                () = woken.notified(), if !failed => {}
                Some(report) = self.inbox.recv() => self.take_report(report),
            }
            let busy = self.tree.journal().activity() != activity;
            // In a rush every change would wake this up again.
            let pause = if self.rush.is_on() { pause.max(WINDOW) } else { pause };
            if busy && pause > SHORT_PAUSE {
                host::sleep(pause).await;
            }
        }
    }

    /// What jobs report, then one round; returns how long to sleep if nothing happens. `run` does
    /// this again and again; a simulation takes step after step.
    pub async fn step(&mut self) -> Result<Duration, SyncError> {
        while let Ok(report) = self.inbox.try_recv() {
            self.take_report(report);
        }
        self.committed = 0;
        let result = self.round().await;
        match &result {
            Ok(_) => self.set_error(None),
            Err(error) => {
                let text = error.to_string();
                let known = self.shared.status().error.as_ref() == Some(&text);
                if !error.is_offline() && !known {
                    tracing::warn!(%error, "sync round failed");
                }
                self.set_error(Some(text));
            }
        }
        result
    }

    /// One round; returns how long to sleep if nothing happens.
    async fn round(&mut self) -> Result<Duration, SyncError> {
        if self.shared.retry.swap(false, Ordering::AcqRel) {
            self.refused.clear();
        }
        self.ask_again().await?;
        let wanted = self.shared.pulls_wanted.load(Ordering::Acquire);
        if wanted > self.shared.pulls_done.load(Ordering::Acquire) {
            let all = pull_some(&self.remote, &self.tree, self.root, PULL_PAGES).await?;
            if all {
                self.shared.pulls_done.fetch_max(wanted, Ordering::Release);
            } else {
                // What is ahead here does not wait for all that is new there.
                self.shared.kick.notify_one();
            }
        }
        if self.programs_first()? {
            return Ok(WINDOW);
        }
        let namespaces = self.tree.db().peek(|c| c.namespaces()).map_err(TreeError::from)?;
        let mut wait = IDLE;
        let mut failed = None;
        for space in namespaces {
            if self.tree.relist(space.ns)?.is_some() {
                // What is ahead of what shows when the list is here.
                wait = wait.min(LONGEST_PAUSE);
                continue;
            }
            match self.push(space.ns).await {
                Ok(again) => wait = wait.min(again),
                Err(e) if e.is_offline() => return Err(e),
                // One namespace's trouble is not the others'.
                Err(e) => failed = Some(e),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        self.tell();
        Ok(wait)
    }

    /// Tells what is in hand, and what waits for another try.
    fn tell(&self) {
        self.tree.journal().set_in_hand(self.busy.clone());
        let mut status = self.shared.status();
        status.uploading = self.busy.iter().copied().collect();
        status.refused.clone_from(&self.refused);
    }

    /// True while programs change very much at once and nobody waits for the server.
    fn programs_first(&mut self) -> Result<bool, SyncError> {
        let held = self.rush.holds(host::instant(), self.tree.journal().activity());
        if !held {
            return Ok(false);
        }
        let forced = self.shared.force.load(Ordering::Acquire);
        if forced == 0 {
            return Ok(true);
        }
        let first = self.tree.db().peek(|c| c.min_since()).map_err(TreeError::from)?;
        Ok(first.is_none_or(|since| since >= forced))
    }

    fn take_report(&mut self, report: Report) {
        for node in &report.nodes {
            self.busy.remove(node);
        }
        for nid in &report.nids {
            self.busy_nids.remove(nid);
        }
        if report.small {
            self.jobs.0 -= 1;
        } else {
            self.jobs.1 -= 1;
        }
        for (node, why) in report.failed {
            self.refuse(node, &why);
        }
        match report.result {
            Ok(uploaded) => {
                for one in uploaded {
                    self.uploaded.insert(one.node, one);
                }
            }
            Err(UploadError::Remote(e)) if matches!(e, RemoteError::Offline(_)) => {
                self.set_error(Some(e.to_string()));
                // Not the files' fault: they are tried again when the server answers.
                let until = host::instant() + Duration::from_secs(1);
                self.refused.extend(report.nodes.into_iter().map(|n| (n, until)));
            }
            Err(e) => {
                tracing::warn!(error = %e, files = report.nodes.len(), "upload failed");
                for node in report.nodes {
                    self.refuse(node, &e.to_string());
                }
            }
        }
        self.tell();
    }

    /// Notes that a node's change was refused, for `status` and for a later try.
    pub(super) fn refuse(&mut self, node: NodeId, why: &str) {
        self.refused.insert(node, host::instant() + REFUSED_WAIT);
        if let Err(error) = self.tree.refused(&node, why) {
            tracing::error!(%error, "could not note why a change was refused");
        }
    }

    fn set_error(&self, error: Option<String>) {
        self.shared.status().error = error;
    }
}

fn wait_is_backoff(shared: &Shared) -> bool {
    shared.status().error.is_some()
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Shared {
    pub fn status(&self) -> std::sync::MutexGuard<'_, EngineStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a pull; returns its number.
    pub fn want_pull(&self) -> u64 {
        let number = self.pulls_wanted.fetch_add(1, Ordering::AcqRel) + 1;
        self.kick.notify_one();
        number
    }
}

impl EngineHandle {
    pub fn status(&self) -> EngineStatus {
        self.shared.status().clone()
    }

    /// Lets the engine look again now: refused changes too.
    pub fn kick(&self) {
        self.shared.kick.notify_one();
    }

    /// Starts to send all that is ahead now, and to take in all that the server has now. The
    /// result tells when that is done.
    pub fn begin_sync(&self) -> Result<Goal, TreeError> {
        self.tree.forget_refusals()?;
        self.shared.retry.store(true, Ordering::Release);
        // A number of its own: what was planned before comes before it, even if nothing was noted
        // in between.
        let position = self.tree.journal().tick() + 1;
        self.shared.force.fetch_max(position, Ordering::AcqRel);
        Ok(Goal { position, pull: self.shared.want_pull(), widened: false })
    }

    /// Starts to take in all that the server has now.
    pub fn begin_pull(&self) -> Goal {
        Goal { position: 0, pull: self.shared.want_pull(), widened: false }
    }

    /// True when the goal is reached.
    pub fn is_reached(&self, goal: &mut Goal) -> Result<bool, TreeError> {
        if !self.is_pulled(goal) {
            return Ok(false);
        }
        if !goal.widened {
            // What was changed here before may be something new by now, such as a conflict file.
            goal.widened = true;
            goal.position = self.tree.journal().tick() + 1;
            self.shared.force.fetch_max(goal.position, Ordering::AcqRel);
            self.shared.kick.notify_one();
        }
        let first = self.tree.db().peek(|c| c.min_since())?;
        Ok(first.is_none_or(|since| since >= goal.position))
    }

    /// True when what the server had at the start is here.
    pub fn is_pulled(&self, goal: &Goal) -> bool {
        self.shared.pulls_done.load(Ordering::Acquire) >= goal.pull
    }

    /// Waits for the end of the next round, at most `most`.
    pub async fn next_round(&self, most: Duration) {
        // Running out of time is no error: the caller looks again.
        let _ = tokio::time::timeout(most, self.shared.rounds.notified()).await;
    }
}

/// What `drivefs sync` waits for.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    pub position: u64,
    pull: u64,
    /// The position is that of after the pull.
    widened: bool,
}
