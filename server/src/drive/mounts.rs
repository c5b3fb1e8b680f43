//! Shared namespaces: making one and showing it in members' trees as a mount node.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::name::Name;
use drivefs_core::node::Attrs;
use drivefs_core::wire::Place;
use drivefs_core::wire::Role;

use super::DriveError;
use super::commit::Refusal;
use super::commit::mount_in_root;
use super::users;
use crate::clock;
use crate::host;
use crate::metadata::DbError;
use crate::metadata::Sql;
use crate::metadata::Store;
use crate::metadata::accounts::User;
use crate::metadata::entries;
use crate::metadata::namespaces;
use crate::metadata::nodes;

/// Somebody with whom a namespace is shared from the start.
#[derive(Debug, Clone)]
pub struct Guest {
    pub email: String,
    pub role: Role,
}

/// Makes a namespace of `owner` and mounts it as `name` in the root of all members.
pub async fn add(
    store: &Store,
    owner: &str,
    guest: Option<Guest>,
    name: Name,
) -> Result<NamespaceId, DriveError> {
    let owner = users::checked_email(owner)?;
    store
        .write(move |sql| {
            let owner = users::found(sql, &owner)?;
            let ns = NamespaceId::in_shard(owner.root_ns.shard(), host::random());
            users::make_namespace(sql, ns, owner.user)?;
            show(sql, &owner, ns, &name)?;
            if let Some(guest) = guest {
                let user = users::found(sql, &users::checked_email(&guest.email)?)?;
                if user.user == owner.user {
                    return Err(DriveError::BadRequest(
                        "the owner cannot share with themselves".into(),
                    ));
                }
                namespaces::put_member(sql, ns, user.user, guest.role)?;
                show(sql, &user, ns, &name)?;
            }
            Ok(ns)
        })
        .await
}

/// The shared namespace of this name in the root of an account.
pub fn shown_as(sql: &mut dyn Sql, user: &User, name: &Name) -> Result<NamespaceId, DriveError> {
    let root = namespaces::lock(sql, user.root_ns)?.ok_or(DbError::Decode("root namespace"))?;
    let place = Place { parent: root.root, name: name.clone() };
    let found = match entries::child(sql, root.ns, &place)? {
        Some(node) => nodes::row(sql, root.ns, node)?.and_then(|row| row.mount),
        None => None,
    };
    found.ok_or_else(|| {
        DriveError::NotFound(format!("{} has no shared folder /{name} in the root", user.email))
    })
}

fn show(
    sql: &mut dyn Sql,
    user: &User,
    target: NamespaceId,
    name: &Name,
) -> Result<(), DriveError> {
    let root = namespaces::lock(sql, user.root_ns)?.ok_or(DbError::Decode("root namespace"))?;
    let now = clock::now_ns();
    let attrs = Attrs { mode: 0o755, uid: None, gid: None, mtime: now, btime: now };
    let node = NodeId::from_parts(clock::now_millis(), host::random());
    let place = Place { parent: root.root, name: name.clone() };
    mount_in_root(sql, &root, node, &place, target, &attrs).map_err(|refusal| match refusal {
        Refusal::Conflict(message) => DriveError::Conflict(format!("{}: {message}", user.email)),
        Refusal::Rejected(_, message) => DriveError::BadRequest(message),
        Refusal::Db(e) => e.into(),
    })
}
