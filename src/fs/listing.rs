//! Folders that are not here yet: listed on demand while the replica is still filling.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use drivefs_core::id::NamespaceId;
use drivefs_core::limits::CHANGES_ROWS_MAX;
use drivefs_core::name::Name;
use drivefs_core::wire::ChangesRequest;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::ListRequest;

use super::DriveFs;
use super::lock;
use crate::cache::CacheError;
use crate::host;
use crate::remote::RemoteError;
use crate::spool::SpoolError;
use crate::state::Nid;
use crate::tree::TreeError;

/// Longest wait for one page of a listing; a read waits no longer for its bytes.
const LIST_WAIT: Duration = Duration::from_millis(4_500);

/// Listings under way, so that many who ask for one folder cause one.
#[derive(Default)]
pub(super) struct Listings(Mutex<HashMap<Nid, Arc<tokio::sync::Mutex<()>>>>);

impl DriveFs {
    /// Of these folders, those whose entries are not all here. What is no folder is left out.
    pub fn unlisted(&self, folders: &[Nid]) -> Vec<Nid> {
        if !self.tree.is_filling() {
            return Vec::new();
        }
        let is_unlisted = |nid: &Nid| match self.tree.node(*nid) {
            Ok(n) => n.kind.is_folder() && !self.tree.is_complete(&n).unwrap_or(false),
            Err(_) => false,
        };
        folders.iter().copied().filter(is_unlisted).collect()
    }

    /// The folder at a name, if the fill is under way and it is one: it may have entries that are
    /// not here.
    pub fn folder_at(&self, parent: Nid, name: &[u8]) -> Option<Nid> {
        if !self.tree.is_filling() {
            return None;
        }
        self.tree.lookup(parent, name).ok().filter(|n| n.kind.is_folder()).map(|n| n.nid)
    }

    /// Gets all entries of these folders from the server.
    pub async fn list_folders(&self, folders: &[Nid]) -> Result<(), TreeError> {
        for &nid in folders {
            let turn = lock(&self.listings.0).entry(nid).or_default().clone();
            let listed = {
                let _turn = turn.lock().await;
                if self.unlisted(&[nid]).is_empty() { Ok(()) } else { self.list_folder(nid).await }
            };
            lock(&self.listings.0).remove(&nid);
            listed?;
        }
        Ok(())
    }

    async fn list_folder(&self, nid: Nid) -> Result<(), TreeError> {
        let mut folder = self.tree.node(nid)?;
        if let Some(ns) = folder.mount {
            self.enter(ns).await?;
            folder = self.tree.node(nid)?;
        }
        let mut after = None;
        loop {
            self.check_link()?;
            let request =
                ListRequest { ns: folder.ns, parent: folder.id, after, limit: CHANGES_ROWS_MAX };
            let page = match self.within(self.remote.list(&request)).await {
                // Made here a moment ago, or removed there: a page will tell.
                Err(e) if e.code() == Some(ErrorCode::NotFound) => {
                    self.tree.nothing_to_list(&folder);
                    return Ok(());
                }
                other => other.map_err(remote)?,
            };
            let last: Option<Name> = page.dirents.last().map(|d| d.name.clone());
            let more = page.more;
            let (tree, folder) = (self.tree.clone(), folder.clone());
            host::blocking(move || tree.apply_list(&folder, &page)).await?;
            if !more {
                return Ok(());
            }
            after = last;
        }
    }

    /// Gets the first page of a namespace that the fill has not come to: from then on its folders
    /// can be listed.
    async fn enter(&self, ns: NamespaceId) -> Result<(), TreeError> {
        if self.tree.cursor(ns)?.is_some() {
            return Ok(());
        }
        self.check_link()?;
        let request = ChangesRequest {
            ns,
            cursor: 0,
            limit: CHANGES_ROWS_MAX,
            trail: Vec::new(),
            tombstones: false,
            began: 0,
        };
        let page = self.within(self.remote.changes(&request)).await.map_err(remote)?;
        let tree = self.tree.clone();
        host::blocking(move || tree.apply_first(ns, &page)).await
    }

    pub(super) fn check_link(&self) -> Result<(), TreeError> {
        if self.link.is_silent() {
            return Err(remote(RemoteError::Offline(self.link.reason())));
        }
        Ok(())
    }

    /// A program waits for the answer: not for a server that takes its time.
    pub(super) async fn within<T>(
        &self,
        asked: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        tokio::time::timeout(LIST_WAIT, asked).await.unwrap_or_else(|_| {
            let why = format!("{} does not answer in time", self.remote.url());
            self.link.fell_silent(&why);
            Err(RemoteError::Offline(why))
        })
    }
}

pub(super) fn remote(e: RemoteError) -> TreeError {
    TreeError::Spool(SpoolError::Cache(CacheError::Remote(e)))
}
