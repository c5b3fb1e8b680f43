//! Which files bad blocks belong to: the other way round through all versions, for what is lost.

use std::collections::HashMap;
use std::collections::HashSet;

use drivefs_core::id::BlockHash;
use drivefs_core::id::UserId;
use drivefs_core::manifest::Root;
use drivefs_core::manifest::SegmentRef;
use drivefs_core::manifest::decode_segment;

use super::super::Drive;
use super::super::DriveError;
use super::examine::Held;
use crate::metadata::blocks;
use crate::metadata::check;
use crate::metadata::check::HeldVersion;

const VERSIONS_AT_ONCE: usize = 1000;
/// Segments that are remembered once they were looked into.
const SEGMENTS_MAX: usize = 1_000_000;

/// Versions that need one of these blocks, up to a number, in words.
pub async fn files(
    drive: &Drive,
    lost: &HashSet<Held>,
    most: usize,
) -> Result<Vec<String>, DriveError> {
    let (mut out, mut after) = (Vec::new(), None);
    let mut looked: HashMap<Held, bool> = HashMap::new();
    loop {
        let from: Option<HeldVersion> = after.take();
        let read = move |sql: &mut dyn crate::metadata::Sql| {
            check::versions(sql, from.as_ref(), VERSIONS_AT_ONCE)
        };
        let mut page = drive.store.read(read).await?;
        for v in &page {
            if needs(drive, v, lost, &mut looked).await? {
                out.push(format!("namespace {} file {} version {}", v.ns, v.node, v.version));
                if out.len() == most {
                    return Ok(out);
                }
            }
        }
        after = page.pop();
        if after.is_none() {
            return Ok(out);
        }
    }
}

async fn needs(
    drive: &Drive,
    v: &HeldVersion,
    lost: &HashSet<Held>,
    looked: &mut HashMap<Held, bool>,
) -> Result<bool, DriveError> {
    match Root::decode(&v.content) {
        Ok(Root::Inline(entries)) => Ok(entries.iter().any(|e| lost.contains(&(v.owner, e.hash)))),
        Ok(Root::Segmented(refs)) => {
            for listed in &refs {
                let held = (v.owner, listed.hash);
                let hit = match looked.get(&held) {
                    Some(hit) => *hit,
                    None => {
                        let hit =
                            lost.contains(&held) || lists(drive, v.owner, listed, lost).await?;
                        if looked.len() < SEGMENTS_MAX {
                            looked.insert(held, hit);
                        }
                        hit
                    }
                };
                if hit {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        // It is a finding of its own.
        Err(_) => Ok(false),
    }
}

/// True when a segment lists a block that is lost.
async fn lists(
    drive: &Drive,
    owner: UserId,
    listed: &SegmentRef,
    lost: &HashSet<Held>,
) -> Result<bool, DriveError> {
    let hash: BlockHash = listed.hash;
    let Some(block) = drive.store.read(move |sql| blocks::find(sql, owner, hash)).await? else {
        return Ok(false);
    };
    // A segment that cannot be read is lost itself, and found above.
    let Ok(loaded) = drive.load(vec![block]).await else { return Ok(false) };
    let Some(segment) = loaded.get(&hash) else { return Ok(false) };
    let entries = decode_segment(&segment.plain, listed).unwrap_or_default();
    Ok(entries.iter().any(|e| lost.contains(&(owner, e.hash))))
}
