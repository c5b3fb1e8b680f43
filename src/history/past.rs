//! A folder as it was at a time: each file below gets its content of then as a new version, and
//! what was deleted since comes back. What is newer stays; where things were moved to they stay.

use std::collections::VecDeque;

use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::limits::COMMIT_OPS_MAX;
use drivefs_core::limits::TRASH_ROWS_MAX;
use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;
use drivefs_core::wire::Change;
use drivefs_core::wire::OpResult;
use drivefs_core::wire::PastEntry;
use drivefs_core::wire::PastRequest;
use drivefs_core::wire::Place;

use super::History;
use super::HistoryError;
use super::put;
use super::revert;

/// What became of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PastDone {
    /// Files that got an older content.
    pub files: u64,
    /// Files and folders that came back from the trash.
    pub revived: u64,
    /// What did not change, and why.
    pub failed: Vec<String>,
}

impl PastDone {
    fn take(&mut self, asked: &[Asked], results: &[OpResult]) {
        for (asked, result) in asked.iter().zip(results) {
            match result {
                OpResult::Done { .. } if asked.revives => self.revived += 1,
                // The same content again makes no version.
                OpResult::Done { version, .. } => {
                    self.files += u64::from(asked.counts && *version > asked.base);
                }
                OpResult::Conflict { message } | OpResult::Rejected { message, .. } => {
                    self.failed.push(format!("{}: {message}", asked.name));
                }
            }
        }
    }
}

/// A change to be made, and what it is to the user.
struct Asked {
    change: Change,
    name: Name,
    revives: bool,
    /// Head version before.
    base: VersionNo,
    /// It is one more file, not the second half of one that came back.
    counts: bool,
}

/// A folder to look into, and where its content goes: another one if it was made anew meanwhile.
struct Folder {
    then: NodeId,
    now: NodeId,
}

impl History {
    /// Restores all below a folder as it was.
    pub async fn restore_past(
        &self,
        folder: NodeId,
        at: TimeNs,
        mut progress: impl FnMut(&PastDone),
    ) -> Result<PastDone, HistoryError> {
        let mut done = PastDone::default();
        let mut asked: VecDeque<Asked> = VecDeque::new();
        let mut folders = vec![Folder { then: folder, now: folder }];
        while let Some(folder) = folders.pop() {
            let mut after = None;
            loop {
                let page = self
                    .remote
                    .past(&PastRequest {
                        ns: self.ns,
                        folder: folder.then,
                        at,
                        after,
                        limit: TRASH_ROWS_MAX,
                    })
                    .await?;
                for entries in page.entries.chunk_by(|a, b| a.name == b.name) {
                    self.plan(&folder, entries, &mut asked, &mut folders);
                }
                while asked.len() >= COMMIT_OPS_MAX {
                    self.send(&mut asked, &mut done).await?;
                    progress(&done);
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        while !asked.is_empty() {
            self.send(&mut asked, &mut done).await?;
            progress(&done);
        }
        Ok(done)
    }

    async fn send(
        &self,
        asked: &mut VecDeque<Asked>,
        done: &mut PastDone,
    ) -> Result<(), HistoryError> {
        let batch: Vec<Asked> = asked.drain(..asked.len().min(COMMIT_OPS_MAX)).collect();
        let results = self.commit(batch.iter().map(|a| a.change.clone()).collect()).await?;
        done.take(&batch, &results);
        Ok(())
    }

    /// What is to be done about one name of a folder.
    fn plan(
        &self,
        folder: &Folder,
        entries: &[PastEntry],
        asked: &mut VecDeque<Asked>,
        folders: &mut Vec<Folder>,
    ) {
        let live = entries.iter().find(|e| !e.deleted);
        if let Some(here) = live {
            if here.kind == NodeKind::Dir {
                folders.push(Folder { then: here.node, now: here.node });
            }
            if here.content.is_some() {
                let change = revert(here.node, here.head, here.version);
                asked.push_back(Asked::file(here, change));
            }
        }
        for (n, lost) in (0..).zip(entries.iter().filter(|e| e.deleted)) {
            let taken = live.is_some() || n > 0;
            match (lost.kind, live, &lost.content) {
                // Deleted and made again: the new file gets the old content as a version.
                (NodeKind::File, Some(here), Some(content))
                    if n == 0 && here.kind == NodeKind::File && here.newer =>
                {
                    let change = put(here.node, here.head, content.clone(), here.attrs);
                    asked.push_back(Asked::file(here, change));
                }
                // A folder that was made again takes in what the old one held.
                (NodeKind::Dir, Some(here), _) if here.kind == NodeKind::Dir => {
                    folders.push(Folder { then: lost.node, now: here.node });
                }
                _ => self.revive_past(folder, lost, taken.then_some(n + 1), asked, folders),
            }
        }
    }

    /// Brings back one node, beside what has its name if that is taken.
    fn revive_past(
        &self,
        folder: &Folder,
        lost: &PastEntry,
        beside: Option<u32>,
        asked: &mut VecDeque<Asked>,
        folders: &mut Vec<Folder>,
    ) {
        let name = match beside {
            Some(n) => lost.name.restored_copy(&self.date, n),
            None => lost.name.clone(),
        };
        let place = Place { parent: folder.now, name };
        let change = Change::Restore { node: lost.node, place };
        asked.push_back(Asked { revives: true, ..Asked::file(lost, change) });
        if lost.kind == NodeKind::Dir {
            folders.push(Folder { then: lost.node, now: lost.node });
        }
        if lost.content.is_some() && lost.version != lost.head {
            let change = revert(lost.node, lost.head, lost.version);
            asked.push_back(Asked { counts: false, ..Asked::file(lost, change) });
        }
    }
}

impl Asked {
    fn file(entry: &PastEntry, change: Change) -> Self {
        Self { change, name: entry.name.clone(), revives: false, base: entry.head, counts: true }
    }
}
