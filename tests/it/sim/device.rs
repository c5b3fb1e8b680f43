//! One simulated device: the real tree, spool, cache and engine over a folder in memory. The engine
//! takes single steps when the world says so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use drivefs::cache::BlockCache;
use drivefs::cache::DataFiles;
use drivefs::fs::DriveFs;
use drivefs::fs::Owner;
use drivefs::fs::ReadHere;
use drivefs::journal::Journal;
use drivefs::remote::Remote;
use drivefs::spool::Spool;
use drivefs::state::Db;
use drivefs::state::Nid;
use drivefs::state::Node;
use drivefs::state::ROOT;
use drivefs::sync::Engine;
use drivefs::sync::EngineHandle;
use drivefs::tree::NewNode;
use drivefs::tree::Tree;
use drivefs_core::id::NamespaceId;
use drivefs_core::node::NodeKind;
use tokio::task::JoinHandle;

use super::machine::Actor;
use super::net::Net;
use super::net::Wire;
use crate::story::ME;

/// Cache of a device (bytes).
const CACHE_BYTES: u64 = 1 << 30;

/// A device, running or not.
pub struct Device {
    pub number: usize,
    pub name: String,
    pub root: NamespaceId,
    token: String,
    folder: PathBuf,
    net: Arc<Net>,
    boots: Arc<AtomicU64>,
    /// The folder that this device alone works in, if that is how the world is.
    own: Option<Nid>,
    pub on: Option<On>,
}

/// What dies with the process.
pub struct On {
    pub fs: Arc<DriveFs>,
    pub handle: EngineHandle,
    engine: Arc<Mutex<Option<Engine>>>,
    step: Option<JoinHandle<()>>,
    /// Files held open for writing: number and handle.
    pub held: Vec<(u64, u64)>,
    reads: Vec<JoinHandle<()>>,
}

/// What a path shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub node: String,
    pub kind: NodeKind,
    pub mode: u32,
    pub mtime: i64,
    pub size: u64,
    pub target: Option<Vec<u8>>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Manifest, where nothing lies above it.
    pub content: Option<Vec<u8>>,
}

impl Device {
    pub fn new(
        number: usize,
        (name, token): (&str, &str),
        root: NamespaceId,
        folder: PathBuf,
        net: Arc<Net>,
    ) -> Self {
        Self {
            number,
            name: name.into(),
            token: token.into(),
            root,
            folder,
            net,
            boots: Arc::default(),
            own: None,
            on: None,
        }
    }

    pub fn actor(&self) -> Actor {
        Actor::Device(self.number)
    }

    fn home(&self, boot: u64) -> PathBuf {
        self.folder.join(format!("{}-{boot}", self.name))
    }

    /// Starts the process over what is in its folder.
    pub fn boot(&mut self) {
        let boot = self.boots.fetch_add(1, Ordering::SeqCst) + 1;
        let home = self.home(boot);
        std::fs::create_dir_all(&home).expect("a home");
        self.net.machine.start(self.number, &home, &self.home(boot + 1));
        self.net.machine.enter(self.actor());
        let (net, boots) = (self.net.clone(), self.boots.clone());
        let wire = Wire { net, device: self.number, boot, boots };
        let remote = Remote::over(Arc::new(wire), Some(self.token.clone()));
        let db = Arc::new(Db::open(&home.join("state.db")).expect("a database"));
        let files = DataFiles::open_dir(&home.join("data")).expect("a data folder");
        let newest = files.allocate(&db).expect("a number");
        let cache = BlockCache::open(db.clone(), files, Some(remote.clone()), CACHE_BYTES);
        let cache = Arc::new(cache.expect("a cache"));
        let journal = Arc::new(Journal::open(&db).expect("a journal"));
        let runtime = tokio::runtime::Handle::current();
        let spool = Arc::new(Spool::new(db.clone(), cache.clone(), journal.clone(), runtime));
        let tree = Tree::open(db, journal, spool.clone(), self.name.clone()).expect("a tree");
        let tree = Arc::new(tree);
        for node in spool.recover().expect("recovers") {
            if node.links == 0 {
                tree.drop_orphan(node.nid).expect("drops");
            }
        }
        if boot > 1 {
            cache.sweep(newest).expect("sweeps");
        }
        let owner = Owner { uid: ME.uid, gid: ME.gid };
        let fs = Arc::new(DriveFs::new(tree.clone(), owner, remote.clone(), String::new()));
        let (engine, handle) = Engine::new(remote, tree, self.root);
        self.on = Some(On {
            fs,
            handle,
            engine: Arc::new(Mutex::new(Some(engine))),
            step: None,
            held: Vec::new(),
            reads: Vec::new(),
        });
    }

    /// Kill -9: the next boot finds what is in the folder now.
    pub fn kill(&mut self) {
        self.net.machine.kill(self.actor());
        self.bury();
    }

    /// Takes away what a dead process left in memory.
    pub fn bury(&mut self) {
        self.net.machine.enter(self.actor());
        self.net.forget(self.number);
        if let Some(on) = self.on.take() {
            on.step.iter().chain(&on.reads).for_each(JoinHandle::abort);
        }
    }

    pub fn on(&self) -> &On {
        self.on.as_ref().expect("the device is on")
    }

    pub fn fs(&self) -> &Arc<DriveFs> {
        &self.on().fs
    }

    pub fn tree(&self) -> &Arc<Tree> {
        self.fs().tree()
    }

    /// True while the engine is in a step.
    pub fn is_stepping(&self) -> bool {
        self.on().step.as_ref().is_some_and(|step| !step.is_finished())
    }

    /// Lets the engine take a step; it goes on whenever the network lets it.
    pub fn step(&mut self) {
        let on = self.on.as_mut().expect("on");
        let slot = on.engine.clone();
        let Some(mut engine) = slot.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        on.step = Some(tokio::spawn(async move {
            // Why it failed stands in the status; the next step tries again.
            let _ = engine.step().await;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(engine);
        }));
    }

    /// Reads a file in the background, as a program would, which fills the cache.
    pub fn read_in_background(&mut self, nid: u64) {
        let on = self.on.as_mut().expect("on");
        let Ok(content) = on.fs.spool().content(nid) else { return };
        let spool = on.fs.spool().clone();
        let task = tokio::spawn(async move {
            // Without the server it fails, and that is all.
            let _ = spool.read(&content, 0, 1 << 30).await;
        });
        on.reads.push(task);
    }

    /// The whole content as this device shows it, as far as no network is needed.
    pub fn read_here(&self, nid: u64) -> Option<Vec<u8>> {
        match self.fs().read_here(nid, 0, 0, 1 << 30) {
            Ok(ReadHere::Bytes(bytes)) => Some(bytes.to_vec()),
            Ok(ReadHere::Elsewhere(_)) | Err(_) => None,
        }
    }

    /// Every path with its node.
    pub fn nodes(&self) -> BTreeMap<String, Node> {
        let mut out = BTreeMap::new();
        let mut folders = vec![(ROOT, String::new())];
        while let Some((nid, dir)) = folders.pop() {
            for entry in self.tree().list(nid, b"", 100_000).expect("a listing") {
                let path = format!("{dir}{}", String::from_utf8_lossy(&entry.name));
                if entry.node.kind.is_folder() {
                    folders.push((entry.node.nid, format!("{path}/")));
                }
                out.insert(path, entry.node);
            }
        }
        out
    }

    /// Makes the folder that this device alone works in from now on.
    pub fn make_own_folder(&mut self) {
        let folder = NewNode {
            kind: NodeKind::Dir,
            mode: 0o755,
            uid: None,
            gid: None,
            rdev: 0,
            target: None,
        };
        let made = self.fs().make(ROOT, self.name.as_bytes(), ME, folder).expect("a folder");
        self.own = Some(made.nid);
    }

    /// Where it works, and what the paths there begin with.
    pub fn ground(&self) -> (Nid, String) {
        match self.own {
            Some(own) => (own, format!("{}/", self.name)),
            None => (ROOT, String::new()),
        }
    }

    /// Every path with its node where this device works.
    pub fn nodes_of_its_ground(&self) -> BTreeMap<String, Node> {
        let below = self.ground().1;
        self.nodes().into_iter().filter(|(path, _)| path.starts_with(&below)).collect()
    }

    /// What this device alone works on: nobody else has a say in how it ends.
    pub fn seen_of_its_own(&self) -> BTreeMap<String, Seen> {
        if self.own.is_none() {
            return BTreeMap::new();
        }
        let below = self.ground().1;
        let mut seen = self.seen();
        seen.retain(|path, _| path.starts_with(&below));
        // Layers become blocks on the way.
        seen.values_mut().for_each(|seen| seen.content = None);
        seen
    }

    /// The content of every file, as far as it is here.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let files = self.nodes().into_iter().filter(|(_, n)| n.kind == NodeKind::File);
        files.filter_map(|(path, n)| Some((path, self.read_here(n.nid)?))).collect()
    }

    /// Paths of files that are held open for writing.
    pub fn open_paths(&self) -> Vec<String> {
        let is_held = |nid: u64| self.on().held.iter().any(|(held, _)| *held == nid);
        self.nodes().into_iter().filter(|(_, n)| is_held(n.nid)).map(|(path, _)| path).collect()
    }

    pub fn seen(&self) -> BTreeMap<String, Seen> {
        let see = |node: Node| Seen {
            node: node.id.to_string(),
            kind: node.kind,
            mode: node.attrs.mode,
            mtime: node.attrs.mtime,
            size: node.size,
            target: node.target,
            xattrs: node.xattrs.iter().map(|(k, v)| (k.clone(), v.0.clone())).collect(),
            content: node.content,
        };
        self.nodes().into_iter().map(|(path, node)| (path, see(node))).collect()
    }
}
