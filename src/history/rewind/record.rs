//! What is on record since a time, told node by node: where each has been and who did what.

use std::collections::HashMap;

use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::id::VersionNo;
use drivefs_core::limits::DEPTH_MAX;
use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::CommitEvents;
use drivefs_core::wire::EventKind;
use drivefs_core::wire::Place;

/// What is rewound: a node with all below it, and all that happened at or below a path.
#[derive(Debug, Clone)]
pub struct Scope {
    pub node: Option<NodeId>,
    /// Names from the namespace's root; none of them means all of it.
    pub path: Vec<Name>,
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Who {
    /// E-mail.
    pub user: String,
    pub device: String,
}

/// One thing that happened to one node.
#[derive(Debug, Clone)]
pub struct Deed {
    pub seq: Seq,
    pub who: Who,
    pub kind: EventKind,
    pub node: NodeId,
    pub what: NodeKind,
    pub from: Option<Place>,
    pub to: Option<Place>,
    pub before: VersionNo,
    pub after: VersionNo,
    pub of: VersionNo,
    /// It undoes what was done from a device (e-mail, slash, name).
    pub rewinds: Option<String>,
    /// It lies in the scope.
    pub wanted: bool,
}

/// All that happened in a namespace since a time, in its order.
#[derive(Debug, Default)]
pub struct Record {
    pub deeds: Vec<Deed>,
    /// Where folders are, or last were.
    pub folders: HashMap<NodeId, Place>,
    /// What was deleted up to here is out of the trash.
    pub emptied: Seq,
    /// Root of the namespace.
    pub root: Option<NodeId>,
}

impl Record {
    /// Takes the next commit.
    pub fn take(&mut self, commit: &CommitEvents, scope: &Scope) {
        let told = &commit.told;
        for folder in &told.folders {
            if let (Some(name), Some(up)) = (&folder.name, folder.up)
                && let Some(parent) = told.folders.get(up as usize)
            {
                let place = Place { parent: parent.node, name: name.clone() };
                self.folders.insert(folder.node, place);
            }
        }
        for e in &told.events {
            let places = || e.from.iter().chain(&e.to);
            let wanted = scope.path.is_empty()
                || scope.node.is_some_and(|node| told.is_about(e, node))
                || places().any(|p| told.path(p).starts_with(&scope.path));
            let place = |p: &Option<_>| p.as_ref().and_then(|p| told.place(p));
            self.push(Deed {
                seq: commit.seq,
                who: Who { user: commit.user.clone(), device: commit.device.clone() },
                kind: e.kind,
                node: e.node,
                what: e.what,
                from: place(&e.from),
                to: place(&e.to),
                before: e.before,
                after: e.after,
                of: e.of,
                rewinds: told.rewinds.clone(),
                wanted,
            });
        }
    }

    pub fn push(&mut self, deed: Deed) {
        if deed.what.is_folder()
            && let Some(place) = deed.to.as_ref().or(deed.from.as_ref())
        {
            self.folders.insert(deed.node, place.clone());
        }
        self.deeds.push(deed);
    }

    /// Names from the root to a place, as far as they are known.
    pub fn path(&self, place: &Place) -> String {
        let mut names = vec![place.name.to_string()];
        let mut at = place.parent;
        while let Some(above) = self.folders.get(&at)
            && names.len() < DEPTH_MAX
        {
            names.push(above.name.to_string());
            at = above.parent;
        }
        names.reverse();
        names.join("/")
    }
}

/// One node and what was done to it.
pub struct Life<'a> {
    pub node: NodeId,
    pub what: NodeKind,
    pub deeds: Vec<&'a Deed>,
    /// Names that it got or lost since: those that it has now.
    pub names: Vec<Place>,
    pub alive: bool,
    pub version: VersionNo,
    /// Versions that have the content of an older one.
    same: HashMap<VersionNo, VersionNo>,
}

impl<'a> Life<'a> {
    /// The lives of all nodes, in the order in which they came up.
    pub fn all(record: &'a Record) -> Vec<Self> {
        let mut at: HashMap<NodeId, usize> = HashMap::new();
        let mut lives: Vec<Self> = Vec::new();
        for deed in &record.deeds {
            let i = *at.entry(deed.node).or_insert_with(|| {
                lives.push(Self::before(deed));
                lives.len() - 1
            });
            lives[i].take(deed);
        }
        lives
    }

    /// The node as it was before the first thing on record.
    fn before(deed: &Deed) -> Self {
        use EventKind::Added;
        use EventKind::Conflict;
        use EventKind::Restored;
        Self {
            node: deed.node,
            what: deed.what,
            deeds: Vec::new(),
            names: Vec::new(),
            alive: !matches!(deed.kind, Added | Conflict | Restored),
            version: deed.before,
            same: HashMap::new(),
        }
    }

    fn take(&mut self, deed: &'a Deed) {
        self.deeds.push(deed);
        self.version = deed.after;
        if deed.kind == EventKind::Reverted {
            let first = self.content(deed.of);
            self.same.insert(deed.after, first);
        }
        if !deed.kind.names() {
            return;
        }
        self.names.retain(|name| Some(name) != deed.from.as_ref());
        if let Some(to) = &deed.to
            && !self.names.contains(to)
        {
            self.names.push(to.clone());
        }
        self.alive = deed.kind != EventKind::Deleted;
    }

    /// The version that first had the content of this one, as far as that is known.
    pub fn content(&self, version: VersionNo) -> VersionNo {
        self.same.get(&version).copied().unwrap_or(version)
    }

    /// Names and existence as they were before these deeds, undone from the last.
    pub fn names_before(&self, run: &[&Deed]) -> (Vec<Place>, bool) {
        let (mut names, mut alive) = (self.names.clone(), self.alive);
        for deed in run.iter().rev() {
            names.retain(|name| Some(name) != deed.to.as_ref());
            if let Some(from) = &deed.from
                && !names.contains(from)
            {
                names.push(from.clone());
            }
            use EventKind::Added;
            use EventKind::Conflict;
            use EventKind::Restored;
            alive = !matches!(deed.kind, Added | Conflict | Restored);
        }
        (names, alive)
    }
}

/// What an event changed.
pub trait Aspect {
    /// Names, or whether it is there at all.
    fn names(&self) -> bool;
    fn content(&self) -> bool;
}

impl Aspect for EventKind {
    fn names(&self) -> bool {
        !matches!(self, Self::Edited | Self::Reverted)
    }

    fn content(&self) -> bool {
        matches!(self, Self::Added | Self::Conflict | Self::Edited | Self::Reverted)
    }
}
