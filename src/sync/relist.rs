//! A page of the server's list that is taken anew, and what is asked before the last one counts.

use std::collections::HashSet;
use std::sync::Arc;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::limits::VERSIONS_ROWS_MAX;
use drivefs_core::wire::ChangesReply;
use drivefs_core::wire::VersionsRequest;
use drivefs_core::wire::Which;

use super::SyncError;
use crate::host;
use crate::remote::Remote;
use crate::remote::RemoteError;
use crate::tree::Tree;

/// Files whose history is asked for; what is behind them becomes conflict files where in doubt.
const ASKED_MAX: usize = 2_000;

/// Takes a page; with the last one, the tree follows the list. Returns namespaces that are new.
pub(super) async fn take_page(
    remote: &Remote,
    tree: &Arc<Tree>,
    ns: NamespaceId,
    from: Seq,
    page: ChangesReply,
) -> Result<Vec<NamespaceId>, SyncError> {
    let taking = tree.clone();
    let last = (!page.more).then(|| page.clone());
    let taken = host::blocking(move || taking.take_listed(ns, from, &page)).await?;
    let Some(last) = last.filter(|_| taken) else { return Ok(Vec::new()) };
    let old = old_news(remote, tree, ns).await?;
    let ending = tree.clone();
    Ok(host::blocking(move || ending.end_relist(ns, &last, &old)).await?)
}

/// Files that changed on a restored server since, and whose content here is in their history
/// there: another device was faster to bring it back, and somebody worked on from it.
async fn old_news(
    remote: &Remote,
    tree: &Arc<Tree>,
    ns: NamespaceId,
) -> Result<HashSet<NodeId>, SyncError> {
    let reading = tree.clone();
    let contested = host::blocking(move || reading.contested_since(ns, ASKED_MAX)).await?;
    let mut old = HashSet::new();
    for (node, content) in contested {
        let of = Which::Node(node);
        let request = VersionsRequest { ns, of, before: None, limit: VERSIONS_ROWS_MAX };
        match remote.versions(&request).await {
            Ok(history) if history.versions.iter().any(|v| v.content.0 == content) => {
                old.insert(node);
            }
            Ok(_) => {}
            // In doubt both are kept.
            Err(RemoteError::Refused { message, .. }) => {
                tracing::debug!(%node, message, "no history to compare with");
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(old)
}
