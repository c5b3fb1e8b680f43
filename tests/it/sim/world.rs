//! One world: a server, devices, a network and a clock, driven by one seed from the first write to
//! the last check.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use drivefs::remote::Remote;
use drivefs::sync::pull_all;
use drivefs_core::id::NamespaceId;
use drivefs_core::wire::LoginRequest;
use drivefs_server::app::Inside;
use drivefs_server::blocks::BlockStore;
use drivefs_server::config::Config;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::device::Device;
use super::device::Seen;
use super::machine::Actor;
use super::machine::Machine;
use super::net::Direct;
use super::net::Fate;
use super::net::Net;
use super::stall;
use super::tidying::Tidying;
use super::work;

const EMAIL: &str = "alice@example.org";
const PASSWORD: &str = "correct horse battery";
const NAMES: [&str; 4] = ["ann", "bob", "cyd", "dan"];
/// The device that looks at the server at the end.
const WITNESS: &str = "witness";
/// Rounds over all devices in which everything has to be in step again.
const ROUNDS_MAX: usize = 60;

/// How a world is: drawn from the seed, so that worlds differ in kind, too.
struct Climate {
    events: usize,
    /// Chances in a thousand.
    lost: u32,
    doubled: u32,
    late: u32,
    deaths: u32,
    server_deaths: u32,
    full: u32,
    skews: bool,
    /// Rows of a page of changes; 0: as many as the client asks for.
    page_rows: u32,
    /// Each device works in a folder of its own.
    apart: bool,
}

impl Climate {
    fn draw(rng: &mut SmallRng) -> Self {
        // Each fault is absent in some worlds: it could hide what another one shows.
        let mut chance =
            |most: u32| if rng.random_range(0..3) == 0 { 0 } else { rng.random_range(0..most) };
        let (lost, doubled, late) = (chance(150), chance(80), chance(80));
        let (deaths, server_deaths, full) = (chance(40), chance(25), chance(20));
        Self {
            events: rng.random_range(60..260),
            lost,
            doubled,
            late,
            deaths,
            server_deaths,
            full,
            skews: rng.random_range(0..3) > 0,
            page_rows: if rng.random_range(0..2) == 0 { 0 } else { rng.random_range(1..20) },
            apart: rng.random_range(0..4) == 0,
        }
    }
}

/// A server's folder with an account and its devices, made once: hashing a password takes as long
/// as many a world.
struct Template {
    folder: PathBuf,
    root: NamespaceId,
    tokens: BTreeMap<String, String>,
}

/// Where worlds lie: in memory, if there is such a place.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.or_else(|_| tempfile::tempdir()).expect("a folder")
}

static KEPT: Mutex<Option<tempfile::TempDir>> = Mutex::new(None);

/// Removes what all worlds were made from.
pub fn clean_up() {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).take();
}

fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let machine = Machine::new(0, 0);
        super::live_on(Some(machine));
        let folder = folder();
        let made = stall::runtime().block_on(async {
            let config = Config::local(folder.path());
            let server = Inside::open(config, BlockStore::in_memory()).await.expect("a server");
            let drive = server.drive();
            drivefs_server::drive::users::add(&drive.store, EMAIL, PASSWORD, 1 << 40)
                .await
                .expect("an account");
            let mut tokens = BTreeMap::new();
            let mut root = None;
            for name in NAMES.into_iter().chain([WITNESS]) {
                let request = LoginRequest {
                    email: EMAIL.into(),
                    password: PASSWORD.into(),
                    device: name.into(),
                };
                let reply = drive.login(request, [127, 0, 0, 1].into()).await.expect("a login");
                tokens.insert(name.to_owned(), reply.token);
                root = Some(reply.account.root);
            }
            (root.expect("an account"), tokens)
        });
        super::live_on(None);
        let path = folder.path().to_owned();
        *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder);
        Template { folder: path, root: made.0, tokens: made.1 }
    })
}

pub struct World {
    pub net: Arc<Net>,
    pub machine: Arc<Machine>,
    pub devices: Vec<Device>,
    folder: tempfile::TempDir,
    packs: BlockStore,
    rng: SmallRng,
    climate: Climate,
    /// Contents that have to be on the server at the end, and the files they were in, by device.
    ledger: Vec<Vec<(u64, Vec<u8>)>>,
    tidying: Tidying,
}

/// Runs the world of a seed; panics when a promise is broken. The log is told either way.
pub fn run(seed: u64, log: &Mutex<Vec<String>>) {
    let template = template();
    let mut rng = SmallRng::seed_from_u64(seed);
    let climate = Climate::draw(&mut rng);
    let count = 3 + usize::from(rng.random_range(0..4) == 0);
    let machine = Machine::new(seed, count + 1);
    super::live_on(Some(machine.clone()));
    let net = Net::new(machine.clone());
    let told = Told { net: net.clone(), log };
    let folder = folder();
    super::machine::copy_home(&template.folder, &folder.path().join("server"))
        .expect("a server's folder");
    stall::runtime().block_on(async {
        let home = folder.path().to_owned();
        let device = |number: usize| {
            let name = if number < count { NAMES[number] } else { WITNESS };
            let token = template.tokens[name].as_str();
            Device::new(number, (name, token), template.root, home.clone(), net.clone())
        };
        let devices: Vec<Device> = (0..=count).map(device).collect();
        let mut world = World {
            net: net.clone(),
            machine,
            devices,
            folder,
            packs: BlockStore::in_memory(),
            rng,
            climate,
            ledger: vec![Vec::new(); count],
            tidying: Tidying::default(),
        };
        world.start_server().await;
        net.lost.store(world.climate.lost, Ordering::SeqCst);
        net.page_rows.store(world.climate.page_rows, Ordering::SeqCst);
        for i in 0..count {
            if world.climate.skews {
                let hour = 3_600_000_000_000;
                let skew = world.rng.random_range(-hour..hour);
                world.machine.set_skew(i, skew);
            }
            world.devices[i].boot();
            world.fill(i).await;
            if world.climate.apart {
                world.devices[i].make_own_folder();
            }
        }
        for event in 0..world.climate.events {
            world.event(event).await;
        }
        world.heal().await;
        world.machine.enter(Actor::Server);
        let server = world.net.server().expect("up");
        world.tidying.all(server.drive()).await;
        drop(server);
        world.check().await;
        world.net.set_server(None);
        for device in &mut world.devices {
            device.bury();
        }
        stall::stalled().await;
    });
    drop(told);
    super::live_on(None);
}

/// Tells the log at the end, however that comes.
struct Told<'a> {
    net: Arc<Net>,
    log: &'a Mutex<Vec<String>>,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let lines = self.net.take_log();
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = lines;
    }
}

impl World {
    fn server_folder(&self) -> PathBuf {
        self.folder.path().join("server")
    }

    async fn start_server(&mut self) {
        self.machine.start_server();
        self.machine.enter(Actor::Server);
        let config = Config::local(&self.server_folder());
        let server = Inside::open(config, self.packs.clone()).await.expect("the server starts");
        self.net.set_server(Some(Arc::new(server)));
    }

    fn stop_server(&mut self) {
        self.tidying.dies();
        self.machine.kill(Actor::Server);
        self.net.set_server(None);
        self.net.hang_up();
    }

    /// A device takes in all that the server has, without a network in between.
    async fn fill(&mut self, i: usize) {
        self.machine.enter(Actor::Device(i));
        let remote = self.direct(i);
        let tree = self.devices[i].tree().clone();
        pull_all(&remote, &tree, self.devices[i].root, |_| {}).await.expect("the first fill");
    }

    /// A way to the server on which nothing happens.
    pub fn direct(&self, i: usize) -> Remote {
        let token = template().tokens[&self.devices[i].name].clone();
        Remote::over(Arc::new(Direct(self.net.clone())), Some(token))
    }

    fn note(&self, line: String) {
        self.net.note(line);
    }

    /// Devices that work, without the witness.
    fn workers(&self) -> std::ops::Range<usize> {
        0..self.devices.len() - 1
    }

    async fn event(&mut self, count: usize) {
        self.machine.pass(Duration::from_micros(self.rng.random_range(0..3_000)));
        let workers = self.workers();
        let i = self.rng.random_range(workers);
        if self.devices[i].on.is_none() {
            // It stays off for a while.
            if self.rng.random_range(0..6) == 0 {
                self.note(format!("{count} {} boots", self.devices[i].name));
                self.devices[i].boot();
            }
            return;
        }
        let deaths = self.climate.deaths;
        let server_deaths = self.climate.server_deaths;
        let full = self.climate.full;
        match self.rng.random_range(0..1000) {
            n if n < deaths => self.strike(count, i).await,
            n if n < deaths + server_deaths => self.strike_server(count).await,
            n if n < deaths + server_deaths + full => self.fill_disk(count, i),
            n if n < 420 => self.work(count, i),
            n if n < 560 => self.let_step(count, i),
            n if n < 900 => self.carry_some(count).await,
            n if n < 960 => self.let_time_pass(count),
            n if n < 980 => self.keep_house(count, i),
            _ => {
                if self.net.server().is_none() {
                    self.note(format!("{count} the server starts"));
                    self.start_server().await;
                } else {
                    self.tidy_up(count).await;
                }
            }
        }
        self.machine.enter(Actor::Device(i));
        stall::stalled().await;
        self.bury_the_dead();
    }

    fn bury_the_dead(&mut self) {
        for i in self.workers() {
            let device = &mut self.devices[i];
            if device.on.is_some() && self.machine.is_dead(device.actor()) {
                device.bury();
                self.net.note(format!("  {} is dead", device.name));
            }
        }
        if self.machine.is_dead(Actor::Server) && self.net.server().is_some() {
            self.net.note("  the server is dead".into());
            self.stop_server();
        }
    }

    fn work(&mut self, count: usize, i: usize) {
        self.machine.enter(Actor::Device(i));
        let done = work::change(&mut self.devices[i], &mut self.rng, count);
        if done.what.is_empty() {
            return;
        }
        let dead = self.machine.is_dead(Actor::Device(i));
        let error = done.error.as_ref().map_or(String::new(), |e| format!(": {e}"));
        self.note(format!("{count} {} {}{error}", self.devices[i].name, done.what));
        if let Some(error) = &done.error {
            let full = self.machine.is_full(Actor::Device(i));
            assert!(full || !error.is_disk_full(), "the disk is not full: {error}");
            let odd = matches!(
                error,
                drivefs::tree::TreeError::Db(_) | drivefs::tree::TreeError::Spool(_)
            );
            assert!(full || !odd, "{} {}: {error}", self.devices[i].name, done.what);
        }
        let ledger = &mut self.ledger[i];
        ledger.retain(|(nid, content)| {
            !done.dropped.contains(content) && !done.dropped_unseen.contains(nid)
        });
        // What a process that is dead by now acknowledged, nobody heard.
        if !dead {
            ledger.extend(done.written.filter(|(_, bytes)| !bytes.is_empty()));
        }
    }

    fn let_step(&mut self, count: usize, i: usize) {
        if self.devices[i].is_stepping() {
            return;
        }
        self.machine.enter(Actor::Device(i));
        let how = self.rng.random_range(0..4);
        match how {
            0 => {
                // On a full disk it fails, and is asked again some time.
                let _ = self.devices[i].on().handle.begin_sync();
            }
            1 | 2 => {
                self.devices[i].on().handle.begin_pull();
            }
            _ => {}
        }
        self.note(format!("{count} {} steps ({how})", self.devices[i].name));
        self.devices[i].step();
    }

    async fn carry_some(&mut self, count: usize) {
        let waiting = self.net.waiting();
        if waiting.is_empty() {
            return;
        }
        let number = waiting[self.rng.random_range(0..waiting.len())];
        let climate = &self.climate;
        let fate = match self.rng.random_range(0..1000) {
            n if n < climate.lost => Fate::Lost,
            n if n < climate.lost + climate.doubled => Fate::Doubled,
            n if n < climate.lost + climate.doubled + climate.late => Fate::Late,
            _ => Fate::Arrives,
        };
        let (device, request) = self.net.about(number);
        let what = if request { "request" } else { "answer" };
        self.note(format!("{count} {what} {number} of {}: {fate:?}", self.devices[device].name));
        self.net.carry(number, fate).await;
        // Its device goes on.
        self.machine.enter(Actor::Device(device));
        stall::stalled().await;
    }

    fn let_time_pass(&mut self, count: usize) {
        let time = match self.rng.random_range(0..10) {
            0 => Duration::from_secs(self.rng.random_range(1..40)),
            1 => Duration::from_secs(self.rng.random_range(100..8_000)),
            _ => Duration::from_millis(self.rng.random_range(1..120)),
        };
        self.note(format!("{count} {time:?} pass"));
        self.machine.pass(time);
    }

    fn keep_house(&mut self, count: usize, i: usize) {
        self.machine.enter(Actor::Device(i));
        let what = self.rng.random_range(0..5);
        self.note(format!("{count} {} keeps house ({what})", self.devices[i].name));
        let tree = self.devices[i].tree();
        let cache = tree.spool().cache();
        // On a full disk some of it fails, and comes again later.
        match what {
            0 => drop(tree.db().flush()),
            1 => drop(cache.reclaim()),
            2 => drop(cache.relieve(1 << 30)),
            3 => {
                drop(tree.drop_orphans());
                drop(cache.note_uses());
            }
            _ => tree.spool().forget_unused(),
        }
    }

    async fn strike(&mut self, count: usize, i: usize) {
        let name = self.devices[i].name.clone();
        if self.rng.random_range(0..3) > 0 {
            let writes = self.rng.random_range(0..30);
            self.note(format!("{count} {name} will die in {writes} writes"));
            self.machine.doom(Actor::Device(i), writes);
            return;
        }
        self.note(format!("{count} {name} is killed"));
        self.machine.enter(Actor::Device(i));
        let (before, contents) = (self.devices[i].seen(), self.devices[i].contents());
        // Time and size of what is open are in memory alone; its layer has the bytes.
        let open = self.devices[i].open_paths();
        self.devices[i].kill();
        self.devices[i].boot();
        let what = "a kill between two changes changes nothing";
        let after = self.devices[i].seen();
        let closed = |seen: &BTreeMap<String, Seen>| {
            let mut seen = seen.clone();
            for path in &open {
                seen.entry(path.clone()).and_modify(|s| (s.mtime, s.size) = (0, 0));
            }
            seen
        };
        same(&closed(&before), &closed(&after), what);
        let after = self.devices[i].contents();
        for (path, bytes) in contents {
            assert!(after.get(&path) == Some(&bytes), "{what}: {path}");
        }
    }

    async fn strike_server(&mut self, count: usize) {
        if self.net.server().is_none() {
            return;
        }
        if self.rng.random_range(0..3) > 0 {
            let writes = self.rng.random_range(0..4);
            self.note(format!("{count} the server will die in {writes} writes"));
            self.machine.doom(Actor::Server, writes);
            return;
        }
        self.note(format!("{count} the server is killed"));
        self.stop_server();
    }

    /// The server does some of its background work.
    async fn tidy_up(&mut self, count: usize) {
        let Some(server) = self.net.server() else { return };
        self.machine.enter(Actor::Server);
        let steps = self.rng.random_range(1..600);
        let done = self.tidying.some(server.drive(), steps).await;
        self.note(format!("{count} the server tidies up: {:?}", done.map_err(|e| e.to_string())));
    }

    fn fill_disk(&mut self, count: usize, i: usize) {
        let actor = if self.rng.random_range(0..4) == 0 { Actor::Server } else { Actor::Device(i) };
        let full = !self.machine.is_full(actor);
        self.note(format!("{count} the disk of {actor:?} is full: {full}"));
        self.machine.set_full(actor, full);
    }

    /// Lets all that is on its way arrive until nothing is.
    async fn deliver_all(&mut self) {
        loop {
            stall::stalled().await;
            let Some(number) = self.net.waiting().first().copied() else { return };
            let (device, _) = self.net.about(number);
            self.net.carry(number, Fate::Arrives).await;
            self.machine.enter(Actor::Device(device));
        }
    }

    /// Ends all trouble and waits until everything is in step.
    async fn heal(&mut self) {
        self.note("all is well again".into());
        self.net.lost.store(0, Ordering::SeqCst);
        for i in self.workers() {
            self.machine.set_full(Actor::Device(i), false);
            self.machine.spare(Actor::Device(i));
            if self.devices[i].on.is_none() {
                self.devices[i].boot();
            }
        }
        self.machine.set_full(Actor::Server, false);
        self.machine.spare(Actor::Server);
        if self.net.server().is_none() {
            self.start_server().await;
        }
        self.deliver_all().await;
        for i in self.workers() {
            self.machine.enter(Actor::Device(i));
            let on = self.devices[i].on.as_mut().expect("on");
            for (_, handle) in std::mem::take(&mut on.held) {
                on.fs.release(handle).expect("closes");
            }
            // What it shows now has to be on the server in the end.
            let shown: Vec<(u64, Vec<u8>)> = self.devices[i]
                .nodes()
                .values()
                .filter_map(|node| Some((node.nid, self.devices[i].read_here(node.nid)?)))
                .filter(|(_, bytes)| !bytes.is_empty())
                .collect();
            self.ledger[i].extend(shown);
        }
        let own: Vec<_> = self.workers().map(|i| self.devices[i].seen_of_its_own()).collect();
        for round in 0..ROUNDS_MAX {
            let mut settled = true;
            let seq = self.server_seq().await;
            for i in self.workers() {
                self.machine.enter(Actor::Device(i));
                self.devices[i].on().handle.begin_sync().expect("begins");
                self.devices[i].step();
                self.deliver_all().await;
                self.machine.pass(Duration::from_millis(300));
                self.machine.enter(Actor::Device(i));
                let tree = self.devices[i].tree();
                let cursor = tree.cursor(self.devices[i].root).expect("a cursor");
                let ahead = tree.ahead().expect("counts");
                settled &= ahead == (0, 0) && cursor == Some(seq);
            }
            if settled {
                self.note(format!("in step after {round} rounds"));
                for (i, own) in self.workers().zip(own) {
                    let what = format!("{} alone works there", self.devices[i].name);
                    same(&own, &self.devices[i].seen_of_its_own(), &what);
                }
                return;
            }
        }
        for i in self.workers() {
            let device = &self.devices[i];
            eprintln!(
                "{}: {:?} {:?} {:#?}",
                device.name,
                device.on().handle.status(),
                device.tree().queue(10),
                device.tree().pending(device.root, 10)
            );
        }
        panic!("not in step after {ROUNDS_MAX} rounds");
    }

    pub fn take_ledger(&mut self) -> Vec<(usize, Vec<u8>)> {
        let all = std::mem::take(&mut self.ledger).into_iter().enumerate();
        all.flat_map(|(i, contents)| contents.into_iter().map(move |(_, c)| (i, c))).collect()
    }

    /// The witness: a device that has only what the server told.
    pub async fn witness(&mut self) -> usize {
        let i = self.devices.len() - 1;
        self.devices[i].boot();
        self.fill(i).await;
        i
    }
}

/// Fails with what differs.
pub fn same(a: &BTreeMap<String, Seen>, b: &BTreeMap<String, Seen>, what: &str) {
    if a == b {
        return;
    }
    let mut differ = String::new();
    for path in a.keys().chain(b.keys()).collect::<std::collections::BTreeSet<_>>() {
        if a.get(path) != b.get(path) {
            differ.push_str(&format!("\n{path}:\n  {:?}\n  {:?}", a.get(path), b.get(path)));
        }
    }
    panic!("{what}: {differ}");
}
