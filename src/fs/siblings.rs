//! Small files of one folder that are read one after the other (`cp -r`, `grep -r`): what lies beside
//! them is fetched ahead, many files in one request instead of a round trip each.
//!
//! Only reads that found nothing here count, and only several in a short time: who opens one file
//! gets one file.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::manifest::Root;
use drivefs_core::node::NodeKind;

use super::lock;
use crate::host;
use crate::spool::Content;
use crate::spool::is_past;
use crate::state::Nid;
use crate::state::NodeEntry;
use crate::tree::Tree;
use crate::tree::TreeError;

/// A file up to this size is small (bytes).
const SMALL_BYTES: u64 = 64 * 1024;
/// So many reads in vain, each within this time after the one before, make a run.
const RUN_READS: u32 = 4;
const RUN_PAUSE: Duration = Duration::from_secs(1);
/// Files of the first step ahead, which doubles up to the last, and bytes of one step.
const STEP_FIRST: usize = 16;
const STEP_LAST: usize = 512;
const STEP_BYTES: u64 = 4 * 1024 * 1024;
/// Folders remembered.
const FOLDERS_MAX: usize = 64;

/// The runs under way, by folder.
#[derive(Default)]
pub(super) struct Siblings(Mutex<HashMap<Nid, Run>>);

struct Run {
    last: Instant,
    reads: u32,
    step: usize,
    /// Fetched ahead up to this name.
    behind: Option<Vec<u8>>,
}

impl Siblings {
    /// Notes a read of a small file that was not here; returns how many files behind which name
    /// are worth fetching now.
    fn note(&self, folder: Nid, name: &[u8], now: Instant) -> Option<(Vec<u8>, usize)> {
        let mut runs = lock(&self.0);
        if runs.len() >= FOLDERS_MAX && !runs.contains_key(&folder) {
            runs.retain(|_, run| now.duration_since(run.last) < RUN_PAUSE);
        }
        let fresh = Run { last: now, reads: 0, step: STEP_FIRST, behind: None };
        let run = runs.entry(folder).or_insert(fresh);
        if now.duration_since(run.last) >= RUN_PAUSE {
            *run = Run { last: now, reads: 0, step: STEP_FIRST, behind: None };
        }
        run.last = now;
        run.reads += 1;
        if run.reads < RUN_READS {
            return None;
        }
        let step = run.step;
        run.step = (step * 2).min(STEP_LAST);
        Some((run.behind.clone().unwrap_or_else(|| name.to_vec()), step))
    }

    /// Notes up to where a step went; at the end of the folder the next one begins at its start.
    fn went(&self, folder: Nid, to: Option<Vec<u8>>) {
        if let Some(run) = lock(&self.0).get_mut(&folder) {
            run.behind = Some(to.unwrap_or_default());
        }
    }
}

impl super::DriveFs {
    /// Called for a read that found its content not here. Returns at once.
    pub(super) fn read_in_vain(&self, content: &Content) {
        if is_past(content.nid) || content.parts().size > SMALL_BYTES {
            return;
        }
        let (nid, tree, siblings) = (content.nid, self.tree.clone(), self.siblings.clone());
        host::detach(self.spool.runtime(), move || {
            if let Err(error) = fetch_beside(&tree, &siblings, nid) {
                tracing::debug!(%error, "fetching small files ahead");
            }
        });
    }
}

fn fetch_beside(tree: &Arc<Tree>, siblings: &Siblings, nid: Nid) -> Result<(), TreeError> {
    let places = tree.db().peek(|c| c.places(nid))?;
    let Some((folder, name)) = places.into_iter().next() else { return Ok(()) };
    let Some((behind, step)) = siblings.note(folder, &name, host::instant()) else { return Ok(()) };
    let entries = tree.list(folder, &behind, step)?;
    let last = entries.last().filter(|_| entries.len() == step).map(|entry| entry.name.clone());
    siblings.went(folder, last);
    let mut blocks: HashMap<NamespaceId, Vec<(BlockHash, u32)>> = HashMap::new();
    let mut bytes = 0;
    for entry in &entries {
        for block in small_blocks(entry) {
            let cache = tree.spool().cache();
            if bytes < STEP_BYTES && !cache.is_listed(&block.0)? {
                bytes += u64::from(block.1);
                blocks.entry(entry.node.ns).or_default().push(block);
            }
        }
    }
    for (ns, blocks) in blocks {
        tree.spool().cache().fetch_ahead(ns, &blocks);
    }
    Ok(())
}

fn small_blocks(entry: &NodeEntry) -> Vec<(BlockHash, u32)> {
    let node = &entry.node;
    if node.kind != NodeKind::File || node.size > SMALL_BYTES {
        return Vec::new();
    }
    match node.content.as_deref().map(Root::decode) {
        Some(Ok(Root::Inline(entries))) => entries.iter().map(|e| (e.hash, e.len)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_in_one_folder_is_worth_steps_that_grow_and_go_around() {
        let siblings = Siblings::default();
        let now = host::instant();
        for n in 1..RUN_READS {
            assert_eq!(siblings.note(5, &[n as u8], now), None);
        }
        assert_eq!(siblings.note(5, b"d", now), Some((b"d".to_vec(), STEP_FIRST)));
        siblings.went(5, Some(b"k".to_vec()));
        assert_eq!(siblings.note(5, b"x", now), Some((b"k".to_vec(), 2 * STEP_FIRST)));
        siblings.went(5, None);
        assert_eq!(siblings.note(5, b"y", now), Some((Vec::new(), 4 * STEP_FIRST)));
    }

    #[test]
    fn reads_here_and_there_and_now_and_then_are_no_run() {
        let siblings = Siblings::default();
        let now = host::instant();
        for n in 0..1000 {
            assert_eq!(siblings.note(n, b"a", now), None);
        }
        for n in 0..100 {
            assert_eq!(siblings.note(5000, b"a", now + n * RUN_PAUSE), None);
        }
    }
}
