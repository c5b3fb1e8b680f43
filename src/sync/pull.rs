//! Taking the server's changes in: page by page, namespace by namespace.

use std::sync::Arc;

use drivefs_core::id::NamespaceId;
use drivefs_core::limits::CHANGES_ROWS_MAX;
use drivefs_core::wire::ChangesRequest;

use super::SyncError;
use crate::remote::Remote;
use crate::tree::Tree;

/// Rows a page: the tree is locked for writing while one is applied.
const PAGE_ROWS: u32 = 500;

/// Applies everything that the server has by now. `progress` hears how many rows came so far.
pub async fn pull_all(
    remote: &Remote,
    tree: &Arc<Tree>,
    root: NamespaceId,
    mut progress: impl FnMut(usize),
) -> Result<(), SyncError> {
    let mut queue = vec![root];
    queue.extend(known_namespaces(tree)?.into_iter().filter(|&ns| ns != root));
    let mut rows = 0;
    let mut at = 0;
    while let Some(&ns) = queue.get(at) {
        at += 1;
        loop {
            let cursor = tree.cursor(ns)?.unwrap_or(0);
            // The first fill takes large pages: nobody waits for the tree yet.
            let limit = if cursor == 0 { CHANGES_ROWS_MAX } else { PAGE_ROWS };
            let page = remote.changes(&ChangesRequest { ns, cursor, limit }).await?;
            rows += page.nodes.len();
            let more = page.more;
            let tree = tree.clone();
            let applied = tokio::task::spawn_blocking(move || tree.apply(ns, ns == root, &page))
                .await
                .expect("applying does not panic")?;
            for new in applied.new_namespaces {
                if !queue.contains(&new) {
                    queue.push(new);
                }
            }
            progress(rows);
            if !more {
                break;
            }
        }
    }
    Ok(())
}

fn known_namespaces(tree: &Tree) -> Result<Vec<NamespaceId>, SyncError> {
    let rows = tree.db().peek(|c| c.namespaces()).map_err(crate::tree::TreeError::from)?;
    Ok(rows.into_iter().map(|r| r.ns).collect())
}
