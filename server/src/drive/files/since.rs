//! `list_folder` and what follows it: pages of the list, then what changed behind its marks.

use std::collections::HashMap;
use std::collections::HashSet;
use std::time::Duration;

use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::limits::FOLDER_ENTRIES_MAX;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Place;
use drivefs_core::wire::Point;
use tokio::time::Instant;
use tokio::time::timeout_at;

use super::FilesError;
use super::cursor;
use super::cursor::Cursor;
use super::cursor::Marks;
use super::entry;
use super::entry::Item;
use super::list;
use super::path::FilePath;
use super::path::Target;
use super::walk;
use super::walk::Folder;
use crate::auth::Asker;
use crate::drive::Drive;
use crate::drive::DriveError;
use crate::drive::member_of;
use crate::drive::places;
use crate::metadata::Sql;
use crate::metadata::changes;
use crate::metadata::entries;
use crate::metadata::epochs;
use crate::metadata::namespaces;
use crate::metadata::namespaces::Membership;
use crate::metadata::nodes;

/// A list to be begun.
#[derive(Debug, Clone)]
pub struct Begin {
    pub folder: Target,
    pub recursive: bool,
    pub deleted: bool,
    pub limit: u32,
}

/// A page: entries, where the next begins, and whether it is ready.
pub struct Listed {
    pub items: Vec<Item>,
    pub cursor: String,
    pub more: bool,
}

impl Drive {
    pub async fn list_folder(&self, asker: &Asker, begin: Begin) -> Result<Listed, FilesError> {
        let (asker, seal) = (asker.clone(), self.seal.clone());
        self.store
            .read(move |sql| {
                let mut cursor = started(sql, &asker, &begin)?;
                cursor.todo.push(cursor.folder);
                let (items, cursor) = go_on(sql, &asker, cursor)?;
                Ok(Listed { items, more: !cursor.todo.is_empty(), cursor: cursor.seal(&seal)? })
            })
            .await
    }

    /// A cursor that stands where a list would end now.
    pub async fn latest_cursor(&self, asker: &Asker, begin: Begin) -> Result<String, FilesError> {
        let (asker, seal) = (asker.clone(), self.seal.clone());
        self.store.read(move |sql| started(sql, &asker, &begin)?.seal(&seal)).await
    }

    pub async fn list_folder_on(&self, asker: &Asker, text: &str) -> Result<Listed, FilesError> {
        let cursor = Cursor::open(text, &self.seal)?;
        if cursor.user != asker.user {
            return Err(FilesError::Reset);
        }
        let (asker, seal) = (asker.clone(), self.seal.clone());
        self.store
            .read(move |sql| {
                let (items, cursor) = go_on(sql, &asker, cursor)?;
                let more = !cursor.todo.is_empty() || is_behind(sql, &cursor)?;
                Ok(Listed { items, more, cursor: cursor.seal(&seal)? })
            })
            .await
    }

    /// Waits until there is more behind a cursor, the time is up, or the server stops.
    pub async fn wait_for_changes(&self, text: &str, secs: u64) -> Result<bool, FilesError> {
        let cursor = Cursor::open(text, &self.seal)?;
        let until = Instant::now() + Duration::from_secs(secs);
        let waiter = self.hub.register(cursor.marks.0.iter().map(|(ns, _)| *ns).collect());
        loop {
            let looked = cursor.clone();
            let more = self.store.read(move |sql| is_behind(sql, &looked)).await?;
            if more || !cursor.todo.is_empty() {
                return Ok(true);
            }
            if !matches!(timeout_at(until, waiter.hinted()).await, Ok(true)) {
                return Ok(false);
            }
        }
    }
}

/// A cursor at the present state of a folder.
fn started(sql: &mut dyn Sql, asker: &Asker, begin: &Begin) -> Result<Cursor, FilesError> {
    let spot = walk::found(sql, asker, &begin.folder)?;
    let folder = walk::inside(sql, asker, &spot)?;
    let mut marks = Marks::default();
    marks.add(sql, &folder.space.namespace)?;
    if begin.recursive {
        for space in namespaces::of_user(sql, asker.user)? {
            match walk::path_to(sql, asker, space.ns) {
                Ok(path) if is_below(&path, &folder.path) => marks.add(sql, &space)?,
                Ok(_) | Err(FilesError::NotFound) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(Cursor {
        user: asker.user,
        folder: (folder.ns(), folder.node),
        recursive: begin.recursive,
        deleted: begin.deleted,
        limit: begin.limit.clamp(1, FOLDER_ENTRIES_MAX),
        marks,
        todo: Vec::new(),
        after: None,
    })
}

/// The next page behind a cursor, and the cursor behind that.
fn go_on(
    sql: &mut dyn Sql,
    asker: &Asker,
    mut cursor: Cursor,
) -> Result<(Vec<Item>, Cursor), FilesError> {
    let base = folder_at(sql, asker, cursor.folder)?.ok_or(FilesError::NotFound)?;
    let mut items = Vec::new();
    while items.len() < cursor.limit as usize {
        if let Some(place) = cursor.todo.first().copied() {
            let folder = folder_at(sql, asker, place)?.filter(|f| is_below(&f.path, &base.path));
            let next = match folder {
                None => None,
                Some(folder) => {
                    let mut wanted = cursor.wanted();
                    wanted.limit -= items.len();
                    let after = cursor.after.take();
                    let marks = &mut cursor.marks;
                    let page = list::page(sql, asker, &folder, after.as_deref(), &wanted, marks)?;
                    items.extend(page.items);
                    page.next
                }
            };
            cursor.after = next;
            if cursor.after.is_none() {
                cursor.todo.remove(0);
            }
        } else if !tell_changes(sql, asker, &base, &mut cursor, &mut items)? {
            break;
        }
    }
    Ok((items, cursor))
}

/// Tells one page of changes of the first namespace that has any; false when none has.
fn tell_changes(
    sql: &mut dyn Sql,
    asker: &Asker,
    base: &Folder,
    cursor: &mut Cursor,
    items: &mut Vec<Item>,
) -> Result<bool, FilesError> {
    for i in 0..cursor.marks.0.len() {
        let (ns, mark) = cursor.marks.0[i];
        let space = match member_of(sql, ns, asker.user) {
            Ok(space) => space,
            // Shared no more: its mount tells.
            Err(DriveError::NoNamespace) => continue,
            Err(e) => return Err(e.into()),
        };
        cursor::check(sql, &space.namespace, &mark)?;
        if space.namespace.seq == mark.seq {
            continue;
        }
        let wanted = changes::Wanted { cursor: mark.seq, limit: cursor.limit, tombstones: true };
        let page = changes::page(sql, ns, space.namespace.seq, &wanted)?;
        let epoch = epochs::at(sql, ns, page.end)?;
        let mut telling = Telling { asker, base, space, from: mark.seq, paths: HashMap::new() };
        telling.tell(sql, &page, cursor, items)?;
        cursor.marks.0[i].1 = Point { epoch, seq: page.end };
        return Ok(true);
    }
    Ok(false)
}

/// Changes of one namespace on their way to entries.
struct Telling<'a> {
    asker: &'a Asker,
    base: &'a Folder,
    space: Membership,
    from: Seq,
    paths: HashMap<NodeId, Option<FilePath>>,
}

impl Telling<'_> {
    fn tell(
        &mut self,
        sql: &mut dyn Sql,
        page: &changes::Page,
        cursor: &mut Cursor,
        items: &mut Vec<Item>,
    ) -> Result<(), FilesError> {
        let ns = self.space.namespace.ns;
        let (mut gone, mut live) = (Vec::new(), Vec::new());
        let mut replaced = Vec::new();
        let mut told = HashSet::new();
        for dirent in &page.dirents {
            let Some(folder) = self.folder(sql, dirent.parent, cursor.recursive)? else {
                continue;
            };
            told.insert((dirent.parent, dirent.name.clone()));
            let entry = match dirent.child {
                Some(node) => entry::in_folder(sql, self.asker, &folder, &dirent.name, node)?,
                None => None,
            };
            match entry {
                None => gone.push(folder.path.join(&dirent.name)),
                Some(entry) => {
                    if cursor.recursive && entry.row.kind.is_folder() {
                        let place = Place { parent: dirent.parent, name: dirent.name.clone() };
                        if !entries::is_first(sql, ns, &place)? {
                            // What was in another folder of this name is not in this one.
                            replaced.push(entry.path.clone());
                        }
                        self.note_moved(sql, &entry, cursor)?;
                    }
                    live.push(entry);
                }
            }
        }
        let from = self.from;
        for row in page.nodes.iter().filter(|r| r.seq <= page.end && r.seq > from) {
            // Of a folder only its place matters here.
            if row.deleted || row.kind.is_folder() {
                continue;
            }
            for place in entries::places(sql, ns, row.node)? {
                if !told.insert((place.parent, place.name.clone())) {
                    continue;
                }
                if let Some(folder) = self.folder(sql, place.parent, cursor.recursive)? {
                    let entry = entry::in_folder(sql, self.asker, &folder, &place.name, row.node)?;
                    live.extend(entry);
                }
            }
        }
        // What went comes first: a name may be taken again, and parents before what is in them.
        let there: HashSet<_> = live.iter().map(|e| e.path.clone()).collect();
        gone.retain(|path| !there.contains(path));
        gone.append(&mut replaced);
        gone.sort_by(|a, b| a.0.cmp(&b.0));
        live.sort_by(|a, b| a.path.0.cmp(&b.path.0));
        items.extend(gone.into_iter().map(Item::Deleted));
        items.extend(live.into_iter().map(|e| Item::Live(Box::new(e))));
        Ok(())
    }

    /// A folder that came here with all that is in it has to be listed: what is below it has not
    /// changed. One all of whose entries are newer than the mark is told by the changes themselves.
    fn note_moved(
        &self,
        sql: &mut dyn Sql,
        entry: &entry::Entry,
        cursor: &mut Cursor,
    ) -> Result<(), FilesError> {
        let ns = self.space.namespace.ns;
        let place = match (entry.row.kind, entry.shown) {
            (NodeKind::Dir, _) if entries::has_older(sql, ns, entry.row.node, self.from)? => {
                (ns, entry.row.node)
            }
            (NodeKind::Mount, Some(target)) => {
                let space = match member_of(sql, target, self.asker.user) {
                    Ok(space) => space,
                    Err(DriveError::NoNamespace) => return Ok(()),
                    Err(e) => return Err(e.into()),
                };
                cursor.marks.add(sql, &space.namespace)?;
                (target, space.namespace.root)
            }
            _ => return Ok(()),
        };
        if !cursor.todo.contains(&place) {
            cursor.todo.push(place);
        }
        Ok(())
    }

    /// The folder of a change, if that is one the list is about. It may be gone.
    fn folder(
        &mut self,
        sql: &mut dyn Sql,
        node: NodeId,
        recursive: bool,
    ) -> Result<Option<Folder>, FilesError> {
        let path = match self.paths.get(&node) {
            Some(path) => path.clone(),
            None => {
                let path = self.path(sql, node)?;
                self.paths.insert(node, path.clone());
                path
            }
        };
        Ok(path
            .filter(|path| match recursive {
                true => is_below(path, &self.base.path),
                false => *path == self.base.path,
            })
            .map(|path| Folder { space: self.space, node, path }))
    }

    fn path(&self, sql: &mut dyn Sql, node: NodeId) -> Result<Option<FilePath>, FilesError> {
        let namespace = self.space.namespace;
        let mut path = match walk::path_to(sql, self.asker, namespace.ns) {
            Ok(path) => path,
            Err(FilesError::NotFound) => return Ok(None),
            Err(e) => return Err(e),
        };
        path.0.extend(places::path_of(sql, &namespace, node)?);
        Ok(Some(path))
    }
}

/// A folder by its id, as it is now; none when it is gone or shared no more.
fn folder_at(
    sql: &mut dyn Sql,
    asker: &Asker,
    (ns, node): cursor::Place,
) -> Result<Option<Folder>, FilesError> {
    let space = match member_of(sql, ns, asker.user) {
        Ok(space) => space,
        Err(DriveError::NoNamespace) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let state = nodes::state(sql, ns, node)?;
    if !state.is_some_and(|s| s.kind == NodeKind::Dir && !s.deleted) {
        return Ok(None);
    }
    let mut path = match walk::path_to(sql, asker, ns) {
        Ok(path) => path,
        Err(FilesError::NotFound) => return Ok(None),
        Err(e) => return Err(e),
    };
    path.0.extend(places::path_of(sql, &space.namespace, node)?);
    Ok(Some(Folder { space, node, path }))
}

fn is_below(path: &FilePath, base: &FilePath) -> bool {
    path.0.starts_with(&base.0)
}

/// True when a namespace of the cursor has moved on, or is not its history's any more.
fn is_behind(sql: &mut dyn Sql, cursor: &Cursor) -> Result<bool, FilesError> {
    for (ns, mark) in &cursor.marks.0 {
        match member_of(sql, *ns, cursor.user) {
            Ok(space) => {
                cursor::check(sql, &space.namespace, mark)?;
                if space.namespace.seq != mark.seq {
                    return Ok(true);
                }
            }
            Err(DriveError::NoNamespace) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(false)
}
