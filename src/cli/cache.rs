//! `drivefs cache`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use clap::Subcommand;

use crate::control::CacheStatus;
use crate::control::Reply;
use crate::control::Request;

/// Tell about the cache of this device, or drop files from it.
///
/// The cache holds content that was read or written here, up to `--cache-size` of `drivefs mount`;
/// what was not used for longest goes first. What the server does not have yet, and what is pinned,
/// is never dropped.
#[derive(Debug, Args)]
pub struct Cache {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Drop the content of a file or folder from this device; it is fetched again when it is read
    Evict {
        /// A file or folder of the drive
        path: PathBuf,
    },
}

pub fn run(c: &Cache) -> anyhow::Result<()> {
    let (mut control, mount) = super::daemon()?;
    let request = match &c.command {
        None => Request::Cache,
        Some(Command::Evict { path }) => Request::Evict { path: super::below_mount(path, &mount)? },
    };
    match control.ask(&request, |_| {})? {
        Reply::Cache(status) if c.json => println!("{}", serde_json::to_string(&status)?),
        Reply::Cache(status) => print(&status),
        Reply::Evicted(evicted) if c.json => println!("{}", serde_json::to_string(&evicted)?),
        Reply::Evicted(evicted) => {
            println!("dropped {}", super::human(evicted.dropped_bytes));
            if evicted.waiting_bytes > 0 {
                let bytes = super::human(evicted.waiting_bytes);
                println!("{bytes} stays: it is not on the server yet (`drivefs sync` sends it)");
            }
            if evicted.pinned_bytes > 0 {
                println!("{} stays: it is pinned", super::human(evicted.pinned_bytes));
            }
        }
        Reply::Failed { message } => bail!("{message}"),
        other => bail!("unexpected answer of the daemon: {other:?}"),
    }
    Ok(())
}

fn print(s: &CacheStatus) {
    let human = super::human;
    println!("cached     {} of {}", human(s.bytes), human(s.limit_bytes));
    println!("pinned     {}", human(s.pinned_bytes));
    println!("waiting    {} (not on the server yet)", human(s.waiting_bytes));
    println!(
        "disk       {} free; the cache leaves {} free",
        human(s.free_bytes),
        human(s.keep_free_bytes)
    );
    println!(
        "reads      {} from memory, {} from this disk, {} from the server in {} block(s)",
        s.memory_hits,
        s.disk_hits,
        human(s.fetched_bytes),
        s.fetched_blocks
    );
}
