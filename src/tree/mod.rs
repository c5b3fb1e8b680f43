//! The local tree: what the mount shows, and the rules by which it changes.
//!
//! `ops` are changes made here (each notes its intent), `apply` those the server tells,
//! `resolve` is the pure rule where both meet, `pending` and `sent` are what the engine asks for
//! and reports back. After each change to what the kernel may have cached, an `Invalidation` goes
//! out, once the transaction is done.

mod apply;
mod conflict;
mod contested;
mod cross;
mod entries;
mod felt;
mod filling;
mod lost;
mod merge;
mod ops;
mod pending;
mod pins;
mod relist;
mod removal;
mod rename;
mod resolution;
pub mod resolve;
mod sent;
mod stand_in;
mod unanswered;
mod unnamed;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::time::Duration;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::name::NameError;
use drivefs_core::node::NodeKind;

use crate::host;
use crate::journal::Journal;
use crate::journal::now;
use crate::spool::Spool;
use crate::spool::SpoolError;
use crate::state::Conn;
use crate::state::Db;
use crate::state::DbError;
use crate::state::Nid;
use crate::state::Node;
use crate::state::NodeEntry;
use crate::state::ROOT;

use filling::Filling;
use unnamed::Unnamed;

pub use apply::Applied;
pub use conflict::CONFLICT_XATTR;
pub use conflict::Mark;
pub use conflict::utc_date;
pub use felt::Deed;
pub use felt::Felt;
pub use felt::Place;
pub use merge::Merged;
pub use merge::merge_texts;
pub use ops::NewNode;
pub use ops::SetAttrs;
pub use pending::PendingDirent;
pub use pending::PendingNode;
pub use pending::QueueItem;
pub use pending::Sent;
pub use relist::Relist;
pub use relist::Restored;
pub use rename::RenameMode;
pub use resolution::ConflictFile;
pub use resolution::Origin;
pub use sent::SentOp;
pub use unanswered::Unanswered;

/// What the kernel may have cached and has to ask again.
#[derive(Debug, Clone)]
pub enum Invalidation {
    /// The name `name` in `parent` leads elsewhere now, or nowhere.
    Entry { parent: Nid, name: Vec<u8> },
    /// The same, and the file that it led to has no name any more.
    Gone { parent: Nid, name: Vec<u8>, nid: Nid },
    /// Attributes changed.
    Attrs { nid: Nid },
    /// The daemon itself changed the content of a file.
    Content { nid: Nid },
    /// The entries of the folder changed. Telling only the names is not enough: of a name that the
    /// kernel does not know, it takes no word, and goes on showing a listing that it has kept.
    Listing { nid: Nid },
    /// What whoever watches should hear; all of it has been invalidated.
    Felt(Vec<Felt>),
    /// Everything before this has been told when this is answered.
    Told(Sender<()>),
}

/// Why a change of the tree did not happen.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("no such file or folder")]
    NotFound,
    #[error("the name is taken")]
    Exists,
    #[error("not a folder")]
    NotDir,
    #[error("is a folder")]
    IsDir,
    #[error("the folder is not empty")]
    NotEmpty,
    #[error("not allowed")]
    Forbidden,
    #[error("this folder is shared with you for reading only")]
    ReadOnly,
    #[error("the folder leads into another drive")]
    Busy,
    #[error("a folder cannot move into itself")]
    IntoItself,
    #[error("not between these folders")]
    CrossDevice,
    #[error("the server sent what makes no sense: {0}")]
    Protocol(String),
    /// Folders form a cycle until rows behind this page are applied with it.
    #[error("the server's changes make sense only together with those of the next page")]
    Torn,
    #[error("over a limit")]
    Limit,
    #[error("no room for more extended attributes")]
    XattrsFull,
    #[error("no such attribute")]
    NoAttribute,
    #[error("not supported")]
    Unsupported,
    #[error("it changed meanwhile")]
    Moved,
}

impl TreeError {
    /// True when the local disk had no room.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Db(DbError::Full) => true,
            Self::Spool(e) => e.is_disk_full(),
            _ => false,
        }
    }
}

/// The tree of one device.
pub struct Tree {
    db: Arc<Db>,
    journal: Arc<Journal>,
    spool: Arc<Spool>,
    next_nid: AtomicU64,
    device: String,
    listener: Mutex<Option<Sender<Invalidation>>>,
    filling: Filling,
    unnamed: Unnamed,
}

impl Tree {
    pub fn open(
        db: Arc<Db>,
        journal: Arc<Journal>,
        spool: Arc<Spool>,
        device: String,
    ) -> Result<Self, DbError> {
        let (next, filling) =
            db.read(|c| Ok::<_, DbError>((c.max_nid()? + 1, Filling::load(c)?)))?;
        Ok(Self {
            db,
            journal,
            spool,
            next_nid: AtomicU64::new(next.max(ROOT + 1)),
            device,
            listener: Mutex::default(),
            filling,
            unnamed: Unnamed::default(),
        })
    }

    /// Who hears of what the kernel has to forget.
    pub fn set_listener(&self, listener: Sender<Invalidation>) {
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
    }

    /// True when somebody hears.
    fn is_heard(&self) -> bool {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub fn db(&self) -> &Arc<Db> {
        &self.db
    }

    pub fn spool(&self) -> &Arc<Spool> {
        &self.spool
    }

    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    fn announce(&self, what: Vec<Invalidation>) {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(listener) = &*listener else { return };
        let mut folders = BTreeSet::new();
        for one in what {
            if let Invalidation::Entry { parent, .. } | Invalidation::Gone { parent, .. } = &one {
                folders.insert(*parent);
            }
            // The listener is gone when the mount is: then nothing is cached either.
            let _ = listener.send(one);
        }
        for nid in folders {
            let _ = listener.send(Invalidation::Listing { nid });
        }
    }

    /// Tells the kernel to drop what it knows by a name, for the sake of memory: it has not changed.
    pub fn let_kernel_drop(&self, parent: Nid, name: Vec<u8>) {
        self.announce(vec![Invalidation::Entry { parent, name }]);
    }

    /// Waits until the kernel knows of all that changed here until now, at most `wait`.
    pub fn wait_until_told(&self, wait: Duration) {
        let (done, told) = channel();
        self.announce(vec![Invalidation::Told(done)]);
        // Without a mount the question is dropped, and with it the wait ends.
        let _ = told.recv_timeout(wait);
    }

    fn new_nid(&self) -> Nid {
        self.next_nid.fetch_add(1, Ordering::Relaxed)
    }

    /// A node by number; a folder that leads into another namespace is its root there.
    pub fn node(&self, nid: Nid) -> Result<Node, TreeError> {
        self.db.peek(|c| {
            let node = c.node(nid)?.ok_or(TreeError::NotFound)?;
            through_mount(c, node)
        })
    }

    /// Fails when the namespace of a node may only be read.
    pub fn check_writable(&self, node: &Node) -> Result<(), TreeError> {
        self.db.peek(|c| may_write(c, node.ns))
    }

    /// How many changes the database has seen.
    pub fn changes(&self) -> u64 {
        self.db.changes()
    }

    pub fn lookup(&self, parent: Nid, name: &[u8]) -> Result<Node, TreeError> {
        self.db.peek(|c| {
            let node = c.child(parent, name)?.ok_or(TreeError::NotFound)?;
            through_mount(c, node)
        })
    }

    /// Up to `limit` entries of a folder in name order behind `after`.
    pub fn list(
        &self,
        parent: Nid,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<NodeEntry>, TreeError> {
        self.db.peek(|c| {
            let mut entries = c.children(parent, after, limit)?;
            for entry in &mut entries {
                if entry.node.kind == NodeKind::Mount {
                    entry.node = through_mount(c, entry.node.clone())?;
                }
            }
            Ok(entries)
        })
    }

    /// A path of the node from the root of the mount, for people; one of several if linked.
    pub fn path_of(&self, nid: Nid) -> Result<String, TreeError> {
        self.db.read(|c| path_of(c, nid))
    }

    /// The names on the way from the root of the mount to the node.
    pub fn names_to(&self, nid: Nid) -> Result<Vec<Vec<u8>>, TreeError> {
        self.db.peek(|c| names_to(c, nid))
    }

    /// The node at a path of names below the root.
    pub fn resolve_path(&self, names: &[&[u8]]) -> Result<Node, TreeError> {
        let mut node = self.node(ROOT)?;
        for name in names {
            node = self.lookup(node.nid, name)?;
        }
        Ok(node)
    }
}

/// Entries read at once where all of a folder are gone through.
const CHUNK: usize = 512;

/// Calls `f` for every entry of a folder.
fn each_entry(
    c: &Conn<'_>,
    folder: Nid,
    mut f: impl FnMut(NodeEntry) -> Result<(), TreeError>,
) -> Result<(), TreeError> {
    let mut after = Vec::new();
    loop {
        let entries = c.children(folder, &after, CHUNK)?;
        let Some(last) = entries.last() else { return Ok(()) };
        after.clone_from(&last.name);
        entries.into_iter().try_for_each(&mut f)?;
    }
}

/// A fresh node id.
pub fn new_id() -> NodeId {
    let mut random = [0; 10];
    host::fill(&mut random);
    NodeId::from_parts((now() / 1_000_000).max(0) as u64, random)
}

fn through_mount(c: &Conn<'_>, node: Node) -> Result<Node, TreeError> {
    let Some(ns) = node.mount else { return Ok(node) };
    // Until the namespace is here, the mount node itself stands for an empty folder.
    let Some(there) = c.namespace(ns)? else { return Ok(node) };
    c.node(there.root)?.ok_or(TreeError::NotFound)
}

fn path_of(c: &Conn<'_>, nid: Nid) -> Result<String, TreeError> {
    let names = names_to(c, nid)?;
    let names: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name)).collect();
    Ok(names.join("/"))
}

fn names_to(c: &Conn<'_>, nid: Nid) -> Result<Vec<Vec<u8>>, TreeError> {
    let mut names = Vec::new();
    let mut at = nid;
    for _ in 0..drivefs_core::limits::DEPTH_MAX {
        if at == ROOT {
            break;
        }
        match c.places(at)?.into_iter().next() {
            Some((parent, name)) => {
                names.push(name);
                at = parent;
            }
            None => match mount_place(c, at)? {
                Some(mount) => at = mount,
                None => break,
            },
        }
    }
    names.reverse();
    Ok(names)
}

/// The mount node that leads to the namespace whose root this is.
fn mount_place(c: &Conn<'_>, root: Nid) -> Result<Option<Nid>, TreeError> {
    let Some(space) = c.namespaces()?.into_iter().find(|s| s.root == root) else {
        return Ok(None);
    };
    Ok(c.mount_of(space.ns)?)
}

/// Fails when the namespace may only be read.
fn may_write(c: &Conn<'_>, ns: NamespaceId) -> Result<(), TreeError> {
    match c.namespace(ns)? {
        Some(space) if space.role == drivefs_core::wire::Role::Viewer => Err(TreeError::ReadOnly),
        _ => Ok(()),
    }
}
