//! Brings a backup back into an empty data folder.
//!
//! The database comes last: until it is there under its name the folder is marked, the server does
//! not start on it, and a further `restore` goes on. That history was restored, devices find out by
//! the epochs of the database: each run of the server has a new one.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use drivefs_core::id::PackId;
use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;

use super::super::fsck::Progress;
use super::BackupError;
use super::disk;
use super::manifest;
use super::manifest::Listed;
use super::manifest::Manifest;
use super::take::blocking;
use crate::blocks::BlockStore;
use crate::blocks::KeyRing;
use crate::blocks::keys;
use crate::clock;
use crate::metadata::DbError;
use crate::metadata::Store;
use crate::metadata::server;
use crate::metadata::snapshot;
use crate::metadata::tiers;

/// A data folder with this file in it is not whole yet.
pub const RESTORING: &str = "restoring";
const PACKS_AT_ONCE: usize = 4;
const RESTORED_NOTE: &str = "restored";

/// Where a backup goes.
pub struct Target {
    pub data: PathBuf,
    pub metadata: PathBuf,
    pub blocks: PathBuf,
}

/// What a restore came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    pub id: String,
    pub made: i64,
    pub packs: u64,
    pub bytes: u64,
    /// Packs that the backup lacks or that are damaged in it.
    pub damaged: Vec<PackId>,
}

/// Restores the backup in `from`. `key` is a file with the master key, to be put into the data
/// folder; without one it must be there already or in the environment.
pub async fn restore(
    from: &Path,
    to: Target,
    key: Option<&Path>,
    progress: &Arc<Progress>,
) -> Result<Restored, BackupError> {
    let manifest = Manifest::read(from)?.ok_or_else(|| {
        BackupError::Refused(format!("there is no whole drivefs backup in {}", from.display()))
    })?;
    if manifest.schema > snapshot::NEWEST {
        return Err(DbError::Newer { found: manifest.schema, known: snapshot::NEWEST }.into());
    }
    disk::make_dir(&to.data)?;
    let _lock = disk::lock(&to.data.join("lock"))?.ok_or_else(|| {
        BackupError::Refused(format!("a server or another restore uses {}", to.data.display()))
    })?;
    begin(&manifest, &to)?;
    unlock(&manifest, &to, key)?;
    if to.metadata.exists() {
        // Only the mark was left to be taken away.
        fs::remove_file(to.data.join(RESTORING))?;
        disk::sync_dir(&to.data)?;
        return Ok(restored(&manifest, Vec::new()));
    }
    progress.begin("database", 0);
    let (dir, listing) = (from.to_owned(), manifest.clone());
    let list = blocking(move || {
        manifest::check(&dir, &listing.metadata)?;
        listing.list(&dir)
    })
    .await?;
    progress.begin("packs", list.len() as u64);
    let blocks = to.blocks.clone();
    let store = blocking(move || Ok(BlockStore::open_local(&blocks, 0)?)).await?;
    let (stored, _) = store.survey().await?;
    let here: std::collections::HashMap<PackId, u64> =
        stored.into_iter().map(|s| (s.pack, s.size)).collect();
    let mut damaged = manifest.damaged.clone();
    let mut copies = stream::iter(list)
        .map(|(pack, listed)| {
            let there = here.get(&pack) == Some(&listed.size);
            let (store, from) = (store.clone(), from.to_owned());
            async move {
                let good = there || bring(&store, &from, pack, listed).await?;
                Ok::<_, BackupError>((pack, good))
            }
        })
        .buffer_unordered(PACKS_AT_ONCE);
    while let Some(copied) = copies.next().await {
        let (pack, good) = copied?;
        if !good {
            damaged.push(pack);
        }
        progress.add(1);
    }
    drop(copies);
    database(from, &manifest, &to).await?;
    damaged.sort();
    damaged.dedup();
    Ok(restored(&manifest, damaged))
}

fn restored(manifest: &Manifest, damaged: Vec<PackId>) -> Restored {
    Restored {
        id: manifest.id.clone(),
        made: manifest.made,
        packs: manifest.pack_count,
        bytes: manifest.pack_bytes,
        damaged,
    }
}

/// Marks an empty folder; goes on in one that is marked for the same backup.
fn begin(manifest: &Manifest, to: &Target) -> Result<(), BackupError> {
    let mark = to.data.join(RESTORING);
    match fs::read_to_string(&mark) {
        Ok(id) if id.trim() == manifest.id => return Ok(()),
        Ok(_) => {
            return Err(BackupError::Refused(format!(
                "{} holds half a restore of another backup; choose another folder, or empty it",
                to.data.display()
            )));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e.into()),
    }
    let others = disk::names(&to.data)?;
    // A run that was cut off even before the mark has left a draft of it.
    let draft = |n: &str| n.starts_with(RESTORING) && disk::is_draft(n);
    let known = |n: &str| n == "lock" || n == keys::KEY_FILE || draft(n);
    let others = others.iter().filter(|n| !known(n)).count();
    let packs = disk::names(&to.blocks)?.len();
    if others > 0 || packs > 0 || to.metadata.exists() {
        return Err(BackupError::Refused(format!(
            "{} is not empty: a restore goes into a new folder (only {} may be there)",
            to.data.display(),
            keys::KEY_FILE
        )));
    }
    disk::sweep_drafts(&to.data)?;
    disk::write(&mark, format!("{}\n", manifest.id).as_bytes())?;
    Ok(disk::sync_dir(&to.data)?)
}

/// The key has to be the right one before anything is copied.
fn unlock(manifest: &Manifest, to: &Target, key: Option<&Path>) -> Result<(), BackupError> {
    let place = to.data.join(keys::KEY_FILE);
    if let Some(key) = key
        && !place.exists()
    {
        let text = fs::read(key).map_err(|e| {
            BackupError::Refused(format!("cannot read the key file {}: {e}", key.display()))
        })?;
        disk::write(&place, &text)?;
        disk::sync_dir(&to.data)?;
    }
    let needed = manifest.keys.join(", ");
    let ring = KeyRing::load(&to.data, false).map_err(|_| {
        BackupError::Refused(format!(
            "the backup needs the master key {needed}, which is not in it: give its file with \
             --key FILE, or set {}",
            keys::KEY_VARIABLE
        ))
    })?;
    let have = ring.fingerprints();
    if manifest.keys.iter().all(|k| have.contains(k)) {
        return Ok(());
    }
    Err(BackupError::Refused(format!(
        "the backup needs the master key {needed}, and this is {}: take the key that was in use \
         when it was made",
        have.join(", ")
    )))
}

/// Copies one pack; false when the backup's copy is not what was written.
async fn bring(
    store: &BlockStore,
    from: &Path,
    pack: PackId,
    listed: Listed,
) -> Result<bool, BackupError> {
    let path = disk::pack_path(&from.join("blocks"), pack);
    let read = blocking(move || Ok(fs::read(&path))).await?;
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(e) => {
            tracing::error!(pack = %pack, error = %e, "the backup lacks a pack");
            return Ok(false);
        }
    };
    let good = bytes.len() as u64 == listed.size && blake3::hash(&bytes) == listed.hash;
    if !good {
        tracing::error!(pack = %pack, "damaged in the backup; what can be read of it is kept");
    }
    store.put(pack, bytes).await?;
    Ok(good)
}

/// The database under another name, brought up to this program, and then under its own.
async fn database(from: &Path, manifest: &Manifest, to: &Target) -> Result<(), BackupError> {
    let (source, draft) = (from.join(&manifest.metadata.file), to.metadata.with_extension("draft"));
    let (dir, part, copy) = (to.data.clone(), manifest.metadata.clone(), draft.clone());
    let store = blocking(move || {
        for old in ["", "-wal", "-shm"] {
            let mut name = copy.as_os_str().to_owned();
            name.push(old);
            match fs::remove_file(PathBuf::from(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        disk::make_dir(copy.parent().unwrap_or(&dir))?;
        disk::copy(&source, &copy)?;
        let (bytes, hash) = disk::measure(&copy)?;
        if bytes != part.bytes || hash.to_hex().as_str() != part.blake3 {
            return Err(BackupError::Damaged(part.file));
        }
        Ok(Store::open(&copy)?)
    })
    .await?;
    let note = format!("{} of {} at {}", manifest.id, manifest.made, clock::now_secs());
    store
        .write(move |sql| {
            // All packs of a backup go into the first store.
            tiers::all_hot(sql)?;
            server::set_note(sql, RESTORED_NOTE, &note)
        })
        .await?;
    store.close();
    drop(store);
    let (data, metadata) = (to.data.clone(), to.metadata.clone());
    blocking(move || {
        // All of it into the one file that is renamed.
        snapshot::settle(&draft)?;
        drop_upgrade_copies(&draft)?;
        fs::rename(&draft, &metadata)?;
        disk::sync_dir(metadata.parent().unwrap_or(&data))?;
        fs::remove_file(data.join(RESTORING))?;
        Ok(disk::sync_dir(&data)?)
    })
    .await
}

/// The backup itself is what the database was before it was brought up.
fn drop_upgrade_copies(draft: &Path) -> io::Result<()> {
    let (Some(dir), Some(name)) = (draft.parent(), draft.file_name()) else { return Ok(()) };
    let prefix = format!("{}.before-upgrade", name.to_string_lossy());
    for name in disk::names(dir)? {
        if name.starts_with(&prefix) {
            fs::remove_file(dir.join(name))?;
        }
    }
    Ok(())
}
