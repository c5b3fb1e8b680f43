//! What a backup says of itself: `backup.json`, written last, and the list of packs that it names.
//!
//! A backup is there exactly when its `backup.json` is; everything it names is on disk by then.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;

use drivefs_core::id::PackId;
use serde::Deserialize;
use serde::Serialize;

use super::BackupError;
use super::disk;

pub const MANIFEST: &str = "backup.json";
/// The newest format that this program knows.
pub const FORMAT: u32 = 1;

/// A file of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub file: String,
    pub bytes: u64,
    /// blake3, in hexadecimal.
    pub blake3: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub id: String,
    /// Identity of the data that was backed up.
    pub server_id: String,
    /// When its state was taken (seconds since the Unix epoch).
    pub made: i64,
    pub schema: i64,
    /// Master keys without which no block of it can be read. They are not in the backup.
    pub keys: Vec<String>,
    pub metadata: Part,
    pub packs: Part,
    pub pack_count: u64,
    pub pack_bytes: u64,
    /// Packs that were damaged or missing in the store, and are no better here.
    #[serde(default)]
    pub damaged: Vec<PackId>,
}

/// Length and hash of a pack in a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    pub size: u64,
    pub hash: blake3::Hash,
}

impl Manifest {
    /// The backup in a folder; none where there is none.
    pub fn read(dir: &Path) -> Result<Option<Self>, BackupError> {
        let text = match fs::read(dir.join(MANIFEST)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let damaged = |e: String| BackupError::Damaged(format!("{MANIFEST}: {e}"));
        // Of a newer format nothing but its number may be as it is here.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } =
            serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        if format > FORMAT {
            return Err(BackupError::Refused(format!(
                "the backup has format {format}, this program knows up to {FORMAT}: use a newer \
                 drivefs-server"
            )));
        }
        let manifest: Self = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        for file in [&manifest.metadata.file, &manifest.packs.file] {
            if file.contains('/') {
                return Err(damaged(format!("{file:?} is no name of a file")));
            }
        }
        Ok(Some(manifest))
    }

    /// From here on the folder holds this backup.
    pub fn write(&self, dir: &Path) -> Result<(), BackupError> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| BackupError::Damaged(format!("{MANIFEST}: {e}")))?;
        disk::write(&dir.join(MANIFEST), &text)?;
        Ok(disk::sync_dir(dir)?)
    }

    /// The packs of the backup, checked against the hash of their list.
    pub fn list(&self, dir: &Path) -> Result<HashMap<PackId, Listed>, BackupError> {
        check(dir, &self.packs)?;
        let (list, cut) = read_list(&dir.join(&self.packs.file))?;
        if cut || list.len() as u64 != self.pack_count {
            return Err(BackupError::Damaged(format!("{}: not as it was", self.packs.file)));
        }
        Ok(list)
    }
}

/// Fails unless a file of the backup is as it was written.
pub fn check(dir: &Path, part: &Part) -> Result<(), BackupError> {
    let damaged = |what: String| BackupError::Damaged(format!("{}: {what}", part.file));
    let (bytes, hash) = disk::measure(&dir.join(&part.file)).map_err(|e| damaged(e.to_string()))?;
    if bytes != part.bytes || hash.to_hex().as_str() != part.blake3 {
        return Err(damaged("its bytes are not those that were written".into()));
    }
    Ok(())
}

/// Measures a file that has been written.
pub fn part_of(dir: &Path, file: &str) -> Result<Part, BackupError> {
    let (bytes, hash) = disk::measure(&dir.join(file))?;
    Ok(Part { file: file.to_owned(), bytes, blake3: hash.to_hex().to_string() })
}

pub fn line_of(pack: PackId, listed: &Listed) -> String {
    format!("{pack} {} {}\n", listed.size, listed.hash.to_hex())
}

/// Reads lines of packs; true when something in it is no such line, as after a cut-off write.
pub fn read_list(path: &Path) -> Result<(HashMap<PackId, Listed>, bool), BackupError> {
    let file = match fs::File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((HashMap::new(), true)),
        file => file?,
    };
    let (mut out, mut cut) = (HashMap::new(), false);
    for line in BufReader::new(file).split(b'\n') {
        match parsed(&line?) {
            Some((pack, listed)) => {
                out.insert(pack, listed);
            }
            None => cut = true,
        }
    }
    Ok((out, cut))
}

fn parsed(line: &[u8]) -> Option<(PackId, Listed)> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let pack = words.next()?.parse().ok()?;
    let size = words.next()?.parse().ok()?;
    let hash = blake3::Hash::from_hex(words.next()?).ok()?;
    words.next().is_none().then_some((pack, Listed { size, hash }))
}
