//! The second half of a check: every pack is read, every block opened, decoded and hashed.
//!
//! Rows are read pack by pack, so no snapshot is held for as long as that takes. What looks wrong is
//! looked at a second time: packs and blocks may have gone or moved in the meantime.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::available_parallelism;

use drivefs_core::id::PackId;
use drivefs_core::id::UserId;
use drivefs_core::manifest::Entry;
use drivefs_core::manifest::SegmentRef;
use futures_util::StreamExt;
use futures_util::stream;

use super::super::Drive;
use super::super::DriveError;
use super::examine;
use super::examine::Fault;
use super::examine::Held;
use super::report::Progress;
use crate::metadata::DbError;
use crate::metadata::Sql;
use crate::metadata::blocks;
use crate::metadata::check;
use crate::metadata::check::BlockRow;
use crate::metadata::check::PackRow;

const PACKS_A_PAGE: usize = 256;

/// One pack after it was looked at.
#[derive(Debug)]
pub struct PackLook {
    pub row: PackRow,
    pub faults: Vec<Fault>,
    pub blocks: u64,
    pub bytes: u64,
    /// Length and number of blocks as found, when the pack's own index could be read.
    pub facts: Option<(u64, usize)>,
    /// The pack's key as its head has it, when the one on record is none.
    pub head_key: Option<Vec<u8>>,
    /// Segments asked for that are whole: their rows can say so.
    pub whole: Vec<(UserId, SegmentRef)>,
    /// Blocks that its segments list and their account does not hold.
    pub missing: Vec<(Held, String)>,
}

impl Drive {
    /// Looks at all packs, and hands each to `take`.
    pub(super) async fn look_at_packs(
        &self,
        asked: &Arc<HashMap<Held, SegmentRef>>,
        progress: &Arc<Progress>,
        mut take: impl FnMut(PackLook),
    ) -> Result<(), DriveError> {
        let (count, _) = self.store.read(check::packs_total).await?;
        progress.begin("packs", count);
        let at_once = available_parallelism().map_or(2, usize::from);
        let mut after: Option<PackId> = None;
        loop {
            let from = after;
            let page = self.store.read(move |sql| check::packs(sql, from, PACKS_A_PAGE)).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.pack);
            let mut looks = stream::iter(page)
                .map(|row| self.look_at(row.pack, asked))
                .buffer_unordered(at_once);
            while let Some(look) = looks.next().await {
                progress.add(1);
                if let Some(look) = look? {
                    take(look);
                }
            }
        }
    }

    /// Looks at one pack, twice when something seems wrong; none when it is gone from the rows.
    pub(in super::super) async fn look_at(
        &self,
        pack: PackId,
        asked: &Arc<HashMap<Held, SegmentRef>>,
    ) -> Result<Option<PackLook>, DriveError> {
        match self.look_once(pack, asked).await? {
            Some(look) if !look.faults.is_empty() || !look.missing.is_empty() => {
                self.look_once(pack, asked).await
            }
            look => Ok(look),
        }
    }

    async fn look_once(
        &self,
        pack: PackId,
        asked: &Arc<HashMap<Held, SegmentRef>>,
    ) -> Result<Option<PackLook>, DriveError> {
        let found = self
            .store
            .read(move |sql| {
                let Some(row) = check::pack(sql, pack)? else { return Ok(None) };
                Ok::<_, DbError>(Some((row, check::blocks_of(sql, pack)?)))
            })
            .await?;
        let Some((row, rows)) = found else { return Ok(None) };
        let _held = self.work.hold(2 * row.size).await?;
        let bytes = match self.blocks.whole(pack).await {
            Ok(Some(bytes)) => bytes,
            // No block is in it: it is on its way out.
            Ok(None) if rows.is_empty() => return Ok(None),
            Ok(None) => return Ok(Some(gone(row, &rows, "pack-gone", "is not in the store"))),
            Err(e) => {
                let what = format!("cannot be read: {e}");
                return Ok(Some(gone(row, &rows, "pack-unreadable", &what)));
            }
        };
        let length = bytes.len() as u64;
        let (keys, looked) = (self.keys.clone(), Arc::clone(asked));
        let (row, examined) = self
            .work
            .compute(move || {
                let examined = examine::examine(&keys, &row, &rows, &looked, &bytes);
                (row, examined)
            })
            .await?;
        let mut look = PackLook {
            row,
            facts: (!examined.index.is_empty()).then_some((length, examined.index.len())),
            head_key: examined.head_key,
            faults: examined.faults,
            blocks: examined.blocks_good,
            bytes: length,
            whole: Vec::new(),
            missing: Vec::new(),
        };
        if !examined.segments.is_empty() {
            let (segments, asked) = (examined.segments, Arc::clone(asked));
            (look.whole, look.missing) =
                self.store.read(move |sql| listed(sql, &segments, &asked)).await?;
        }
        Ok(Some(look))
    }
}

fn gone(row: PackRow, rows: &[BlockRow], kind: &'static str, what: &str) -> PackLook {
    let mut faults = vec![Fault { kind, block: None, what: what.to_owned() }];
    faults.extend(rows.iter().map(|block| Fault {
        kind: "block",
        block: Some((block.owner, block.at.hash)),
        what: format!("its pack {what}"),
    }));
    PackLook {
        row,
        faults,
        blocks: 0,
        bytes: 0,
        facts: None,
        head_key: None,
        whole: Vec::new(),
        missing: Vec::new(),
    }
}

/// Segments that are whole and were asked for, and blocks that keep others from being whole.
type Listed = (Vec<(UserId, SegmentRef)>, Vec<(Held, String)>);

fn listed(
    sql: &mut dyn Sql,
    segments: &[(Held, SegmentRef, Vec<Entry>)],
    asked: &HashMap<Held, SegmentRef>,
) -> Result<Listed, DbError> {
    let (mut whole, mut missing) = (Vec::new(), Vec::new());
    for (held, listed, entries) in segments {
        let before = missing.len();
        for entry in entries {
            let facts = blocks::facts(sql, held.0, entry.hash)?;
            if facts.is_none_or(|f| f.block_len != entry.len) {
                missing.push(((held.0, entry.hash), format!("segment {}", held.1)));
            }
        }
        if missing.len() == before && asked.get(held) == Some(listed) {
            whole.push((held.0, *listed));
        }
    }
    Ok((whole, missing))
}
