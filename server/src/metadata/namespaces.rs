//! Namespaces and who may do what in them.

use drivefs_core::id::Epoch;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::id::UserId;
use drivefs_core::wire::Role;

use super::DbError;
use super::Sql;
use super::epochs;
use super::value::Row;
use super::value::params;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace {
    pub ns: NamespaceId,
    pub owner: UserId,
    pub seq: Seq,
    pub root: NodeId,
    /// Tombstones up to here are gone.
    pub pruned_seq: Seq,
    /// What was deleted up to here is out of the trash.
    pub emptied_seq: Seq,
}

/// A namespace as one member sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    pub namespace: Namespace,
    pub role: Role,
}

pub fn insert(sql: &mut dyn Sql, n: &Namespace, created: i64) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO namespace (ns, owner, seq, root, pruned_seq, emptied_seq, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![n.ns, n.owner, n.seq, n.root, n.pruned_seq, n.emptied_seq, created],
    )?;
    Ok(())
}

pub fn put_member(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    user: UserId,
    role: Role,
) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO member (ns, user, role) VALUES (?1, ?2, ?3)
         ON CONFLICT (ns, user) DO UPDATE SET role = ?3",
        params![ns, user, role_number(role)],
    )?;
    Ok(())
}

/// The namespace, if `user` is a member of it.
pub fn membership(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    user: UserId,
) -> Result<Option<Membership>, DbError> {
    let row = sql.query_one(
        "SELECT n.ns, n.owner, n.seq, n.root, n.pruned_seq, n.emptied_seq, m.role
         FROM member m JOIN namespace n ON n.ns = m.ns WHERE m.ns = ?1 AND m.user = ?2",
        params![ns, user],
    )?;
    row.map(|row| Ok(Membership { namespace: namespace_of(&row)?, role: role_of(row.get(6)?)? }))
        .transpose()
}

/// All namespaces of which `user` is a member.
pub fn of_user(sql: &mut dyn Sql, user: UserId) -> Result<Vec<Namespace>, DbError> {
    sql.query(
        "SELECT n.ns, n.owner, n.seq, n.root, n.pruned_seq, n.emptied_seq
         FROM member m JOIN namespace n ON n.ns = m.ns WHERE m.user = ?1 ORDER BY n.ns",
        params![user],
    )?
    .iter()
    .map(namespace_of)
    .collect()
}

/// Locks the namespace for the rest of the transaction and reads it.
pub fn lock(sql: &mut dyn Sql, ns: NamespaceId) -> Result<Option<Namespace>, DbError> {
    // An update that changes nothing locks the row on every database.
    let row = sql.query_one(
        "UPDATE namespace SET seq = seq WHERE ns = ?1
         RETURNING ns, owner, seq, root, pruned_seq, emptied_seq",
        params![ns],
    )?;
    row.as_ref().map(namespace_of).transpose()
}

/// Moves the namespace on to `seq`, a commit of `epoch`.
pub fn set_seq(sql: &mut dyn Sql, ns: NamespaceId, seq: Seq, epoch: Epoch) -> Result<(), DbError> {
    epochs::note(sql, ns, seq, epoch)?;
    sql.exec(
        "UPDATE namespace SET seq = ?2, moved = (SELECT COALESCE(MAX(moved), 0) + 1 FROM namespace)
         WHERE ns = ?1",
        params![ns, seq],
    )?;
    Ok(())
}

/// How far all namespaces together have moved on, for `moved_since`.
pub fn moved(sql: &mut dyn Sql) -> Result<u64, DbError> {
    let row = sql.query_one("SELECT COALESCE(MAX(moved), 0) FROM namespace", params![])?;
    row.map_or(Ok(0), |row| row.get(0))
}

/// The first `limit` namespaces that have moved on since `moved` was `mark`, each with what it is
/// then.
pub fn moved_since(
    sql: &mut dyn Sql,
    mark: u64,
    limit: u32,
) -> Result<Vec<(NamespaceId, u64)>, DbError> {
    sql.query(
        "SELECT ns, moved FROM namespace WHERE moved > ?1 ORDER BY moved LIMIT ?2",
        params![mark, limit],
    )?
    .iter()
    .map(|row| Ok((row.get(0)?, row.get(1)?)))
    .collect()
}

/// What was deleted until now leaves the trash.
pub fn set_emptied(sql: &mut dyn Sql, ns: NamespaceId, seq: Seq) -> Result<(), DbError> {
    sql.exec("UPDATE namespace SET emptied_seq = ?2 WHERE ns = ?1", params![ns, seq])?;
    Ok(())
}

fn namespace_of(row: &Row) -> Result<Namespace, DbError> {
    Ok(Namespace {
        ns: row.get(0)?,
        owner: row.get(1)?,
        seq: row.get(2)?,
        root: row.get(3)?,
        pruned_seq: row.get(4)?,
        emptied_seq: row.get(5)?,
    })
}

fn role_number(role: Role) -> i64 {
    match role {
        Role::Viewer => 1,
        Role::Editor => 2,
        Role::Owner => 3,
    }
}

fn role_of(number: i64) -> Result<Role, DbError> {
    match number {
        1 => Ok(Role::Viewer),
        2 => Ok(Role::Editor),
        3 => Ok(Role::Owner),
        _ => Err(DbError::Decode("role")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::schema;
    use crate::metadata::sqlite::Sqlite;

    #[test]
    fn what_has_moved_is_told_in_turn_once_and_by_pages() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut db = Sqlite::open(&dir.path().join("meta.db")).expect("opens");
        schema::ensure(&mut db).expect("a schema");
        assert_eq!(moved(&mut db), Ok(0));
        for id in 1..=4 {
            let (ns, root) = (NamespaceId(id), NodeId::from_parts(0, [0; 10]));
            let (owner, seq) = (UserId(1), 1);
            let fresh = Namespace { ns, owner, seq, root, pruned_seq: 0, emptied_seq: 0 };
            insert(&mut db, &fresh, 0).expect("inserts");
        }
        for (ns, seq) in [(3, 2), (1, 2), (3, 3), (2, 2)] {
            set_seq(&mut db, NamespaceId(ns), seq, 5).expect("moves");
        }
        let mut since = |mark, limit| moved_since(&mut db, mark, limit).expect("reads");
        let told = [(1, 2), (3, 3), (2, 4)].map(|(ns, at)| (NamespaceId(ns), at));
        assert_eq!(since(0, 10), told);
        assert_eq!(since(0, 2), told[..2]);
        assert_eq!(since(3, 2), told[2..]);
        assert_eq!(since(4, 2), []);
        assert_eq!(moved(&mut db), Ok(4));
    }
}
