//! What a check found, bounded in memory whatever is wrong.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use serde::Serialize;

/// Most findings that are kept; beyond, they are counted.
const FINDINGS_MAX: usize = 10_000;

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule that is broken.
    pub kind: &'static str,
    /// What exactly, for people.
    pub what: String,
    /// Set right by this run.
    pub repaired: bool,
    /// What can be done about it, where it was not repaired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
}

/// What a whole check came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Nothing is wrong, or all that was is repaired.
    pub clean: bool,
    pub findings: Vec<Finding>,
    /// Findings beyond those listed.
    pub more: u64,
    /// Harmless things worth knowing.
    pub notes: Vec<String>,
    pub accounts: u64,
    pub versions: u64,
    pub packs: u64,
    pub blocks: u64,
    pub bytes: u64,
    pub orphan_packs: u64,
    pub orphan_bytes: u64,
}

impl Report {
    pub fn found(&mut self, kind: &'static str, what: String, advice: Option<&'static str>) {
        self.add(Finding { kind, what, repaired: false, advice });
    }

    pub fn repaired(&mut self, kind: &'static str, what: String) {
        self.add(Finding { kind, what, repaired: true, advice: None });
    }

    fn add(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn closed(mut self) -> Self {
        self.clean = self.more == 0 && self.findings.iter().all(|f| f.repaired);
        self
    }
}

/// How far a long piece of work is, for who watches it.
#[derive(Debug, Default)]
pub struct Progress {
    phase: Mutex<&'static str>,
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    pub fn begin(&self, phase: &'static str, total: u64) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    pub fn add(&self, done: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
    }

    /// What is being done, how much of it is done, and how much there is (0: not known).
    pub fn now(&self) -> (&'static str, u64, u64) {
        let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        (phase, self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}
