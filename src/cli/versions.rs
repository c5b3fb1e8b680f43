//! `drivefs versions` and `drivefs keep`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use drivefs_core::id::VersionNo;
use drivefs_core::wire::VersionRow;
use serde::Serialize;

use super::drive::Drive;
use super::drive::joined;
use super::drive::shown;
use super::drive::which;
use super::when;

/// Versions asked for at once.
const PAGE: u32 = 200;

/// List the versions of a file, newest first, also of one that was deleted.
///
/// A change becomes a version when it reaches the server. Renaming, moving and changing the mode make
/// no version.
#[derive(Debug, Args)]
pub struct Versions {
    /// A file of the drive, or the path of one that is gone
    path: PathBuf,
    /// List at most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Keep a version for good, whatever is thinned out later.
#[derive(Debug, Args)]
pub struct Keep {
    /// A file of the drive, or the path of one that is gone
    path: PathBuf,
    /// The version, as `drivefs versions` lists it
    #[arg(long, value_name = "N")]
    version: VersionNo,
    /// Let it go again
    #[arg(long)]
    release: bool,
}

/// What `drivefs versions --json` prints.
#[derive(Debug, Serialize)]
struct List {
    path: String,
    node: String,
    current: VersionNo,
    /// The file is in the trash.
    deleted: bool,
    /// It has changes that are not a version yet.
    unsent: bool,
    versions: Vec<Line>,
    /// There are older ones.
    more: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    version: VersionNo,
    /// RFC 3339, UTC.
    time: String,
    device: String,
    size: u64,
    current: bool,
    kept: bool,
}

pub fn run(c: &Versions) -> anyhow::Result<()> {
    let mut drive = Drive::open()?;
    let at = drive.locate(&c.path)?;
    let (history, of) = (drive.history(at.ns), which(&at));
    let page = |before, limit| drive.wait(history.versions(&of, before, limit));
    let about = || format!("{}: its versions", shown(&at.path));
    let first = page(None, c.limit.min(PAGE)).with_context(about)?;
    let (row, names) = (first.row, first.path);
    let (mut versions, mut more) = (first.versions, first.more);
    while more && versions.len() < c.limit as usize {
        let left = c.limit as usize - versions.len();
        let before = versions.last().map(|v| v.version);
        let next =
            page(before, PAGE.min(u32::try_from(left).unwrap_or(PAGE))).with_context(about)?;
        more = next.more;
        versions.extend(next.versions);
    }
    let list = List {
        path: if at.node.is_some() { at.path.clone() } else { joined(&at.space, &names) },
        node: row.node.to_string(),
        current: row.version,
        deleted: row.deleted,
        unsent: at.waiting,
        versions: versions.iter().map(|v| line(v, row.version)).collect(),
        more,
    };
    if c.json {
        println!("{}", serde_json::to_string(&list)?);
        return Ok(());
    }
    print(&list, &versions);
    Ok(())
}

fn line(v: &VersionRow, current: VersionNo) -> Line {
    Line {
        version: v.version,
        time: when::exact(v.committed),
        device: v.device.clone(),
        size: v.size,
        current: v.version == current,
        kept: v.kept,
    }
}

fn print(list: &List, versions: &[VersionRow]) {
    if list.deleted {
        println!(
            "{} was deleted; `drivefs restore` or `drivefs trash restore` brings it back",
            list.path
        );
    }
    if list.unsent {
        println!("{} has changes that are not sent yet, and no version so far", list.path);
    }
    for (line, v) in list.versions.iter().zip(versions) {
        let current = if line.current { "  current" } else { "" };
        let kept = if line.kept { "  kept" } else { "" };
        println!(
            "{:>5}  {}  {:>10}  {}{current}{kept}",
            line.version,
            when::human(v.committed),
            super::human(line.size),
            line.device,
        );
    }
    if list.more {
        println!("... and older ones; --limit N lists more");
    }
}

pub fn keep(c: &Keep) -> anyhow::Result<()> {
    let mut drive = Drive::open()?;
    let at = drive.locate(&c.path)?;
    let history = drive.history(at.ns);
    let kept = drive.wait(async {
        let node = history.versions(&which(&at), None, 1).await?.row.node;
        history.keep(node, c.version, !c.release).await
    });
    let kept = kept.with_context(|| format!("{}: version {}", shown(&at.path), c.version))?;
    let what = if c.release { "is not kept any more" } else { "is kept" };
    println!("version {} {what}; {kept} version(s) of {} are", c.version, shown(&at.path));
    Ok(())
}
