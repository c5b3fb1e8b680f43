//! What an account is told about itself.

use drivefs_core::wire::Account;

use super::Drive;
use super::DriveError;
use crate::auth::Asker;
use crate::auth::AuthError;
use crate::metadata::accounts;
use crate::metadata::accounts::User;

impl Drive {
    pub async fn account(&self, asker: Asker) -> Result<Account, DriveError> {
        let id = asker.user;
        let user = self.store.read(move |sql| accounts::by_id(sql, id)).await?;
        let user = user.ok_or(DriveError::Auth(AuthError::Unknown))?;
        Ok(shown(self, &asker, &user))
    }
}

pub(super) fn shown(drive: &Drive, asker: &Asker, user: &User) -> Account {
    Account {
        user: user.user,
        email: user.email.clone(),
        device: asker.device_name.clone(),
        root: user.root_ns,
        quota_bytes: user.quota_bytes,
        used_bytes: user.used_bytes,
        file_max_bytes: drive.limits.file_max_bytes,
        server_id: drive.server_id.clone(),
    }
}
