//! `fsck`: does every reference resolve, is every block what it is named after, do counts agree?
//!
//! Works beside a running server: rows are compared in one snapshot, packs are read one by one. Only
//! repairs write, each in a transaction of its own that checks what it builds on.

mod hit;
mod mend;
mod packs;
mod report;
mod rows;

pub mod examine;

pub use packs::PackLook;
pub use report::Finding;
pub use report::Progress;
pub use report::Report;

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use super::Drive;
use super::DriveError;
use crate::clock;
use crate::metadata::DbError;
use crate::metadata::check;
use crate::metadata::check::RULES;
use examine::Held;
use mend::Fix;
use rows::BY_HAND;

/// Files that are named as hit by bad blocks.
const HIT_MAX: usize = 1000;
const REPAIR: &str = "drivefs-server fsck --repair sets this right";
const COPY: &str = "fsck --repair looks for another copy; else put the pack back from a backup \
     (BACKUP/blocks/XX/PACK has the same name and place)";
const NO_COPY: &str = "no other copy is in the store: put the pack back from a backup \
     (BACKUP/blocks/XX/PACK has the same name and place), or save the file again on a device that has it";

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Set right what can be set right without a guess.
    pub repair: bool,
    /// Compare rows alone and read no pack.
    pub quick: bool,
    /// Objects without rows that are younger may be uploads under way (seconds).
    pub orphan_grace_secs: i64,
}

/// Something wrong, and what would set it right.
struct Problem {
    kind: &'static str,
    what: String,
    fix: Option<Fix>,
}

/// Checks everything that the server keeps.
pub async fn run(
    drive: &Drive,
    options: Options,
    progress: Arc<Progress>,
) -> Result<Report, DriveError> {
    let watched = Arc::clone(&progress);
    let found = drive.store.read(move |sql| rows::look(sql, &watched)).await?;
    let rows::Rows { mut report, repairable, missing, segments, lost_packs } = found;
    let mut problems: Vec<Problem> = Vec::new();
    for (rule, row) in repairable {
        let what = RULES[rule].told(&row);
        problems.push(Problem { kind: RULES[rule].kind, what, fix: Some(Fix::Rule(rule, row)) });
    }
    for (pack, blocks) in lost_packs {
        let what = format!("pack {pack} has no row, {} blocks are said to be in it", blocks.len());
        let fix = Some(Fix::Pack(blocks.into_iter().collect(), pack));
        problems.push(Problem { kind: "pack-row", what, fix });
    }
    for (held, by) in &missing {
        problems.push(lacking(*held, by));
    }
    if options.quick {
        for held in segments.keys() {
            // Whether it is one, only its bytes can tell.
            problems.push(Problem { kind: "segment-row", what: unmarked(*held), fix: None });
        }
    } else {
        let asked = Arc::new(segments);
        let mut known: HashSet<Held> = missing.keys().copied().collect();
        let mut whole = HashSet::new();
        drive
            .look_at_packs(&asked, &progress, |look| {
                report.packs += 1;
                report.blocks += look.blocks;
                report.bytes += look.bytes;
                whole.extend(look.whole.iter().map(|(owner, listed)| (*owner, listed.hash)));
                problems_of(look, &mut known, &mut problems);
            })
            .await?;
        for (held, listed) in asked.iter() {
            if !whole.contains(held) {
                let what = format!(
                    "block {} of account {} is listed as a segment, and is none that is whole",
                    held.1, held.0
                );
                problems.push(Problem { kind: "segment", what, fix: None });
            } else {
                let fix = Some(Fix::Segment(held.0, *listed));
                problems.push(Problem { kind: "segment-row", what: unmarked(*held), fix });
            }
        }
    }
    orphans(drive, options, &mut report).await?;
    settle(drive, options, problems, &mut report, &progress).await?;
    Ok(report.closed())
}

fn unmarked(held: Held) -> String {
    format!("block {} of account {} is not noted as a segment", held.1, held.0)
}

fn lacking(held: Held, by: &str) -> Problem {
    let what = format!("{by} lists block {}, which account {} does not hold", held.1, held.0);
    Problem { kind: "block-row", what, fix: Some(Fix::Block(held, None)) }
}

fn problems_of(look: PackLook, known: &mut HashSet<Held>, problems: &mut Vec<Problem>) {
    let pack = look.row.pack;
    for fault in look.faults {
        let facts = look.facts.map(|(size, count)| Fix::PackFacts(pack, size, count));
        let (what, fix) = match fault.block {
            None => (format!("pack {pack} {}", fault.what), None),
            Some(held) => (
                format!("pack {pack}: block {} of account {} {}", held.1, held.0, fault.what),
                (fault.kind == "block").then_some(Fix::Block(held, Some(pack))),
            ),
        };
        let fix = match fault.kind {
            "pack-length" | "pack-blocks" => facts,
            "pack-gone" => Some(Fix::Forget(pack)),
            "pack-key" => look.head_key.clone().map(|key| Fix::Key(look.row.clone(), key)),
            _ => fix,
        };
        problems.push(Problem { kind: fault.kind, what, fix });
    }
    for (held, by) in look.missing {
        if known.insert(held) {
            problems.push(lacking(held, &by));
        }
    }
}

/// Objects that no row names: left by uploads that were cut off or lost a race.
async fn orphans(drive: &Drive, options: Options, report: &mut Report) -> Result<(), DriveError> {
    let (stored, others) = drive.blocks.survey().await?;
    let ids: Vec<_> = stored.iter().map(|s| s.pack).collect();
    let unknown = drive
        .store
        .read(move |sql| {
            let mut unknown = HashSet::new();
            for id in ids {
                if check::pack(sql, id)?.is_none() {
                    unknown.insert(id);
                }
            }
            Ok::<_, DbError>(unknown)
        })
        .await?;
    let now = clock::now_secs();
    for object in stored.iter().filter(|s| unknown.contains(&s.pack)) {
        report.orphan_packs += 1;
        report.orphan_bytes += object.size;
        let age = now.saturating_sub(object.modified);
        let young = age < options.orphan_grace_secs;
        let why = if young { "maybe an upload under way" } else { "nothing refers to it" };
        report.notes.push(format!(
            "orphan pack {} ({} bytes, {age} s old): {why}",
            object.pack, object.size
        ));
    }
    report.notes.extend(others.into_iter().map(|name| format!("{name} in the store is no pack")));
    Ok(())
}

/// Repairs what can be, and puts everything on the report.
async fn settle(
    drive: &Drive,
    options: Options,
    problems: Vec<Problem>,
    report: &mut Report,
    progress: &Progress,
) -> Result<(), DriveError> {
    let mut wanted: HashMap<Held, Option<drivefs_core::id::PackId>> = HashMap::new();
    for problem in &problems {
        match &problem.fix {
            Some(Fix::Block(held, bad_in)) => {
                wanted.insert(*held, *bad_in);
            }
            Some(Fix::Pack(blocks, pack)) => {
                wanted.extend(blocks.iter().map(|held| (*held, Some(*pack))));
            }
            _ => {}
        }
    }
    let mut lost: HashSet<Held> = wanted.keys().copied().collect();
    if options.repair && !wanted.is_empty() {
        let copied = drive.find_copies(wanted, progress).await?;
        lost.retain(|held| !copied.contains(held));
    }
    for Problem { kind, what, fix } in problems {
        let repaired = match &fix {
            _ if !options.repair => false,
            None => false,
            Some(Fix::Block(held, _)) => !lost.contains(held),
            Some(Fix::Pack(blocks, _)) => blocks.iter().all(|held| !lost.contains(held)),
            Some(fix) => drive.mend_row(fix).await?,
        };
        if repaired {
            report.repaired(kind, what);
            continue;
        }
        let advice = match fix {
            Some(Fix::Block(..) | Fix::Pack(..) | Fix::Forget(_)) if options.repair => NO_COPY,
            Some(Fix::Block(..) | Fix::Pack(..) | Fix::Forget(_)) => COPY,
            Some(_) => REPAIR,
            None if kind.starts_with("pack-") => COPY,
            None => BY_HAND,
        };
        report.found(kind, what, Some(advice));
    }
    if !lost.is_empty() {
        let hit = hit::files(drive, &lost, HIT_MAX).await?;
        report.notes.extend(hit.into_iter().map(|file| format!("hit: {file}")));
    }
    Ok(())
}
