//! `drivefs doctor --rebuild`: a new state database from the server and the spool.
//!
//! The tree comes from the server. Every data file, and every slot of one, whose bytes the server
//! does not hold goes into a folder of its own in the drive, so that nothing written here is lost with the database; names
//! are taken from the damaged database where it can still be read. The damaged database and the
//! old data folder are kept beside the new ones.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use drivefs_core::chunk::next_cut;
use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::limits::BLOCK_MAX_BYTES;
use drivefs_core::limits::HASHES_MAX;
use drivefs_core::limits::NAME_MAX_BYTES;
use drivefs_core::node::NodeKind;

use super::checkup;
use super::embedded::Embedded;
use super::login::identity;
use super::login::lock_unmounted;
use crate::cache::BlockCache;
use crate::cache::DataFiles;
use crate::cache::HEAP;
use crate::cache::SLOTS;
use crate::cache::read_slot;
use crate::cache::slot_id;
use crate::home::AccountFile;
use crate::home::Home;
use crate::journal::Journal;
use crate::journal::now;
use crate::remote::Remote;
use crate::spool::Spool;
use crate::state::Db;
use crate::state::FileId;
use crate::state::Nid;
use crate::state::ROOT;
use crate::state::redo_path;
use crate::sync::pull_all;
use crate::tree::NewNode;
use crate::tree::Tree;

/// Cache for the work itself (bytes); the next mount sets its own.
const CACHE_BYTES: u64 = 10 << 30;

pub fn run(home: &Home) -> anyhow::Result<()> {
    let _lock = lock_unmounted(home)?;
    let _embedded = Embedded::start_if_needed(home)?;
    let account = AccountFile::load(home)?
        .context("this device is not logged in; `drivefs login URL --email E` does it")?;
    let remote = Remote::new(&account.url, Some(account.token.clone()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Ask before anything is moved: without the server there is nothing to rebuild from.
    let info = runtime.block_on(remote.account()).context("the server is needed for this")?;
    let stamp = free_stamp(home);
    let names = old_names(home);
    let old_db = home.root().join(format!("state.db.damaged-{stamp}"));
    let old_data = home.root().join(format!("data.old-{stamp}"));
    for suffix in ["", "-wal", "-shm"] {
        let with = |p: &Path| {
            let mut p = p.as_os_str().to_owned();
            p.push(suffix);
            p
        };
        match fs::rename(with(&home.database()), with(&old_db)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
    }
    // What it holds is for the old database: over a new one it would make no sense.
    let redo = redo_path(&home.database());
    match fs::rename(&redo, home.root().join(format!("state.redo.damaged-{stamp}"))) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    fs::rename(home.data(), &old_data)?;
    fs::create_dir_all(home.data())?;

    let db = Arc::new(Db::open(&home.database())?);
    db.write(|c| {
        c.set_meta("account", &serde_json::to_vec(&info).expect("an account serialises"))?;
        c.set_meta("identity", identity(&info).as_bytes())
    })?;
    let files = DataFiles::open_dir(&home.data())?;
    let cache = Arc::new(BlockCache::open(db.clone(), files, Some(remote.clone()), CACHE_BYTES)?);
    let journal = Arc::new(Journal::open(&db)?);
    let spool = Arc::new(Spool::new(db.clone(), cache, journal.clone(), runtime.handle().clone()));
    let tree = Arc::new(Tree::open(db.clone(), journal, spool.clone(), account.device)?);
    println!("fetching the list of files from {}", account.url);
    runtime.block_on(pull_all(&remote, &tree, info.root, |_| {}))?;
    let mut salvage = Salvage {
        runtime: &runtime,
        remote: &remote,
        tree: &tree,
        ns: info.root,
        folder: None,
        stamp,
    };
    let mut kept = 0;
    for folder in fs::read_dir(&old_data)? {
        for file in fs::read_dir(folder?.path())? {
            let path = file?.path();
            match path.extension().and_then(|e| e.to_str()) {
                None => kept += usize::from(salvage.file(&path, &names)?),
                Some(HEAP) => kept += salvage.heap(&path, &names)?,
                Some(_) => {} // The log of a layer.
            }
        }
    }
    db.flush()?;
    checkup::forget_damage(home);
    println!("the state database is new");
    if kept > 0 {
        println!(
            "{kept} file(s) were not on the server: they are in the folder 'Recovered {stamp}' of \
             the drive and are sent after the next mount"
        );
    }
    println!("kept, until you delete them: {} and {}", old_db.display(), old_data.display());
    Ok(())
}

/// A number for the folders that are kept: the time, or the next one that is free.
fn free_stamp(home: &Home) -> i64 {
    let taken = |stamp: &i64| {
        ["state.db.damaged", "state.redo.damaged", "data.old"]
            .iter()
            .any(|name| home.root().join(format!("{name}-{stamp}")).exists())
    };
    (now() / 1_000_000_000..).find(|stamp| !taken(stamp)).expect("some number is free")
}

/// Names of data files, as far as the damaged database still tells.
fn old_names(home: &Home) -> HashMap<FileId, String> {
    let mut names = HashMap::new();
    let Ok(db) = Db::open_damaged(&home.database()) else { return names };
    // A damaged table may break off anywhere: what was read until then counts.
    for (file, name) in db.names_of_data_files() {
        names.insert(file, String::from_utf8_lossy(&name).into_owned());
    }
    names
}

struct Salvage<'a> {
    runtime: &'a tokio::runtime::Runtime,
    remote: &'a Remote,
    tree: &'a Arc<Tree>,
    ns: NamespaceId,
    folder: Option<Nid>,
    stamp: i64,
}

impl Salvage<'_> {
    /// Puts one old data file into the drive if the server lacks any of it. True if it did.
    fn file(&mut self, path: &Path, names: &HashMap<FileId, String>) -> anyhow::Result<bool> {
        if fs::metadata(path)?.len() == 0 || self.is_on_server(path)? {
            return Ok(false);
        }
        let number = path.file_name().and_then(|n| n.to_str()).unwrap_or("file").to_owned();
        let known = number.parse().ok().and_then(|n: FileId| names.get(&n));
        let partial =
            if path.with_extension("map").exists() { " (changed parts only)" } else { "" };
        self.keep(&format!("{number}{partial}"), known, &mut File::open(path)?)?;
        Ok(true)
    }

    /// The same of what is in the slots of an old heap: each holds one content, or one block.
    /// Returns how many it put there.
    fn heap(&mut self, path: &Path, names: &HashMap<FileId, String>) -> anyhow::Result<usize> {
        let stem = path.file_stem().and_then(|n| n.to_str());
        let Some(number) = stem.and_then(|n| n.parse::<FileId>().ok()) else { return Ok(0) };
        let file = File::open(path)?;
        let mut found = Vec::new();
        for index in 0..SLOTS {
            if let Some(bytes) = read_slot(&file, index)? {
                found.push((index, BlockHash::of(&bytes)));
            }
        }
        let mut missing = HashSet::new();
        for chunk in found.chunks(HASHES_MAX) {
            let hashes = chunk.iter().map(|f| f.1).collect();
            missing.extend(self.runtime.block_on(self.remote.missing(self.ns, hashes))?);
        }
        let mut kept = 0;
        for (index, hash) in found {
            // The same content in two slots is kept once.
            if missing.remove(&hash)
                && let Some(bytes) = read_slot(&file, index)?
            {
                let known = names.get(&slot_id(number, index));
                self.keep(&format!("{number}-{index}"), known, &mut bytes.as_slice())?;
                kept += 1;
            }
        }
        Ok(kept)
    }

    /// Puts bytes into the folder of what was recovered.
    fn keep(
        &mut self,
        label: &str,
        known: Option<&String>,
        bytes: &mut dyn Read,
    ) -> anyhow::Result<()> {
        let name = match known {
            Some(name) => format!("{label} {name}"),
            None => label.to_owned(),
        };
        let name = &name.as_bytes()[..name.floor_char_boundary(NAME_MAX_BYTES)];
        let folder = self.folder()?;
        let node = self.tree.make(folder, name, new(NodeKind::File, 0o600))?;
        let spool = self.tree.spool();
        let content = spool.content(node.nid)?;
        let mut buf = vec![0; 1 << 20];
        let mut offset = 0;
        loop {
            let n = bytes.read(&mut buf)?;
            if n == 0 {
                break;
            }
            spool.write(&content, offset, &buf[..n])?;
            offset += n as u64;
        }
        Ok(spool.sync(&content)?)
    }

    fn folder(&mut self) -> anyhow::Result<Nid> {
        if let Some(nid) = self.folder {
            return Ok(nid);
        }
        let name = format!("Recovered {}", self.stamp);
        let node = self.tree.make(ROOT, name.as_bytes(), new(NodeKind::Dir, 0o700))?;
        self.folder = Some(node.nid);
        Ok(node.nid)
    }

    /// True when the server holds every block that this file would be cut into, or the file as one
    /// block (how fetched blocks lie).
    fn is_on_server(&self, path: &Path) -> anyhow::Result<bool> {
        let mut file = File::open(path)?;
        let mut hashes = Vec::new();
        let mut window: Vec<u8> = Vec::new();
        let whole = fs::metadata(path)?.len() <= BLOCK_MAX_BYTES as u64;
        loop {
            let want = (2 * BLOCK_MAX_BYTES - window.len()) as u64;
            (&mut file).take(want).read_to_end(&mut window)?;
            if window.is_empty() {
                break;
            }
            if hashes.is_empty() && whole && self.holds(&[BlockHash::of(&window)])? {
                return Ok(true);
            }
            let cut = next_cut(&window);
            hashes.push(BlockHash::of(&window[..cut]));
            window.drain(..cut);
        }
        for chunk in hashes.chunks(HASHES_MAX) {
            if !self.holds(chunk)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn holds(&self, hashes: &[BlockHash]) -> anyhow::Result<bool> {
        let missing = self.runtime.block_on(self.remote.missing(self.ns, hashes.to_vec()))?;
        Ok(missing.is_empty())
    }
}

fn new(kind: NodeKind, mode: u32) -> NewNode {
    NewNode { kind, mode, uid: None, gid: None, rdev: 0, target: None }
}
