//! Packs that nobody reads go to a second, cheaper store, and come back when they are wanted.
//!
//! A pack is in one store at every moment: its copy is on disk and checked before the other one
//! goes, and the row says which way it is going. What was cut off is done again. Reading looks
//! into the first store, then into the second, so it needs no row.

use drivefs_core::id::PackId;
use serde::Deserialize;
use serde::Serialize;

use super::Drive;
use super::DriveError;
use crate::clock;
use crate::metadata::tiers;
use crate::metadata::tiers::Tier;

/// Packs moved in one step.
const PACKS_A_STEP: u32 = 8;

/// What was done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Moved {
    /// Packs that went to the second store, and that came back.
    pub out: u64,
    pub back: u64,
}

impl Drive {
    /// Notes what was read and wanted, and brings back what somebody waits for. True when there
    /// was something.
    pub async fn bring_back(&self, done: &mut Moved) -> Result<bool, DriveError> {
        if !self.blocks.has_cold() {
            return Ok(false);
        }
        let (read, wanted) = self.blocks.take_reads();
        let now = clock::now_secs();
        if !(read.is_empty() && wanted.is_empty()) {
            self.store
                .write(move |sql| {
                    tiers::note_read(sql, &read, now)?;
                    tiers::note_wanted(sql, &wanted, now)
                })
                .await?;
        }
        let waiting = self
            .store
            .read(|sql| {
                let mut packs = tiers::moving(sql, Tier::ComingBack, PACKS_A_STEP)?;
                packs.extend(tiers::wanted(sql, PACKS_A_STEP)?);
                Ok::<_, DriveError>(packs)
            })
            .await?;
        let any = !waiting.is_empty();
        for pack in waiting {
            self.turn(pack, (Tier::Cold, Tier::ComingBack)).await?;
            self.blocks.copy_back(pack).await?;
            self.store.write(move |sql| tiers::note_read(sql, &[pack], now)).await?;
            self.blocks.drop_copy(pack, false).await?;
            if self.turn(pack, (Tier::ComingBack, Tier::Hot)).await? {
                done.back += 1;
            }
        }
        Ok(any)
    }

    /// Moves some packs behind `after` to the second store. None when all are done.
    pub async fn move_out(
        &self,
        after: Option<PackId>,
        done: &mut Moved,
    ) -> Result<Option<PackId>, DriveError> {
        let Some(days) = self.limits.cold_after_days else { return Ok(None) };
        let before = clock::now_secs() - i64::from(days) * 86_400;
        let (begun, unread) = self
            .store
            .read(move |sql| {
                let begun = tiers::moving(sql, Tier::GoingOut, PACKS_A_STEP)?;
                Ok::<_, DriveError>((begun, tiers::unread(sql, after, before, PACKS_A_STEP)?))
            })
            .await?;
        let last = unread.last().copied();
        for pack in begun.into_iter().chain(unread) {
            self.turn(pack, (Tier::Hot, Tier::GoingOut)).await?;
            self.blocks.copy_out(pack).await?;
            self.blocks.drop_copy(pack, true).await?;
            if self.turn(pack, (Tier::GoingOut, Tier::Cold)).await? {
                done.out += 1;
            }
        }
        Ok(last)
    }

    async fn turn(&self, pack: PackId, way: (Tier, Tier)) -> Result<bool, DriveError> {
        self.store.write(move |sql| Ok(tiers::turn(sql, pack, way)?)).await
    }
}
