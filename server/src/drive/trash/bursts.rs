//! Which deletions belong together. A folder goes after what is in it; so seen from the newest
//! deletion to the oldest, a folder comes before its content, and what follows without a long pause
//! went in the same go. What was deleted from the folder long before stands by itself.

use std::collections::HashMap;

use drivefs_core::id::NodeId;
use drivefs_core::limits::TRASH_PAUSE_SECS;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;

use crate::metadata::trash::Lost;

const PAUSE_NS: TimeNs = TRASH_PAUSE_SECS * 1_000_000_000;

/// Deleted folders seen so far.
#[derive(Default)]
pub struct Bursts {
    folders: HashMap<NodeId, Folder>,
}

struct Folder {
    parent: NodeId,
    /// The topmost folder that it went along with, or itself.
    top: NodeId,
    /// The oldest deletion of its burst so far.
    oldest: TimeNs,
}

impl Bursts {
    /// Takes the next older deletion; answers what it went along with: itself if by itself.
    pub fn take(&mut self, lost: &Lost) -> NodeId {
        let with = self.folders.get(&lost.place.parent).filter(|f| goes_on(f, lost.deleted));
        let top = with.map_or(lost.node, |folder| folder.top);
        if top != lost.node {
            // Deep down is in the folders above, too.
            let mut at = lost.place.parent;
            while let Some(folder) = self.folders.get_mut(&at) {
                folder.oldest = folder.oldest.min(lost.deleted);
                if at == folder.top {
                    break;
                }
                at = folder.parent;
            }
        }
        if lost.kind == NodeKind::Dir {
            let folder = Folder { parent: lost.place.parent, top, oldest: lost.deleted };
            self.folders.insert(lost.node, folder);
        }
        top
    }

    /// True when nothing as old as this, or older, can belong to `top` any more.
    pub fn is_over(&self, top: NodeId, deleted: TimeNs) -> bool {
        self.folders.get(&top).is_none_or(|folder| !goes_on(folder, deleted))
    }
}

fn goes_on(folder: &Folder, deleted: TimeNs) -> bool {
    folder.oldest.saturating_sub(deleted) <= PAUSE_NS
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivefs_core::name::Name;
    use drivefs_core::wire::Place;

    const SECOND: TimeNs = 1_000_000_000;

    fn id(n: u8) -> NodeId {
        NodeId::from_parts(1, [n; 10])
    }

    fn lost(node: u8, parent: u8, kind: NodeKind, secs: TimeNs) -> Lost {
        Lost {
            node: id(node),
            kind,
            place: Place { parent: id(parent), name: Name::new(*b"x").expect("valid") },
            deleted: secs * SECOND,
            by: String::new(),
            seq: 1,
            version: 0,
            size: 0,
        }
    }

    /// Tops by node, of deletions given from the newest to the oldest.
    fn tops(deletions: &[(u8, u8, NodeKind, TimeNs)]) -> Vec<u8> {
        let mut bursts = Bursts::default();
        let take = |&(node, parent, kind, secs): &(u8, u8, NodeKind, TimeNs)| {
            let top = bursts.take(&lost(node, parent, kind, secs));
            deletions.iter().map(|d| d.0).find(|n| id(*n) == top).expect("one of them")
        };
        deletions.iter().map(take).collect()
    }

    #[test]
    fn a_folder_takes_along_what_went_just_before_it() {
        use NodeKind::Dir;
        use NodeKind::File;
        let all = [(1, 0, Dir, 1000), (2, 1, Dir, 999), (3, 2, File, 990), (4, 1, File, 980)];
        assert_eq!(tops(&all), [1, 1, 1, 1]);
    }

    #[test]
    fn what_went_long_before_its_folder_stands_by_itself() {
        use NodeKind::Dir;
        use NodeKind::File;
        assert_eq!(tops(&[(1, 0, Dir, 1000), (2, 1, File, 100)]), [1, 2]);
        // A pause in a long removal counts from its last step, wherever below that was.
        let slow = [
            (1, 0, Dir, 1000),
            (2, 1, Dir, 900),
            (3, 2, File, 700),
            (4, 2, File, 450),
            (5, 1, File, 200),
            (6, 1, File, 1),
        ];
        assert_eq!(tops(&slow), [1, 1, 1, 1, 1, 1]);
        let paused = [(1, 0, Dir, 1000), (2, 1, Dir, 900), (3, 2, File, 590), (4, 1, File, 580)];
        assert_eq!(tops(&paused), [1, 1, 3, 4]);
    }

    #[test]
    fn neighbours_and_files_take_nothing_along() {
        use NodeKind::Dir;
        use NodeKind::File;
        assert_eq!(tops(&[(1, 0, File, 10), (2, 0, File, 10), (3, 0, Dir, 9)]), [1, 2, 3]);
    }

    #[test]
    fn a_clock_that_went_back_does_not_tear_a_folder_apart() {
        use NodeKind::Dir;
        use NodeKind::File;
        assert_eq!(tops(&[(1, 0, Dir, 10), (2, 1, File, 5000), (3, 1, File, 9)]), [1, 1, 1]);
    }
}
