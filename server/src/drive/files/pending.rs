//! Uploads that have begun and not ended, for those who wait for the file.

use drivefs_core::limits::FOLDER_ENTRIES_MAX;
use drivefs_core::limits::UPLOAD_KEPT_SECS;

use super::FilesError;
use super::path::FilePath;
use super::path::Target;
use super::session::aim_of;
use super::walk;
use crate::auth::Asker;
use crate::clock;
use crate::drive::Drive;
use crate::metadata::Sql;
use crate::metadata::namespaces;
use crate::metadata::uploads;
use crate::metadata::uploads::State;

/// An upload under way.
#[derive(Debug, Clone)]
pub struct Pending {
    pub path: FilePath,
    /// All bytes are here; the file comes into the tree next.
    pub is_stored: bool,
    pub size: Option<u64>,
    pub received: u64,
    pub device: String,
    /// Seconds since the Unix epoch.
    pub created: i64,
}

impl Drive {
    /// Uploads that go to a folder or below it, as far as the asker sees that.
    pub async fn pending_uploads(
        &self,
        asker: &Asker,
        folder: Target,
    ) -> Result<Vec<Pending>, FilesError> {
        let asker = asker.clone();
        self.store.read(move |sql| pending(sql, &asker, &folder)).await
    }
}

fn pending(sql: &mut dyn Sql, asker: &Asker, folder: &Target) -> Result<Vec<Pending>, FilesError> {
    let base = walk::found(sql, asker, folder)?.path;
    let since = clock::now_secs() - UPLOAD_KEPT_SECS;
    let mut out = Vec::new();
    for space in namespaces::of_user(sql, asker.user)? {
        let above = match walk::path_to(sql, asker, space.ns) {
            Ok(path) => path,
            Err(FilesError::NotFound) => continue,
            Err(e) => return Err(e),
        };
        for row in uploads::pending(sql, space.ns, since, FOLDER_ENTRIES_MAX)? {
            let Some(within) = aim_of(&row)?.within else { continue };
            let mut path = above.clone();
            path.0.extend(FilePath::parse(&within)?.0);
            if path.0.starts_with(&base.0) {
                out.push(Pending {
                    path,
                    is_stored: row.state == State::Stored,
                    size: row.size,
                    received: row.resumes_at(),
                    device: row.device,
                    created: row.created,
                });
            }
        }
    }
    Ok(out)
}
