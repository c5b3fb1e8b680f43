//! `drivefs conflicts` and `drivefs resolve`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use clap::ValueEnum;

use crate::control::Conflict;
use crate::control::Keep;
use crate::control::Reply;
use crate::control::Request;

/// List the files that two devices changed at once.
///
/// The change that reached the server first keeps the name; the other is a conflict file beside it.
/// `drivefs resolve` ends a conflict.
#[derive(Debug, Args)]
pub struct Conflicts {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// End a conflict: keep one content, the other, both, or merge them.
///
/// What goes is on the server before it goes: in the history of the file, or in the trash.
#[derive(Debug, Args)]
pub struct Resolve {
    /// The conflict file, or the file that it stems from
    path: PathBuf,
    /// What to keep
    #[arg(long, value_name = "WHAT")]
    keep: What,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// The conflict file's content: it becomes the newest version of the file that has the name
    Mine,
    /// The file that has the name; the conflict file goes
    Theirs,
    /// Both: the conflict file becomes an ordinary file
    Both,
    /// The changes of both, line by line; if they overlap, nothing happens
    Merge,
}

impl From<What> for Keep {
    fn from(what: What) -> Self {
        match what {
            What::Mine => Self::Mine,
            What::Theirs => Self::Theirs,
            What::Both => Self::Both,
            What::Merge => Self::Merge,
        }
    }
}

pub fn run(c: &Conflicts) -> anyhow::Result<()> {
    let (mut control, _) = super::daemon()?;
    match control.ask(&Request::Conflicts, |_| {})? {
        Reply::Conflicts(all) if c.json => println!("{}", serde_json::to_string(&all)?),
        Reply::Conflicts(all) => {
            if all.filling {
                println!("the list of files is still coming in; there may be more");
            }
            if all.conflicts.is_empty() {
                println!("no conflicts");
                return Ok(());
            }
            all.conflicts.iter().for_each(print);
            println!("`drivefs resolve FILE --keep mine|theirs|both|merge` ends one");
        }
        Reply::Failed { message } => bail!("{message}"),
        other => bail!("unexpected answer of the daemon: {other:?}"),
    }
    Ok(())
}

fn print(one: &Conflict) {
    let human = super::human;
    println!("{}", one.path);
    let device = one.device.as_deref().unwrap_or("an unknown device");
    let date = one.date.as_ref().map(|date| format!(", {date}")).unwrap_or_default();
    let waits = if one.on_server { "" } else { ", not on the server yet" };
    println!("  mine    {:>10}, from {device}{date}{waits}", human(one.bytes));
    match (&one.origin, &one.origin_name) {
        (Some(origin), _) => {
            println!("  theirs  {:>10}, {origin}", human(one.origin_bytes.unwrap_or(0)));
        }
        (None, Some(name)) => println!("  theirs  was removed ({name})"),
        (None, None) => println!("  theirs  was removed"),
    }
}

pub fn resolve(c: &Resolve) -> anyhow::Result<()> {
    let (mut control, mount) = super::daemon()?;
    let path = super::below_mount(&c.path, &mount)?;
    match control.ask(&Request::Resolve { path, keep: c.keep.into() }, |_| {})? {
        Reply::Resolved(done) if c.json => println!("{}", serde_json::to_string(&done)?),
        Reply::Resolved(done) => match (done.kept, &done.removed) {
            (Keep::Both, _) => println!("{}: an ordinary file now", done.path),
            (Keep::Theirs, Some(gone)) => println!("{} stays; {gone} is gone", done.path),
            (Keep::Mine, Some(gone)) => println!("{} has the content of {gone} now", done.path),
            (Keep::Merge, Some(gone)) => {
                println!("{} has the changes of both; {gone} is gone", done.path);
            }
            (_, None) => println!("{}: an ordinary file now", done.path),
        },
        Reply::Failed { message } => bail!("{message}"),
        other => bail!("unexpected answer of the daemon: {other:?}"),
    }
    Ok(())
}
