//! A server in this process, and devices that are the real program, mounted.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use drivefs_server::app::Server;
use drivefs_server::config::Config;

const EMAIL: &str = "model@example.org";
const PASSWORD: &str = "correct horse battery";
const SYNC_SECS: &str = "60";
const PATIENCE: Duration = Duration::from_secs(10);
const QUOTA_BYTES: u64 = 1 << 40;
/// Lines of a log that are shown when a case fails.
const LOG_LINES: usize = 200;

/// Two devices of one account, and a plain folder to compare with.
pub struct World {
    devices: Vec<Device>,
    plain: tempfile::TempDir,
    cases: AtomicU64,
    tally: [AtomicU64; 2],
    url: String,
    // These end last, in this order.
    server: Option<Server>,
    runtime: tokio::runtime::Runtime,
    folder: tempfile::TempDir,
}

/// One home and its mount; unmounted when dropped.
struct Device {
    home: PathBuf,
    dir: PathBuf,
}

impl World {
    pub fn new() -> Self {
        assert!(
            Path::new("/dev/fuse").exists(),
            "this test mounts the drive, and /dev/fuse is not here: load the module fuse, or give \
             the container the device and the right to mount"
        );
        let folder = tempfile::tempdir().expect("a folder");
        // Where the build lies is a disk with extended attributes; /tmp need not be one.
        let plain = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a plain folder");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let config = Config::local(&folder.path().join("server"));
        let server = runtime.block_on(Server::start(config)).expect("the server starts");
        runtime
            .block_on(drivefs_server::drive::users::add(
                server.store(),
                EMAIL,
                PASSWORD,
                QUOTA_BYTES,
            ))
            .expect("an account");
        let url = format!("http://{}", server.addr());
        let mut world = Self {
            devices: Vec::new(),
            plain,
            cases: AtomicU64::new(0),
            tally: Default::default(),
            url,
            server: Some(server),
            runtime,
            folder,
        };
        world.add_device("one");
        world.add_device("two");
        world
    }

    fn add_device(&mut self, name: &str) {
        let device = Device {
            home: self.folder.path().join(format!("{name}.home")),
            dir: self.folder.path().join(name),
        };
        std::fs::create_dir_all(&device.home).expect("a home");
        std::fs::create_dir_all(&device.dir).expect("a mount point");
        device.login(&self.url, name);
        device.mount();
        self.devices.push(device);
    }

    /// Makes the folder of a new case on both sides; returns its name.
    pub fn new_case(&self) -> String {
        let name = format!("case-{}", self.cases.fetch_add(1, Ordering::Relaxed));
        std::fs::create_dir(self.plain(&name)).expect("a plain folder");
        std::fs::create_dir(self.mount_one(&name)).expect("a folder in the mount");
        name
    }

    pub fn plain(&self, case: &str) -> PathBuf {
        self.plain.path().join(case)
    }

    pub fn mount_one(&self, case: &str) -> PathBuf {
        self.devices[0].dir.join(case)
    }

    pub fn mount_two(&self, case: &str) -> PathBuf {
        self.devices[1].dir.join(case)
    }

    pub fn mount_three(&self, case: &str) -> PathBuf {
        self.devices[2].dir.join(case)
    }

    /// What device one did is on the server, and on device two.
    pub fn sync(&self) -> Result<(), String> {
        for device in &self.devices[..2] {
            device.run(&["sync", "--timeout", SYNC_SECS])?;
        }
        Ok(())
    }

    /// The daemon of device one dies at once.
    pub fn kill_one(&self) -> Result<(), String> {
        self.devices[0].kill()
    }

    pub fn mount_one_again(&self) {
        self.devices[0].mount();
    }

    /// Notes an operation, and whether it did something.
    pub fn count(&self, done: bool) {
        self.tally[usize::from(done)].fetch_add(1, Ordering::Relaxed);
    }

    /// Operations that were refused, and those that were done.
    pub fn tally(&self) -> [u64; 2] {
        [0, 1].map(|i| self.tally[i].load(Ordering::Relaxed))
    }

    pub fn remount_one(&self) {
        self.devices[0].umount().expect("unmounts");
        self.devices[0].mount();
    }

    /// A device that has never seen the drive.
    pub fn mount_third(&mut self) {
        self.add_device("three");
        self.devices[2].run(&["sync", "--timeout", SYNC_SECS]).expect("syncs");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.devices.clear();
        if let Some(server) = self.server.take()
            && let Err(e) = self.runtime.block_on(server.stop())
        {
            eprintln!("the server does not stop: {e}");
        }
    }
}

impl Device {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drivefs"));
        command.args(args).env("DRIVEFS_HOME", &self.home);
        command
    }

    fn run(&self, args: &[&str]) -> Result<(), String> {
        succeeded(args, self.command(args).stdin(Stdio::null()).output())
    }

    fn login(&self, url: &str, name: &str) {
        let args = ["login", url, "--email", EMAIL, "--device", name, "--password-stdin"];
        let mut child = self
            .command(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("drivefs starts");
        writeln!(child.stdin.take().expect("piped"), "{PASSWORD}").expect("takes a password");
        succeeded(&args, child.wait_with_output()).expect("logs in");
    }

    fn mount(&self) {
        self.run(&["mount", &self.dir.to_string_lossy()]).expect("mounts");
    }

    /// The daemon: whoever holds the home's lock.
    fn pid(&self) -> Option<rustix::process::Pid> {
        let lock = std::fs::metadata(self.lock()).ok()?.ino();
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        locks.lines().find_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let inode = words.get(5)?.rsplit(':').next()?.parse::<u64>().ok()?;
            let pid = words[4].parse().ok().and_then(rustix::process::Pid::from_raw)?;
            (words[1] == "FLOCK" && inode == lock).then_some(pid)
        })
    }

    fn lock(&self) -> PathBuf {
        self.home.join("lock")
    }

    fn kill(&self) -> Result<(), String> {
        // While others lock and unlock, a reader of /proc/locks may miss a line.
        let pid = wait_for(|| self.pid()).ok_or("there is no daemon")?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)
            .map_err(|e| format!("the daemon cannot be killed: {e}"))?;
        let lock = std::fs::File::open(self.lock()).map_err(|e| e.to_string())?;
        let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        wait_for(|| rustix::fs::flock(&lock, operation).ok())
            .ok_or_else(|| "the daemon does not die".to_owned())
    }

    fn umount(&self) -> Result<(), String> {
        self.run(&["umount", &self.dir.to_string_lossy()])
    }
}

/// Tries until there is something, for a while.
fn wait_for<T>(mut what: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = what();
        if found.is_some() || Instant::now() > until {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn succeeded(args: &[&str], output: std::io::Result<Output>) -> Result<(), String> {
    let output = output.map_err(|e| format!("drivefs does not start: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("drivefs {}: {}: {said}", args.join(" "), output.status))
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(e) = self.umount() {
            eprintln!("{e}");
            if let Err(e) = self.run(&["umount", "--lazy", &self.dir.to_string_lossy()]) {
                eprintln!("{e}");
            }
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.home.join("drivefs.log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(LOG_LINES).collect();
            eprintln!("---- log of {}, newest first\n{}", self.dir.display(), lines.join("\n"));
        }
    }
}
