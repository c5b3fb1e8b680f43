//! Out of the trash: a file or a folder comes back where it was, with all that went along with it,
//! as the same nodes with their history.

use drivefs_core::id::NodeId;
use drivefs_core::limits::COMMIT_OPS_MAX;
use drivefs_core::limits::TRASH_ROWS_MAX;
use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Change;
use drivefs_core::wire::EmptyRequest;
use drivefs_core::wire::OpResult;
use drivefs_core::wire::Place;
use drivefs_core::wire::TrashEntry;
use drivefs_core::wire::TrashReply;
use drivefs_core::wire::TrashRequest;
use drivefs_core::wire::WayBack;
use drivefs_core::wire::Which;

use super::History;
use super::HistoryError;

/// Names tried where the old one is taken.
const NAMES_MAX: u32 = 50;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revived {
    pub node: NodeId,
    pub kind: NodeKind,
    /// Where it is now.
    pub place: Place,
    /// True when its old name was taken.
    pub renamed: bool,
    /// Files and folders that came back, itself and folders above it included.
    pub nodes: u64,
    /// What did not, and why. It is still in the trash.
    pub failed: Vec<String>,
}

impl History {
    /// A page of the trash.
    pub async fn trash(&self, skip: u64, limit: u32) -> Result<TrashReply, HistoryError> {
        let request = TrashRequest { ns: self.ns, of: None, skip, limit };
        Ok(self.remote.trash(&request).await?)
    }

    /// Empties the trash; answers how many files and folders left it.
    pub async fn empty_trash(&self) -> Result<u64, HistoryError> {
        Ok(self.remote.empty_trash(&EmptyRequest { ns: self.ns }).await?.nodes)
    }

    /// What is in the trash under a node or path: itself, without what went along.
    pub async fn lost(&self, of: &Which) -> Result<TrashEntry, HistoryError> {
        let (_, mut entries) = self.lost_page(of, 0, 1).await?;
        Ok(entries.remove(0))
    }

    /// Brings back one thing from the trash. `alone`: of a folder without what was in it.
    pub async fn revive(
        &self,
        of: &Which,
        alone: bool,
        mut progress: impl FnMut(u64),
    ) -> Result<Revived, HistoryError> {
        for n in 0..NAMES_MAX {
            let (way, entries) =
                if alone { self.lost_page(of, 0, 1).await? } else { self.lost_all(of).await? };
            let renamed = n > 0;
            let name = |name: &Name| match n {
                0 => name.clone(),
                n => name.restored_copy(&self.date, n),
            };
            let (mut ops, place) = way_ops(&way, &entries[0], name);
            let above = ops.len();
            let top = &entries[0];
            ops.push(Change::Restore { node: top.node, place: place.clone() });
            let rest = &entries[1..];
            let with = rest.len().min(COMMIT_OPS_MAX.saturating_sub(ops.len()));
            ops.extend(rest[..with].iter().map(back));
            let results = self.commit(ops).await?;
            // If a name is taken, then that of the first: the others are in it.
            if matches!(results.first(), Some(OpResult::Conflict { .. })) {
                continue;
            }
            let mut done = Revived {
                node: top.node,
                kind: top.kind,
                place,
                renamed,
                nodes: 0,
                failed: Vec::new(),
            };
            for result in &results[..=above] {
                match result {
                    OpResult::Done { .. } => done.nodes += 1,
                    OpResult::Conflict { .. } => return Err(HistoryError::Busy),
                    OpResult::Rejected { message, .. } => {
                        return Err(HistoryError::Refused(message.clone()));
                    }
                }
            }
            self.take(&mut done, &rest[..with], &results[above + 1..]).await?;
            progress(done.nodes);
            for batch in rest[with..].chunks(COMMIT_OPS_MAX) {
                let results = self.commit(batch.iter().map(back).collect()).await?;
                self.take(&mut done, batch, &results).await?;
                progress(done.nodes);
            }
            return Ok(done);
        }
        Err(HistoryError::Busy)
    }

    /// Counts what came back. What met a new file of its name comes back beside it.
    async fn take(
        &self,
        done: &mut Revived,
        entries: &[TrashEntry],
        results: &[OpResult],
    ) -> Result<(), HistoryError> {
        for (entry, result) in entries.iter().zip(results) {
            let mut result = result.clone();
            if matches!(result, OpResult::Conflict { .. }) {
                let name = entry.place.name.restored_copy(&self.date, 1);
                let place = Place { parent: entry.place.parent, name };
                let again = Change::Restore { node: entry.node, place };
                result = self.commit(vec![again]).await?.remove(0);
            }
            match result {
                OpResult::Done { .. } => done.nodes += 1,
                OpResult::Conflict { message } | OpResult::Rejected { message, .. } => {
                    done.failed.push(format!("{}: {message}", entry.place.name));
                }
            }
        }
        Ok(())
    }

    async fn lost_page(
        &self,
        of: &Which,
        skip: u64,
        limit: u32,
    ) -> Result<(WayBack, Vec<TrashEntry>), HistoryError> {
        let request = TrashRequest { ns: self.ns, of: Some(of.clone()), skip, limit };
        let page = self.remote.trash(&request).await?;
        match page.way {
            Some(way) if skip > 0 || !page.entries.is_empty() => Ok((way, page.entries)),
            _ => Err(HistoryError::NotFound("it is not in the trash".to_owned())),
        }
    }

    async fn lost_all(&self, of: &Which) -> Result<(WayBack, Vec<TrashEntry>), HistoryError> {
        let (way, mut entries) = self.lost_page(of, 0, TRASH_ROWS_MAX).await?;
        // By its id from here on: a path may come to mean something else meanwhile.
        let top = Which::Node(entries[0].node);
        let mut last = entries.len();
        while last >= TRASH_ROWS_MAX as usize {
            let (_, page) = self.lost_page(&top, entries.len() as u64, TRASH_ROWS_MAX).await?;
            last = page.len();
            entries.extend(page);
        }
        Ok((way, entries))
    }
}

/// What brings back the folders above, topmost first, and where the thing itself goes then. The
/// first name on the way may be taken: it is `name`d.
fn way_ops(way: &WayBack, top: &TrashEntry, name: impl Fn(&Name) -> Name) -> (Vec<Change>, Place) {
    let mut parent = way.base;
    let mut ops = Vec::new();
    for folder in &way.lost {
        let own = if ops.is_empty() { name(&folder.name) } else { folder.name.clone() };
        let place = Place { parent, name: own };
        parent = folder.node;
        ops.push(Change::Restore { node: parent, place });
    }
    let own = if ops.is_empty() { name(&top.place.name) } else { top.place.name.clone() };
    (ops, Place { parent, name: own })
}

fn back(entry: &TrashEntry) -> Change {
    Change::Restore { node: entry.node, place: entry.place.clone() }
}
