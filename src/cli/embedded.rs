//! The embedded server: without an account, a mount runs its own `drivefs-server` on loopback,
//! with its data in the home. It lives as long as the mount that needs it, and is started again
//! when it dies meanwhile.

use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::bail;
use rand::Rng;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;

use super::login::host_name;
use super::login::log_in;
use crate::home::AccountFile;
use crate::home::Home;
use crate::home::write_atomic;

/// The account of the embedded server.
const EMAIL: &str = "me@localhost";
const START_WAIT: Duration = Duration::from_secs(20);
const STOP_WAIT: Duration = Duration::from_secs(15);
/// How often the server's life is checked.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// A running embedded server; dropping it stops the server in order.
pub struct Embedded {
    stop: Arc<(Mutex<bool>, Condvar)>,
    watcher: Option<JoinHandle<()>>,
}

/// Where the embedded server of a home keeps things.
struct Place {
    program: PathBuf,
    data: PathBuf,
    address: String,
    log: PathBuf,
}

impl Embedded {
    /// Starts the server if this home uses it, making server and account at the first time.
    pub fn start_if_needed(home: &Home) -> anyhow::Result<Option<Self>> {
        let account = AccountFile::load(home)?;
        if account.as_ref().is_some_and(|a| !a.embedded) {
            return Ok(None);
        }
        let place = Place::of(home)?;
        let server = place.start().context("could not start the embedded server")?;
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let embedded = Self { watcher: Some(watch(place.again(), server, stop.clone())), stop };
        if account.is_none() {
            make_account(home, &place)?;
        }
        Ok(Some(embedded))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let (flag, wake) = &*self.stop;
        *flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        wake.notify_all();
        if let Some(watcher) = self.watcher.take()
            && watcher.join().is_err()
        {
            tracing::error!("the embedded server's watcher failed");
        }
    }
}

impl Place {
    fn of(home: &Home) -> anyhow::Result<Self> {
        let data = home.server();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&data)?;
        let program = find_program()?;
        let noted = data.join("address");
        let address = match fs::read_to_string(&noted) {
            Ok(text) => text.trim().to_owned(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
                write_atomic(&noted, free.as_bytes(), 0o600)?;
                free
            }
            Err(e) => return Err(e.into()),
        };
        let log = home.root().join("server.log");
        Ok(Self { program, data, address, log })
    }

    fn again(&self) -> Self {
        Self {
            program: self.program.clone(),
            data: self.data.clone(),
            address: self.address.clone(),
            log: self.log.clone(),
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn pid_file(&self) -> PathBuf {
        self.data.join("pid")
    }

    /// The server that a killed daemon left running, if any.
    fn running(&self) -> Option<Pid> {
        let pid: i32 = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        let program = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let text = String::from_utf8_lossy(&program);
        let ours = text.contains("drivefs-server") && text.contains(&*self.data.to_string_lossy());
        Pid::from_raw(pid).filter(|_| ours)
    }

    fn start(&self) -> anyhow::Result<Running> {
        if let Some(pid) = self.running()
            && TcpStream::connect(&self.address).is_ok()
        {
            return Ok(Running::Found(pid));
        }
        let log = File::options().create(true).append(true).mode(0o600).open(&self.log)?;
        let mut child = Command::new(&self.program)
            .args(["serve", "--listen", &self.address, "--data"])
            .arg(&self.data)
            .env_remove("DRIVEFS_DETACHED")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C ends the mount first; the server follows when all is sent.
            .process_group(0)
            .spawn()
            .with_context(|| format!("could not run {}", self.program.display()))?;
        let out = child.stdout.take().context("the server's output is piped")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        if !line.starts_with("listening on ") {
            let code = child.wait()?;
            bail!("it ended at once ({code}); {} tells why", self.log.display());
        }
        write_atomic(&self.pid_file(), child.id().to_string().as_bytes(), 0o600)?;
        Ok(Running::Child(child))
    }
}

/// A server process: our child, or one that an earlier daemon started.
enum Running {
    Child(Child),
    Found(Pid),
}

impl Running {
    fn is_alive(&mut self) -> bool {
        match self {
            Self::Child(child) => matches!(child.try_wait(), Ok(None)),
            Self::Found(pid) => rustix::process::test_kill_process(*pid).is_ok(),
        }
    }

    fn stop(&mut self) {
        let pid = match self {
            Self::Child(child) => Pid::from_raw(child.id() as i32),
            Self::Found(pid) => Some(*pid),
        };
        let Some(pid) = pid else { return };
        if let Err(error) = kill_process(pid, Signal::TERM) {
            tracing::debug!(%error, "the embedded server is gone already");
            return;
        }
        let until = Instant::now() + STOP_WAIT;
        while self.is_alive() {
            if Instant::now() > until {
                tracing::warn!("the embedded server does not end; leaving it");
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Watches over the server until told to stop; starts it again when it died.
fn watch(place: Place, mut server: Running, stop: Arc<(Mutex<bool>, Condvar)>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let (flag, wake) = &*stop;
        let mut stopped = flag.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stopped {
            (stopped, _) =
                wake.wait_timeout(stopped, WATCH_EVERY).unwrap_or_else(PoisonError::into_inner);
            if *stopped || server.is_alive() {
                continue;
            }
            tracing::warn!("the embedded server died; starting it again");
            match place.start() {
                Ok(again) => server = again,
                Err(error) => tracing::error!("the embedded server: {error:#}"),
            }
        }
        server.stop();
    })
}

/// Makes the local account and logs this home in.
fn make_account(home: &Home, place: &Place) -> anyhow::Result<()> {
    let secret = place.data.join("password");
    let password = match fs::read_to_string(&secret) {
        Ok(text) => text.trim().to_owned(),
        Err(_) => {
            let mut random = [0; 16];
            rand::rng().fill_bytes(&mut random);
            let text: String = random.iter().map(|b| format!("{b:02x}")).collect();
            write_atomic(&secret, format!("{text}\n").as_bytes(), 0o600)?;
            text
        }
    };
    let disk = rustix::fs::statvfs(&place.data)?;
    let quota = (disk.f_blocks * disk.f_frsize).to_string();
    // A first start that was cut short may have made the account already.
    let added = place.admin(&["user", "add", "--email", EMAIL, "--quota", &quota], &password);
    if let Err(add) = added {
        place.admin(&["user", "passwd", "--email", EMAIL], &password).map_err(|_| add)?;
    }
    let until = Instant::now() + START_WAIT;
    let (account, _) = loop {
        match log_in(&place.url(), EMAIL, &password, &host_name()) {
            Ok(done) => break done,
            Err(e) if Instant::now() > until => return Err(e),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    AccountFile { embedded: true, ..account }.save(home)?;
    println!("started a server of your own on {} (data in {})", place.url(), place.data.display());
    println!(
        "second device: drivefs login {} --email {EMAIL} --password-stdin < {}",
        place.url(),
        secret.display()
    );
    Ok(())
}

impl Place {
    fn admin(&self, args: &[&str], password: &str) -> anyhow::Result<()> {
        let mut child = Command::new(&self.program)
            .args(args)
            .arg("--password-stdin")
            .arg("--data")
            .arg(&self.data)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().context("the input is piped")?;
        writeln!(input, "{password}")?;
        drop(input);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

/// `drivefs-server`: beside this program, else in PATH.
fn find_program() -> anyhow::Result<PathBuf> {
    let name = "drivefs-server";
    if let Some(beside) = std::env::current_exe()?.parent().map(|d| d.join(name))
        && beside.is_file()
    {
        return Ok(beside);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|d| d.join(name)).find(|p: &PathBuf| is_program(p)).context(
        "drivefs-server is not installed beside drivefs; install it, or log in to a server with \
         `drivefs login URL --email E`",
    )
}

fn is_program(path: &Path) -> bool {
    path.is_file()
}
