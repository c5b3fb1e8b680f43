//! Reads all packs, again and again and slowly, to find bad blocks while there still is a backup.
//!
//! How far it is stands in the database: a restart goes on from there, and a command beside a
//! running server shares the work with it. What is bad is noted and told; nothing is changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use drivefs_core::id::PackId;
use serde::Deserialize;
use serde::Serialize;

use super::Drive;
use super::DriveError;
use super::fsck::PackLook;
use crate::clock;
use crate::metadata::check;
use crate::metadata::scrubbed;
use crate::metadata::scrubbed::BadBlock;

/// Packs and bytes after which the position is noted.
const STEP_PACKS: usize = 64;
const STEP_BYTES: u64 = 64 << 20;
/// What a pack counts for at least (bytes): many small ones cost more than their bytes.
const PACK_COST_BYTES: u64 = 64 << 10;
/// A round begins this long after the last one began, at the earliest (seconds).
const ROUND_SECS: i64 = 7 * 24 * 3600;
/// How often it is looked whether a round is due.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// How far a round is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Position {
    /// The last pack that was read; none when the round is over or has not begun.
    pub after: Option<PackId>,
    /// True while a round is under way.
    pub running: bool,
    /// When this round, or the last one, began and ended (seconds since the Unix epoch).
    pub began: i64,
    pub ended: Option<i64>,
    pub packs: u64,
    pub blocks: u64,
    pub bytes: u64,
}

impl Drive {
    pub async fn scrub_position(&self) -> Result<Position, DriveError> {
        let text = self.store.read(scrubbed::position).await?;
        // A note that cannot be read begins a new round; nothing is lost by that.
        Ok(text.and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default())
    }

    /// What is known to be bad.
    pub async fn bad_blocks(&self, limit: u32) -> Result<Vec<BadBlock>, DriveError> {
        Ok(self.store.read(move |sql| scrubbed::all(sql, limit)).await?)
    }

    /// Begins a round, wherever the last one stands.
    pub async fn begin_scrub(&self) -> Result<(), DriveError> {
        let position = Position { running: true, began: clock::now_secs(), ..Position::default() };
        self.note_scrub(position, Vec::new()).await
    }

    /// Reads the next packs of the round under way, `rate` bytes a second (0: as fast as it goes).
    /// Answers the position behind them.
    pub async fn scrub_step(&self, rate: u64) -> Result<Position, DriveError> {
        let mut position = self.scrub_position().await?;
        if !position.running {
            return Ok(position);
        }
        let after = position.after;
        let page = self.store.read(move |sql| check::packs(sql, after, STEP_PACKS)).await?;
        let (mut read, mut looked) = (0, Vec::new());
        let asked = Arc::new(HashMap::new());
        let whole_page = page.len() < STEP_PACKS;
        let mut cut = false;
        for row in page {
            if read >= STEP_BYTES {
                cut = true;
                break;
            }
            position.after = Some(row.pack);
            if let Some(look) = self.look_at(row.pack, &asked).await? {
                position.packs += 1;
                position.blocks += look.blocks;
                position.bytes += look.bytes;
                read += look.bytes.max(PACK_COST_BYTES);
                metrics::counter!("drivefs_scrub_bytes_total").increment(look.bytes);
                looked.push((row.pack, bad_of(&look)));
            }
            if rate > 0 {
                let secs = row.size.max(PACK_COST_BYTES) as f64 / rate as f64;
                tokio::time::sleep(Duration::from_secs_f64(secs.min(3600.0))).await;
            }
        }
        if whole_page && !cut {
            position.after = None;
            position.running = false;
            position.ended = Some(clock::now_secs());
        }
        self.note_scrub(position.clone(), looked).await?;
        Ok(position)
    }

    async fn note_scrub(
        &self,
        position: Position,
        looked: Vec<(PackId, Vec<BadBlock>)>,
    ) -> Result<(), DriveError> {
        let text =
            serde_json::to_string(&position).map_err(|e| DriveError::Internal(e.to_string()))?;
        let bad = self
            .store
            .write(move |sql| {
                for (pack, bad) in &looked {
                    scrubbed::replace(sql, *pack, bad)?;
                }
                scrubbed::set_position(sql, &text)?;
                scrubbed::count(sql)
            })
            .await?;
        metrics::gauge!("drivefs_bad_blocks").set(bad as f64);
        Ok(())
    }

    /// Scrubs for as long as the server runs: a round a week, `rate` bytes a second.
    pub async fn scrub_forever(self, rate: u64) {
        // Whoever has just started the server is not to wait for the disk.
        tokio::time::sleep(LOOK_EVERY).await;
        loop {
            let stepped = self.scrub_due(rate).await;
            let wait = match stepped {
                Ok(true) => Duration::from_millis(10),
                Ok(false) => LOOK_EVERY,
                Err(e) => {
                    tracing::error!(error = %e, "scrubbing failed; it goes on later");
                    LOOK_EVERY
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// One step if a round is due or under way; false when there is nothing to do.
    async fn scrub_due(&self, rate: u64) -> Result<bool, DriveError> {
        let position = self.scrub_position().await?;
        if !position.running {
            if clock::now_secs() - position.began < ROUND_SECS {
                return Ok(false);
            }
            self.begin_scrub().await?;
        }
        let position = self.scrub_step(rate).await?;
        if !position.running {
            tracing::info!(packs = position.packs, bytes = position.bytes, "a scrub round is over");
        }
        Ok(position.running)
    }
}

fn bad_of(look: &PackLook) -> Vec<BadBlock> {
    let found = clock::now_secs();
    let missing =
        look.missing.iter().map(|(held, by)| (Some(*held), format!("{by} lists it, no row")));
    let faults = look.faults.iter().map(|f| (f.block, f.what.clone()));
    let bad: Vec<_> = faults
        .chain(missing)
        .map(|(block, what)| BadBlock { pack: look.row.pack, block, what, found })
        .collect();
    for b in &bad {
        let hash = b.block.map(|(_, hash)| hash.to_string()).unwrap_or_default();
        tracing::error!(pack = %b.pack, block = %hash, what = %b.what, "scrub found something bad");
    }
    bad
}
