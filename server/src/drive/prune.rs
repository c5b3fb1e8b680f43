//! The history policy at work: versions that no rule keeps go, and what was long in the trash.
//!
//! In small transactions, each of which leaves everything consistent: whatever ends it, the next
//! run goes on. The bytes go later, by `collect`.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::limits::TOMBSTONES_KEPT_SECS;

use super::Drive;
use super::DriveError;
use super::policy::Policy;
use super::policy::Seen;
use crate::clock;
use crate::metadata::DbError;
use crate::metadata::Sql;
use crate::metadata::events;
use crate::metadata::namespaces;
use crate::metadata::past;
use crate::metadata::policies;

/// Files looked at in one transaction.
const NODES_A_STEP: u32 = 50;
/// Tombstones removed in one transaction.
const TOMBSTONES_A_STEP: u32 = 500;
const NS_A_SEC: i64 = 1_000_000_000;

/// Where the work stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    ns: Option<NamespaceId>,
    node: Option<NodeId>,
}

/// What was done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pruned {
    /// Files looked at.
    pub files: u64,
    /// Versions removed.
    pub versions: u64,
    /// Tombstones removed.
    pub tombstones: u64,
}

impl Pruned {
    fn add(&mut self, more: Self) {
        self.files += more.files;
        self.versions += more.versions;
        self.tombstones += more.tombstones;
    }
}

impl Drive {
    /// One step behind `at`. None when all is done.
    pub async fn prune(
        &self,
        at: Position,
        done: &mut Pruned,
    ) -> Result<Option<Position>, DriveError> {
        let (next, more) = self
            .store
            .write(move |sql| match at.ns {
                Some(ns) => step(sql, ns, at.node),
                None => Ok((next_namespace(sql, None)?, Pruned::default())),
            })
            .await?;
        done.add(more);
        Ok(next)
    }
}

/// The policy of a namespace.
pub fn policy_of(sql: &mut dyn Sql, ns: NamespaceId) -> Result<Policy, DbError> {
    match policies::find(sql, ns)? {
        Some(text) => serde_json::from_str(&text).map_err(|_| DbError::Decode("policy")),
        None => Ok(Policy::default()),
    }
}

type Step = (Option<Position>, Pruned);

fn next_namespace(
    sql: &mut dyn Sql,
    after: Option<NamespaceId>,
) -> Result<Option<Position>, DriveError> {
    let ns = past::next_namespace(sql, after)?;
    Ok(ns.map(|ns| Position { ns: Some(ns), node: None }))
}

fn step(sql: &mut dyn Sql, ns: NamespaceId, after: Option<NodeId>) -> Result<Step, DriveError> {
    let mut done = Pruned::default();
    let Some(space) = namespaces::lock(sql, ns)? else {
        return Ok((next_namespace(sql, Some(ns))?, done));
    };
    let (policy, now) = (policy_of(sql, ns)?, clock::now_ns());
    let mut emptied = space.emptied_seq;
    if after.is_none()
        && let Some(seq) = past::expired(sql, ns, emptied, policy.trash_ends(now))?
    {
        namespaces::set_emptied(sql, ns, seq)?;
        emptied = seq;
    }
    let nodes = past::nodes(sql, ns, after, NODES_A_STEP)?;
    for node in &nodes {
        done.files += 1;
        let gone = past::remove_all(sql, ns, *node, emptied)?;
        done.versions += gone;
        if gone > 0 {
            continue;
        }
        let versions: Vec<Seen> = past::versions(sql, ns, *node)?.into_iter().map(seen).collect();
        for version in policy.doomed(&versions, now) {
            done.versions += u64::from(past::remove_version(sql, ns, (*node, version))?);
        }
    }
    if nodes.len() == NODES_A_STEP as usize {
        return Ok((Some(Position { ns: Some(ns), node: nodes.last().copied() }), done));
    }
    // All files are done: the tombstones of what left the trash long ago.
    let old = events::before(sql, ns, now - TOMBSTONES_KEPT_SECS * NS_A_SEC)?.min(emptied);
    if old > 0 {
        // First, so that nobody goes on from a cursor for which one is missing.
        past::set_pruned(sql, ns, old)?;
        done.tombstones = past::remove_tombstones(sql, ns, old, TOMBSTONES_A_STEP)?;
        if done.tombstones >= u64::from(TOMBSTONES_A_STEP) {
            return Ok((
                Some(Position { ns: Some(ns), node: nodes.last().copied().or(after) }),
                done,
            ));
        }
    }
    Ok((next_namespace(sql, Some(ns))?, done))
}

fn seen(v: past::Dated) -> Seen {
    Seen { version: v.version, device: v.device, committed: v.committed, kept: v.kept }
}
