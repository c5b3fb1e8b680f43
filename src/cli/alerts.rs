//! What people should hear of without asking: mass changes by other devices, for `status`.
//!
//! Asks the server after something changed, and then for these things alone. Losing one costs the
//! message, nothing else.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::Seq;
use drivefs_core::wire::CommitEvents;
use drivefs_core::wire::EventsRequest;
use drivefs_core::wire::Span;
use tokio::time::MissedTickBehavior;

use super::events;
use crate::control::ALARM_TIME;
use crate::control::Daemon;
use crate::journal::now;
use crate::remote::Remote;

/// How often it is looked whether something changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Mass changes that `status` tells of.
const ALARMS_MAX: usize = 5;
/// Pause after a question without answer.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Commits asked for at once.
const PAGE: u32 = 100;

/// Looks on for the daemon's life.
pub async fn watch(remote: Remote, daemon: Arc<Daemon>) {
    let mut watch = Watch { remote, daemon, seen: HashMap::new(), quiet_until: Instant::now() };
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        watch.look().await;
    }
}

struct Watch {
    remote: Remote,
    daemon: Arc<Daemon>,
    /// Up to where each namespace was looked at.
    seen: HashMap<NamespaceId, Seq>,
    /// The server did not answer; it is not asked again until then.
    quiet_until: Instant,
}

impl Watch {
    async fn look(&mut self) {
        if !self.daemon.link.is_online() || Instant::now() < self.quiet_until {
            return;
        }
        let tree = self.daemon.fs.tree().clone();
        let Ok(spaces) = tree.db().peek(|c| c.namespaces()) else { return };
        for space in spaces {
            let seen = self.seen.get(&space.ns).copied();
            if seen.is_some_and(|seen| seen >= space.cursor) {
                continue;
            }
            let Ok(path) = tree.path_of(space.root) else { continue };
            let mut span = match seen {
                Some(seq) => Span::After(seq),
                None => Span::Since(now().saturating_sub(ALARM_TIME)),
            };
            loop {
                let request =
                    EventsRequest { ns: space.ns, of: None, span, limit: PAGE, notable: true };
                let page = match self.remote.events(&request).await {
                    Ok(page) => page,
                    Err(error) => {
                        tracing::debug!(%error, "events");
                        self.quiet_until = Instant::now() + AFTER_FAILURE;
                        return;
                    }
                };
                for commit in &page.commits {
                    self.take(commit, &path);
                }
                match page.next {
                    Some(next) => span = next,
                    None => {
                        self.seen.insert(space.ns, page.seq);
                        break;
                    }
                }
            }
        }
    }

    fn take(&mut self, commit: &CommitEvents, space: &str) {
        let account = &self.daemon.account;
        let mine = commit.device == account.device && commit.user == account.email;
        let Some(mass) = commit.told.mass.as_ref().filter(|_| !mine) else { return };
        let alarm = events::alarm(commit, mass, space, &self.daemon.mount);
        let mut alarms = self.daemon.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        let known = alarms.iter().any(|a| a.time == alarm.time && a.device == alarm.device);
        if !known {
            tracing::warn!(device = alarm.device, command = alarm.command, "mass change");
            alarms.push(alarm);
            let old = alarms.len().saturating_sub(ALARMS_MAX);
            alarms.drain(..old);
        }
    }
}
