//! `drivefs login` and `drivefs logout`.

use std::io::BufRead;
use std::io::IsTerminal;

use anyhow::Context;
use anyhow::bail;
use clap::Args;
use drivefs_core::wire::LoginRequest;

use crate::home::AccountFile;
use crate::home::Home;
use crate::remote::Remote;
use crate::state::Db;
use crate::state::DbError;

#[derive(Debug, Args)]
pub struct Login {
    /// Address of the server, such as https://drive.example.org
    url: String,
    /// Your account on it
    #[arg(long)]
    email: String,
    /// Name of this device, shown to others [default: the host name]
    #[arg(long)]
    device: Option<String>,
    /// Read the password from the first line of standard input instead of asking
    #[arg(long)]
    password_stdin: bool,
}

#[derive(Debug, Args)]
pub struct Logout {
    /// Also drop changes that are not on the server yet, and all local data
    #[arg(long)]
    discard: bool,
}

pub fn run(c: &Login) -> anyhow::Result<()> {
    let home = Home::from_env()?;
    // A drive that is mounted goes on with the new token: none is needed for that.
    let lock = home.lock()?;
    // A damaged file is about to be replaced.
    let known = AccountFile::load(&home).unwrap_or_default();
    if lock.is_none() && known.as_ref().is_none_or(|k| k.url != c.url.trim_end_matches('/')) {
        bail!(
            "a drive of another server is mounted from this home; `drivefs umount DIR` first, or \
             use another DRIVEFS_HOME for another device"
        );
    }
    let password = password(c.password_stdin)?;
    // Under its name a device is known again.
    let device = c.device.clone().or(known.map(|k| k.device)).unwrap_or_else(host_name);
    let account = log_in(&c.url, &c.email, &password, &device)?;
    check_same_account(&home, &account.0, &account.1)?;
    account.0.save(&home)?;
    println!("logged in to {} as {} on device {}", account.0.url, account.0.email, device);
    match lock {
        Some(_) => println!("`drivefs mount DIR` mounts the drive"),
        None => println!("the mounted drive goes on"),
    }
    Ok(())
}

/// Logs in and returns the account file with an identity: server and user.
pub fn log_in(
    url: &str,
    email: &str,
    password: &str,
    device: &str,
) -> anyhow::Result<(AccountFile, String)> {
    let remote = Remote::new(url, None)?;
    let request = LoginRequest {
        email: email.to_owned(),
        password: password.to_owned(),
        device: device.to_owned(),
    };
    let reply = super::runtime()?
        .block_on(remote.login(&request))
        .with_context(|| format!("could not log in to {url} as {email}"))?;
    let identity = identity(&reply.account);
    let account = AccountFile {
        url: remote.url().to_owned(),
        email: email.to_owned(),
        device: device.to_owned(),
        token: reply.token,
        embedded: false,
    };
    Ok((account, identity))
}

/// What a home's replica belongs to: this server's data and this user.
pub fn identity(account: &drivefs_core::wire::Account) -> String {
    format!("{} {}", account.server_id, account.user)
}

/// A home keeps one account's data: another needs another home. What the server has noted of a
/// login that is refused here is harmless: a device name.
fn check_same_account(home: &Home, account: &AccountFile, identity: &str) -> anyhow::Result<()> {
    if !home.database().exists() {
        return Ok(());
    }
    let known = match Db::open(&home.database()) {
        // Mounted: who it belongs to was written long ago.
        Err(DbError::InUse) => Db::peek_committed(&home.database(), |c| c.meta("identity"))?,
        other => other?.peek(|c| c.meta("identity"))?,
    };
    if known.is_some_and(|k| k != identity.as_bytes()) {
        bail!(
            "{} holds the data of another account or server.\nUse another folder \
             (DRIVEFS_HOME=... drivefs login ...), or drop that data with \
             `drivefs logout --discard` and log in to {} again",
            home.root().display(),
            account.url,
        );
    }
    Ok(())
}

pub fn logout(c: &Logout) -> anyhow::Result<()> {
    let home = Home::from_env()?;
    let _lock = lock_unmounted(&home)?;
    let Some(account) = AccountFile::load(&home)? else {
        bail!("this device is not logged in");
    };
    if !c.discard && home.database().exists() {
        let db = Db::open(&home.database())?;
        let (nodes, names) = db.peek(|c| c.count_intents())?;
        if nodes + names > 0 {
            bail!(
                "{} change(s) are not on the server yet. Mount the drive and run `drivefs sync` \
                 first, or drop them with `drivefs logout --discard`",
                nodes.max(names)
            );
        }
    }
    let remote = Remote::new(&account.url, Some(account.token))?;
    if let Err(error) = super::runtime()?.block_on(remote.logout()) {
        eprintln!("drivefs: the token could not be revoked on the server: {error}");
    }
    AccountFile::remove(&home)?;
    if c.discard {
        let redo = crate::state::redo_path(&home.database());
        for path in [home.database(), wal(&home, "-wal"), wal(&home, "-shm"), redo] {
            remove_if_there(std::fs::remove_file(path))?;
        }
        super::checkup::forget_damage(&home);
        remove_if_there(std::fs::remove_dir_all(home.data()))?;
    }
    println!("logged out");
    Ok(())
}

fn wal(home: &Home, suffix: &str) -> std::path::PathBuf {
    let mut path = home.database().into_os_string();
    path.push(suffix);
    path.into()
}

fn remove_if_there(result: std::io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// The home's lock; fails while a drive is mounted from it.
pub fn lock_unmounted(home: &Home) -> anyhow::Result<std::fs::File> {
    home.lock()?.context(
        "a drive is mounted from this home; `drivefs umount DIR` first, or use another \
         DRIVEFS_HOME for another device",
    )
}

fn password(from_stdin: bool) -> anyhow::Result<String> {
    if from_stdin {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        let password = line.trim_end_matches(['\n', '\r']).to_owned();
        if password.is_empty() {
            bail!("no password on standard input");
        }
        return Ok(password);
    }
    if !std::io::stdin().is_terminal() {
        bail!("no terminal to ask for the password; give it with --password-stdin");
    }
    Ok(rpassword::prompt_password("Password: ")?)
}

/// The name of this machine, as a device name.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "device".to_owned() } else { name }
}
