//! `drivefs why`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use crate::control::Reply;
use crate::control::Request;
use crate::control::Why as Facts;

/// Tell why a file is slow, not uploaded or not here, and what to do about it.
///
/// Of a folder it sums up all below it.
#[derive(Debug, Args)]
pub struct Why {
    /// A file or folder of the drive
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(c: &Why) -> anyhow::Result<()> {
    let (mut control, mount) = super::daemon()?;
    let path = super::below_mount(&c.path, &mount)?;
    match control.ask(&Request::Why { path }, |_| {})? {
        Reply::Why(why) if c.json => println!("{}", serde_json::to_string(&why)?),
        Reply::Why(why) => print(&why),
        Reply::Failed { message } => bail!("{message}"),
        other => bail!("unexpected answer of the daemon: {other:?}"),
    }
    Ok(())
}

fn print(why: &Facts) {
    let human = super::human;
    let name = if why.path.is_empty() { "the whole drive" } else { &why.path };
    println!("{name}: {} ({})", state_in_words(why), why.state);
    if why.kind == "folder" {
        println!("  {} file(s), {}", why.files, human(why.bytes));
    }
    println!("  here: {} of {}", human(why.here_bytes), human(why.bytes));
    match &why.pinned_by {
        Some(by) if *by == why.path => println!("  pinned: it stays here"),
        Some(by) => println!("  pinned by {}: it stays here", if by.is_empty() { "/" } else { by }),
        None => println!("  not pinned: what was not used for longest goes when space is needed"),
    }
    if let Some(version) = why.version {
        println!("  version {version}, node {}", why.node);
    }
    if why.waiting > 0 {
        println!("  {} change(s) wait, {}", why.waiting, human(why.waiting_bytes));
        for e in &why.queue {
            println!("    {:9} {:>6.0} s  {}", e.state, e.age_secs, e.path);
        }
    }
    if let Some(error) = &why.error {
        println!("  the server says: {error}");
    }
    if let Some(secs) = why.next_try_secs {
        println!("  next try in {secs:.0} s");
    }
    if let Some(reason) = &why.reason {
        println!("  {}: {reason}", if why.online { "last round" } else { "offline" });
    }
    if let Some(error) = &why.last_read_error {
        println!("  last read that failed: {error}");
    }
    for advice in &why.advice {
        println!("-> {advice}");
    }
}

fn state_in_words(why: &Facts) -> &'static str {
    match why.state.as_str() {
        "synced" => "all of it is on the server",
        "uploading" => "it is being sent right now",
        "pending" => "not on the server yet",
        "offline" => "not on the server yet, which cannot be reached",
        "conflict" => "a conflict waits for you",
        _ => "in an unknown state",
    }
}
