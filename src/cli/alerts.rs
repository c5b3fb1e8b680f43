//! What people should hear of without asking: mass changes by other devices, for `status`; these,
//! conflicts made here and changes that the server refuses for long, for the desktop.
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
use drivefs_core::node::TimeNs;
use drivefs_core::wire::CommitEvents;
use drivefs_core::wire::EventKind;
use drivefs_core::wire::EventsRequest;
use drivefs_core::wire::Span;
use tokio::time::MissedTickBehavior;

use super::desktop::Desktop;
use super::desktop::Topic;
use super::drive::joined;
use super::drive::shown;
use super::events;
use crate::control::ALARM_TIME;
use crate::control::Alarm;
use crate::control::Daemon;
use crate::journal::now;
use crate::remote::Remote;

/// How often it is looked whether something changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often the queue is looked at for what is refused.
const QUEUE_EVERY: Duration = Duration::from_secs(60);
/// A change that is refused is told when it is older (nanoseconds).
const REFUSED_LONG: TimeNs = 10 * 60 * 1_000_000_000;
/// Changes of the queue that are looked at, the oldest.
const QUEUE_MAX: usize = 1000;
/// Mass changes that `status` tells of.
const ALARMS_MAX: usize = 5;
/// Pause after a question without answer.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Commits asked for at once.
const PAGE: u32 = 100;

/// Looks on for the daemon's life. Made before the engine runs: what that pulls is news. Tells the
/// desktop only when asked to.
pub fn watch(
    remote: Remote,
    daemon: Arc<Daemon>,
    on_desktop: bool,
) -> impl Future<Output = ()> + Send {
    let spaces = daemon.fs.tree().db().peek(|c| c.namespaces()).unwrap_or_default();
    let watch = Watch {
        remote,
        daemon,
        seen: HashMap::new(),
        begun: spaces.iter().map(|s| (s.ns, s.cursor)).collect(),
        quiet_until: Instant::now(),
        desktop: on_desktop.then(Desktop::default),
        refused: HashMap::new(),
    };
    run(watch)
}

async fn run(mut watch: Watch) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut queue_looked: Option<Instant> = None;
    loop {
        tick.tick().await;
        watch.look().await;
        if watch.desktop.is_some() && queue_looked.is_none_or(|at| at.elapsed() >= QUEUE_EVERY) {
            queue_looked = Some(Instant::now());
            watch.look_at_queue().await;
        }
        if let Some(desktop) = &mut watch.desktop {
            desktop.show(Instant::now());
        }
    }
}

struct Watch {
    remote: Remote,
    daemon: Arc<Daemon>,
    /// Up to where each namespace was looked at.
    seen: HashMap<NamespaceId, Seq>,
    /// Where each namespace was at the start: what came before is no news.
    begun: HashMap<NamespaceId, Seq>,
    /// The server did not answer; it is not asked again until then.
    quiet_until: Instant,
    desktop: Option<Desktop>,
    /// Paths that were told as refused, and why.
    refused: HashMap<String, String>,
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
                let begun = *self.begun.entry(space.ns).or_insert(space.cursor);
                for commit in &page.commits {
                    self.take(commit, &path, commit.seq > begun);
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

    fn take(&mut self, commit: &CommitEvents, space: &str, news: bool) {
        let account = &self.daemon.account;
        let mine = commit.device == account.device && commit.user == account.email;
        if mine && news {
            for event in commit.told.events.iter().filter(|e| e.kind == EventKind::Conflict) {
                if let Some(to) = &event.to {
                    self.tell(Topic::Conflict, &joined(space, &commit.told.path(to)));
                }
            }
        }
        let Some(mass) = commit.told.mass.as_ref().filter(|_| !mine) else { return };
        let alarm = events::alarm(commit, mass, space, &self.daemon.mount);
        let mut alarms = self.daemon.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        let known = alarms.iter().any(|a| a.time == alarm.time && a.device == alarm.device);
        if known {
            return;
        }
        tracing::warn!(device = alarm.device, command = alarm.command, "mass change");
        let text = human(&alarm);
        alarms.push(alarm);
        let old = alarms.len().saturating_sub(ALARMS_MAX);
        alarms.drain(..old);
        drop(alarms);
        if news {
            self.tell(Topic::MassChange, &text);
        }
    }

    /// Tells each thing that is refused once, and again when the reason is another.
    async fn look_at_queue(&mut self) {
        let tree = self.daemon.fs.tree().clone();
        let read = tokio::task::spawn_blocking(move || tree.queue(QUEUE_MAX)).await;
        let Ok(Ok(items)) = read else { return };
        let time = now();
        let mut refused = HashMap::new();
        for item in items.into_iter().filter(|i| time.saturating_sub(i.at) >= REFUSED_LONG) {
            let Some(error) = item.error else { continue };
            if self.refused.get(&item.path) != Some(&error) {
                self.tell(Topic::Refused, &format!("{}: {error}", shown(&item.path)));
            }
            refused.insert(item.path, error);
        }
        self.refused = refused;
    }

    fn tell(&mut self, topic: Topic, line: &str) {
        if let Some(desktop) = &mut self.desktop {
            desktop.add(topic, line);
        }
    }
}

fn human(alarm: &Alarm) -> String {
    format!(
        "{} file(s) deleted and {} rewritten by {} ({}). If that was not meant: {}",
        alarm.deleted, alarm.edited, alarm.user, alarm.device, alarm.command
    )
}
