//! `drivefs restore`: an old version becomes the newest, a folder becomes as it was.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::bail;
use clap::Args;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;
use drivefs_core::wire::Place;
use drivefs_core::wire::Which;
use indicatif::ProgressBar;

use super::drive::Drive;
use super::drive::shown;
use super::drive::which;
use super::when;
use crate::control::Located;
use crate::history::History;
use crate::history::HistoryError;
use crate::history::Pick;

/// Failures told by name.
const FAILURES_SHOWN: usize = 10;

/// Bring back an old version of a file, or a folder as it was at a time.
///
/// The old content becomes the newest version; nothing of the history is taken away, so that this can
/// be undone in the same way. A file that was deleted comes back. Without --version and --at it is the
/// version before the current one, and of a deleted file the last one.
///
/// A folder needs --at: every file below gets its content of then, what was deleted since comes back,
/// what is newer stays.
#[derive(Debug, Args)]
pub struct Restore {
    /// A file or folder of the drive, or the path of one that is gone
    path: PathBuf,
    /// A version, as `drivefs versions` lists it
    #[arg(long, value_name = "N", conflicts_with = "at")]
    version: Option<VersionNo>,
    /// As it was then: 14:05, '2026-11-22 14:05', 2026-11-22T14:05:00Z, or 30m, 2h, 3d ago
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    at: Option<TimeNs>,
    /// Make a copy there instead of changing the file
    #[arg(long, value_name = "DEST")]
    to: Option<PathBuf>,
}

pub fn run(c: &Restore) -> anyhow::Result<()> {
    let mut drive = Drive::open()?;
    let mut at = drive.locate(&c.path)?;
    if at.waiting || at.node.is_none() {
        drive.send_first(&at)?;
        at = drive.locate(&c.path)?;
    }
    let history = drive.history(at.ns);
    let lost = match &at.node {
        Some(node) if node.kind == NodeKind::Dir => {
            return live_folder(c, &mut drive, &history, &at, node.node);
        }
        Some(_) => None,
        None => lost(&drive, &history, &at)?,
    };
    match lost {
        Some((node, NodeKind::Dir)) => lost_folder(c, &mut drive, &history, &at, node),
        // Without content there are no versions: it comes back as it was, or not at all.
        Some((node, kind)) if kind != NodeKind::File => {
            no_version(c)?;
            let done = drive.wait(history.revive(&Which::Node(node), false, |_| {}))?;
            came_back(&mut drive, &at, done.node)
        }
        lost => file(c, &mut drive, &history, &at, lost.map(|(node, _)| node)),
    }
}

/// What is in the trash under a path that leads to nothing here.
fn lost(
    drive: &Drive,
    history: &History,
    at: &Located,
) -> anyhow::Result<Option<(NodeId, NodeKind)>> {
    match drive.wait(history.lost(&which(at))) {
        Ok(entry) => Ok(Some((entry.node, entry.kind))),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e).with_context(|| shown(&at.path).to_owned()),
    }
}

fn no_version(c: &Restore) -> anyhow::Result<()> {
    if c.version.is_some() || c.to.is_some() {
        bail!("{} is no file: it has no versions", c.path.display());
    }
    Ok(())
}

fn file(
    c: &Restore,
    drive: &mut Drive,
    history: &History,
    at: &Located,
    lost: Option<NodeId>,
) -> anyhow::Result<()> {
    let about = || shown(&at.path).to_owned();
    let of = lost.map_or_else(|| which(at), Which::Node);
    if c.to.is_none() && lost.is_none() {
        // Asked first: a version that is not there needs no waiting.
        drive.wait(history.version(&of, pick(c, false))).with_context(about)?;
        drive.send_first(at)?;
    }
    let (file, version) =
        drive.wait(history.version(&of, pick(c, lost.is_some()))).with_context(about)?;
    if let Some(to) = &c.to {
        let (copied, path, folder) = copy_place(drive, to, &c.path)?;
        let copy =
            |drive: &Drive| drive.wait(history.copy_version(&file, &version, copied.clone()));
        if copy(drive).is_err() {
            // The folder may have been made a moment ago, and be known here alone.
            drive.send_first(&folder)?;
            copy(drive).with_context(|| path.clone())?;
        }
        drive.sync(&path)?;
        println!("{path}: a copy of version {} of {}", version.version, shown(&at.path));
        return Ok(());
    }
    let node = file.row.node;
    if file.row.deleted {
        drive.wait(history.revive(&Which::Node(node), false, |_| {})).with_context(about)?;
    }
    let made = drive.wait(history.restore_version(node, &version)).with_context(about)?;
    drive.sync(&at.path)?;
    let path = drive.path_of(node)?.unwrap_or_else(|| at.path.clone());
    match made {
        Some(made) => {
            println!("{path}: version {} is the newest again, as {made}", version.version);
        }
        None if file.row.deleted => println!("{path}: it is back, as version {}", version.version),
        None => println!("{path}: nothing to do, it holds version {} already", version.version),
    }
    Ok(())
}

fn pick(c: &Restore, deleted: bool) -> Pick {
    match (c.version, c.at) {
        (Some(number), _) => Pick::Number(number),
        (None, Some(time)) => Pick::At(time),
        (None, None) if deleted => Pick::Current,
        (None, None) => Pick::Previous,
    }
}

/// Where a copy goes, its path and its folder: a free name, or a folder that takes it under its own.
fn copy_place(
    drive: &mut Drive,
    to: &Path,
    from: &Path,
) -> anyhow::Result<((NamespaceId, Place), String, Located)> {
    let mut to = to.to_path_buf();
    let mut there = drive.locate(&to)?;
    if there.node.as_ref().is_some_and(|n| n.folder)
        && let Some(name) = from.file_name()
    {
        to.push(name);
        there = drive.locate(&to)?;
    }
    if there.node.is_some() {
        bail!("{} exists; give --to a name that is free", to.display());
    }
    let (Some(name), Some(folder)) = (to.file_name(), to.parent()) else {
        bail!("{} is no name for a file", to.display());
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let name = Name::new(std::os::unix::ffi::OsStrExt::as_bytes(name))?;
    let parent = drive.locate(folder)?;
    match &parent.node {
        Some(node) if node.folder => {
            let place = Place { parent: node.node, name };
            Ok(((parent.ns, place), there.path, parent))
        }
        _ => bail!("there is no folder {}", folder.display()),
    }
}

fn folder_time(c: &Restore) -> anyhow::Result<TimeNs> {
    if c.version.is_some() || c.to.is_some() {
        bail!(
            "{} is a folder: --version and --to are for files, --at TIME for folders",
            c.path.display()
        );
    }
    c.at.with_context(|| {
        format!("{} is a folder: say with --at TIME as of when it shall be", c.path.display())
    })
}

fn live_folder(
    c: &Restore,
    drive: &mut Drive,
    history: &History,
    at: &Located,
    node: NodeId,
) -> anyhow::Result<()> {
    let time = folder_time(c)?;
    drive.send_first(at)?;
    past(drive, history, at, node, time)
}

/// A folder that is gone: comes back alone, and then what was in it at the time; without a time with
/// all that went along with it.
fn lost_folder(
    c: &Restore,
    drive: &mut Drive,
    history: &History,
    at: &Located,
    node: NodeId,
) -> anyhow::Result<()> {
    no_version(c)?;
    let whole = c.at.is_none();
    let about = || shown(&at.path).to_owned();
    let done =
        drive.wait(history.revive(&Which::Node(node), !whole, |_| {})).with_context(about)?;
    match c.at {
        Some(time) => {
            past(drive, history, at, node, time)?;
            came_back(drive, at, node)
        }
        None => {
            came_back(drive, at, node)?;
            println!("{} file(s) and folder(s) are back", done.nodes);
            tell_failures(&done.failed)
        }
    }
}

fn past(
    drive: &mut Drive,
    history: &History,
    at: &Located,
    node: NodeId,
    time: TimeNs,
) -> anyhow::Result<()> {
    let bar = ProgressBar::new_spinner();
    let done = drive.wait(history.restore_past(node, time, |done| {
        bar.set_message(format!("{} file(s), {} from the trash", done.files, done.revived));
        bar.tick();
    }));
    bar.finish_and_clear();
    // Also what was done before it failed is to be seen.
    drive.sync(&at.path)?;
    let done = done.map_err(|e: HistoryError| {
        anyhow::Error::new(e).context("not all of it was restored; the same command goes on")
    })?;
    println!(
        "{}: as of {}; {} file(s) got their old content, {} came back from the trash",
        shown(&at.path),
        when::human(time),
        done.files,
        done.revived,
    );
    tell_failures(&done.failed)
}

fn came_back(drive: &mut Drive, at: &Located, node: NodeId) -> anyhow::Result<()> {
    drive.sync(&at.path)?;
    let path = drive.path_of(node)?.unwrap_or_else(|| at.path.clone());
    println!("{path}: it is back");
    Ok(())
}

/// Tells what did not come back; that is a failure.
pub fn tell_failures(failed: &[String]) -> anyhow::Result<()> {
    if failed.is_empty() {
        return Ok(());
    }
    let mut text = format!("{} could not be restored:", failed.len());
    for one in failed.iter().take(FAILURES_SHOWN) {
        text.push_str(&format!("\n  {one}"));
    }
    bail!("{text}")
}
