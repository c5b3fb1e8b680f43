//! `drivefs trash`: what was deleted, and its way back.

use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::bail;
use clap::Args;
use clap::Subcommand;
use drivefs_core::limits::TRASH_ROWS_MAX;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::TrashEntry;
use drivefs_core::wire::Which;
use indicatif::ProgressBar;
use serde::Serialize;

use super::drive::Drive;
use super::drive::joined;
use super::drive::shown;
use super::restore::tell_failures;
use super::when;
use crate::control::Located;
use crate::control::Space;

/// What was deleted, and how to get it back. It stays in the trash for 30 days.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Trash {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List what is in the trash, newest first; a folder is one line
    List(List),
    /// Put a file or folder back where it was, with all that was in it and its history
    Restore(Back),
    /// Empty the trash: nothing that is in it now can be brought back
    Empty(Empty),
}

#[derive(Debug, Args)]
struct List {
    /// List at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Back {
    /// Its path, as listed or below the mount; of several under one path, the last deleted
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Empty {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A line of `drivefs trash --json`.
#[derive(Debug, Serialize)]
struct Line {
    path: String,
    node: String,
    /// `file`, `folder` or `other`.
    kind: &'static str,
    /// RFC 3339, UTC.
    deleted: String,
    device: String,
    /// Bytes, of a folder with all that is in it.
    size: u64,
    /// Files and folders in it.
    below: u64,
    #[serde(skip)]
    time: i64,
}

pub fn run(c: &Trash) -> anyhow::Result<()> {
    let mut drive = Drive::open()?;
    match &c.what {
        None => list(&mut drive, &c.list),
        Some(What::List(c)) => list(&mut drive, c),
        Some(What::Restore(c)) => restore(&mut drive, c),
        Some(What::Empty(c)) => empty(&mut drive, c),
    }
}

fn list(drive: &mut Drive, c: &List) -> anyhow::Result<()> {
    drive.settle()?;
    let limit = c.limit as usize;
    let mut lines = Vec::new();
    let mut more = false;
    for space in drive.spaces()? {
        let history = drive.history(space.ns);
        let mut skip = 0;
        loop {
            // One more than is shown tells that there are more.
            let left = u32::try_from((limit + 1).saturating_sub(skip)).unwrap_or(u32::MAX);
            let page = drive.wait(history.trash(skip as u64, left.min(TRASH_ROWS_MAX)))?;
            skip += page.entries.len();
            lines.extend(page.entries.iter().map(|e| line(&space, e)));
            if !page.more || page.entries.is_empty() || skip > limit {
                break;
            }
        }
    }
    lines.sort_by_key(|l| std::cmp::Reverse(l.time));
    if lines.len() > limit {
        lines.truncate(limit);
        more = true;
    }
    if c.json {
        println!("{}", serde_json::json!({ "trash": lines, "more": more }));
        return Ok(());
    }
    if lines.is_empty() {
        println!("the trash is empty");
    }
    for l in &lines {
        let below = if l.below > 0 { format!("  ({} in it)", l.below) } else { String::new() };
        let slash = if l.kind == "folder" { "/" } else { "" };
        println!(
            "{}  {:>10}  {:12}  {}{slash}{below}",
            when::human(l.time),
            super::human(l.size),
            l.device,
            l.path,
        );
    }
    if more {
        println!("... and more; --limit N lists them");
    }
    Ok(())
}

fn line(space: &Space, e: &TrashEntry) -> Line {
    Line {
        path: joined(&space.path, &e.path),
        node: e.node.to_string(),
        kind: match e.kind {
            NodeKind::File => "file",
            NodeKind::Dir => "folder",
            _ => "other",
        },
        deleted: when::exact(e.deleted),
        device: e.device.clone(),
        size: e.size,
        below: e.below,
        time: e.deleted,
    }
}

fn restore(drive: &mut Drive, c: &Back) -> anyhow::Result<()> {
    let (at, entry) = find(drive, &c.path)?;
    let history = drive.history(at.ns);
    let bar = ProgressBar::new_spinner();
    let of = Which::Node(entry.node);
    let done = drive.wait(history.revive(&of, false, |nodes| {
        bar.set_message(format!("{nodes} are back"));
        bar.tick();
    }));
    bar.finish_and_clear();
    // Also what came back before it failed is to be seen.
    drive.sync(&at.path)?;
    let done = done.with_context(|| shown(&at.path).to_owned())?;
    let path = drive.path_of(done.node)?.unwrap_or_else(|| at.path.clone());
    if c.json {
        println!(
            "{}",
            serde_json::json!({
                "path": path, "node": done.node.to_string(), "restored": done.nodes,
                "renamed": done.renamed, "failed": done.failed,
            })
        );
    } else {
        let others =
            if done.nodes > 1 { format!(", {} in all", done.nodes) } else { String::new() };
        println!("{path}: it is back{others}");
        if done.renamed {
            println!("its old name was taken");
        }
    }
    tell_failures(&done.failed)
}

/// What is meant by a path: below the mount where it can be, else from the drive's root, as `list`
/// shows it.
fn find(drive: &mut Drive, path: &Path) -> anyhow::Result<(Located, TrashEntry)> {
    let mut tried = Vec::new();
    if let Ok(at) = drive.locate(path) {
        tried.push(at);
    }
    if let Some(text) = path.to_str().filter(|_| path.is_relative()) {
        tried.push(drive.locate_below(text.trim_matches('/').to_owned())?);
    }
    for at in &tried {
        // A removal that is on its way counts.
        drive.send_first(at)?;
        let history = drive.history(at.ns);
        match drive.wait(history.lost(&Which::Path(at.names.clone()))) {
            Ok(entry) => return Ok((at.clone(), entry)),
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
    }
    let here = tried.iter().any(|at| at.node.is_some());
    let hint = if here { " (it is in the drive)" } else { "" };
    bail!("{} is not in the trash{hint}; `drivefs trash list` tells what is", path.display())
}

fn empty(drive: &mut Drive, c: &Empty) -> anyhow::Result<()> {
    if !c.yes && std::io::stdin().is_terminal() && !confirmed()? {
        bail!("nothing was done");
    }
    drive.settle()?;
    let mut nodes = 0;
    for space in drive.spaces()?.into_iter().filter(|s| !s.read_only) {
        nodes += drive.wait(drive.history(space.ns).empty_trash())?;
    }
    if c.json {
        println!("{}", serde_json::json!({ "emptied": nodes }));
    } else {
        println!("the trash is empty; {nodes} file(s) and folder(s) were in it");
    }
    Ok(())
}

fn confirmed() -> anyhow::Result<bool> {
    eprint!("What is in the trash cannot be brought back then. Empty it? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
