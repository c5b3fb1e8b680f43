//! The machine of a simulated world: one clock, one source of chance, disks that fill up and
//! processes that die between two writes. Everything follows from the seed.

use std::io;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use rand::Rng;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::stall;

/// Where the clock stands when a world begins: 2026-11-01 (nanoseconds since the epoch).
const DAWN_NS: i64 = 1_793_491_200_000_000_000;

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    Server,
    Device(usize),
}

/// What awaits a process.
#[derive(Debug, Default)]
struct Fate {
    /// Its clock is ahead of the world's by so much (nanoseconds; it may be behind).
    skew: i64,
    /// It dies before this write to its disk, counted from now.
    dies_in: Option<u32>,
    /// It is dead: nothing that it does counts any more.
    dead: bool,
    /// Its disk is full.
    full: bool,
    /// A device's folder, and where a copy of it goes when the process dies.
    home: PathBuf,
    grave: PathBuf,
}

struct Inside {
    time_ns: i64,
    chance: SmallRng,
    actor: Actor,
    server: Fate,
    devices: Vec<Fate>,
}

/// Shared by all parts of one world.
pub struct Machine {
    dawn: Instant,
    inside: Mutex<Inside>,
}

impl Machine {
    pub fn new(seed: u64, devices: usize) -> Arc<Self> {
        Arc::new(Self {
            dawn: Instant::now(),
            inside: Mutex::new(Inside {
                time_ns: 0,
                chance: SmallRng::seed_from_u64(seed ^ 0x5eed_0f1d_5000_0000),
                actor: Actor::Server,
                server: Fate::default(),
                devices: (0..devices).map(|_| Fate::default()).collect(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on it is this one's turn; returns whose it was.
    pub fn enter(&self, actor: Actor) -> Actor {
        std::mem::replace(&mut self.lock().actor, actor)
    }

    pub fn pass(&self, time: Duration) {
        self.lock().time_ns += time.as_nanos() as i64;
    }

    pub fn set_skew(&self, device: usize, skew_ns: i64) {
        self.lock().devices[device].skew = skew_ns;
    }

    /// A process has started over this folder.
    pub fn start(&self, device: usize, home: &Path, grave: &Path) {
        let mut inside = self.lock();
        let fate = &mut inside.devices[device];
        *fate = Fate { skew: fate.skew, ..Fate::default() };
        home.clone_into(&mut fate.home);
        grave.clone_into(&mut fate.grave);
    }

    pub fn start_server(&self) {
        let mut inside = self.lock();
        inside.server = Fate::default();
    }

    /// The process will die before one of its next writes.
    pub fn doom(&self, actor: Actor, writes: u32) {
        self.lock().fate(actor).dies_in = Some(writes);
    }

    pub fn spare(&self, actor: Actor) {
        self.lock().fate(actor).dies_in = None;
    }

    /// The process dies now.
    pub fn kill(&self, actor: Actor) {
        self.lock().fate(actor).die();
    }

    pub fn is_dead(&self, actor: Actor) -> bool {
        self.lock().fate(actor).dead
    }

    pub fn set_full(&self, actor: Actor, full: bool) {
        self.lock().fate(actor).full = full;
    }

    pub fn is_full(&self, actor: Actor) -> bool {
        self.lock().fate(actor).full
    }

    /// A number below 1,000.
    pub fn one_in_a_thousand(&self) -> u32 {
        self.lock().chance.random_range(0..1000)
    }

    fn time(&self) -> i64 {
        let mut inside = self.lock();
        let actor = inside.actor;
        DAWN_NS + inside.time_ns + inside.fate(actor).skew
    }

    fn random(&self, bytes: &mut [u8]) {
        self.lock().chance.fill_bytes(bytes);
    }

    fn write(&self) -> io::Result<()> {
        let mut inside = self.lock();
        let actor = inside.actor;
        let fate = inside.fate(actor);
        if !fate.dead && fate.dies_in.is_some_and(|left| left == 0) {
            fate.die();
        }
        if let Some(left) = &mut fate.dies_in {
            *left = left.saturating_sub(1);
        }
        // What a dead device does happens to a folder that nobody looks at again. The server has
        // no copy: it is stopped here.
        match actor {
            Actor::Server if fate.dead => Err(io::Error::other("the server is dead")),
            _ if fate.full && !fate.dead => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Inside {
    fn fate(&mut self, actor: Actor) -> &mut Fate {
        match actor {
            Actor::Server => &mut self.server,
            Actor::Device(i) => &mut self.devices[i],
        }
    }
}

impl Fate {
    fn die(&mut self) {
        if !self.dead && !self.home.as_os_str().is_empty() {
            copy_home(&self.home, &self.grave).expect("a copy of what the process leaves");
        }
        self.dead = true;
        self.dies_in = None;
    }
}

impl drivefs::host::Host for Machine {
    fn now(&self) -> i64 {
        self.time()
    }

    fn instant(&self) -> Instant {
        self.dawn + Duration::from_nanos(self.lock().time_ns as u64)
    }

    fn sleep(&self, time: Duration) {
        self.pass(time);
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.random(bytes);
    }

    fn before_write(&self) -> io::Result<()> {
        self.write()
    }

    fn block_on(&self, work: Pin<&mut (dyn Future<Output = ()> + Send)>) {
        stall::wait_elsewhere(work);
    }
}

impl drivefs_server::host::Host for Machine {
    fn now(&self) -> i64 {
        self.time()
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.random(bytes);
    }

    fn before_write(&self) -> io::Result<()> {
        self.write()
    }
}

/// The files as kill -9 would leave them now.
pub fn copy_home(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_home(&path, &target)?;
        // The index of SQLite's log in memory is no part of what a crash leaves.
        } else if path.extension().is_none_or(|e| e != "db-shm") {
            copy_sparse(&path, &target)?;
        }
    }
    Ok(())
}

/// Heaps are holes for the most part.
fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::SeekFrom as Whence;
    let mut source = std::fs::File::open(from)?;
    let target = std::fs::File::create(to)?;
    let len = source.seek(SeekFrom::End(0))?;
    target.set_len(len)?;
    target.set_permissions(source.metadata()?.permissions())?;
    let mut at = 0;
    while at < len {
        let Ok(data) = rustix::fs::seek(&source, Whence::Data(at)) else { break };
        let end = rustix::fs::seek(&source, Whence::Hole(data))?.min(len);
        let mut bytes = vec![0; (end - data) as usize];
        source.read_exact_at(&mut bytes, data)?;
        target.write_all_at(&bytes, data)?;
        at = end;
    }
    Ok(())
}
