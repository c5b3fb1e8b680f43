//! What the operator does with accounts: add, list, change password, disable.
//!
//! Works on the store alone, so that it also works beside a running server.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::UserId;
use drivefs_core::limits::EMAIL_MAX_BYTES;
use drivefs_core::node::Attrs;
use drivefs_core::node::NodeKind;
use drivefs_core::node::Xattrs;
use drivefs_core::wire::Role;

use super::DriveError;
use crate::auth::password;
use crate::clock;
use crate::host;
use crate::metadata::DbError;
use crate::metadata::Sql;
use crate::metadata::Store;
use crate::metadata::accounts;
use crate::metadata::accounts::User;
use crate::metadata::audit;
use crate::metadata::audit::Kind;
use crate::metadata::namespaces;
use crate::metadata::namespaces::Namespace;
use crate::metadata::nodes;
use crate::metadata::nodes::NewNode;
use crate::metadata::tokens;
use crate::metadata::tokens::Device;

/// Makes an account with its empty root namespace.
pub async fn add(
    store: &Store,
    email: &str,
    password: &str,
    quota_bytes: u64,
) -> Result<User, DriveError> {
    let email = checked_email(email)?;
    if i64::try_from(quota_bytes).is_err() {
        return Err(DriveError::BadRequest("the quota is too large".into()));
    }
    let hash = hashed(password).await?;
    let shard: u16 = host::random();
    let user = User {
        user: UserId::in_shard(shard, host::random()),
        email,
        password: hash,
        disabled: false,
        quota_bytes,
        used_bytes: 0,
        root_ns: NamespaceId::in_shard(shard, host::random()),
        created: clock::now_secs(),
    };
    store
        .write(move |sql| {
            if accounts::by_email(sql, &user.email)?.is_some() {
                return Err(DriveError::Conflict(format!(
                    "there is already an account of {}",
                    user.email
                )));
            }
            accounts::insert(sql, &user)?;
            told(sql, Kind::UserAdded, &user.email)?;
            make_namespace(sql, user.root_ns, user.user)?;
            Ok(user)
        })
        .await
}

pub async fn all(store: &Store) -> Result<Vec<User>, DriveError> {
    store.read(|sql| Ok(accounts::all(sql)?)).await
}

pub async fn set_password(store: &Store, email: &str, password: &str) -> Result<(), DriveError> {
    let email = checked_email(email)?;
    let hash = hashed(password).await?;
    store
        .write(move |sql| {
            let user = found(sql, &email)?.user;
            told(sql, Kind::PasswordSet, &email)?;
            Ok(accounts::set_password(sql, user, &hash)?)
        })
        .await
}

/// Locks an account out, or lets it in again; holds from its next request on.
pub async fn set_disabled(store: &Store, email: &str, disabled: bool) -> Result<(), DriveError> {
    let email = checked_email(email)?;
    store
        .write(move |sql| {
            let user = found(sql, &email)?.user;
            told(sql, if disabled { Kind::UserDisabled } else { Kind::UserEnabled }, &email)?;
            Ok(accounts::set_disabled(sql, user, disabled)?)
        })
        .await
}

/// Live devices and tokens of an account.
pub async fn devices(store: &Store, email: &str) -> Result<Vec<Device>, DriveError> {
    let email = checked_email(email)?;
    store
        .read(move |sql| {
            let user = found(sql, &email)?.user;
            Ok(tokens::of_user(sql, user)?)
        })
        .await
}

/// Revokes a device or token; holds from its next request on.
pub async fn revoke_device(store: &Store, email: &str, name: String) -> Result<(), DriveError> {
    let email = checked_email(email)?;
    store
        .write(move |sql| {
            let user = found(sql, &email)?.user;
            if !tokens::revoke(sql, user, &name, clock::now_secs())? {
                return Err(DriveError::NotFound(format!(
                    "{email} has no device or token called {name}"
                )));
            }
            let happened = audit::by_operator(Kind::TokenRevoked, &email, String::new());
            Ok(audit::insert(sql, &audit::Happened { device: name, ..happened })?)
        })
        .await
}

fn told(sql: &mut dyn Sql, kind: Kind, email: &str) -> Result<(), DbError> {
    audit::insert(sql, &audit::by_operator(kind, email, String::new()))
}

/// The account of an e-mail address, for the operator.
pub(crate) fn found(sql: &mut dyn Sql, email: &str) -> Result<User, DriveError> {
    accounts::by_email(sql, email)?
        .ok_or_else(|| DriveError::NotFound(format!("there is no account of {email}")))
}

/// Makes an empty namespace that `owner` owns.
pub(super) fn make_namespace(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    owner: UserId,
) -> Result<(), DbError> {
    let now = clock::now_ns();
    let root = NodeId::from_parts(clock::now_millis(), host::random());
    let seq = 1;
    let namespace = Namespace { ns, owner, seq, root, pruned_seq: 0, emptied_seq: 0 };
    namespaces::insert(sql, &namespace, clock::now_secs())?;
    namespaces::put_member(sql, ns, owner, Role::Owner)?;
    let attrs = Attrs { mode: 0o755, uid: None, gid: None, mtime: now, btime: now };
    let node = NewNode {
        node: root,
        kind: NodeKind::Dir,
        attrs: &attrs,
        rdev: 0,
        target: None,
        mount: None,
        xattrs: &Xattrs::new(),
        version: 0,
    };
    nodes::insert(sql, ns, &node, seq)
}

/// The address as it is stored: without spaces around, in lower case.
pub fn checked_email(email: &str) -> Result<String, DriveError> {
    let email = email.trim().to_lowercase();
    let well_formed = email.len() <= EMAIL_MAX_BYTES
        && email.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
        && !email.contains(|c: char| c.is_whitespace() || c.is_control());
    if well_formed {
        Ok(email)
    } else {
        Err(DriveError::BadRequest(format!("{email:?} is not an e-mail address")))
    }
}

async fn hashed(password: &str) -> Result<String, DriveError> {
    let password = password.to_owned();
    host::blocking(move || password::hash(&password))
        .await
        .map_err(|e| DriveError::Internal(e.to_string()))?
        .map_err(DriveError::from)
}
