//! Files of backups: written whole under another name, on disk, and only then named.

use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use drivefs_core::id::PackId;
use rustix::fs::FlockOperation;

use crate::host;

const PIECE_BYTES: usize = 1 << 20;

/// Makes a folder and those above it, for its owner alone.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Makes what a folder lists durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Where a pack lies below a folder of packs: as in the block store itself.
pub fn pack_path(blocks: &Path, pack: PackId) -> PathBuf {
    blocks.join(format!("{:02x}", pack.as_bytes()[15])).join(pack.to_string())
}

/// Writes a file whole or not at all. Its folder has to be synced by the caller.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = draft_of(path);
    let written = fill(&draft, bytes).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // It may not even be there; the error that counts is the first.
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Copies a file whole or not at all. The folder has to be synced by the caller.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let draft = draft_of(to);
    fill(&draft, b"")?;
    fs::copy(from, &draft)?;
    File::open(&draft)?.sync_all()?;
    fs::rename(&draft, to)
}

fn fill(draft: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A name beside `path` that no other process takes.
pub fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:016x}.draft", host::random::<u64>()));
    PathBuf::from(name)
}

/// True for the name of a draft, and of what SQLite keeps beside one.
pub fn is_draft(name: &str) -> bool {
    name.ends_with(".draft") || name.ends_with(".draft-journal")
}

/// Removes drafts that were cut off in a folder.
pub fn sweep_drafts(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_draft) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Length and blake3 hash of a file.
pub fn measure(path: &Path) -> io::Result<(u64, blake3::Hash)> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut length = 0;
    loop {
        let got = file.read(&mut piece)?;
        if got == 0 {
            return Ok((length, hasher.finalize()));
        }
        hasher.update(&piece[..got]);
        length += got as u64;
    }
}

/// One process per folder; none when another one holds it. Ends with the file.
pub fn lock(path: &Path) -> io::Result<Option<File>> {
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The names in a folder; none where there is no folder.
pub fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect()
}
