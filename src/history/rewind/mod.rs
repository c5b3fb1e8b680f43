//! Rewind: what was done since a time, by anyone or from one device, is undone by new changes.
//!
//! Everything follows from the server's record of events. Ops go in batches; whatever ends it in
//! between, the same rewind makes its plan again and goes on.

mod plan;
mod record;

#[cfg(test)]
mod tests;

use drivefs_core::limits::COMMIT_OPS_MAX;
use drivefs_core::limits::EVENTS_MAX;
use drivefs_core::node::TimeNs;
use drivefs_core::wire::OpResult;
use drivefs_core::wire::Span;

use super::History;
use super::HistoryError;
use super::RACES_MAX;
pub use plan::Left;
pub use plan::Plan;
pub use plan::Step;
pub use plan::Verb;
use record::Deed;
use record::Record;
pub use record::Scope;
pub use record::Who;

/// Whose changes are undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    Anyone,
    /// Those from devices of this name, of one person where it says so.
    Device {
        user: Option<String>,
        device: String,
    },
}

impl Whose {
    fn is(&self, who: &Who) -> bool {
        match self {
            Self::Anyone => true,
            Self::Device { user, device } => {
                who.device == *device && user.as_ref().is_none_or(|user| *user == who.user)
            }
        }
    }
}

/// What a rewind did.
#[derive(Debug, Default)]
pub struct Rewound {
    /// Steps that were done.
    pub done: Vec<Verb>,
    pub left: Vec<Left>,
    /// Devices whose changes were looked at.
    pub devices: Vec<Who>,
}

/// How commits are marked that undo what was done from a device: a rewind that was cut off knows
/// them again.
fn tag(whose: &Whose, devices: &[Who]) -> Option<String> {
    match (whose, devices) {
        (Whose::Device { .. }, [who]) => Some(format!("{}/{}", who.user, who.device)),
        _ => None,
    }
}

impl History {
    /// What a rewind would do. Without a node the scope is what is or was at its path.
    pub async fn plan_rewind(
        &self,
        scope: &Scope,
        to: TimeNs,
        whose: &Whose,
    ) -> Result<(Plan, Vec<Who>), HistoryError> {
        let record = self.record_since(scope, to).await?;
        let concerned = |d: &&Deed| d.wanted && whose.is(&d.who);
        let mut devices: Vec<Who> =
            record.deeds.iter().filter(concerned).map(|d| d.who.clone()).collect();
        devices.sort();
        devices.dedup();
        if let Whose::Device { user: None, device } = whose
            && let [one, other, ..] = devices.as_slice()
        {
            return Err(HistoryError::Refused(format!(
                "{} and {} have a device '{device}' each; say whose by --device {}/{device}",
                one.user, other.user, one.user
            )));
        }
        let undone = tag(whose, &devices);
        let mine = |d: &Deed| whose.is(&d.who) || (undone.is_some() && d.rewinds == undone);
        Ok((plan::plan(&record, mine), devices))
    }

    /// Undoes it. `progress` hears how many steps are done, and of how many.
    pub async fn rewind(
        &self,
        scope: &Scope,
        to: TimeNs,
        whose: &Whose,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Rewound, HistoryError> {
        let mut rewound = Rewound::default();
        for round in 1..=RACES_MAX {
            let (plan, devices) = self.plan_rewind(scope, to, whose).await?;
            let undone = tag(whose, &devices);
            rewound.devices = devices;
            rewound.left = plan.left;
            let total = rewound.done.len() + plan.steps.len();
            let mut conflicts = Vec::new();
            for batch in plan.steps.chunks(COMMIT_OPS_MAX) {
                let changes = batch.iter().map(|s| s.change.clone()).collect();
                for (step, result) in
                    batch.iter().zip(self.commit_as(changes, undone.clone()).await?)
                {
                    let left = |why| Left { path: step.path.clone(), why };
                    match result {
                        OpResult::Done { .. } => rewound.done.push(step.verb),
                        OpResult::Rejected { message, .. } => rewound.left.push(left(message)),
                        OpResult::Conflict { message } => conflicts.push(left(message)),
                    }
                }
                progress(rewound.done.len(), total);
            }
            if conflicts.is_empty() {
                break;
            }
            // Somebody was faster, or something else stands in the way: what is on record tells.
            if round == RACES_MAX {
                rewound.left.append(&mut conflicts);
            }
        }
        Ok(rewound)
    }

    async fn record_since(&self, scope: &Scope, to: TimeNs) -> Result<Record, HistoryError> {
        let mut record = Record::default();
        let mut span = Span::Since(to);
        loop {
            let page = self.events(None, span, EVENTS_MAX).await?;
            if to < page.begins {
                return Err(HistoryError::Pruned(page.begins));
            }
            for commit in &page.commits {
                record.take(commit, scope);
            }
            record.emptied = page.emptied;
            record.root = Some(page.root);
            match page.next {
                Some(next) => span = next,
                None => return Ok(record),
            }
        }
    }
}
