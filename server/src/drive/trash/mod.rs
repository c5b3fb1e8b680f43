//! The trash: what was deleted, what went along with what, and the way back.

mod bursts;

use std::collections::HashMap;

use drivefs_core::id::NodeId;
use drivefs_core::limits::DEPTH_MAX;
use drivefs_core::limits::TRASH_ROWS_MAX;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::EmptyReply;
use drivefs_core::wire::EmptyRequest;
use drivefs_core::wire::LostFolder;
use drivefs_core::wire::Place;
use drivefs_core::wire::TrashEntry;
use drivefs_core::wire::TrashReply;
use drivefs_core::wire::TrashRequest;
use drivefs_core::wire::WayBack;
use drivefs_core::wire::Which;

use super::Drive;
use super::DriveError;
use super::member_of;
use super::places;
use super::writer_of;
use crate::auth::Asker;
use crate::metadata::Sql;
use crate::metadata::entries;
use crate::metadata::namespaces;
use crate::metadata::namespaces::Namespace;
use crate::metadata::nodes;
use crate::metadata::trash;
use crate::metadata::trash::Lost;
use bursts::Bursts;

/// Rows read at once.
const CHUNK: u32 = 1000;

impl Drive {
    pub async fn trash(
        &self,
        asker: Asker,
        request: TrashRequest,
    ) -> Result<TrashReply, DriveError> {
        let limit = request.limit.clamp(1, TRASH_ROWS_MAX) as usize;
        let skip = usize::try_from(request.skip).unwrap_or(usize::MAX);
        self.store
            .read(move |sql| {
                let space = member_of(sql, request.ns, asker.user)?.namespace;
                match &request.of {
                    None => list(sql, &space, skip, limit),
                    Some(which) => one(sql, &space, which, skip, limit),
                }
            })
            .await
    }

    /// Nothing that is in the trash now is listed or restored any more. What it holds is freed
    /// later, by whoever collects what nothing refers to.
    pub async fn empty_trash(
        &self,
        asker: Asker,
        request: EmptyRequest,
    ) -> Result<EmptyReply, DriveError> {
        self.store
            .write(move |sql| {
                let space = namespaces::lock(sql, request.ns)?.ok_or(DriveError::NoNamespace)?;
                writer_of(sql, request.ns, asker.user)?;
                let nodes = trash::count(sql, space.ns, space.emptied_seq)?;
                namespaces::set_emptied(sql, space.ns, space.seq)?;
                Ok(EmptyReply { nodes })
            })
            .await
    }
}

/// Goes through the trash from what was deleted last, until `f` says stop.
fn each_lost(
    sql: &mut dyn Sql,
    space: &Namespace,
    mut after: Option<Lost>,
    mut f: impl FnMut(&Lost) -> bool,
) -> Result<(), DriveError> {
    loop {
        let rows = trash::list(sql, space.ns, space.emptied_seq, after.as_ref(), CHUNK)?;
        if !rows.iter().all(&mut f) || rows.len() < CHUNK as usize {
            return Ok(());
        }
        after = rows.into_iter().last();
    }
}

/// What was deleted by itself, with the sum of what went along with it.
fn list(
    sql: &mut dyn Sql,
    space: &Namespace,
    skip: usize,
    limit: usize,
) -> Result<TrashReply, DriveError> {
    let mut bursts = Bursts::default();
    let mut entries: Vec<TrashEntry> = Vec::new();
    let mut at: HashMap<NodeId, usize> = HashMap::new();
    let (mut passed, mut more) = (0, false);
    each_lost(sql, space, None, |lost| {
        let top = bursts.take(lost);
        if top != lost.node {
            if let Some(entry) = at.get(&top).and_then(|i| entries.get_mut(*i)) {
                entry.below += 1;
                entry.size = entry.size.saturating_add(lost.size);
            }
        } else if passed < skip {
            passed += 1;
        } else if entries.len() < limit {
            at.insert(top, entries.len());
            entries.push(entry_of(lost));
        } else {
            more = true;
        }
        // The sums of what is listed must be whole.
        !more || at.keys().any(|top| !bursts.is_over(*top, lost.deleted))
    })?;
    for entry in &mut entries {
        entry.path = places::path_of(sql, space, entry.node)?;
    }
    Ok(TrashReply { entries, more, way: None })
}

/// One thing and what went along with it, parents first.
fn one(
    sql: &mut dyn Sql,
    space: &Namespace,
    which: &Which,
    skip: usize,
    limit: usize,
) -> Result<TrashReply, DriveError> {
    let node = match which {
        Which::Node(node) => Some(*node),
        Which::Path(path) => places::lost_at(sql, space, path)?,
    };
    let lost = match node {
        Some(node) => trash::find(sql, space.ns, node)?,
        None => None,
    };
    let Some(lost) = lost.filter(|lost| lost.seq > space.emptied_seq) else {
        return Err(DriveError::NotFound("it is not in the trash".into()));
    };
    let way = way_back(sql, space, &lost.place)?;
    let mut first = entry_of(&lost);
    first.path = places::path_of(sql, space, lost.node)?;
    let mut bursts = Bursts::default();
    bursts.take(&lost);
    let mut entries = Vec::new();
    let (mut passed, mut more) = (0, false);
    let mut take = |entry: TrashEntry| {
        if passed < skip {
            passed += 1;
        } else if entries.len() < limit {
            entries.push(entry);
        } else {
            more = true;
        }
        !more
    };
    let room = take(first);
    if room && lost.kind == NodeKind::Dir {
        let top = lost.node;
        each_lost(sql, space, Some(lost), |other| {
            if bursts.is_over(top, other.deleted) {
                return false;
            }
            bursts.take(other) != top || take(entry_of(other))
        })?;
    }
    Ok(TrashReply { entries, more, way: Some(way) })
}

/// The nearest live folder above a place, and the folders between that are gone; these are in the
/// trash if what was in them is, because they went later. A folder that was made again under the
/// name of a lost one stands for it.
fn way_back(sql: &mut dyn Sql, space: &Namespace, place: &Place) -> Result<WayBack, DriveError> {
    let mut lost = Vec::new();
    let mut at = place.parent;
    let mut base = loop {
        if lost.len() >= DEPTH_MAX {
            break space.root;
        }
        let Some(gone) = trash::find(sql, space.ns, at)? else {
            // Live; or not even its tombstone is left.
            let live = nodes::state(sql, space.ns, at)?.is_some_and(|state| !state.deleted);
            break if live { at } else { space.root };
        };
        lost.push(LostFolder { node: at, name: gone.place.name });
        at = gone.place.parent;
    };
    lost.reverse();
    let mut found = 0;
    for folder in &lost {
        let place = Place { parent: base, name: folder.name.clone() };
        let Some(there) = entries::child(sql, space.ns, &place)? else { break };
        if !nodes::state(sql, space.ns, there)?.is_some_and(|s| s.kind == NodeKind::Dir) {
            break;
        }
        base = there;
        found += 1;
    }
    Ok(WayBack { base, lost: lost.split_off(found) })
}

fn entry_of(lost: &Lost) -> TrashEntry {
    TrashEntry {
        node: lost.node,
        kind: lost.kind,
        place: lost.place.clone(),
        path: Vec::new(),
        deleted: lost.deleted,
        device: lost.by.clone(),
        version: lost.version,
        size: lost.size,
        below: 0,
    }
}
