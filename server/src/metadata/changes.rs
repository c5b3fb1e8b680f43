//! The change order of a namespace: rows by the seq of their last change.
//!
//! There is no log beside the tree. A page holds whole seqs, and with every entry the nodes at both
//! its ends, so that who applies page after page never meets an unknown node.

use std::collections::HashSet;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::wire::DirentRow;
use drivefs_core::wire::NodeRow;

use super::DbError;
use super::Sql;
use super::entries;
use super::nodes;
use super::value::params;

/// Rows changed in `(cursor, end]`.
#[derive(Debug, Default)]
pub struct Page {
    pub nodes: Vec<NodeRow>,
    pub dirents: Vec<DirentRow>,
    pub end: Seq,
}

/// What a page shall have.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// What changed behind this.
    pub cursor: Seq,
    /// Rows, about.
    pub limit: u32,
    /// Removed rows in a list that begins at the start, too: who starts from nothing needs none.
    pub tombstones: bool,
}

/// A page of a namespace that stands at `seq`.
pub fn page(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    seq: Seq,
    wanted: &Wanted,
) -> Result<Page, DbError> {
    let Wanted { cursor, limit, tombstones } = *wanted;
    let end = page_end(sql, ns, cursor, seq, limit)?;
    let removed = cursor != 0 || tombstones;
    let mut nodes = nodes_between(sql, ns, cursor, end, removed)?;
    let dirents = dirents_between(sql, ns, cursor, end, removed)?;
    let mut known: HashSet<NodeId> = nodes.iter().map(|n| n.node).collect();
    for id in dirents.iter().flat_map(|d| [Some(d.parent), d.child]).flatten() {
        if known.insert(id)
            && let Some(row) = nodes::row(sql, ns, id)?
            && row.seq > end
        {
            nodes.push(row);
        }
    }
    Ok(Page { nodes, dirents, end })
}

/// The last seq of the page: as many whole seqs as fit, at least one.
fn page_end(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    cursor: Seq,
    seq: Seq,
    limit: u32,
) -> Result<Seq, DbError> {
    let want = limit as usize + 1;
    let mut seqs: Vec<Seq> = Vec::with_capacity(2 * want);
    for statement in [
        "SELECT changed_seq FROM node WHERE ns = ?1 AND changed_seq > ?2
         ORDER BY changed_seq LIMIT ?3",
        "SELECT changed_seq FROM dirent WHERE ns = ?1 AND changed_seq > ?2
         ORDER BY changed_seq LIMIT ?3",
    ] {
        for row in sql.query(statement, params![ns, cursor, want])? {
            seqs.push(row.get(0)?);
        }
    }
    seqs.sort_unstable();
    match (seqs.first(), seqs.get(limit as usize)) {
        (Some(first), Some(beyond)) if beyond > first => Ok(beyond - 1),
        (Some(first), Some(_)) => Ok(*first),
        _ => Ok(seq),
    }
}

fn nodes_between(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    cursor: Seq,
    end: Seq,
    removed: bool,
) -> Result<Vec<NodeRow>, DbError> {
    let live = if removed { "" } else { "AND n.deleted_ns IS NULL" };
    let statement = format!(
        "SELECT {} FROM {} WHERE n.ns = ?1 AND n.changed_seq > ?2 AND n.changed_seq <= ?3 {live}
         ORDER BY n.changed_seq",
        nodes::ROW_COLUMNS,
        nodes::ROW_TABLES
    );
    sql.query(&statement, params![ns, cursor, end])?.iter().map(nodes::row_of).collect()
}

fn dirents_between(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    cursor: Seq,
    end: Seq,
    removed: bool,
) -> Result<Vec<DirentRow>, DbError> {
    let live = if removed { "" } else { "AND child IS NOT NULL" };
    let statement = format!(
        "SELECT parent, name, child, changed_seq FROM dirent
         WHERE ns = ?1 AND changed_seq > ?2 AND changed_seq <= ?3 {live} ORDER BY changed_seq"
    );
    sql.query(&statement, params![ns, cursor, end])?.iter().map(entries::row_of).collect()
}
