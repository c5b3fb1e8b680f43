//! Is a backup still what was written? Needs no server and no key.

use std::path::Path;
use std::sync::Arc;

use drivefs_core::id::PackId;
use serde::Serialize;

use super::super::fsck::Progress;
use super::BackupError;
use super::disk;
use super::manifest;
use super::manifest::Manifest;

/// What a look at a backup gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    pub manifest: Manifest,
    /// Packs that are not as they were written, and how.
    pub wrong: Vec<(PackId, String)>,
}

/// Reads the whole backup. Blocks.
pub fn verify(dir: &Path, progress: &Arc<Progress>) -> Result<Verified, BackupError> {
    let manifest = Manifest::read(dir)?.ok_or_else(|| {
        BackupError::Refused(format!("there is no whole drivefs backup in {}", dir.display()))
    })?;
    progress.begin("database", 1);
    manifest::check(dir, &manifest.metadata)?;
    let list = manifest.list(dir)?;
    progress.begin("packs", list.len() as u64);
    let mut wrong = Vec::new();
    for (pack, listed) in list {
        match disk::measure(&disk::pack_path(&dir.join("blocks"), pack)) {
            Ok((size, hash)) if size == listed.size && hash == listed.hash => {}
            Ok(_) => wrong.push((pack, "its bytes are not those that were written".to_owned())),
            Err(e) => wrong.push((pack, e.to_string())),
        }
        progress.add(1);
    }
    wrong.sort();
    Ok(Verified { manifest, wrong })
}
