//! Makes a backup: the database first, then the packs that this state of it names.
//!
//! What a commit needs is on disk before the commit, so all packs of a state are there. One that is
//! removed while the backup runs (`gc`) makes it begin again from a newer state; what was copied
//! stays copied. A run that is cut off leaves the last backup as it was, and the next run goes on.

use std::collections::HashMap;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;

use drivefs_core::id::PackId;
use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;

use super::super::Drive;
use super::super::DriveError;
use super::super::fsck::Progress;
use super::super::fsck::examine;
use super::super::rotate;
use super::BackupError;
use super::disk;
use super::manifest;
use super::manifest::Listed;
use super::manifest::Manifest;
use super::manifest::Part;
use crate::clock;
use crate::host;
use crate::metadata::check;
use crate::metadata::check::PackRow;
use crate::metadata::snapshot;
use crate::metadata::space;

/// Packs copied since the last backup, so that a run that is cut off need not do it again.
const JOURNAL: &str = "packs.journal";
/// Tells what this folder is, before there is a backup in it.
const MARK: &str = "drivefs-backup";
const PACKS_A_PAGE: usize = 256;
/// How often packs may vanish under a backup before it gives up.
const ROUNDS_MAX: u32 = 10;
/// For so long the collection removes no pack for a backup's sake (seconds).
const PACKS_HELD_SECS: i64 = 6 * 3600;

/// What a backup came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Taken {
    pub id: String,
    pub packs: u64,
    pub bytes: u64,
    /// Of these, what was not in the folder yet.
    pub packs_copied: u64,
    pub bytes_copied: u64,
    /// Packs removed because this backup does not need them.
    pub packs_pruned: u64,
    pub damaged: Vec<PackId>,
    pub keys: Vec<String>,
}

/// One backup on its way.
struct Backup<'a> {
    drive: &'a Drive,
    dir: PathBuf,
    known: HashMap<PackId, Listed>,
    journal: File,
    taken: Taken,
    list: HashMap<PackId, Listed>,
}

/// Backs up into `dir`. `metadata` is the database file; `prune` removes packs that only earlier
/// backups in this folder needed.
pub async fn take(
    drive: &Drive,
    metadata: &Path,
    dir: &Path,
    prune: bool,
    progress: &Arc<Progress>,
) -> Result<Taken, BackupError> {
    let _lock = prepare(dir, &drive.server_id)?;
    let (mut known, last) = match Manifest::read(dir)? {
        None => (HashMap::new(), None),
        Some(last) => {
            let mut known = last.list(dir)?;
            // Copied again: they may be whole by now.
            for pack in &last.damaged {
                known.remove(pack);
            }
            (known, Some(last))
        }
    };
    let (journalled, _) = manifest::read_list(&dir.join(JOURNAL))?;
    known.extend(journalled);
    let journal =
        OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join(JOURNAL))?;
    let taken = Taken {
        id: String::new(),
        packs: 0,
        bytes: 0,
        packs_copied: 0,
        bytes_copied: 0,
        packs_pruned: 0,
        damaged: Vec::new(),
        keys: Vec::new(),
    };
    let list = HashMap::new();
    let dir = dir.to_owned();
    let mut backup = Backup { drive, dir, known, journal, taken, list };
    for _ in 0..ROUNDS_MAX {
        // So that it seldom has to begin again.
        let until = clock::now_secs() + PACKS_HELD_SECS;
        drive.store.write(move |sql| space::hold(sql, until)).await?;
        let round = backup.round(metadata, progress).await;
        drive.store.write(|sql| space::hold(sql, 0)).await?;
        if let Some((metadata, schema, made)) = round? {
            return backup.finish(metadata, schema, made, last, prune);
        }
    }
    Err(BackupError::Refused(
        "packs were removed again and again while they were to be copied; try again later".into(),
    ))
}

/// Makes the folder and locks it; refuses one that is something else.
fn prepare(dir: &Path, server_id: &str) -> Result<File, BackupError> {
    disk::make_dir(dir)?;
    let mark = dir.join(MARK);
    match fs::read_to_string(&mark) {
        Ok(text) if text.trim() == server_id => {}
        Ok(text) => {
            return Err(BackupError::Refused(format!(
                "{} holds backups of another server's data ({}); choose another folder",
                dir.display(),
                text.trim()
            )));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // A run that was cut off even before the mark has left a draft of it.
            let draft = |name: &String| name.starts_with(MARK) && disk::is_draft(name);
            if !disk::names(dir)?.iter().all(draft) {
                return Err(BackupError::Refused(format!(
                    "{} is not empty and holds no drivefs backup; choose another folder",
                    dir.display()
                )));
            }
            disk::write(&mark, format!("{server_id}\n").as_bytes())?;
            disk::sync_dir(dir)?;
        }
        Err(e) => return Err(e.into()),
    }
    let lock = disk::lock(&dir.join("lock"))?.ok_or_else(|| {
        BackupError::Refused(format!("another backup into {} is under way", dir.display()))
    })?;
    disk::sweep_drafts(dir)?;
    for fan in 0..=255 {
        let fan = dir.join("blocks").join(format!("{fan:02x}"));
        disk::make_dir(&fan)?;
        disk::sweep_drafts(&fan)?;
    }
    disk::sync_dir(&dir.join("blocks"))?;
    disk::sync_dir(dir)?;
    Ok(lock)
}

impl Backup<'_> {
    /// One state of the database and its packs; none when a pack was removed in the meantime.
    async fn round(
        &mut self,
        metadata: &Path,
        progress: &Arc<Progress>,
    ) -> Result<Option<(Part, i64, i64)>, BackupError> {
        progress.begin("database", 0);
        self.taken.id = uuid::Uuid::from_bytes(host::random()).simple().to_string();
        self.taken.damaged.clear();
        self.list.clear();
        let made = clock::now_secs();
        let file = format!("metadata-{}.db", self.taken.id);
        let (from, to) = (metadata.to_owned(), self.dir.join(&file));
        let draft = disk::draft_of(&to);
        let copied = draft.clone();
        blocking(move || {
            snapshot::copy(&from, &copied)?;
            Ok::<_, BackupError>(fs::rename(&copied, &to)?)
        })
        .await?;
        let mut copy = snapshot::Copy::open(&self.dir.join(&file))?;
        let schema = snapshot::version(copy.sql())?;
        self.taken.keys = rotate::keys_of(copy.sql())?;
        let (count, _) = check::packs_total(copy.sql())?;
        progress.begin("packs", count);
        let mut after = None;
        loop {
            let page = check::packs(copy.sql(), after, PACKS_A_PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.pack);
            // One without blocks is on its way out, and its object may be gone before its row.
            let mut needed = Vec::with_capacity(page.len());
            for row in page {
                if check::has_blocks(copy.sql(), row.pack)? {
                    needed.push(row);
                } else {
                    progress.add(1);
                }
            }
            let page = needed;
            if !self.page(page, progress).await? {
                return Ok(None);
            }
        }
        drop(copy);
        Ok(Some((manifest::part_of(&self.dir, &file)?, schema, made)))
    }

    /// Copies what is not here yet; false when a pack was removed.
    async fn page(
        &mut self,
        page: Vec<PackRow>,
        progress: &Arc<Progress>,
    ) -> Result<bool, BackupError> {
        let mut wanted = Vec::new();
        for row in page {
            match self.known.get(&row.pack) {
                Some(listed) if self.has(row.pack, listed.size)? => {
                    self.list.insert(row.pack, *listed);
                    progress.add(1);
                }
                _ => wanted.push(row),
            }
        }
        let at_once = available_parallelism().map_or(2, usize::from);
        let (drive, dir) = (self.drive, self.dir.clone());
        let mut copies =
            stream::iter(wanted).map(|row| copy_pack(drive, &dir, row)).buffer_unordered(at_once);
        let mut whole = true;
        while let Some(copied) = copies.next().await {
            progress.add(1);
            let (pack, outcome) = copied?;
            match outcome {
                Copied::Removed => whole = false,
                Copied::Missing => self.taken.damaged.push(pack),
                Copied::Here { listed, good } => {
                    self.taken.packs_copied += 1;
                    self.taken.bytes_copied += listed.size;
                    self.list.insert(pack, listed);
                    if good {
                        self.known.insert(pack, listed);
                        // At once: a run that is cut off has not worked for nothing.
                        self.journal.write_all(manifest::line_of(pack, &listed).as_bytes())?;
                    } else {
                        // Looked at again next time: it may be whole by then.
                        self.taken.damaged.push(pack);
                    }
                }
            }
        }
        Ok(whole)
    }

    fn has(&self, pack: PackId, size: u64) -> io::Result<bool> {
        match fs::metadata(disk::pack_path(&self.dir.join("blocks"), pack)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            found => Ok(found?.len() == size),
        }
    }

    fn finish(
        mut self,
        metadata: Part,
        schema: i64,
        made: i64,
        last: Option<Manifest>,
        prune: bool,
    ) -> Result<Taken, BackupError> {
        let blocks = self.dir.join("blocks");
        for fan in 0..=255 {
            disk::sync_dir(&blocks.join(format!("{fan:02x}")))?;
        }
        let file = format!("packs-{}.txt", self.taken.id);
        let mut text = String::new();
        for (pack, listed) in &self.list {
            text.push_str(&manifest::line_of(*pack, listed));
        }
        disk::write(&self.dir.join(&file), text.as_bytes())?;
        self.taken.packs = self.list.len() as u64;
        self.taken.bytes = self.list.values().map(|l| l.size).sum();
        self.taken.damaged.sort();
        let manifest = Manifest {
            format: manifest::FORMAT,
            id: self.taken.id.clone(),
            server_id: self.drive.server_id.clone(),
            made,
            schema,
            keys: self.taken.keys.clone(),
            metadata,
            packs: manifest::part_of(&self.dir, &file)?,
            pack_count: self.taken.packs,
            pack_bytes: self.taken.bytes,
            damaged: self.taken.damaged.clone(),
        };
        manifest.write(&self.dir)?;
        self.clear(&manifest, last, prune)?;
        Ok(self.taken)
    }

    /// Removes what the new backup does not need.
    fn clear(
        &mut self,
        manifest: &Manifest,
        last: Option<Manifest>,
        prune: bool,
    ) -> Result<(), BackupError> {
        let needed = [&manifest.metadata.file, &manifest.packs.file];
        for name in disk::names(&self.dir)? {
            let part = name.starts_with("metadata-") || name.starts_with("packs-");
            if part && !needed.contains(&&name) {
                fs::remove_file(self.dir.join(name))?;
            }
        }
        if prune {
            let mut before: Vec<PackId> = self.known.keys().copied().collect();
            if last.is_some() {
                before.extend(self.stored()?);
            }
            for pack in before {
                if !self.list.contains_key(&pack) {
                    match fs::remove_file(disk::pack_path(&self.dir.join("blocks"), pack)) {
                        Ok(()) => self.taken.packs_pruned += 1,
                        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                        Err(e) => return Err(e.into()),
                    }
                }
            }
        }
        fs::remove_file(self.dir.join(JOURNAL))?;
        Ok(disk::sync_dir(&self.dir)?)
    }

    fn stored(&self) -> io::Result<Vec<PackId>> {
        let mut out = Vec::new();
        for fan in 0..=255 {
            let names = disk::names(&self.dir.join("blocks").join(format!("{fan:02x}")))?;
            out.extend(names.iter().filter_map(|name| name.parse::<PackId>().ok()));
        }
        Ok(out)
    }
}

/// What became of one pack.
enum Copied {
    /// On disk in the backup; not good when some of it cannot be opened.
    Here { listed: Listed, good: bool },
    /// Not in the store although the server refers to it.
    Missing,
    /// The server does not refer to it any more.
    Removed,
}

async fn copy_pack(
    drive: &Drive,
    dir: &Path,
    row: PackRow,
) -> Result<(PackId, Copied), BackupError> {
    let pack = row.pack;
    let _held = drive.work.hold(2 * row.size).await?;
    let Some(bytes) = drive.blocks.whole(pack).await? else {
        let needed = drive.store.read(move |sql| check::has_blocks(sql, pack)).await?;
        return Ok((pack, if needed { Copied::Missing } else { Copied::Removed }));
    };
    let keys = drive.keys.clone();
    let to = disk::pack_path(&dir.join("blocks"), pack);
    let copied = drive
        .work
        .compute(move || {
            let good = examine::is_whole(&keys, &row, &bytes);
            // A copy from when it was good is better than what is there now.
            if !good && to.exists() {
                let (size, hash) = disk::measure(&to)?;
                return Ok(Copied::Here { listed: Listed { size, hash }, good: false });
            }
            disk::write(&to, &bytes)?;
            let listed = Listed { size: bytes.len() as u64, hash: blake3::hash(&bytes) };
            Ok::<_, BackupError>(Copied::Here { listed, good })
        })
        .await??;
    Ok((pack, copied))
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    host::blocking(work).await.map_err(|e| DriveError::Internal(e.to_string()))?
}
