//! Keeping pinned files here: a walk marks their blocks, so that they are not evicted, and fetches
//! what is missing.
//!
//! No queue: a walk goes over what is pinned as it is now, whenever the tree has changed. A block
//! counts as pinned before it is fetched, and until a whole walk has not met it any more.

use std::sync::Arc;
use std::time::Duration;

use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::Seq;
use drivefs_core::manifest::Root;
use tokio::sync::Mutex;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;

use super::EngineHandle;
use crate::cache::CacheError;
use crate::spool::Holdings;
use crate::spool::SpoolError;
use crate::state::Conn;
use crate::state::DbError;
use crate::state::Nid;
use crate::state::Node;
use crate::tree::Tree;
use crate::tree::TreeError;

/// Blocks marked in one transaction and fetched in one request.
const GROUP_BLOCKS: usize = 256;
const GROUP_BYTES: u64 = 4 * 1024 * 1024;
/// Groups fetched side by side.
const GROUPS_AT_ONCE: usize = 2;
/// Between two looks whether the tree has changed, and after a walk that failed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(5);
/// The walks take at most this share of the time.
const WALK_SHARE: u32 = 10;

/// Why pinned files are not all here.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl From<SpoolError> for PinError {
    fn from(e: SpoolError) -> Self {
        Self::Tree(e.into())
    }
}

impl From<DbError> for PinError {
    fn from(e: DbError) -> Self {
        Self::Tree(e.into())
    }
}

/// The keeper of what is pinned.
pub struct Pins {
    tree: Arc<Tree>,
    /// One walk at a time.
    walk: Mutex<()>,
    changed: Notify,
}

/// One block list on its way here.
struct Group {
    ns: NamespaceId,
    blocks: Vec<(BlockHash, u32)>,
    holdings: Holdings,
}

/// What changes when something in the tree does: cursors, and the position of the journal.
type Fingerprint = (Vec<(NamespaceId, Seq)>, u64);

impl Pins {
    pub fn new(tree: Arc<Tree>) -> Self {
        Self { tree, walk: Mutex::default(), changed: Notify::new() }
    }

    /// Pins a node and fetches what is missing; `progress` is told what is here so far. When this
    /// returns, all of it is here.
    pub async fn pin(
        &self,
        nid: Nid,
        progress: &watch::Sender<Holdings>,
    ) -> Result<Holdings, PinError> {
        self.tree.pin(nid)?;
        let _alone = self.walk.lock().await;
        let pass = self.tree.db().peek(|c| c.last_pin_pass())?.max(1);
        let holdings = self.fetch_below(nid, pass, Some(progress)).await?;
        self.changed.notify_one();
        Ok(holdings)
    }

    /// Takes the pins of a node and all below it away; returns how many there were.
    pub async fn unpin(&self, nid: Nid) -> Result<usize, PinError> {
        let gone = self.tree.unpin(nid)?;
        self.pass().await?;
        Ok(gone)
    }

    /// Keeps what is pinned here as it changes. Runs until dropped.
    pub async fn run(self: Arc<Self>, engine: EngineHandle) {
        let mut seen: Option<Fingerprint> = None;
        loop {
            let began = Instant::now();
            let mut pause = LOOK_EVERY;
            match self.fingerprint() {
                Ok(now) if Some(&now) != seen.as_ref() => match self.pass().await {
                    Ok(()) => seen = Some(now),
                    Err(error) => {
                        tracing::info!(%error, "not all of what is pinned is here");
                        pause = RETRY;
                    }
                },
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "pins"),
            }
            tokio::time::sleep(pause.max(began.elapsed() * (WALK_SHARE - 1))).await;
            tokio::select! {
                () = engine.next_round(RETRY) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    fn fingerprint(&self) -> Result<Fingerprint, DbError> {
        let spaces = self.tree.db().peek(|c| c.namespaces())?;
        let cursors = spaces.iter().map(|s| (s.ns, s.cursor)).collect();
        Ok((cursors, self.tree.journal().position()))
    }

    /// One walk over all that is pinned; afterwards exactly its blocks are marked.
    async fn pass(&self) -> Result<(), PinError> {
        let _alone = self.walk.lock().await;
        let pins = self.tree.pinned()?;
        let last = self.tree.db().peek(|c| c.last_pin_pass())?;
        if pins.is_empty() && last == 0 {
            return Ok(());
        }
        let pass = last + 1;
        for nid in pins {
            match self.fetch_below(nid, pass, None).await {
                // Deleted meanwhile.
                Ok(_) | Err(PinError::Tree(TreeError::NotFound)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(self.tree.db().write(|c| c.release_pinned(pass))?)
    }

    /// Marks and fetches the blocks of all files at and below a node.
    async fn fetch_below(
        &self,
        nid: Nid,
        pass: u64,
        progress: Option<&watch::Sender<Holdings>>,
    ) -> Result<Holdings, PinError> {
        let (sender, mut files) = tokio::sync::mpsc::channel(1);
        let tree = self.tree.clone();
        let walk = tokio::task::spawn_blocking(move || {
            tree.each_file(nid, |nodes| {
                // Nobody listens any more when fetching has failed.
                sender.blocking_send(nodes).map_err(|_| TreeError::Busy)
            })
        });
        let mut done = Holdings::default();
        let mut groups = Vec::new();
        while let Some(nodes) = files.recv().await {
            for node in nodes {
                self.add(&node, &mut groups).await?;
                if groups.len() > GROUPS_AT_ONCE {
                    let rest = groups.split_off(GROUPS_AT_ONCE);
                    self.fetch(std::mem::replace(&mut groups, rest), pass, &mut done, progress)
                        .await?;
                }
            }
        }
        self.fetch(groups, pass, &mut done, progress).await?;
        walk.await.expect("the walk does not panic")?;
        Ok(done)
    }

    /// Adds a file's blocks to the groups.
    async fn add(&self, node: &Node, groups: &mut Vec<Group>) -> Result<(), PinError> {
        let spool = self.tree.spool();
        let mut file = Holdings { files: 1, bytes: node.size, ..Holdings::default() };
        let Some(content) = &node.content else {
            push(groups, node.ns, None, Holdings { here: node.size, ..file });
            return Ok(());
        };
        let root = Root::decode(content).map_err(SpoolError::from)?;
        let entries = spool.entries(node.ns, &root).await?;
        // Where a layer is longer than the content below it, the rest is here.
        file.here = node.size.saturating_sub(root.size());
        push(groups, node.ns, None, file);
        if let Root::Segmented(refs) = &root {
            for listed in refs {
                push(groups, node.ns, Some((listed.hash, 0)), Holdings::default());
            }
        }
        for entry in entries {
            let here = Holdings { here: u64::from(entry.len), ..Holdings::default() };
            push(groups, node.ns, Some((entry.hash, entry.len)), here);
        }
        Ok(())
    }

    async fn fetch(
        &self,
        groups: Vec<Group>,
        pass: u64,
        done: &mut Holdings,
        progress: Option<&watch::Sender<Holdings>>,
    ) -> Result<(), PinError> {
        let mark = |c: &Conn<'_>| {
            for (hash, _) in groups.iter().flat_map(|g| &g.blocks) {
                c.pin_block(hash, pass)?;
            }
            Ok::<_, DbError>(())
        };
        self.tree.db().write(mark)?;
        let cache = self.tree.spool().cache();
        let fetches = groups.iter().map(|g| cache.fetch_to_disk(g.ns, &g.blocks));
        futures_util::future::try_join_all(fetches).await?;
        for group in &groups {
            done.add(group.holdings);
        }
        if let Some(progress) = progress {
            progress.send_replace(*done);
        }
        Ok(())
    }
}

/// Puts a block (and what having it adds up to) into the last group, or starts another.
fn push(
    groups: &mut Vec<Group>,
    ns: NamespaceId,
    block: Option<(BlockHash, u32)>,
    holdings: Holdings,
) {
    let full = groups.last().is_none_or(|g| {
        let bytes: u64 = g.blocks.iter().map(|b| u64::from(b.1)).sum();
        g.ns != ns || g.blocks.len() >= GROUP_BLOCKS || bytes >= GROUP_BYTES
    });
    if full {
        groups.push(Group { ns, blocks: Vec::new(), holdings: Holdings::default() });
    }
    let group = groups.last_mut().expect("pushed above");
    group.blocks.extend(block);
    group.holdings.add(holdings);
}

/// Files and bytes below a node, for a bar of progress.
pub fn size_below(tree: &Tree, nid: Nid) -> Result<Holdings, TreeError> {
    let mut out = Holdings::default();
    tree.each_file(nid, |nodes| {
        for node in &nodes {
            out.add(Holdings { files: 1, bytes: node.size, ..Holdings::default() });
        }
        Ok(())
    })?;
    Ok(out)
}
