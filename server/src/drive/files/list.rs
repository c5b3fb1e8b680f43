//! Lists a folder, or all below it, page by page: names in order, a folder before what is in it.
//!
//! Where a page ended is told by names, so the next one goes on there whatever has changed since; what
//! did is told by the changes behind the marks.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use drivefs_core::id::NodeId;
use drivefs_core::name::Name;

use super::FilesError;
use super::cursor::Marks;
use super::entry;
use super::entry::Item;
use super::walk;
use super::walk::Folder;
use crate::auth::Asker;
use crate::metadata::Sql;
use crate::metadata::entries;
use crate::metadata::trash;

/// Names read at once.
const PAGE: u32 = 500;

/// What a list shall have.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub recursive: bool,
    /// What was deleted out of a folder that is there, too.
    pub deleted: bool,
    /// Entries, about.
    pub limit: usize,
}

/// A page, and behind which names the next one goes on, if there is one.
pub struct Page {
    pub items: Vec<Item>,
    pub next: Option<Vec<Name>>,
}

/// A folder that is being listed.
struct Frame {
    folder: Folder,
    /// Its names from where the list began.
    rel: Vec<Name>,
    after: Option<Name>,
    read: VecDeque<(Name, Option<NodeId>)>,
    is_read: bool,
}

impl Frame {
    fn new(folder: Folder, rel: Vec<Name>, after: Option<Name>) -> Self {
        Self { folder, rel, after, read: VecDeque::new(), is_read: false }
    }

    fn next(
        &mut self,
        sql: &mut dyn Sql,
        deleted: bool,
    ) -> Result<Option<(Name, Option<NodeId>)>, FilesError> {
        while self.read.is_empty() && !self.is_read {
            self.fill(sql, deleted)?;
        }
        let next = self.read.pop_front();
        if let Some((name, _)) = &next {
            self.after = Some(name.clone());
        }
        Ok(next)
    }

    fn fill(&mut self, sql: &mut dyn Sql, deleted: bool) -> Result<(), FilesError> {
        let (space, node) = (self.folder.space.namespace, self.folder.node);
        let after = self.after.as_ref();
        let live = entries::list(sql, space.ns, node, after, PAGE)?;
        let gone = if deleted {
            let of = (space.ns, space.emptied_seq);
            trash::gone_from(sql, of, node, None, after, PAGE)?
        } else {
            Vec::new()
        };
        // A list that was cut says nothing of what comes behind its end.
        let full = PAGE as usize;
        let ends = [
            live.last().filter(|_| live.len() >= full).map(|d| d.name.clone()),
            gone.last().filter(|_| gone.len() >= full).map(|g| g.name.clone()),
        ];
        let end = ends.into_iter().flatten().min();
        let mut names: BTreeMap<Name, Option<NodeId>> = BTreeMap::new();
        names.extend(gone.into_iter().map(|g| (g.name, None)));
        names.extend(live.into_iter().map(|d| (d.name, d.child)));
        names.retain(|name, _| end.as_ref().is_none_or(|end| name <= end));
        self.is_read = end.is_none();
        if let Some(end) = end {
            self.after = Some(end);
        }
        self.read = names.into_iter().collect();
        Ok(())
    }
}

/// Lists from behind `after`, or from the start. Namespaces that are entered get a mark.
pub fn page(
    sql: &mut dyn Sql,
    asker: &Asker,
    base: &Folder,
    after: Option<&[Name]>,
    wanted: &Wanted,
    marks: &mut Marks,
) -> Result<Page, FilesError> {
    let mut stack = resume(sql, asker, base, after.unwrap_or_default(), wanted, marks)?;
    let mut items = Vec::new();
    let mut last = after.map(<[Name]>::to_vec);
    while let Some(frame) = stack.last_mut() {
        if items.len() >= wanted.limit {
            // One more may be there, or not: the next page tells.
            return Ok(Page { items, next: last });
        }
        let Some((name, node)) = frame.next(sql, wanted.deleted)? else {
            stack.pop();
            continue;
        };
        let rel: Vec<_> = frame.rel.iter().cloned().chain([name.clone()]).collect();
        last = Some(rel.clone());
        let Some(node) = node else {
            items.push(Item::Deleted(frame.folder.path.join(&name)));
            continue;
        };
        let Some(entry) = entry::in_folder(sql, asker, &frame.folder, &name, node)? else {
            continue;
        };
        let is_folder = entry.row.kind.is_folder();
        items.push(Item::Live(Box::new(entry)));
        if is_folder && wanted.recursive {
            let within = frame.folder.clone();
            if let Some(folder) = enter(sql, asker, &within, &name, marks)? {
                stack.push(Frame::new(folder, rel, None));
            }
        }
    }
    Ok(Page { items, next: None })
}

/// The folders that a list behind these names still has to do with.
fn resume(
    sql: &mut dyn Sql,
    asker: &Asker,
    base: &Folder,
    after: &[Name],
    wanted: &Wanted,
    marks: &mut Marks,
) -> Result<Vec<Frame>, FilesError> {
    let mut stack = vec![Frame::new(base.clone(), Vec::new(), after.first().cloned())];
    if !wanted.recursive {
        return Ok(stack);
    }
    let mut within = base.clone();
    for (i, name) in after.iter().enumerate() {
        let Some(folder) = enter(sql, asker, &within, name, marks)? else { break };
        within = folder.clone();
        stack.push(Frame::new(folder, after[..=i].to_vec(), after.get(i + 1).cloned()));
    }
    Ok(stack)
}

/// A folder in a folder; none where there is another thing now, or nothing, or what may not be read.
fn enter(
    sql: &mut dyn Sql,
    asker: &Asker,
    within: &Folder,
    name: &Name,
    marks: &mut Marks,
) -> Result<Option<Folder>, FilesError> {
    let Some(spot) = walk::child(sql, within, name)? else { return Ok(None) };
    let folder = match walk::inside(sql, asker, &spot) {
        Ok(folder) => folder,
        Err(FilesError::NotFolder | FilesError::NotFound) => return Ok(None),
        Err(e) => return Err(e),
    };
    marks.add(sql, &folder.space.namespace)?;
    Ok(Some(folder))
}
