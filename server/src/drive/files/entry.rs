//! What the file API tells of one thing: the row, its path, and what sharing adds.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::manifest::Root;
use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::NodeRow;
use drivefs_core::wire::Role;

use super::FilesError;
use super::path::FilePath;
use super::path::Target;
use super::stamp::Rev;
use super::walk;
use super::walk::Folder;
use super::walk::Spot;
use crate::auth::Asker;
use crate::drive::Drive;
use crate::drive::DriveError;
use crate::drive::member_of;
use crate::metadata::Sql;
use crate::metadata::nodes;

/// A file or folder that is there.
#[derive(Debug, Clone)]
pub struct Entry {
    pub path: FilePath,
    pub ns: NamespaceId,
    pub row: NodeRow,
    /// Length of a file (bytes).
    pub size: u64,
    /// What it shows, if it is a mount; and the namespace it is in, if that is not the account's own.
    pub shown: Option<NamespaceId>,
    pub shared_in: Option<NamespaceId>,
    /// The asker may not write it.
    pub read_only: bool,
}

/// One line of a list.
#[derive(Debug, Clone)]
pub enum Item {
    Live(Box<Entry>),
    Deleted(FilePath),
}

impl Entry {
    pub fn rev(&self) -> Rev {
        Rev { ns: self.ns, node: self.row.node, version: self.row.version }
    }

    /// The last name; none for the root.
    pub fn name(&self) -> Option<&Name> {
        self.path.0.last()
    }
}

/// True for what the API can show: special files are for mounts alone.
pub fn is_shown(kind: NodeKind) -> bool {
    !kind.is_special()
}

/// Reads the entry of a spot.
pub fn of_spot(sql: &mut dyn Sql, asker: &Asker, spot: &Spot) -> Result<Entry, FilesError> {
    let ns = spot.space.namespace.ns;
    let row = nodes::row(sql, ns, spot.node)?.ok_or(FilesError::NotFound)?;
    of_row(sql, asker, (ns, spot.space.role), spot.path.clone(), row)
}

/// The entry of a name in a folder; none for what the API does not show.
pub fn in_folder(
    sql: &mut dyn Sql,
    asker: &Asker,
    folder: &Folder,
    name: &Name,
    node: NodeId,
) -> Result<Option<Entry>, FilesError> {
    let Some(row) = nodes::row(sql, folder.ns(), node)? else { return Ok(None) };
    if row.deleted || !is_shown(row.kind) {
        return Ok(None);
    }
    let within = (folder.ns(), folder.space.role);
    of_row(sql, asker, within, folder.path.join(name), row).map(Some)
}

pub fn of_row(
    sql: &mut dyn Sql,
    asker: &Asker,
    (ns, role): (NamespaceId, Role),
    path: FilePath,
    row: NodeRow,
) -> Result<Entry, FilesError> {
    let role = match row.mount {
        None => role,
        Some(target) => match member_of(sql, target, asker.user) {
            Ok(shown) => shown.role,
            // Shown still, but shared no more.
            Err(DriveError::NoNamespace) => Role::Viewer,
            Err(e) => return Err(e.into()),
        },
    };
    let size = match &row.content {
        Some(content) => Root::decode(&content.0)
            .map_err(|e| DriveError::Internal(format!("stored root: {e}")))?
            .size(),
        None => 0,
    };
    Ok(Entry {
        path,
        ns,
        size,
        shown: row.mount,
        shared_in: (ns != asker.root).then_some(ns),
        read_only: role < Role::Editor,
        row,
    })
}

/// What is at a target.
pub fn find(sql: &mut dyn Sql, asker: &Asker, target: &Target) -> Result<Entry, FilesError> {
    let spot = walk::found(sql, asker, target)?;
    if !is_shown(spot.kind) {
        return Err(FilesError::NotFound);
    }
    of_spot(sql, asker, &spot)
}

impl Drive {
    /// What is at a path, or with `deleted` was there last.
    pub async fn item_at(
        &self,
        asker: &Asker,
        target: Target,
        deleted: bool,
    ) -> Result<Item, FilesError> {
        if matches!(&target, Target::Path(path) if path.is_root()) {
            return Err(FilesError::BadRequest("path: the root folder has no metadata".into()));
        }
        let asker = asker.clone();
        self.store
            .read(move |sql| match find(sql, &asker, &target) {
                Ok(entry) => Ok(Item::Live(Box::new(entry))),
                Err(FilesError::NotFound) if deleted => {
                    let rev = super::revisions::file_of(sql, &asker, &target)?;
                    Ok(Item::Deleted(super::read::of_rev(sql, &asker, rev)?.path))
                }
                Err(e) => Err(e),
            })
            .await
    }
}
