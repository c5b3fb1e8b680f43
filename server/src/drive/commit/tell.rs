//! What a commit tells of itself: its events, with the folders as they are named at that moment.

use std::collections::HashMap;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::UserId;
use drivefs_core::id::VersionNo;
use drivefs_core::limits::DEPTH_MAX;
use drivefs_core::limits::EVENTS_KEPT_MAX;
use drivefs_core::limits::EVENTS_KEPT_SECS;
use drivefs_core::limits::MASS_WINDOW_SECS;
use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;
use drivefs_core::wire::Event;
use drivefs_core::wire::EventFolder;
use drivefs_core::wire::EventKind;
use drivefs_core::wire::EventPlace;
use drivefs_core::wire::Place;
use drivefs_core::wire::Told;

use super::mass::Counter;
use super::mass::Loss;
use super::work::Work;
use crate::metadata::DbError;
use crate::metadata::Sql;
use crate::metadata::entries;
use crate::metadata::events;
use crate::metadata::events::NewEvents;
use crate::metadata::versions;

/// Folders that the events of one commit name, at most; of deeper ones the top is left out.
const FOLDERS_MAX: usize = 4096;
/// Old rows are looked for once in so many commits, and so many are removed then at most.
const PRUNE_EVERY: u64 = 64;
const PRUNED_AT_ONCE: u32 = 256;
const NS: TimeNs = 1_000_000_000;

/// What the ops of a commit did so far.
#[derive(Default)]
pub struct Tale {
    told: Told,
    /// Folders that are in the list and still where it says.
    listed: HashMap<NodeId, u32>,
    loss: Loss,
}

/// A point to which `Tale` goes back when an op is undone.
pub struct Point {
    events: usize,
    loss: Loss,
}

/// What happened to one node.
pub struct Happened<'a> {
    pub kind: EventKind,
    pub node: NodeId,
    pub what: NodeKind,
    pub from: Option<&'a Place>,
    pub to: Option<&'a Place>,
    pub before: VersionNo,
    pub after: VersionNo,
    /// Of content that is an older version's: which.
    pub of: VersionNo,
}

impl Happened<'_> {
    pub fn new(kind: EventKind, node: NodeId, what: NodeKind) -> Self {
        Self { kind, node, what, from: None, to: None, before: 0, after: 0, of: 0 }
    }
}

impl Tale {
    /// Of a commit that may undo what was done from one device.
    pub fn of(rewinds: Option<String>) -> Self {
        Self { told: Told { rewinds, ..Told::default() }, ..Self::default() }
    }

    pub fn point(&self) -> Point {
        Point { events: self.told.events.len(), loss: self.loss.clone() }
    }

    pub fn back_to(&mut self, point: Point) {
        self.told.events.truncate(point.events);
        self.listed.clear();
        self.loss = point.loss;
    }
}

impl Work<'_> {
    /// Notes what an op did. Called once it is done: the folders of both places are as they were.
    pub fn tell(&mut self, h: Happened<'_>) -> Result<(), DbError> {
        let from = h.from.map(|place| self.told_place(place)).transpose()?;
        let to = h.to.map(|place| self.told_place(place)).transpose()?;
        if h.kind == EventKind::Moved && h.what.is_folder() {
            self.tale.listed.clear();
        }
        self.tale.told.events.push(Event {
            kind: h.kind,
            node: h.node,
            what: h.what,
            from,
            to,
            before: h.before,
            after: h.after,
            of: h.of,
        });
        Ok(())
    }

    /// Notes that a content which had stood for a while is not the newest of a live file any more.
    pub fn count_loss(
        &mut self,
        node: NodeId,
        version: VersionNo,
        deleted: bool,
    ) -> Result<(), DbError> {
        let Some(made) = versions::committed(self.sql, self.ns, node, version)? else {
            return Ok(());
        };
        if self.now - made < MASS_WINDOW_SECS * NS {
            return Ok(());
        }
        let told = &self.tale.told;
        let event = told.events.last();
        let place = event.and_then(|e| if deleted { e.from.as_ref() } else { e.to.as_ref() });
        let Some(folder) = place.map(|p| p.folder) else { return Ok(()) };
        let path = || -> Vec<Name> {
            let mut names: Vec<_> = told.chain(folder).filter_map(|f| f.name.clone()).collect();
            names.reverse();
            names
        };
        self.tale.loss.add(deleted, folder, path);
        Ok(())
    }

    fn told_place(&mut self, place: &Place) -> Result<EventPlace, DbError> {
        Ok(EventPlace { folder: self.told_folder(place.parent)?, name: place.name.clone() })
    }

    /// Lists a folder and those above it, as far as they are not listed.
    fn told_folder(&mut self, folder: NodeId) -> Result<u32, DbError> {
        let mut above: Vec<(NodeId, Option<Name>)> = Vec::new();
        let mut at = folder;
        let mut up = loop {
            if let Some(listed) = self.tale.listed.get(&at) {
                break Some(*listed);
            }
            let place = if at == self.root { None } else { entries::place(self.sql, self.ns, at)? };
            above.push((at, place.as_ref().map(|p| p.name.clone())));
            let full = self.tale.told.folders.len() + above.len() >= FOLDERS_MAX;
            match place {
                Some(place) if !full && above.len() < DEPTH_MAX => at = place.parent,
                _ => break None,
            }
        };
        for (node, name) in above.into_iter().rev() {
            let index = u32::try_from(self.tale.told.folders.len()).unwrap_or(u32::MAX);
            self.tale.told.folders.push(EventFolder { node, name, up });
            self.tale.listed.insert(node, index);
            up = Some(index);
        }
        Ok(up.unwrap_or_default())
    }
}

/// Writes down what a commit did, in its transaction. `at` is its time.
pub fn record(
    sql: &mut dyn Sql,
    (ns, seq): (NamespaceId, u64),
    (user, device): (UserId, &str),
    at: TimeNs,
    tale: Tale,
) -> Result<(), DbError> {
    let Tale { mut told, loss, .. } = tale;
    if told.events.is_empty() {
        return Ok(());
    }
    let last = events::last(sql, ns)?.unwrap_or_default();
    // In the order of seqs, whatever the clock does.
    let at = at.max(last.at + 1);
    if !loss.is_empty() {
        let mut counter = Counter::of(events::counter(sql, ns, user, device)?.as_deref());
        told.mass = counter.count(at, &loss, |limit| events::names_up_to(sql, ns, limit))?;
        events::set_counter(sql, ns, user, device, &counter.text())?;
    }
    let total = last.total + told.events.len() as u64;
    events::insert(sql, ns, &NewEvents { seq, at, user, device, told: &told, total })?;
    if seq.is_multiple_of(PRUNE_EVERY) {
        prune(sql, ns, at, total)?;
    }
    Ok(())
}

/// Removes some of what is too old, or too much.
fn prune(sql: &mut dyn Sql, ns: NamespaceId, now: TimeNs, total: u64) -> Result<(), DbError> {
    let too_old = now - EVENTS_KEPT_SECS * NS;
    let too_many = total.saturating_sub(EVENTS_KEPT_MAX);
    let oldest = events::oldest(sql, ns, PRUNED_AT_ONCE)?;
    let gone = oldest.iter().take_while(|m| m.at < too_old || m.total <= too_many).last();
    gone.map_or(Ok(()), |upto| events::prune(sql, ns, upto))
}
