//! `drivefs doctor`: what is wrong on this device, and what to do about it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::checkup;
use super::rebuild;
use crate::control::Control;
use crate::home::AccountFile;
use crate::home::Home;
use crate::remote::Remote;
use crate::state::Db;
use crate::state::DbError;

/// Less free space than this on the home's disk is worth a word (bytes).
const LOW_SPACE_BYTES: u64 = 1024 * 1024 * 1024;

#[derive(Debug, Args)]
pub struct Doctor {
    /// Make a new state database from the server and the local spool (the drive is not mounted)
    #[arg(long)]
    rebuild: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warning,
    Bad,
}

#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

pub fn run(c: &Doctor) -> anyhow::Result<()> {
    let home = Home::from_env()?;
    if c.rebuild {
        return rebuild::run(&home);
    }
    let account = AccountFile::load(&home);
    let checks = [
        fuse_device(),
        fuse_helper(),
        home_folder(&home),
        space(&home),
        login(&account),
        server(&home, &account),
        database(&home),
        daemon(&home),
    ];
    if c.json {
        println!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        for check in &checks {
            let mark = match check.verdict {
                Verdict::Ok => "ok  ",
                Verdict::Warning => "warn",
                Verdict::Bad => "BAD ",
            };
            println!("{mark}  {}: {}", check.what, check.found);
            if let Some(advice) = &check.advice {
                println!("      -> {advice}");
            }
        }
    }
    if checks.iter().any(|c| c.verdict == Verdict::Bad) {
        bail!("something is wrong, see above");
    }
    Ok(())
}

fn check(
    what: &'static str,
    verdict: Verdict,
    found: impl Into<String>,
    advice: Option<&str>,
) -> Check {
    Check { what, verdict, found: found.into(), advice: advice.map(str::to_owned) }
}

fn fuse_device() -> Check {
    let what = "FUSE device";
    match fs::File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => check(what, Verdict::Ok, "/dev/fuse can be opened", None),
        Err(e) => check(
            what,
            Verdict::Bad,
            format!("/dev/fuse: {e}"),
            Some("load the module (`modprobe fuse`) or ask for access to /dev/fuse"),
        ),
    }
}

fn fuse_helper() -> Check {
    let what = "mount helper";
    if rustix::process::geteuid().is_root() {
        return check(what, Verdict::Ok, "not needed by root", None);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|d| d.join("fusermount3").is_file());
    if found {
        check(what, Verdict::Ok, "fusermount3 is installed", None)
    } else {
        check(
            what,
            Verdict::Bad,
            "fusermount3 is not in PATH",
            Some("install fuse3 (Debian: apt-get install fuse3)"),
        )
    }
}

fn home_folder(home: &Home) -> Check {
    let what = "home";
    let name = home.root().display().to_string();
    match fs::metadata(home.root()) {
        Ok(m) if m.permissions().mode() & 0o077 != 0 => check(
            what,
            Verdict::Warning,
            format!("{name} can be read by others"),
            Some("it holds your files and your token: chmod 700 it"),
        ),
        Ok(_) => check(what, Verdict::Ok, name, None),
        Err(e) => check(what, Verdict::Bad, format!("{name}: {e}"), None),
    }
}

fn space(home: &Home) -> Check {
    let what = "disk space";
    match rustix::fs::statvfs(home.root()) {
        Ok(s) => {
            let free = s.f_bavail * s.f_frsize;
            let found = format!("{} free for cache and spool", super::human(free));
            if free < LOW_SPACE_BYTES {
                let advice = "writes fail when it is full; free some, or lower --cache-size";
                check(what, Verdict::Warning, found, Some(advice))
            } else {
                check(what, Verdict::Ok, found, None)
            }
        }
        Err(e) => check(what, Verdict::Warning, e.to_string(), None),
    }
}

type Loaded = Result<Option<AccountFile>, crate::home::HomeError>;

fn login(account: &Loaded) -> Check {
    let what = "account";
    match account {
        Ok(Some(a)) => check(what, Verdict::Ok, format!("{} on {}", a.email, a.url), None),
        Ok(None) => check(
            what,
            Verdict::Warning,
            "not logged in",
            Some("`drivefs login URL --email E`, or `drivefs mount DIR` for a server of your own"),
        ),
        Err(e) => check(what, Verdict::Bad, e.to_string(), None),
    }
}

fn server(home: &Home, account: &Loaded) -> Check {
    let what = "server";
    let Ok(Some(account)) = account else {
        return check(what, Verdict::Ok, "none set up", None);
    };
    let asleep = account.embedded && Control::connect(home).is_err();
    let answer = Remote::new(&account.url, Some(account.token.clone()))
        .map_err(anyhow::Error::from)
        .and_then(|remote| Ok(super::runtime()?.block_on(remote.account())?));
    match answer {
        Ok(a) => check(
            what,
            Verdict::Ok,
            format!(
                "answers; {} of {} used",
                super::human(a.used_bytes),
                super::human(a.quota_bytes)
            ),
            None,
        ),
        Err(_) if asleep => check(what, Verdict::Ok, "your own; runs while it is mounted", None),
        Err(e) => check(
            what,
            Verdict::Bad,
            e.to_string(),
            Some("the drive works offline meanwhile; check the network and the server"),
        ),
    }
}

fn database(home: &Home) -> Check {
    let what = "state database";
    if !home.database().exists() {
        return check(what, Verdict::Ok, "none yet", None);
    }
    let count = |c: &crate::state::Conn<'_>| Ok((c.count_nodes()?, c.count_intents()?));
    let counted = match Db::open(&home.database()) {
        // The daemon's: not to be touched, but to be looked at.
        Err(DbError::InUse) => Db::peek_committed(&home.database(), count),
        Ok(db) => db.peek(count),
        Err(e) => Err(e),
    };
    let counted = match checkup::known_damage(home) {
        Some(_) => Err(DbError::Damaged("found by the daily check".into())),
        None => counted,
    };
    match counted {
        Ok((nodes, (ahead, names))) => check(
            what,
            Verdict::Ok,
            format!("{nodes} files and folders, {} not on the server yet", ahead.max(names)),
            None,
        ),
        Err(e) => check(
            what,
            Verdict::Bad,
            e.to_string(),
            Some("`drivefs doctor --rebuild` makes a new one from the server and the spool"),
        ),
    }
}

fn daemon(home: &Home) -> Check {
    let what = "daemon";
    match Control::connect(home) {
        Ok(_) => check(what, Verdict::Ok, "running", None),
        Err(_) if is_locked(home.root()) => check(
            what,
            Verdict::Bad,
            "it holds the home but does not answer",
            Some("look into drivefs.log in the home; end the process if it hangs"),
        ),
        Err(_) => check(what, Verdict::Ok, "not mounted", None),
    }
}

fn is_locked(root: &Path) -> bool {
    Home::at(root)
        .and_then(|h| {
            h.lock()
                .map(|l| l.is_none())
                .map_err(|e| crate::home::HomeError::Io(root.display().to_string(), e))
        })
        .unwrap_or(true)
}
