//! Taking the server's changes in: page by page, namespace by namespace.

use std::sync::Arc;

use drivefs_core::id::NamespaceId;
use drivefs_core::limits::CHANGES_ROWS_MAX;
use drivefs_core::wire::ChangesRequest;

use super::SyncError;
use crate::remote::Remote;
use crate::tree::Tree;
use crate::tree::TreeError;

/// Rows a page: the tree is locked for writing while one is applied.
const PAGE_ROWS: u32 = 500;

/// Applies everything that the server has by now. `progress` hears how many rows came so far.
pub async fn pull_all(
    remote: &Remote,
    tree: &Arc<Tree>,
    root: NamespaceId,
    mut progress: impl FnMut(usize),
) -> Result<(), SyncError> {
    let mut rows = 0;
    loop {
        let (more, new) = pull_pages(remote, tree, root, 1).await?;
        rows += new;
        progress(rows);
        if !more {
            return Ok(());
        }
    }
}

/// Applies up to `pages` full pages. True when that was all that the server has by now.
pub async fn pull_some(
    remote: &Remote,
    tree: &Arc<Tree>,
    root: NamespaceId,
    pages: usize,
) -> Result<bool, SyncError> {
    Ok(!pull_pages(remote, tree, root, pages).await?.0)
}

/// Applies up to `pages` pages; returns whether there are more, and how many rows came.
async fn pull_pages(
    remote: &Remote,
    tree: &Arc<Tree>,
    root: NamespaceId,
    pages: usize,
) -> Result<(bool, usize), SyncError> {
    let mut queue = vec![root];
    queue.extend(known_namespaces(tree)?.into_iter().filter(|&ns| ns != root));
    let (mut left, mut rows, mut at) = (pages, 0, 0);
    let mut limit = PAGE_ROWS;
    while let Some(&ns) = queue.get(at) {
        let cursor = tree.cursor(ns)?;
        if left == 0 && cursor.is_some() {
            return Ok((true, rows));
        }
        // A fill takes large pages: nobody waits for these rows.
        let filling = tree.is_filling() || cursor.is_none();
        if filling {
            limit = CHANGES_ROWS_MAX;
        }
        let request = ChangesRequest { ns, cursor: cursor.unwrap_or(0), limit };
        let page = remote.changes(&request).await?;
        let (new, more) = (page.nodes.len(), page.more);
        let at_tree = tree.clone();
        let applied = tokio::task::spawn_blocking(move || at_tree.apply(ns, ns == root, &page))
            .await
            .expect("applying does not panic");
        let applied = match applied {
            Err(TreeError::Torn) if more && limit < CHANGES_ROWS_MAX => {
                limit = limit.saturating_mul(4).min(CHANGES_ROWS_MAX);
                continue;
            }
            other => other?,
        };
        limit = PAGE_ROWS;
        rows += new;
        left = left.saturating_sub(usize::from(more));
        for new in applied.new_namespaces {
            if !queue.contains(&new) {
                // Its first page comes next: from then on its folders can be listed.
                queue.insert(at, new);
            }
        }
        if !more && queue.get(at) == Some(&ns) {
            at += 1;
        }
        if at == queue.len() {
            // A listing on demand may have brought one meanwhile.
            let known = known_namespaces(tree)?;
            queue.extend(known.into_iter().filter(|ns| !queue.contains(ns)).collect::<Vec<_>>());
        }
    }
    Ok((false, rows))
}

fn known_namespaces(tree: &Tree) -> Result<Vec<NamespaceId>, SyncError> {
    let rows = tree.db().peek(|c| c.namespaces()).map_err(crate::tree::TreeError::from)?;
    Ok(rows.into_iter().map(|r| r.ns).collect())
}
