//! One device as far as names and contents go: the real tree, journal, spool and database over a
//! folder in memory. Between its tree and a server stands this file in the place of the engine: it
//! pulls, freezes, plans and takes answers in, in the engine's order, on one thread.

use std::collections::HashMap;
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::limits::CHANGES_ROWS_MAX;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Blob;
use drivefs_core::wire::Change;
use drivefs_core::wire::Place;
use drivefs_core::wire::Point;

use super::super::plan;
use super::server::Server;
use super::view::Key;
use super::view::Seen;
use super::view::View;
use super::view::key;
use crate::cache::BlockCache;
use crate::cache::DataFiles;
use crate::host;
use crate::journal::Journal;
use crate::spool::Content;
use crate::spool::Spool;
use crate::spool::SpoolError;
use crate::state::Db;
use crate::state::Nid;
use crate::state::Node;
use crate::tree::NewNode;
use crate::tree::PendingNode;
use crate::tree::RenameMode;
use crate::tree::SentOp;
use crate::tree::SetAttrs;
use crate::tree::Tree;
use crate::tree::TreeError;

const CACHE_BYTES: u64 = 1 << 30;
/// Where the clock stands when a case begins (nanoseconds since the epoch).
const DAWN_NS: i64 = 1_793_491_200_000_000_000;
/// Between two looks at the clock.
const TICK_NS: i64 = 1_000;

/// Time and chance of one case: always the same, but for a number in the ids.
#[derive(Default)]
struct Machine(Mutex<(u64, i64, u32)>);

impl Machine {
    fn begin(&self, case: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (case, 0, 0);
    }
}

impl host::Host for Machine {
    fn now(&self) -> i64 {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inside.1 += TICK_NS;
        DAWN_NS + inside.1
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, _time: Duration) {}

    /// The end of what is asked for counts up: version and variant of an id are in its front.
    fn fill(&self, bytes: &mut [u8]) {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inside.2 += 1;
        bytes.fill(0);
        let tail = ((inside.0 << 24) | u64::from(inside.2)).to_be_bytes();
        let len = bytes.len().min(7);
        let at = bytes.len() - len;
        bytes[at..].copy_from_slice(&tail[8 - len..]);
    }

    fn before_write(&self) -> io::Result<()> {
        Ok(())
    }

    /// Nothing here waits for anything else.
    fn block_on(&self, work: Pin<&mut (dyn Future<Output = ()> + Send)>) {
        let done = work.poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(done, Poll::Ready(()), "nothing waits for the network");
    }
}

pub struct Device {
    pub tree: Arc<Tree>,
    pub ns: NamespaceId,
    machine: Arc<Machine>,
    /// Contents under layers that no block shows yet.
    written: HashMap<Nid, Vec<u8>>,
    /// Files whose content is not sent in the first round, and files that are open in it.
    slow: HashSet<Nid>,
    open: Vec<Arc<Content>>,
    _runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

impl Device {
    pub fn new() -> Self {
        let machine = Arc::new(Machine::default());
        host::simulate(Some(machine.clone()));
        let memory = Path::new("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.expect("a folder");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let db = Arc::new(Db::open(&folder.path().join("state.db")).expect("a database"));
        let files = DataFiles::open_dir(&folder.path().join("data")).expect("a data folder");
        let cache = BlockCache::open(db.clone(), files, None, CACHE_BYTES).expect("a cache");
        let journal = Arc::new(Journal::open(&db).expect("a journal"));
        let handle = runtime.handle().clone();
        let spool = Spool::new(db.clone(), Arc::new(cache), journal.clone(), handle);
        let tree = Tree::open(db, journal, Arc::new(spool), "here".into()).expect("a tree");
        Self {
            tree: Arc::new(tree),
            ns: NamespaceId(0),
            machine,
            written: HashMap::new(),
            slow: HashSet::new(),
            open: Vec::new(),
            _runtime: runtime,
            _folder: folder,
        }
    }

    /// Every case has a namespace of its own: that costs less than a database of its own.
    pub fn begin(&mut self, case: u64) {
        self.machine.begin(case);
        self.ns = NamespaceId(case);
        self.written.clear();
        self.slow.clear();
        self.open.clear();
    }

    fn spool(&self) -> &Arc<Spool> {
        self.tree.spool()
    }

    /// The tree as programs see it.
    pub fn view(&self) -> Result<View, TreeError> {
        let space = self.tree.db().peek(|c| c.namespace(self.ns))?.ok_or(TreeError::NotFound)?;
        let top = self.tree.node(space.root)?;
        let mut view = View::new(top.id);
        let mut folders = vec![top.clone()];
        self.add(&mut view, &top);
        while let Some(dir) = folders.pop() {
            for entry in self.tree.list(dir.nid, b"", usize::MAX >> 1)? {
                self.add(&mut view, &entry.node);
                view.entries.insert((dir.id, entry.name), entry.node.id);
                if entry.node.kind.is_folder() {
                    folders.push(entry.node);
                }
            }
        }
        Ok(view)
    }

    fn add(&self, view: &mut View, node: &Node) {
        let has_layers = node.live.is_some() || node.frozen.is_some();
        let written = self.written.get(&node.nid).filter(|_| has_layers);
        let seen = Seen {
            folder: node.kind.is_folder(),
            attrs: node.attrs,
            xattrs: node.xattrs.clone(),
            content: written.or(node.content.as_ref()).cloned(),
            version: node.version,
        };
        view.nodes.insert(node.id, seen);
        view.nids.insert(node.id, node.nid);
    }

    /// Does what programs ask for.
    pub fn work(
        &mut self,
        changes: &[Change],
        view: &View,
        bytes: &[u8],
        (slow, open): (bool, bool),
    ) -> Result<(), TreeError> {
        let tree = self.tree.clone();
        let nid = |id: &NodeId| view.nids[id];
        let at = |place: &Place| -> (Nid, Vec<u8>) {
            let (parent, name): Key = key(place);
            (view.nids[&parent], name)
        };
        for change in changes {
            match change {
                Change::Put { create, node, content, .. } => {
                    let file = match create {
                        Some(place) => {
                            let (parent, name) = at(place);
                            tree.make_file(parent, &name, new_node(NodeKind::File))?.1
                        }
                        None => self.spool().content(nid(node))?,
                    };
                    if create.is_none() {
                        self.spool().truncate(&file, 0)?;
                    }
                    self.write(file, bytes, content, (slow, open))?;
                }
                Change::Mkdir { place, .. } => {
                    let (parent, name) = at(place);
                    tree.make(parent, &name, new_node(NodeKind::Dir))?;
                }
                Change::Link { node, place } => {
                    let (parent, name) = at(place);
                    tree.link(nid(node), parent, &name)?;
                }
                Change::Move { from, to, exchange, .. } => {
                    let ((parent, name), (new_parent, new_name)) = (at(from), at(to));
                    let mode = if *exchange { RenameMode::Exchange } else { RenameMode::Replace };
                    tree.rename(parent, &name, new_parent, &new_name, mode)?;
                }
                Change::Unlink { place, .. } => {
                    let (parent, name) = at(place);
                    tree.unlink(parent, &name)?;
                }
                Change::Rmdir { place, .. } => {
                    let (parent, name) = at(place);
                    if let Some(folder) = tree.rmdir(parent, &name)? {
                        self.let_go(folder.nid)?;
                    }
                }
                Change::Setattr { node, attrs } => {
                    let set = SetAttrs { mode: Some(attrs.mode), ..SetAttrs::default() };
                    tree.set_attrs(nid(node), &set)?;
                }
                Change::Setxattr { node, name, value } => {
                    let value = value.as_ref().map(|Blob(value)| value.as_slice());
                    tree.set_xattr(nid(node), name, value, false, false)?;
                }
                other => unreachable!("no user does {other:?}"),
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        file: Arc<Content>,
        bytes: &[u8],
        Blob(content): &Blob,
        (slow, open): (bool, bool),
    ) -> Result<(), TreeError> {
        let nid = file.nid;
        self.spool().write(&file, 0, bytes)?;
        self.spool().save_size(&file)?;
        self.written.insert(nid, content.clone());
        if slow {
            self.slow.insert(nid);
        }
        if open {
            self.open.push(file);
        } else {
            drop(file);
            self.let_go(nid)?;
        }
        Ok(())
    }

    /// What follows the last use of a file.
    fn let_go(&self, nid: Nid) -> Result<(), TreeError> {
        if self.spool().loaded(nid).is_none() {
            self.spool().forget(nid);
            self.tree.drop_orphan(nid)?;
        }
        Ok(())
    }

    /// Takes up to `pages` pages; true when that is all that the server has.
    pub fn pull(&self, server: &Server, rows: u32, pages: usize) -> Result<bool, TreeError> {
        let (mut left, mut limit) = (pages, rows);
        while left > 0 {
            let cursor = self.tree.cursor(self.ns)?.unwrap_or(0);
            let page = server.changes(cursor, limit as usize);
            match self.tree.apply(self.ns, false, &page) {
                Err(TreeError::Torn) if page.more && limit < CHANGES_ROWS_MAX => {
                    limit = limit.saturating_mul(4).min(CHANGES_ROWS_MAX);
                    continue;
                }
                other => other?,
            };
            limit = rows;
            if !page.more {
                return Ok(true);
            }
            left -= 1;
        }
        Ok(false)
    }

    /// Turns what was written into blocks, which the server has from then on.
    fn freeze(&self) -> Result<(), TreeError> {
        let (nodes, _) = self.tree.pending(self.ns, usize::MAX >> 1)?;
        let has_layers = |n: &&PendingNode| n.local.live.is_some() || n.local.frozen.is_some();
        let mut files = Vec::new();
        for node in nodes.iter().filter(has_layers).filter(|n| !self.is_slow(n)) {
            match self.spool().content(node.local.nid) {
                Err(SpoolError::Gone) => {}
                content => files.push(content?),
            }
        }
        if let Some((file, error)) = self.spool().freeze(&files)?.pop() {
            return Err(TreeError::Protocol(format!("file {} does not freeze: {error}", file.nid)));
        }
        let nids: Vec<Nid> = files.drain(..).map(|file| file.nid).collect();
        nids.into_iter().try_for_each(|nid| self.let_go(nid))
    }

    fn is_slow(&self, node: &PendingNode) -> bool {
        self.slow.contains(&node.local.nid)
    }

    /// As `Engine::is_ready`, with every frozen content on the server.
    fn is_ready(&self, node: &PendingNode) -> bool {
        if node.local.kind != NodeKind::File {
            return true;
        }
        if node.local.content == node.base.content && node.base.agreed.is_some() {
            return node.local.live.is_none() && node.local.frozen.is_none();
        }
        node.local.content != node.base.content && !self.is_slow(node)
    }

    /// What to commit now.
    pub fn plan(&self) -> Result<Vec<Change>, TreeError> {
        self.freeze()?;
        let (nodes, dirents) = self.tree.pending(self.ns, usize::MAX >> 1)?;
        let leaving = self.tree.moving_out(self.ns)?;
        let root = self.tree.root_id(self.ns)?;
        Ok(plan(root, &leaving, &nodes, &dirents, |n| self.is_ready(n)))
    }

    /// Nothing is to be sent: what came to nothing is forgotten.
    pub fn settle(&self) -> Result<(), TreeError> {
        self.tree.settle_all(self.ns, usize::MAX >> 1)
    }

    /// Takes in what the server has done.
    pub fn take_answer(&self, done: &[SentOp], at: Point) -> Result<(), TreeError> {
        self.tree.sent(self.ns, done, at)
    }

    /// From the second round on nothing is slow, and no file is open.
    pub fn end_first_round(&mut self) -> Result<(), TreeError> {
        self.slow.clear();
        let nids: Vec<Nid> = self.open.drain(..).map(|file| file.nid).collect();
        nids.into_iter().try_for_each(|nid| self.let_go(nid))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.open.clear();
        host::simulate(None);
    }
}

fn new_node(kind: NodeKind) -> NewNode {
    let mode = if kind == NodeKind::Dir { 0o755 } else { 0o644 };
    NewNode { kind, mode, uid: None, gid: None, rdev: 0, target: None }
}
