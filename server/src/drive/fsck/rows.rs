//! The first half of a check: rows against rows, all in one snapshot, which blocks no writer.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use drivefs_core::id::PackId;
use drivefs_core::manifest::Root;
use drivefs_core::manifest::SegmentRef;

use super::examine::Held;
use super::report::Progress;
use super::report::Report;
use crate::metadata::DbError;
use crate::metadata::Sql;
use crate::metadata::accounts;
use crate::metadata::blocks;
use crate::metadata::check;
use crate::metadata::check::HeldVersion;
use crate::metadata::check::RULES;
use crate::metadata::value::Row;

/// Rows of one rule that are looked at.
const ROWS_MAX: usize = 10_000;
const VERSIONS_AT_ONCE: usize = 1000;

/// What the rows alone tell.
#[derive(Default)]
pub struct Rows {
    pub report: Report,
    /// Rows that break rules which can be repaired: the rule, and the row.
    pub repairable: Vec<(usize, Row)>,
    /// Blocks that versions list and their owner does not hold, and where the first is listed.
    pub missing: HashMap<Held, String>,
    /// Blocks that versions list as segments, and whose rows say something else or nothing.
    pub segments: HashMap<Held, SegmentRef>,
    /// Blocks in packs that have no row.
    pub lost_packs: HashMap<PackId, HashSet<Held>>,
}

/// Checks everything that rows can tell of each other.
pub fn look(sql: &mut dyn Sql, progress: &Arc<Progress>) -> Result<Rows, DbError> {
    let mut out = Rows::default();
    progress.begin("database", RULES.len() as u64 + 3);
    for told in check::database(sql)? {
        let advice = Some("restore a backup: drivefs-server restore");
        out.report.found("database", told, advice);
    }
    progress.add(1);
    out.report.accounts = accounts::all(sql)?.len() as u64;
    for (i, rule) in RULES.iter().enumerate() {
        for row in rule.broken(sql, ROWS_MAX)? {
            if rule.is_repairable() {
                out.repairable.push((i, row));
            } else {
                out.report.found(rule.kind, rule.told(&row), Some(BY_HAND));
            }
        }
        progress.add(1);
    }
    for row in check::unreached(sql, ROWS_MAX)? {
        let (ns, node) = (row.get::<drivefs_core::id::NamespaceId>(0)?, row.get(1)?);
        let node: drivefs_core::id::NodeId = node;
        let what = format!("namespace {ns}: no way leads from the root to folder {node}");
        out.report.found("tree", what, Some(BY_HAND));
    }
    progress.add(1);
    for (pack, owner, hash) in check::blocks_without_pack(sql, ROWS_MAX)? {
        out.lost_packs.entry(pack).or_default().insert((owner, hash));
    }
    progress.add(1);
    versions(sql, &mut out, progress)?;
    Ok(out)
}

pub const BY_HAND: &str = "there is no safe repair: compare with a backup, or restore it";

fn versions(sql: &mut dyn Sql, out: &mut Rows, progress: &Arc<Progress>) -> Result<(), DbError> {
    progress.begin("versions", 0);
    let mut last: Option<HeldVersion> = None;
    loop {
        let mut page = check::versions(sql, last.as_ref(), VERSIONS_AT_ONCE)?;
        for version in &page {
            one_version(sql, out, version)?;
        }
        out.report.versions += page.len() as u64;
        progress.add(page.len() as u64);
        last = page.pop();
        if last.is_none() {
            return Ok(());
        }
    }
}

fn one_version(sql: &mut dyn Sql, out: &mut Rows, v: &HeldVersion) -> Result<(), DbError> {
    let told = || format!("namespace {}: version {} of file {}", v.ns, v.version, v.node);
    let root = match Root::decode(&v.content) {
        Ok(root) => root,
        Err(e) => {
            out.report.found("manifest", format!("{}: {e}", told()), Some(BY_HAND));
            return Ok(());
        }
    };
    if root.size() != v.size {
        let what = format!("{} lists {} bytes, {} are on record", told(), root.size(), v.size);
        out.report.found("manifest", what, Some(BY_HAND));
    }
    match root {
        Root::Inline(entries) => {
            for entry in entries {
                held(sql, out, (v.owner, entry.hash), entry.len, &told)?;
            }
        }
        Root::Segmented(refs) => {
            for listed in refs {
                let owned = (v.owner, listed.hash);
                match blocks::facts(sql, v.owner, listed.hash)? {
                    None => lacks(out, owned, &told),
                    Some(facts) if facts.is_segment(&listed) => {}
                    Some(_) => {
                        out.segments.insert(owned, listed);
                    }
                }
            }
        }
    }
    Ok(())
}

fn held(
    sql: &mut dyn Sql,
    out: &mut Rows,
    owned: Held,
    len: u32,
    told: &dyn Fn() -> String,
) -> Result<(), DbError> {
    match blocks::facts(sql, owned.0, owned.1)? {
        None => lacks(out, owned, told),
        Some(facts) if facts.block_len == len => {}
        Some(facts) => {
            let what = format!(
                "{} lists block {} with {len} bytes, its row says {}",
                told(),
                owned.1,
                facts.block_len
            );
            out.report.found("manifest", what, Some(BY_HAND));
        }
    }
    Ok(())
}

fn lacks(out: &mut Rows, owned: Held, told: &dyn Fn() -> String) {
    out.missing.entry(owned).or_insert_with(told);
}
