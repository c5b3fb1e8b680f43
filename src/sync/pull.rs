//! Taking the server's changes in: page by page, namespace by namespace.

use std::sync::Arc;

use drivefs_core::id::NamespaceId;
use drivefs_core::limits::CHANGES_ROWS_MAX;
use drivefs_core::wire::ErrorCode;

use super::SyncError;
use super::relist::take_page;
use crate::host;
use crate::remote::Remote;
use crate::remote::RemoteError;
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
        let relisting = tree.relist(ns)?.is_some();
        let filling = tree.is_filling() || cursor.is_none() || relisting;
        if filling {
            limit = CHANGES_ROWS_MAX;
        }
        let request = tree.next_request(ns, limit)?;
        let page = match remote.changes(&request).await {
            Err(e) if request.cursor > 0 && needs_relist(&e) => {
                tree.begin_relist(ns, e.code() == Some(ErrorCode::CursorLost))?;
                continue;
            }
            Err(e) if ns != root && e.code() == Some(ErrorCode::NotFound) => {
                // No reason to keep the others from what is theirs.
                tracing::warn!(%ns, error = %e, "a shared folder cannot be followed");
                at += 1;
                continue;
            }
            answer => answer?,
        };
        let (new, more) = (page.nodes.len(), page.more);
        if relisting {
            let found = take_page(remote, tree, ns, request.cursor, page).await?;
            rows += new;
            left = left.saturating_sub(usize::from(more));
            // Not when the list began anew: then its first page comes next.
            at += usize::from(!more && tree.relist(ns)?.is_none());
            let found = found.into_iter().filter(|ns| !queue.contains(ns)).collect::<Vec<_>>();
            queue.extend(found);
            queue.extend(unqueued(tree, &queue, at)?);
            continue;
        }
        let at_tree = tree.clone();
        let applied = host::blocking(move || at_tree.apply(ns, ns == root, &page)).await;
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
        queue.extend(unqueued(tree, &queue, at)?);
    }
    Ok((false, rows))
}

/// True when the server cannot go on from a cursor.
fn needs_relist(e: &RemoteError) -> bool {
    matches!(e.code(), Some(ErrorCode::CursorExpired | ErrorCode::CursorLost))
}

/// Namespaces that a listing on demand has brought meanwhile, once the others are done.
fn unqueued(tree: &Tree, queue: &[NamespaceId], at: usize) -> Result<Vec<NamespaceId>, SyncError> {
    if at < queue.len() {
        return Ok(Vec::new());
    }
    Ok(known_namespaces(tree)?.into_iter().filter(|ns| !queue.contains(ns)).collect())
}

fn known_namespaces(tree: &Tree) -> Result<Vec<NamespaceId>, SyncError> {
    let rows = tree.db().peek(|c| c.namespaces()).map_err(crate::tree::TreeError::from)?;
    Ok(rows.into_iter().map(|r| r.ns).collect())
}
