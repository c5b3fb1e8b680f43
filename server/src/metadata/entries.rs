//! Directory entries: (parent, name) -> node. A removed one stays as a tombstone without child.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::name::Name;
use drivefs_core::wire::DirentRow;
use drivefs_core::wire::Place;

use super::DbError;
use super::Sql;
use super::value::Row;
use super::value::params;

/// The node at a place; none where the place is free.
pub fn child(sql: &mut dyn Sql, ns: NamespaceId, place: &Place) -> Result<Option<NodeId>, DbError> {
    let row = sql.query_one(
        "SELECT child FROM dirent WHERE ns = ?1 AND parent = ?2 AND name = ?3",
        params![ns, place.parent, place.name.as_bytes()],
    )?;
    row.map_or(Ok(None), |r| r.get(0))
}

/// Sets or (without child) removes an entry.
pub fn set(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    place: &Place,
    child: Option<NodeId>,
    seq: Seq,
) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO dirent (ns, parent, name, child, changed_seq, first_seq)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5) ON CONFLICT (ns, parent, name) DO UPDATE SET child = ?4, changed_seq = ?5",
        params![ns, place.parent, place.name.as_bytes(), child, seq],
    )?;
    Ok(())
}

/// True when some entry names the node.
pub fn is_named(sql: &mut dyn Sql, ns: NamespaceId, node: NodeId) -> Result<bool, DbError> {
    let row = sql.query_one(
        "SELECT 1 FROM dirent WHERE ns = ?1 AND child = ?2 LIMIT 1",
        params![ns, node],
    )?;
    Ok(row.is_some())
}

/// A directory that holds the node; directories have one alone.
pub fn parent(sql: &mut dyn Sql, ns: NamespaceId, node: NodeId) -> Result<Option<NodeId>, DbError> {
    let row = sql.query_one(
        "SELECT parent FROM dirent WHERE ns = ?1 AND child = ?2 LIMIT 1",
        params![ns, node],
    )?;
    row.map(|r| r.get(0)).transpose()
}

/// One of the places of a node.
pub fn place(sql: &mut dyn Sql, ns: NamespaceId, node: NodeId) -> Result<Option<Place>, DbError> {
    let row = sql.query_one(
        "SELECT parent, name FROM dirent WHERE ns = ?1 AND child = ?2 LIMIT 1",
        params![ns, node],
    )?;
    row.map(|r| {
        let name = Name::new(r.get::<Vec<u8>>(1)?).map_err(|_| DbError::Decode("name"))?;
        Ok(Place { parent: r.get(0)?, name })
    })
    .transpose()
}

/// All places of a node.
pub fn places(sql: &mut dyn Sql, ns: NamespaceId, node: NodeId) -> Result<Vec<Place>, DbError> {
    sql.query(
        "SELECT parent, name FROM dirent WHERE ns = ?1 AND child = ?2 ORDER BY parent, name",
        params![ns, node],
    )?
    .iter()
    .map(|r| {
        let name = Name::new(r.get::<Vec<u8>>(1)?).map_err(|_| DbError::Decode("name"))?;
        Ok(Place { parent: r.get(0)?, name })
    })
    .collect()
}

/// True when the last change of an entry was its first: nothing had that name before.
pub fn is_first(sql: &mut dyn Sql, ns: NamespaceId, place: &Place) -> Result<bool, DbError> {
    let row = sql.query_one(
        "SELECT 1 FROM dirent
         WHERE ns = ?1 AND parent = ?2 AND name = ?3 AND first_seq = changed_seq",
        params![ns, place.parent, place.name.as_bytes()],
    )?;
    Ok(row.is_some())
}

/// True when a directory has an entry that has not changed since a seq.
pub fn has_older(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    parent: NodeId,
    seq: Seq,
) -> Result<bool, DbError> {
    let row = sql.query_one(
        "SELECT 1 FROM dirent WHERE ns = ?1 AND parent = ?2 AND child IS NOT NULL
         AND changed_seq <= ?3 LIMIT 1",
        params![ns, parent, seq],
    )?;
    Ok(row.is_some())
}

pub fn is_empty(sql: &mut dyn Sql, ns: NamespaceId, parent: NodeId) -> Result<bool, DbError> {
    let row = sql.query_one(
        "SELECT 1 FROM dirent WHERE ns = ?1 AND parent = ?2 AND child IS NOT NULL LIMIT 1",
        params![ns, parent],
    )?;
    Ok(row.is_none())
}

/// Live entries of a directory in name order, behind `after`.
pub fn list(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    parent: NodeId,
    after: Option<&Name>,
    limit: u32,
) -> Result<Vec<DirentRow>, DbError> {
    let after = after.map_or(&b""[..], Name::as_bytes);
    sql.query(
        "SELECT parent, name, child, changed_seq FROM dirent
         WHERE ns = ?1 AND parent = ?2 AND name > ?3 AND child IS NOT NULL
         ORDER BY name LIMIT ?4",
        params![ns, parent, after, limit],
    )?
    .iter()
    .map(row_of)
    .collect()
}

pub(super) fn row_of(r: &Row) -> Result<DirentRow, DbError> {
    let name = Name::new(r.get::<Vec<u8>>(1)?).map_err(|_| DbError::Decode("name"))?;
    Ok(DirentRow { parent: r.get(0)?, name, child: r.get(2)?, seq: r.get(3)? })
}
