//! A small language for stories: devices that work on one drive, without a kernel.
//!
//! A device is the real tree, spool, cache and engine over a folder; the server is the real one,
//! in this process, on loopback. `restart` drops a device without warning and opens it again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use drivefs::cache::BlockCache;
use drivefs::cache::DataFiles;
use drivefs::control;
use drivefs::control::Keep;
use drivefs::control::Reply;
use drivefs::control::Resolved;
use drivefs::fs::Caller;
use drivefs::fs::DriveFs;
use drivefs::fs::Owner;
use drivefs::fs::ReadHere;
use drivefs::fs::Spot;
use drivefs::journal::Journal;
use drivefs::remote::Remote;
use drivefs::spool::Spool;
use drivefs::state::Db;
use drivefs::state::DbError;
use drivefs::state::ROOT;
use drivefs::sync::Engine;
use drivefs::sync::EngineHandle;
use drivefs::sync::pull_all;
use drivefs::sync::pull_some;
use drivefs::tree::NewNode;
use drivefs::tree::RenameMode;
use drivefs::tree::Tree;
use drivefs::tree::TreeError;
use drivefs_core::id::NamespaceId;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::LoginRequest;
use drivefs_server::app::Server;
use drivefs_server::config::Config;
use drivefs_server::metadata::Store;

use crate::network::Network;
use crate::network::Weather;

const EMAIL: &str = "alice@example.org";
const PASSWORD: &str = "correct horse battery";
const WAIT: Duration = Duration::from_secs(30);
pub const ME: Caller = Caller { uid: 1000, gid: 1000 };

/// A server and its devices.
pub struct World {
    pub runtime: tokio::runtime::Runtime,
    folder: tempfile::TempDir,
    server: Mutex<Option<Server>>,
    url: String,
}

/// One device.
pub struct Device<'w> {
    world: &'w World,
    name: String,
    token: String,
    root: NamespaceId,
    running: Option<Running>,
    /// It takes one page of the server's list and then waits, until it goes online.
    held: bool,
    /// What lies between it and the server, if that is to give trouble.
    network: Option<Network>,
}

struct Running {
    remote: Remote,
    fs: Arc<DriveFs>,
    engine: EngineHandle,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl World {
    pub fn new() -> Self {
        // RUST_LOG=drivefs=debug shows what the engines do; a second world finds it set up.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let mut world = Self { runtime, folder, server: Mutex::default(), url: String::new() };
        world.url = format!("http://{}", world.start_server(([127, 0, 0, 1], 0).into()));
        let store = world.store();
        world.runtime.block_on(async {
            drivefs_server::drive::users::add(&store, EMAIL, PASSWORD, 1 << 40)
                .await
                .expect("an account");
        });
        world
    }

    fn server_folder(&self) -> PathBuf {
        self.folder.path().join("server")
    }

    fn start_server(&self, listen: SocketAddr) -> SocketAddr {
        let config = Config { listen, ..Config::local(&self.server_folder()) };
        let server = self.runtime.block_on(Server::start(config)).expect("the server starts");
        let addr = server.addr();
        *self.server() = Some(server);
        addr
    }

    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server's database.
    pub fn store(&self) -> Store {
        self.server().as_ref().expect("started").store().clone()
    }

    /// Does something to the server's data while it is down, and starts it where it was.
    pub fn while_down(&self, work: impl FnOnce(&Path)) {
        let server = self.server().take().expect("started");
        let listen = server.addr();
        self.runtime.block_on(server.stop()).expect("the server stops");
        // The last task that was cut off closes the database, which empties its log.
        let log = self.server_folder().join("metadata.db-wal");
        let until = Instant::now() + WAIT;
        while log.exists() {
            assert!(Instant::now() < until, "the server's database stays open");
            std::thread::sleep(Duration::from_millis(2));
        }
        work(&self.server_folder());
        self.start_server(listen);
    }

    /// Copies the server's data, as an operator does.
    pub fn back_up(&self) {
        let copy = self.folder.path().join("backup");
        self.while_down(|data| copy_folder(data, &copy));
    }

    /// Puts the copy back in place of the data.
    pub fn restore(&self) {
        let copy = self.folder.path().join("backup");
        self.while_down(|data| copy_folder(&copy, data));
    }

    pub fn device(&self, name: &str) -> Device<'_> {
        self.new_device(name, false)
    }

    /// A device that has the first page of the server's list and no engine yet.
    pub fn filling_device(&self, name: &str) -> Device<'_> {
        self.new_device(name, true)
    }

    /// A device whose way to the server can give trouble.
    pub fn far_device(&self, name: &str) -> Device<'_> {
        let mut device = self.new_device(name, false);
        device.stop();
        device.network = Some(Network::to(&self.url));
        device.start();
        device
    }

    fn new_device(&self, name: &str, held: bool) -> Device<'_> {
        let reply = self.runtime.block_on(async {
            let request = LoginRequest {
                email: EMAIL.into(),
                password: PASSWORD.into(),
                device: name.into(),
            };
            Remote::new(&self.url, None).expect("an address").login(&request).await
        });
        let reply = reply.expect("a login");
        let mut device = Device {
            world: self,
            name: name.into(),
            token: reply.token,
            root: reply.account.root,
            running: None,
            held,
            network: None,
        };
        device.open();
        device
    }
}

/// Makes `to` a copy of `from`.
fn copy_folder(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).expect("the old one goes");
    }
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let server = self.server().take();
        if let Some(server) = server {
            self.runtime.block_on(server.stop()).expect("the server stops");
        }
    }
}

impl Device<'_> {
    pub fn home(&self) -> PathBuf {
        self.world.folder.path().join(&self.name)
    }

    fn open(&mut self) {
        let home = self.home();
        std::fs::create_dir_all(&home).expect("a home");
        let runtime = &self.world.runtime;
        let remote = Remote::new(&self.url(), Some(self.token.clone())).expect("an address");
        // Whoever dropped the last one may be about to close it.
        let until = Instant::now() + WAIT;
        let db = loop {
            match Db::open(&home.join("state.db")) {
                Err(DbError::InUse) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                opened => break Arc::new(opened.expect("a database")),
            }
        };
        let files = DataFiles::open_dir(&home.join("data")).expect("a data folder");
        let cache = BlockCache::open(db.clone(), files, Some(remote.clone()), 1 << 30);
        let cache = Arc::new(cache.expect("a cache"));
        let journal = Arc::new(Journal::open(&db).expect("a journal"));
        let handle = runtime.handle().clone();
        let spool = Arc::new(Spool::new(db.clone(), cache, journal.clone(), handle));
        let tree = Tree::open(db, journal, spool.clone(), self.name.clone()).expect("a tree");
        let tree = Arc::new(tree);
        for node in spool.recover().expect("recovers") {
            tree.drop_orphan(node.nid).expect("drops");
        }
        if tree.cursor(self.root).expect("a cursor").is_none() {
            let fill = async {
                if self.held {
                    return pull_some(&remote, &tree, self.root, 1).await.map(drop);
                }
                pull_all(&remote, &tree, self.root, |_| {}).await
            };
            runtime.block_on(fill).expect("the first fill");
        }
        let owner = Owner { uid: ME.uid, gid: ME.gid };
        let fs = DriveFs::new(tree.clone(), owner, remote.clone(), String::new());
        let (engine, handle) = Engine::new(remote.clone(), tree, self.root);
        let task = (!self.held).then(|| runtime.spawn(engine.run()));
        self.running = Some(Running { remote, fs: Arc::new(fs), engine: handle, task });
    }

    fn url(&self) -> String {
        self.network.as_ref().map_or_else(|| self.world.url.clone(), Network::url)
    }

    /// The way of a `far_device` to the server.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("a far device")
    }

    /// Cuts the way to the server, and waits until the device knows.
    pub fn cut(&self) {
        self.network().set(Weather::Cut);
        let until = Instant::now() + WAIT;
        while self.running().remote.link().is_online() {
            assert!(Instant::now() < until, "{} does not notice", self.name);
            self.running().engine.begin_sync().expect("begins");
            self.world
                .runtime
                .block_on(self.running().engine.next_round(Duration::from_millis(50)));
        }
    }

    pub fn heal(&self) {
        self.network().set(Weather::Fair);
    }

    /// `drivefs resolve`; what it said where it did not.
    pub fn resolve(&self, path: &str, keep: Keep) -> Result<Resolved, String> {
        let running = self.running();
        let resolve = control::resolve(&running.fs, &running.engine, path, keep);
        match self.world.runtime.block_on(resolve) {
            Reply::Resolved(done) => Ok(done),
            Reply::Failed { message } => Err(message),
            other => panic!("{other:?}"),
        }
    }

    /// Paths of conflict files and of their origins.
    pub fn conflicts(&self) -> Vec<(String, Option<String>)> {
        let all = self.fs().tree().conflicts().expect("conflicts");
        all.into_iter().map(|c| (c.path, c.origin.map(|o| o.path))).collect()
    }

    /// Opens a file for writing: its number and the handle.
    pub fn hold_open(&self, path: &str) -> (u64, u64) {
        let nid = self.nid(path);
        (nid, self.fs().open(nid, true).expect(path))
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the device is on")
    }

    /// What this device's requests go through, listings on demand too.
    pub fn remote(&self) -> &Remote {
        &self.running().remote
    }

    pub fn wait_for<T>(&self, what: impl Future<Output = T>) -> T {
        self.world.runtime.block_on(what)
    }

    pub fn fs(&self) -> &Arc<DriveFs> {
        &self.running().fs
    }

    /// Stops the engine: the device works on without the server.
    pub fn go_offline(&mut self) {
        if let Some(task) = self.running.as_mut().expect("on").task.take() {
            task.abort();
            // It ends as cancelled: that is the point.
            let _ = self.world.runtime.block_on(task);
        }
    }

    /// Starts an engine again over what is in memory, open files too.
    pub fn go_online(&mut self) {
        self.held = false;
        let remote = Remote::new(&self.url(), Some(self.token.clone())).expect("an address");
        let running = self.running.as_mut().expect("on");
        let tree = running.fs.tree().clone();
        let (engine, handle) = Engine::new(remote, tree, self.root);
        running.task = Some(self.world.runtime.spawn(engine.run()));
        running.engine = handle;
    }

    /// Drops everything in memory and opens the device again, as after kill -9.
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// The first half of `restart`: nothing has the files any more.
    pub fn stop(&mut self) {
        self.go_offline();
        let database = Arc::downgrade(self.running().fs.tree().db());
        self.running = None;
        // Upload jobs under way hold on to it; a process that is gone holds on to nothing.
        let until = Instant::now() + WAIT;
        while database.strong_count() > 0 {
            assert!(Instant::now() < until, "{}'s jobs do not end", self.name);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn start(&mut self) {
        self.open();
    }

    pub fn come_back(&mut self) {
        self.restart();
    }

    /// Waits until all that was done here is on the server and all of the server's is here.
    pub fn sync(&self) {
        let running = self.running();
        let mut goal = running.engine.begin_sync().expect("begins");
        let until = Instant::now() + WAIT;
        while !running.engine.is_reached(&mut goal).expect("a goal") {
            assert!(
                Instant::now() < until,
                "{} does not get in step: {:?}, queue {:?}, ahead {:#?}",
                self.name,
                running.engine.status(),
                running.fs.tree().queue(10),
                running.fs.tree().pending(self.root, 10)
            );
            self.world.runtime.block_on(running.engine.next_round(Duration::from_millis(50)));
        }
    }

    fn folder_of(&self, path: &str) -> Result<(u64, String), TreeError> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.try_nid(dir)?, name.to_owned()))
    }

    pub fn nid(&self, path: &str) -> u64 {
        self.try_nid(path).expect(path)
    }

    fn try_nid(&self, path: &str) -> Result<u64, TreeError> {
        let mut nid = ROOT;
        for name in path.split('/').filter(|n| !n.is_empty()) {
            nid = self.fs().lookup(nid, name.as_bytes())?.nid;
        }
        Ok(nid)
    }

    pub fn mkdir(&self, path: &str) {
        self.try_mkdir(path).expect(path);
    }

    pub fn try_mkdir(&self, path: &str) -> Result<(), TreeError> {
        let (dir, name) = self.folder_of(path)?;
        let new = NewNode {
            kind: NodeKind::Dir,
            mode: 0o755,
            uid: None,
            gid: None,
            rdev: 0,
            target: None,
        };
        self.fs().make(dir, name.as_bytes(), ME, new).map(drop)
    }

    /// Writes a whole file: made if need be, else truncated first.
    pub fn write(&self, path: &str, bytes: &[u8]) {
        self.try_write(path, bytes).expect(path);
    }

    /// The same, where another device may take the file away meanwhile.
    pub fn try_write(&self, path: &str, bytes: &[u8]) -> Result<(), TreeError> {
        let (dir, name) = self.folder_of(path)?;
        let fs = self.fs();
        let (nid, handle) = match fs.lookup(dir, name.as_bytes()) {
            Ok(attr) => (attr.nid, fs.open(attr.nid, true)?),
            Err(_) => {
                let (attr, handle) = fs.create(dir, name.as_bytes(), ME, 0o644)?;
                (attr.nid, handle)
            }
        };
        let written = fs
            .setattr(nid, &Default::default(), Some(0))
            .and_then(|_| fs.write(nid, handle, 0, bytes, false));
        fs.release(handle)?;
        written
    }

    /// Overwrites bytes in the middle of a file.
    pub fn patch(&self, path: &str, offset: u64, bytes: &[u8]) {
        let nid = self.nid(path);
        let fs = self.fs();
        let handle = fs.open(nid, true).expect(path);
        // As the kernel does for a page it has not: read before write.
        self.read_handle(nid, handle, offset & !4095, 8192).expect(path);
        fs.write(nid, handle, offset, bytes, false).expect(path);
        fs.release(handle).expect(path);
    }

    /// Copies `len` bytes of one file into another, as copy_file_range(2) does. Returns how often it
    /// took the call.
    pub fn copy(&self, from: (&str, u64), to: (&str, u64), len: u64) -> usize {
        let (src, dst) = (self.nid(from.0), self.nid(to.0));
        let fs = self.fs();
        let reader = fs.open(src, false).expect(from.0);
        let writer = fs.open(dst, true).expect(to.0);
        let (mut done, mut calls) = (0, 0);
        while done < len {
            let at = Spot { nid: src, handle: reader, offset: from.1 + done };
            let onto = Spot { nid: dst, handle: writer, offset: to.1 + done };
            let copied = fs.copy_range(at, onto, len - done, false).expect(to.0);
            assert!(copied > 0, "copying goes on");
            done += copied;
            calls += 1;
        }
        fs.release(reader).expect(from.0);
        fs.release(writer).expect(to.0);
        calls
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        let nid = self.nid(path);
        let handle = self.fs().open(nid, false).expect(path);
        let bytes = self.read_handle(nid, handle, 0, 1 << 30).expect(path);
        self.fs().release(handle).expect(path);
        bytes
    }

    pub fn read_handle(
        &self,
        nid: u64,
        handle: u64,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, String> {
        let fs = self.fs();
        match fs.read_here(nid, handle, offset, len).map_err(|e| e.to_string())? {
            ReadHere::Bytes(bytes) => Ok(bytes.into()),
            ReadHere::Elsewhere(content) => self
                .world
                .runtime
                .block_on(fs.spool().read(&content, offset, len))
                .map(Vec::from)
                .map_err(|e| e.to_string()),
        }
    }

    pub fn rename(&self, from: &str, to: &str) {
        self.try_rename(from, to).expect(from);
    }

    pub fn try_rename(&self, from: &str, to: &str) -> Result<(), TreeError> {
        let ((a, x), (b, y)) = (self.folder_of(from)?, self.folder_of(to)?);
        self.fs().rename(a, x.as_bytes(), b, y.as_bytes(), RenameMode::Replace)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_online(&self) -> bool {
        self.running().task.is_some()
    }

    /// Every path; folders end in a slash. What other devices do meanwhile may show or not.
    pub fn names(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut folders = vec![(ROOT, String::new())];
        while let Some((nid, dir)) = folders.pop() {
            for entry in self.fs().tree().list(nid, b"", 100_000).unwrap_or_default() {
                let name = format!("{dir}{}", String::from_utf8_lossy(&entry.name));
                if entry.node.kind.is_folder() {
                    folders.push((entry.node.nid, format!("{name}/")));
                    out.push(format!("{name}/"));
                } else {
                    out.push(name);
                }
            }
        }
        out.sort();
        out
    }

    pub fn remove(&self, path: &str) {
        self.try_remove(path).expect(path);
    }

    pub fn try_remove(&self, path: &str) -> Result<(), TreeError> {
        let (dir, name) = self.folder_of(path)?;
        let tree = self.fs().tree();
        if tree.lookup(dir, name.as_bytes())?.kind.is_folder() {
            self.fs().rmdir(dir, name.as_bytes())
        } else {
            tree.unlink(dir, name.as_bytes())
        }
    }

    /// Every path with its content; folders end in a slash.
    pub fn files(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        self.walk("", &mut out);
        out
    }

    fn walk(&self, dir: &str, out: &mut BTreeMap<String, String>) {
        let entries = self.fs().tree().list(self.nid(dir), b"", 100_000).expect(dir);
        for entry in entries {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            if entry.node.kind.is_folder() {
                out.insert(format!("{path}/"), String::new());
                self.walk(&path, out);
            } else {
                let text = String::from_utf8_lossy(&self.read(&path)).into_owned();
                out.insert(path, text);
            }
        }
    }
}

impl Drop for Device<'_> {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.go_offline();
        }
    }
}

/// All devices get in step, twice around, so that each has what the last one sent.
pub fn all_sync(devices: &[&Device<'_>]) {
    for _ in 0..2 {
        for device in devices {
            device.sync();
        }
    }
}

/// The tree that all devices show, which must be one.
pub fn same_files(devices: &[&Device<'_>]) -> BTreeMap<String, String> {
    let first = devices[0].files();
    for device in &devices[1..] {
        assert_eq!(first, device.files(), "{} and {} differ", devices[0].name, device.name);
    }
    first
}
