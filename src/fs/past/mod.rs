//! `.versions`, which is in every folder and listed in none: old versions of files, and what was
//! deleted, to be read and copied.
//!
//! `.versions/NAME/` of a file holds its versions, of a folder what that folder's own `.versions`
//! holds; both also `deleted TIME/` for each thing that had the name before. Names come from the tree
//! and from the server, who alone knows versions and the trash; bytes come like all others, through
//! the block cache. Nothing here is stored, and nothing can be changed.
//!
//! A session thread never waits here: what needs the server is an async function, and ends in time.

mod ask;
mod entries;
mod inodes;
mod names;
mod told;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use drivefs_core::limits::NAME_MAX_BYTES;
use drivefs_core::limits::PAST_ANSWERS_BYTES_MAX;
use drivefs_core::limits::PAST_INODES_MAX;
use drivefs_core::name::NameError;
use drivefs_core::name::VERSIONS_DIR;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::GoneEntry;
use futures_util::future::try_join;

use super::Attr;
use super::DirEntry;
use super::DriveFs;
use super::lock;
use crate::spool::is_past;
use crate::state::Nid;
use crate::tree::TreeError;

use entries::Gone;
use entries::Here;
use inodes::Inodes;
use inodes::OldVersion;
use inodes::Seen;
use inodes::Thing;
use inodes::What;
use told::Answer;
use told::Answers;
use told::Question;
use told::Versions;
use told::Want;

/// Entries of a listing put together at once.
const CHUNK: usize = 256;
/// Bits of an offset that count inside a chunk: the last one has former things at its end.
const CHUNK_BITS: u32 = 16;

type Turn = Arc<tokio::sync::Mutex<()>>;

/// What is known of the past.
pub(super) struct Past {
    inodes: Mutex<Inodes>,
    answers: Mutex<Answers>,
    /// Questions under way.
    turns: Mutex<HashMap<Question, Turn>>,
    dirs: Mutex<HashMap<u64, Arc<Mutex<PastDir>>>>,
}

impl Default for Past {
    fn default() -> Self {
        Self {
            inodes: Mutex::new(Inodes::new(PAST_INODES_MAX)),
            answers: Mutex::new(Answers::new(PAST_ANSWERS_BYTES_MAX)),
            turns: Mutex::default(),
            dirs: Mutex::default(),
        }
    }
}

/// An open folder of the past.
struct PastDir {
    nid: Nid,
    thing: Arc<Thing>,
    main: Main,
    former: Vec<(Vec<u8>, GoneEntry)>,
    /// `starts[k]` is the name behind which chunk k begins; of a file's versions they do not count.
    starts: Vec<Vec<u8>>,
    chunk: Option<usize>,
    entries: Vec<Seen>,
}

enum Main {
    Versions(Here, Option<Arc<Versions>>),
    Names(Here, Gone),
}

impl DriveFs {
    /// Fails where nothing can be changed: in the past, and of the door to it.
    pub(super) fn check_present(&self, folder: Nid, name: &[u8]) -> Result<(), TreeError> {
        if is_past(folder) || name == VERSIONS_DIR {
            return Err(TreeError::ReadOnly);
        }
        Ok(())
    }

    /// The `.versions` of a folder of the tree.
    pub(super) fn past_of(&self, folder: Nid) -> Result<Attr, TreeError> {
        let node = self.tree.node(folder)?;
        let thing = Thing {
            ns: node.ns,
            node: node.id,
            folder: true,
            live: Some(folder),
            name: Vec::new(),
            place: None,
            mode: node.attrs.mode,
            uid: node.attrs.uid,
            gid: node.attrs.gid,
            time: node.attrs.mtime,
        };
        Ok(self.know(self.seen_thing(folder, VERSIONS_DIR, thing)))
    }

    /// What has a name in the past.
    pub async fn past_lookup(&self, parent: Nid, name: &[u8]) -> Result<Attr, TreeError> {
        if name.len() > NAME_MAX_BYTES {
            return Err(NameError::TooLong.into());
        }
        let thing = self.past_thing(parent)?;
        Ok(self.know(self.find_past(parent, &thing, name).await?))
    }

    pub(super) fn past_attr(&self, nid: Nid) -> Result<Attr, TreeError> {
        Ok(self.past_seen(nid)?.attr)
    }

    /// What the drive says of something in the past by its own attributes.
    pub(super) fn past_xattr(&self, nid: Nid, name: &str) -> Result<Option<String>, TreeError> {
        Ok(match (self.past_seen(nid)?.what, name) {
            (What::Version(old), "version") => Some(old.version.to_string()),
            (What::Version(old), "device") => Some(old.device.clone()),
            (What::Version(old), "node") => Some(old.node.to_string()),
            (What::Thing(thing), "node") => Some(thing.node.to_string()),
            _ => None,
        })
    }

    /// Opens a version for reading.
    pub async fn past_open(&self, nid: Nid) -> Result<u64, TreeError> {
        let old = match self.past_seen(nid)?.what {
            What::Version(old) => old,
            What::Thing(_) => return Err(TreeError::IsDir),
        };
        let in_use = lock(&old.content).upgrade();
        let content = match in_use {
            Some(content) => content,
            None => self.load_past(nid, &old).await?,
        };
        Ok(self.open_content(content, false))
    }

    async fn load_past(
        &self,
        nid: Nid,
        old: &OldVersion,
    ) -> Result<Arc<crate::spool::Content>, TreeError> {
        let root = self.root_of(old).await?;
        let content = self.spool.past(nid, old.ns, &root)?;
        *lock(&old.content) = Arc::downgrade(&content);
        Ok(content)
    }

    /// Opens a folder of the past: what it lists is asked for here.
    pub async fn past_opendir(&self, nid: Nid) -> Result<u64, TreeError> {
        let thing = self.past_thing(nid)?;
        if let Some(live) = thing.live.filter(|_| thing.folder) {
            self.list_folders(&self.unlisted(&[live])).await?;
        }
        let here = self.here(&thing);
        let (main, former) =
            try_join(self.main_of(&thing, here), self.former(&thing, Want::Newest)).await?;
        let dir = PastDir {
            nid,
            thing,
            main,
            former,
            starts: vec![Vec::new()],
            chunk: None,
            entries: Vec::new(),
        };
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        lock(&self.past.dirs).insert(handle, Arc::new(Mutex::new(dir)));
        Ok(handle)
    }

    async fn main_of(&self, thing: &Thing, here: Here) -> Result<Main, TreeError> {
        if thing.folder {
            let removed = self.removed_children(&here)?;
            let question = Question::Names(here.ns, here.node);
            let names = match self.ask(question, Want::Newest, |_| true).await? {
                Answer::Names(names) => names,
                _ => Arc::default(),
            };
            return Ok(Main::Names(here, Gone { names, removed }));
        }
        let is_newest = |answer: &Answer| match answer {
            Answer::Versions(all) => all.newest() >= here.version,
            _ => false,
        };
        let question = Question::Versions(here.ns, here.node);
        let versions = match self.ask(question, Want::Newest, is_newest).await {
            Ok(Answer::Versions(all)) => Some(all),
            // There may be former things all the same.
            Ok(_) | Err(TreeError::NotFound) => None,
            Err(e) => return Err(e),
        };
        Ok(Main::Versions(here, versions))
    }

    /// Reads an open folder of the past, as `readdir` does; none for other handles. With `counts` the
    /// kernel is told of each entry as by a look-up.
    pub(super) fn past_readdir(
        &self,
        handle: u64,
        offset: u64,
        counts: bool,
        emit: &mut impl FnMut(DirEntry) -> bool,
    ) -> Option<Result<(), TreeError>> {
        let dir = lock(&self.past.dirs).get(&handle).cloned()?;
        let mut dir = lock(&dir);
        Some(dir.read(self, offset, counts, emit))
    }

    pub(super) fn past_releasedir(&self, handle: u64) {
        lock(&self.past.dirs).remove(&handle);
    }

    pub(super) fn past_forget(&self, nid: Nid, lookups: u64) {
        lock(&self.past.inodes).forget(nid, lookups);
    }

    /// Notes that the kernel is told of something; of what is too much for it, it is told to forget.
    fn know(&self, seen: Seen) -> Attr {
        let attr = seen.attr.clone();
        let too_many = lock(&self.past.inodes).add(seen);
        for (parent, name) in too_many {
            self.tree.let_kernel_drop(parent, name);
        }
        attr
    }

    fn past_seen(&self, nid: Nid) -> Result<Seen, TreeError> {
        lock(&self.past.inodes).get(nid).cloned().ok_or(TreeError::NotFound)
    }

    fn past_thing(&self, nid: Nid) -> Result<Arc<Thing>, TreeError> {
        match self.past_seen(nid)?.what {
            What::Thing(thing) => Ok(thing),
            What::Version(_) => Err(TreeError::NotDir),
        }
    }
}

impl PastDir {
    fn read(
        &mut self,
        fs: &DriveFs,
        offset: u64,
        counts: bool,
        emit: &mut impl FnMut(DirEntry) -> bool,
    ) -> Result<(), TreeError> {
        if offset == 0 {
            self.chunk = None;
        }
        for (at, dots) in [(0, &b"."[..]), (1, b"..")] {
            let attr = fs.past_attr(self.nid)?;
            if offset <= at && !emit(DirEntry { name: dots.to_vec(), next: at + 1, attr }) {
                return Ok(());
            }
        }
        let place = offset.saturating_sub(2);
        let (mut chunk, mut index) =
            ((place >> CHUNK_BITS) as usize, (place & ((1 << CHUNK_BITS) - 1)) as usize);
        loop {
            self.load(fs, chunk)?;
            if self.entries.is_empty() {
                return Ok(());
            }
            while let Some(seen) = self.entries.get(index) {
                index += 1;
                let (mut next_chunk, mut next_index) = (chunk, index);
                if index >= self.entries.len() {
                    (next_chunk, next_index) = (chunk + 1, 0);
                }
                let next = ((next_chunk as u64) << CHUNK_BITS) + next_index as u64 + 2;
                let (name, attr) = (seen.name.clone(), seen.attr.clone());
                if !emit(DirEntry { name, next, attr }) {
                    return Ok(());
                }
                if counts {
                    fs.know(seen.clone());
                }
            }
            (chunk, index) = (chunk + 1, 0);
        }
    }

    /// Makes `chunk` the current one; past the end it is empty.
    fn load(&mut self, fs: &DriveFs, chunk: usize) -> Result<(), TreeError> {
        if self.chunk == Some(chunk) {
            return Ok(());
        }
        self.chunk = None;
        let Some(mut entries) = self.main_chunk(fs, chunk)? else {
            self.entries.clear();
            self.chunk = Some(chunk);
            return Ok(());
        };
        if entries.len() < CHUNK {
            let former = self.former.iter();
            let seen = |(name, entry): &(Vec<u8>, GoneEntry)| {
                fs.seen_former(self.nid, name, &self.thing, entry)
            };
            entries.extend(former.map(seen));
        }
        self.entries = entries;
        self.chunk = Some(chunk);
        Ok(())
    }

    /// Entries of one chunk without former things; none past the last one, which has fewer than the
    /// others.
    fn main_chunk(&mut self, fs: &DriveFs, chunk: usize) -> Result<Option<Vec<Seen>>, TreeError> {
        let (here, gone) = match &self.main {
            Main::Versions(here, all) => {
                let rows = all.as_ref().map_or(&[][..], |all| &all.rows);
                let from = chunk.saturating_mul(CHUNK);
                let Some(rest) = rows.get(from..) else { return Ok(None) };
                let Some(all) = all.as_ref() else { return Ok(Some(Vec::new())) };
                let row = |v| fs.seen_version(self.nid, &self.thing, here, all, v);
                return Ok(Some(rest.iter().take(CHUNK).map(row).collect()));
            }
            Main::Names(here, gone) => (here, gone),
        };
        loop {
            let known = self.starts.len() - 1;
            let at = chunk.min(known);
            let children = fs.children_in_past(here, gone, &self.starts[at], CHUNK)?;
            if children.len() == CHUNK && at == known {
                self.starts.push(children[CHUNK - 1].0.clone());
            }
            if at == chunk {
                let seen = |(name, thing): (Vec<u8>, Thing)| fs.seen_thing(self.nid, &name, thing);
                return Ok(Some(children.into_iter().map(seen).collect()));
            }
            if children.len() < CHUNK {
                return Ok(None);
            }
        }
    }
}

/// True for an entry that shows no version, but what leads to some.
pub fn is_past_folder(attr: &Attr) -> bool {
    is_past(attr.nid) && attr.kind == NodeKind::Dir
}
