//! What happened: the bodies of `/sync/v1/events`. One commit is told with all its events, and with
//! the folders that they happened in as these were named then.

use serde::Deserialize;
use serde::Serialize;

use super::Place;
use crate::id::NamespaceId;
use crate::id::NodeId;
use crate::id::Seq;
use crate::id::VersionNo;
use crate::limits::DEPTH_MAX;
use crate::name::Name;
use crate::node::NodeKind;
use crate::node::TimeNs;

/// `POST /sync/v1/events`: commits in the order asked, each with all its events.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EventsRequest {
    pub ns: NamespaceId,
    /// Only what happened to this node or, of a folder, at and below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<NodeId>,
    pub span: Span,
    /// About so many events; a commit is never split.
    pub limit: u32,
    /// Only conflict files and mass changes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub notable: bool,
}

/// Which commits, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// Behind this seq, oldest first.
    After(Seq),
    /// Later than this time (server clock), oldest first.
    Since(TimeNs),
    /// Before this seq, newest first.
    Before(Seq),
    /// Newest first.
    Newest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EventsReply {
    pub commits: Vec<CommitEvents>,
    /// Where the next page goes on; none when this was the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Span>,
    /// All commits of the namespace up to here were looked at by who asked for its end.
    pub seq: Seq,
    /// Of what happened up to this time not everything is on record; 0 when all is.
    pub begins: TimeNs,
    /// What was deleted up to here is out of the trash.
    pub emptied: Seq,
    pub root: NodeId,
}

/// What one commit did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CommitEvents {
    pub seq: Seq,
    /// When (server clock), by whom (e-mail), and from which device.
    pub time: TimeNs,
    pub user: String,
    pub device: String,
    #[serde(flatten)]
    pub told: Told,
}

/// The events of a commit, as they are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Told {
    pub folders: Vec<EventFolder>,
    pub events: Vec<Event>,
    /// With this commit a device had deleted or rewritten very much within a short time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mass: Option<MassChange>,
    /// The commit undoes what was done from this device (e-mail, slash, name).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewinds: Option<String>,
}

/// A folder that something happened in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EventFolder {
    pub node: NodeId,
    /// None for the root of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The folder that it is in, by its place in the list: always one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<u32>,
}

/// A place in one of the folders listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EventPlace {
    #[serde(rename = "in")]
    pub folder: u32,
    pub name: Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It was made, at `to`.
    Added,
    /// It was made, at `to`, as the copy of a file that two devices changed at once.
    Conflict,
    /// A file got another name more, `to`.
    Linked,
    /// A file at `to` got new content.
    Edited,
    /// A file at `to` got the content of one of its older versions, `of`.
    Reverted,
    /// It went from one place to another.
    Moved,
    /// A file lost the name `from` and has others.
    Unlinked,
    /// It lost its last name `from` and is in the trash.
    Deleted,
    /// It came back from the trash, to `to`.
    Restored,
}

/// One thing that happened to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Event {
    pub kind: EventKind,
    pub node: NodeId,
    #[serde(rename = "is")]
    pub what: NodeKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<EventPlace>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<EventPlace>,
    /// Head version before and after; 0 for what has no content.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub before: VersionNo,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub after: VersionNo,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub of: VersionNo,
}

/// Files that one device deleted or rewrote within a short time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MassChange {
    pub deleted: u64,
    pub rewritten: u64,
    /// It began right after this time (server clock).
    pub since: TimeNs,
    /// The folder that all of it happened in, as it was named then, from the namespace's root.
    pub folder: Vec<Name>,
}

impl Told {
    /// The folders from one listed up to the root.
    pub fn chain(&self, folder: u32) -> impl Iterator<Item = &EventFolder> {
        let get = |i: u32| self.folders.get(i as usize);
        std::iter::successors(get(folder), move |f| f.up.and_then(get)).take(DEPTH_MAX)
    }

    /// Names from the root to a place.
    pub fn path(&self, place: &EventPlace) -> Vec<Name> {
        let mut names = vec![place.name.clone()];
        names.extend(self.chain(place.folder).filter_map(|f| f.name.clone()));
        names.reverse();
        names
    }

    /// The place as ops name it.
    pub fn place(&self, place: &EventPlace) -> Option<Place> {
        let folder = self.folders.get(place.folder as usize)?;
        Some(Place { parent: folder.node, name: place.name.clone() })
    }

    /// True when somebody should hear of it without asking.
    pub fn is_notable(&self) -> bool {
        self.mass.is_some() || self.events.iter().any(|e| e.kind == EventKind::Conflict)
    }

    /// True when the event is about the node, or happened somewhere below it.
    pub fn is_about(&self, event: &Event, node: NodeId) -> bool {
        let below = |p: &EventPlace| self.chain(p.folder).any(|f| f.node == node);
        event.node == node || event.from.iter().chain(&event.to).any(below)
    }
}

fn is_false(v: &bool) -> bool {
    !*v
}

fn is_zero(v: &u64) -> bool {
    *v == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("valid")
    }

    fn node(n: u8) -> NodeId {
        NodeId::from_parts(1, [n; 10])
    }

    fn told() -> Told {
        let folder = |n, name: Option<&str>, up| EventFolder {
            node: node(n),
            name: name.map(self::name),
            up,
        };
        let event = Event {
            kind: EventKind::Moved,
            node: node(9),
            what: NodeKind::File,
            from: Some(EventPlace { folder: 0, name: name("old") }),
            to: Some(EventPlace { folder: 2, name: name("new") }),
            before: 0,
            after: 0,
            of: 0,
        };
        let folders = vec![
            folder(1, None, None),
            folder(2, Some("a"), Some(0)),
            folder(3, Some("b"), Some(1)),
        ];
        Told { folders, events: vec![event], mass: None, rewinds: None }
    }

    #[test]
    fn an_event_knows_its_paths_and_the_folders_above_both_its_places() {
        let told = told();
        let event = &told.events[0];
        let (from, to) = (event.from.clone().expect("old"), event.to.clone().expect("new"));
        assert_eq!(told.path(&from), [name("old")]);
        assert_eq!(told.path(&to), [name("a"), name("b"), name("new")]);
        assert_eq!(told.place(&to), Some(Place { parent: node(3), name: name("new") }));
        for (n, about) in [(1, true), (2, true), (3, true), (9, true), (4, false)] {
            assert_eq!(told.is_about(event, node(n)), about, "{n}");
        }
        let json = serde_json::to_string(&told).expect("writes");
        assert_eq!(serde_json::from_str::<Told>(&json).expect("reads"), told);
    }

    #[test]
    fn lists_that_make_no_sense_end() {
        let mut told = told();
        told.folders[0].up = Some(2);
        let to = EventPlace { folder: 2, name: name("x") };
        assert!(told.path(&to).len() <= DEPTH_MAX + 1);
        assert_eq!(told.place(&EventPlace { folder: 7, name: name("x") }), None);
        assert!(!told.is_about(&told.events[0], node(4)));
    }
}
