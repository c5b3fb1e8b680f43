//! Walks a folder and all below it, in an order in which what holds something comes before it.

use drivefs_core::limits::SUBTREE_NODES_MAX;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::NodeRow;
use drivefs_core::wire::Place;

use super::FilesError;
use crate::metadata::Sql;
use crate::metadata::entries;
use crate::metadata::namespaces::Namespace;
use crate::metadata::nodes;

/// Entries read at once.
const PAGE: u32 = 1000;

/// One entry of a subtree.
pub struct Below {
    pub place: Place,
    pub row: NodeRow,
}

/// All that is below a folder of a namespace. Mounts are listed and not entered.
pub fn below(
    sql: &mut dyn Sql,
    space: &Namespace,
    folder: drivefs_core::id::NodeId,
) -> Result<Vec<Below>, FilesError> {
    let mut out: Vec<Below> = Vec::new();
    let mut folders = vec![folder];
    while let Some(parent) = folders.pop() {
        let mut after = None;
        loop {
            let page = entries::list(sql, space.ns, parent, after.as_ref(), PAGE)?;
            let is_last = page.len() < PAGE as usize;
            after = page.last().map(|d| d.name.clone());
            for dirent in page {
                let Some(node) = dirent.child else { continue };
                let Some(row) = nodes::row(sql, space.ns, node)? else { continue };
                if row.kind == NodeKind::Dir {
                    folders.push(node);
                }
                out.push(Below { place: Place { parent, name: dirent.name }, row });
                if out.len() > SUBTREE_NODES_MAX {
                    return Err(FilesError::TooMany(format!(
                        "more than {SUBTREE_NODES_MAX} files and folders at once"
                    )));
                }
            }
            if is_last {
                break;
            }
        }
    }
    Ok(out)
}
