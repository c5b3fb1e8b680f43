//! `drivefs status`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::checkup;
use super::when;
use crate::control::Control;
use crate::control::ControlError;
use crate::control::Reply;
use crate::control::Request;
use crate::control::Status as State;
use crate::home::AccountFile;
use crate::home::Home;
use crate::state::Db;
use crate::state::DbError;
use crate::tree::Restored;

/// Queue lines shown to people.
const LINES: usize = 20;
/// Queue lines in JSON.
const JSON_LINES: usize = 10_000;

#[derive(Debug, Args)]
pub struct Status {
    /// Tell only about this file or folder of the drive
    path: Option<PathBuf>,
    /// Tell again every second until interrupted
    #[arg(long)]
    watch: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(c: &Status) -> anyhow::Result<()> {
    loop {
        let home = Home::from_env()?;
        let mut state = fetch(&home, if c.json { JSON_LINES } else { LINES })?;
        state.damage = checkup::known_damage(&home);
        if let (Some(path), Some(mount)) = (&c.path, state.mount.clone()) {
            let path = super::below_mount(path, &mount)?;
            let under =
                |p: &str| path.is_empty() || p == path || p.starts_with(&format!("{path}/"));
            state.queue.retain(|e| under(&e.path));
            state.queue_files = state.queue.len() as u64;
            state.queue_bytes = state.queue.iter().map(|e| e.bytes).sum();
            state.conflicts.retain(|p| under(p));
        }
        if c.json {
            println!("{}", serde_json::to_string(&state)?);
        } else {
            print(&state);
        }
        if !c.watch {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn fetch(home: &Home, limit: usize) -> anyhow::Result<State> {
    let mut control = match Control::connect(home) {
        Ok(control) => control,
        Err(ControlError::NotRunning(_)) => return unmounted(home),
        Err(e) => return Err(e.into()),
    };
    match control.ask(&Request::Status { limit }, |_| {})? {
        Reply::Status(status) => Ok(*status),
        Reply::Failed { message } => bail!("{message}"),
        other => bail!("unexpected answer of the daemon: {other:?}"),
    }
}

/// What the disk tells while nothing is mounted.
fn unmounted(home: &Home) -> anyhow::Result<State> {
    let mut state = State::default();
    if let Some(account) = AccountFile::load(home)? {
        state.server = account.url;
        state.email = account.email;
        state.device = account.device;
    }
    if home.database().exists() {
        let (nodes, names) = match Db::open(&home.database()) {
            // A daemon is starting or ending.
            Err(DbError::InUse) => Db::peek_committed(&home.database(), |c| c.count_intents())?,
            other => other?.peek(|c| c.count_intents())?,
        };
        state.queue_files = nodes.max(names);
    }
    state.reason = Some("not mounted; `drivefs mount DIR` mounts it".to_owned());
    Ok(state)
}

fn told_restored(r: &Restored) -> String {
    let mut text = format!(
        "the server's data was restored from a backup: {} change(s) that it lacked were sent again",
        r.sent_again
    );
    if r.older + r.gone > 0 {
        text.push_str(&format!(
            "; of {} file(s) the newer content is not on this device, {} are missing altogether \
             (drivefs.log has their names); another device may still bring them back",
            r.older, r.gone
        ));
    }
    text
}

fn print(s: &State) {
    match &s.mount {
        Some(mount) => println!("{mount}: {} on {} as {}", s.email, s.server, s.device),
        None => println!("not mounted"),
    }
    if s.mounted {
        let state = match () {
            () if s.locked_out => "logged out",
            () if s.online => "online",
            () => "offline",
        };
        match &s.reason {
            Some(reason) => println!("{state}: {reason}"),
            None => println!("{state}"),
        }
    }
    if let Some(damage) = &s.damage {
        println!("{damage}");
    }
    if let Some(r) = &s.restored {
        println!("{}", told_restored(r));
    }
    if s.filling {
        println!("the list of files is still coming in; folders are listed when they are opened");
    }
    if s.queue_files == 0 {
        println!("everything is on the server");
    } else {
        println!(
            "{} change(s) not on the server yet, {}",
            s.queue_files,
            super::human(s.queue_bytes)
        );
        for e in &s.queue {
            let size = if e.bytes > 0 { super::human(e.bytes) } else { String::new() };
            let error = e.error.as_ref().map(|e| format!("  ! {e}")).unwrap_or_default();
            println!("  {:9} {:>9}  {:>6.0} s  {}{error}", e.state, size, e.age_secs, e.path);
        }
        let more = s.queue_files.saturating_sub(s.queue.len() as u64);
        if more > 0 && s.mounted {
            println!("  ... and {more} more");
        }
    }
    for path in &s.conflicts {
        println!("conflict: {path}");
    }
    for a in &s.mass_changes {
        println!(
            "{}: {} file(s) deleted and {} rewritten by {} ({}); if that was not meant:\n  {}",
            when::human(a.at),
            a.deleted,
            a.edited,
            a.user,
            a.device,
            a.command
        );
    }
    if let Some(error) = &s.last_read_error {
        println!("last read that failed: {error}");
    }
    if s.mounted {
        println!(
            "cache {} of {}; sent {}, received {}; {} of {} used",
            super::human(s.cache.bytes),
            super::human(s.cache.limit_bytes),
            super::human(s.bytes_sent),
            super::human(s.bytes_received),
            super::human(s.used_bytes),
            super::human(s.quota_bytes),
        );
    }
}
