//! What a page of remote changes did to names, in the words of a program that watches a folder.
//!
//! Taken from the names before and after the page: what happened in between, nobody here saw.

use std::collections::BTreeMap;

use drivefs_core::node::NodeKind;
use drivefs_core::wire::ChangesReply;

use super::TreeError;
use super::through_mount;
use crate::state::Conn;
use crate::state::Nid;
use crate::state::Node;

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub parent: Nid,
    pub name: Vec<u8>,
}

/// What happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Added,
    Removed,
    /// A file has another content, or is another file.
    Edited,
    /// Mode, owner, times or extended attributes changed.
    Attrs,
}

/// One change as it is felt here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Felt {
    Here { at: Place, deed: Deed, nid: Nid, kind: NodeKind },
    Moved { from: Place, to: Place, nid: Nid, kind: NodeKind },
}

/// The names that a page is about, as they are before it.
#[derive(Debug, Default)]
pub(super) struct Before {
    places: BTreeMap<Place, Option<Node>>,
}

impl Before {
    /// In folders that come with the page nobody can watch yet: those are left out.
    pub fn of(c: &Conn<'_>, page: &ChangesReply) -> Result<Self, TreeError> {
        let mut places = BTreeMap::new();
        for row in &page.dirents {
            let Some(parent) = c.nid_of(&row.parent)? else { continue };
            let at = Place { parent, name: row.name.as_bytes().to_vec() };
            let node = child(c, &at)?;
            places.insert(at, node);
        }
        for row in &page.nodes {
            let Some(node) = c.node_by_id(&row.node)? else { continue };
            if node.version == row.version
                && node.attrs == row.attrs
                && node.xattrs == row.xattrs
                && node.content.as_deref() == row.content.as_ref().map(|b| b.0.as_slice())
            {
                continue;
            }
            for (parent, name) in c.places(node.nid)? {
                places.insert(Place { parent, name }, Some(node.clone()));
            }
        }
        Ok(Self { places })
    }

    /// What is different now.
    pub fn compare(self, c: &Conn<'_>) -> Result<Vec<Felt>, TreeError> {
        let mut now = Vec::with_capacity(self.places.len());
        for (at, before) in self.places {
            let after = child(c, &at)?;
            now.push((at, before, after));
        }
        Ok(felt(now))
    }
}

fn child(c: &Conn<'_>, at: &Place) -> Result<Option<Node>, TreeError> {
    c.child(at.parent, &at.name)?.map(|node| through_mount(c, node)).transpose()
}

/// Removals and moves first, then what came and what changed.
fn felt(places: Vec<(Place, Option<Node>, Option<Node>)>) -> Vec<Felt> {
    let (mut gone, mut came, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for (at, before, after) in places {
        match (before, after) {
            (None, None) => {}
            (Some(was), None) => gone.push((at, was)),
            (None, Some(is)) => came.push((at, is)),
            (Some(was), Some(is)) if was.nid == is.nid => {
                if differs(&was, &is) {
                    rest.push(here(at, Deed::Attrs, &is));
                }
            }
            (Some(was), Some(is)) if was.kind == NodeKind::File && is.kind == NodeKind::File => {
                rest.push(here(at, Deed::Edited, &is));
            }
            (Some(was), Some(is)) => {
                rest.push(here(at.clone(), Deed::Removed, &was));
                rest.push(here(at, Deed::Added, &is));
            }
        }
    }
    let mut out = Vec::new();
    for (from, was) in gone {
        match came.iter().position(|(_, is)| is.id == was.id) {
            Some(i) => {
                let (to, is) = came.swap_remove(i);
                out.push(Felt::Moved { from, to, nid: is.nid, kind: is.kind });
            }
            None => out.push(here(from, Deed::Removed, &was)),
        }
    }
    out.extend(came.into_iter().map(|(at, is)| here(at, Deed::Added, &is)));
    out.extend(rest);
    out
}

fn here(at: Place, deed: Deed, node: &Node) -> Felt {
    Felt::Here { at, deed, nid: node.nid, kind: node.kind }
}

/// The time of a folder follows its entries, which are told by themselves.
fn differs(was: &Node, is: &Node) -> bool {
    let (a, b) = (&was.attrs, &is.attrs);
    (a.mode, a.uid, a.gid) != (b.mode, b.uid, b.gid)
        || was.xattrs != is.xattrs
        || (a.mtime != b.mtime && !is.kind.is_folder())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::apply::blank;

    fn node(nid: Nid, id: u8, kind: NodeKind) -> Node {
        let id = drivefs_core::id::NodeId::from_parts(1, [id; 10]);
        Node { nid, id, kind, ..blank(0) }
    }

    fn file(nid: Nid, id: u8) -> Option<Node> {
        Some(node(nid, id, NodeKind::File))
    }

    fn at(name: &str) -> Place {
        Place { parent: 1, name: name.into() }
    }

    fn deed(name: &str, deed: Deed, nid: Nid) -> Felt {
        Felt::Here { at: at(name), deed, nid, kind: NodeKind::File }
    }

    #[test]
    fn what_comes_goes_and_changes_is_told_once() {
        let touched = Node {
            attrs: drivefs_core::node::Attrs { mtime: 9, ..blank(0).attrs },
            ..node(5, 5, NodeKind::File)
        };
        let places = vec![
            (at("new"), None, file(1, 1)),
            (at("old"), file(2, 2), None),
            (at("edited"), file(3, 3), file(4, 3)),
            (at("same"), file(6, 6), file(6, 6)),
            (at("touched"), file(5, 5), Some(touched)),
            (at("neither"), None, None),
        ];
        let told = felt(places);
        assert_eq!(
            told,
            [
                deed("old", Deed::Removed, 2),
                deed("new", Deed::Added, 1),
                deed("edited", Deed::Edited, 4),
                deed("touched", Deed::Attrs, 5),
            ]
        );
    }

    #[test]
    fn a_node_that_goes_here_and_comes_there_moved_even_if_it_was_edited_too() {
        let told = felt(vec![(at("a"), file(1, 1), None), (at("b"), None, file(2, 1))]);
        assert_eq!(
            told,
            [Felt::Moved { from: at("a"), to: at("b"), nid: 2, kind: NodeKind::File }]
        );
    }

    #[test]
    fn names_that_swap_their_files_are_edited_and_of_another_kind_made_anew() {
        let told = felt(vec![(at("a"), file(1, 1), file(2, 2)), (at("b"), file(2, 2), file(1, 1))]);
        assert_eq!(told, [deed("a", Deed::Edited, 2), deed("b", Deed::Edited, 1)]);
        let dir = node(3, 3, NodeKind::Dir);
        let told = felt(vec![(at("a"), file(1, 1), Some(dir))]);
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn a_folder_with_a_new_time_alone_is_silent() {
        let was = node(1, 1, NodeKind::Dir);
        let attrs = drivefs_core::node::Attrs { mtime: 9, ..was.attrs };
        let is = Node { attrs, ..was.clone() };
        assert_eq!(felt(vec![(at("d"), Some(was), Some(is))]), []);
    }
}
