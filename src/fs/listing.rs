//! Folders that are not here yet: listed on demand while the replica is still filling.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;

use drivefs_core::limits::CHANGES_ROWS_MAX;
use drivefs_core::name::Name;
use drivefs_core::wire::ListRequest;

use super::DriveFs;
use super::lock;
use crate::cache::CacheError;
use crate::spool::SpoolError;
use crate::state::Nid;
use crate::tree::TreeError;

/// Listings under way, so that many who ask for one folder cause one.
#[derive(Default)]
pub(super) struct Listings(Mutex<HashMap<Nid, Arc<tokio::sync::Mutex<()>>>>);

impl DriveFs {
    /// Of these folders, those whose entries are not all here. What is no folder is left out.
    pub fn unlisted(&self, folders: &[Nid]) -> Vec<Nid> {
        if !self.tree.is_filling() {
            return Vec::new();
        }
        let is_unlisted = |nid: &Nid| {
            self.tree.node(*nid).is_ok_and(|n| n.kind.is_folder() && !self.tree.is_complete(&n))
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
        let folder = self.tree.node(nid)?;
        let mut after = None;
        loop {
            let remote = |e| TreeError::Spool(SpoolError::Cache(CacheError::Remote(e)));
            if self.link.is_silent() {
                let why = self.link.reason();
                return Err(remote(crate::remote::RemoteError::Offline(why)));
            }
            let request =
                ListRequest { ns: folder.ns, parent: folder.id, after, limit: CHANGES_ROWS_MAX };
            let page = self.remote.list(&request).await.map_err(remote)?;
            let last: Option<Name> = page.dirents.last().map(|d| d.name.clone());
            let more = page.more;
            let (tree, folder) = (self.tree.clone(), folder.clone());
            tokio::task::spawn_blocking(move || tree.apply_list(&folder, &page))
                .await
                .expect("applying a listing does not panic")?;
            if !more {
                return Ok(());
            }
            after = last;
        }
    }
}
