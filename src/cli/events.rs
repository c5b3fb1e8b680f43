//! `drivefs events`: what happened, by whom, from which device, and when.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::limits::EVENTS_MAX;
use drivefs_core::node::TimeNs;
use drivefs_core::wire::CommitEvents;
use drivefs_core::wire::Event;
use drivefs_core::wire::EventKind;
use drivefs_core::wire::EventPlace;
use drivefs_core::wire::MassChange;
use drivefs_core::wire::PollCursor;
use drivefs_core::wire::Span;
use serde::Serialize;

use super::drive::Drive;
use super::drive::joined;
use super::when;
use crate::control::Alarm;
use crate::control::Space;
use crate::history::HistoryError;
use crate::remote::RemoteError;

/// How long the server holds one long poll (seconds).
const HOLD_SECS: u64 = 50;
/// Pause before the server is asked again that could not be reached.
const AGAIN: Duration = Duration::from_secs(2);

/// What happened in the drive: by whom, from which device, and when (the server's clock).
///
/// Oldest first, down to the newest. With --follow it goes on with what happens, until interrupted;
/// with --json that is one object a line.
#[derive(Debug, Args)]
pub struct Events {
    /// Only what happened to this file or folder, or in it [default: everything]
    path: Option<PathBuf>,
    /// Go on with what happens from now on
    #[arg(long, short)]
    follow: bool,
    /// Begin with at most so many of the newest
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// An event as it is told.
#[derive(Debug, Serialize)]
pub struct Line {
    /// RFC 3339, UTC.
    time: String,
    /// `added`, `conflict`, `edited`, `restored`, `moved`, `linked`, `unlinked`, `deleted`,
    /// `mass_change`.
    kind: &'static str,
    path: String,
    /// Where it was, of what was moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    user: String,
    device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// The version that came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// Of a mass change: how many files, and what undoes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(skip)]
    at: TimeNs,
}

pub fn run(c: &Events) -> anyhow::Result<()> {
    let mut drive = Drive::open()?;
    let mut only = None;
    if let Some(path) = &c.path {
        let at = drive.locate(path)?;
        let Some(node) = at.node else {
            bail!(
                "there is no {}; `drivefs events` without a path has what happened to it",
                path.display()
            );
        };
        only = Some(Only { ns: at.ns, node: node.node, path: at.path });
    }
    if !c.follow {
        drive.settle()?;
    }
    let mut seen = HashMap::new();
    let (lines, more) = newest(&mut drive, only.as_ref(), c.limit as usize, &mut seen)?;
    if c.json && !c.follow {
        println!("{}", serde_json::json!({ "events": lines, "more": more }));
        return Ok(());
    }
    if lines.is_empty() && !c.follow {
        println!("nothing is on record");
        return Ok(());
    }
    if more && !c.follow {
        println!("... older ones before these; --limit N lists more");
    }
    let result = tell(&lines, c.json).and_then(|()| match c.follow {
        true => follow(&mut drive, only.as_ref(), &mut seen, c.json),
        false => Ok(()),
    });
    match result {
        // Whoever listened has gone.
        Err(e) if is_broken_pipe(&e) => Ok(()),
        other => other,
    }
}

/// What the events are limited to.
struct Only {
    ns: NamespaceId,
    node: NodeId,
    path: String,
}

impl Only {
    /// The filter in one of the namespaces; none for one that has nothing of it.
    fn of(only: Option<&Self>, space: &Space) -> Option<Option<NodeId>> {
        let Some(only) = only else { return Some(None) };
        if space.ns == only.ns {
            return Some(Some(only.node));
        }
        // What is mounted below the folder is in it, too.
        let below = only.path.is_empty() || space.path.starts_with(&format!("{}/", only.path));
        below.then_some(None)
    }
}

/// The newest events of all namespaces, oldest first, and where each namespace stands.
fn newest(
    drive: &mut Drive,
    only: Option<&Only>,
    limit: usize,
    seen: &mut HashMap<NamespaceId, Seq>,
) -> anyhow::Result<(Vec<Line>, bool)> {
    let mut all = Vec::new();
    let mut more = false;
    let mount = drive.mount.clone();
    for space in drive.spaces()? {
        let Some(of) = Only::of(only, &space) else { continue };
        let history = drive.history(space.ns);
        let mut lines: Vec<Line> = Vec::new();
        let mut span = Span::Newest;
        loop {
            // One more than is shown tells that there are more.
            let left = (limit + 1).saturating_sub(lines.len());
            let left = u32::try_from(left).unwrap_or(EVENTS_MAX).clamp(1, EVENTS_MAX);
            let page = drive.wait(history.events(of, span, left))?;
            seen.entry(space.ns).or_insert(page.seq);
            for commit in &page.commits {
                let mut told = lines_of(commit, &space, &mount);
                told.reverse();
                lines.extend(told);
            }
            match page.next {
                Some(next) if lines.len() <= limit => span = next,
                _ => break,
            }
        }
        all.extend(lines);
    }
    all.sort_by_key(|l| std::cmp::Reverse(l.at));
    if all.len() > limit {
        all.truncate(limit);
        more = true;
    }
    all.reverse();
    Ok((all, more))
}

/// Tells what happens from now on; ends with an error, or when nobody listens any more.
fn follow(
    drive: &mut Drive,
    only: Option<&Only>,
    seen: &mut HashMap<NamespaceId, Seq>,
    json: bool,
) -> anyhow::Result<()> {
    let mut away = false;
    loop {
        let spaces = drive.spaces()?;
        let watched: Vec<&Space> = spaces.iter().filter(|s| Only::of(only, s).is_some()).collect();
        let result = follow_once(drive, only, &watched, seen, json);
        match result {
            Ok(()) if away => {
                away = false;
                eprintln!("the server is back");
            }
            Ok(()) => {}
            Err(e) if is_passing(&e) => {
                if !away {
                    eprintln!("{e:#}; waiting for it");
                }
                away = true;
                std::thread::sleep(AGAIN);
            }
            Err(e) => return Err(e),
        }
    }
}

fn follow_once(
    drive: &Drive,
    only: Option<&Only>,
    watched: &[&Space],
    seen: &mut HashMap<NamespaceId, Seq>,
    json: bool,
) -> anyhow::Result<()> {
    // A namespace that came up meanwhile is told from its beginning.
    let cursors = watched.iter().map(|s| {
        let seq = seen.get(&s.ns).copied().unwrap_or_default();
        // Events are asked for by seq alone.
        PollCursor { ns: s.ns, seq, epoch: 0 }
    });
    let changed = drive.wait(drive.poll(cursors.collect(), HOLD_SECS))?;
    for space in watched.iter().filter(|s| changed.contains(&s.ns)) {
        let of = Only::of(only, space).flatten();
        let history = drive.history(space.ns);
        let mut after = seen.get(&space.ns).copied().unwrap_or_default();
        loop {
            let page = drive.wait(history.events(of, Span::After(after), EVENTS_MAX))?;
            for commit in &page.commits {
                tell(&lines_of(commit, space, &drive.mount), json)?;
            }
            match page.next {
                Some(Span::After(next)) => after = next,
                _ => after = page.seq,
            }
            // Told is told, also when the next page fails.
            seen.insert(space.ns, after);
            if page.next.is_none() {
                break;
            }
        }
    }
    Ok(())
}

fn tell(lines: &[Line], json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in lines {
        if json {
            writeln!(out, "{}", serde_json::to_string(line)?)?;
        } else {
            writeln!(out, "{}", human(line))?;
        }
    }
    out.flush()?;
    Ok(())
}

fn human(l: &Line) -> String {
    let (time, by) = (when::human(l.at), format!("{} ({})", l.user, l.device));
    if let Some(command) = &l.command {
        let (deleted, edited) = (l.deleted.unwrap_or_default(), l.edited.unwrap_or_default());
        return format!(
            "{time}  mass change  {deleted} file(s) deleted and {edited} rewritten in a short time, by \
             {by}; if that was not meant:\n    {command}"
        );
    }
    let path = match &l.from {
        Some(from) => format!("{from} -> {}", l.path),
        None => l.path.clone(),
    };
    format!("{time}  {:9} {path}  by {by}", l.kind)
}

/// What a commit tells, in its order.
fn lines_of(commit: &CommitEvents, space: &Space, mount: &str) -> Vec<Line> {
    let mut lines: Vec<Line> =
        commit.told.events.iter().map(|e| line_of(commit, e, space)).collect();
    if let Some(mass) = &commit.told.mass {
        lines.push(mass_line(commit, mass, space, mount));
    }
    lines
}

fn line_of(commit: &CommitEvents, event: &Event, space: &Space) -> Line {
    let path = |p: &EventPlace| joined(&space.path, &commit.told.path(p));
    let here = event.to.as_ref().or(event.from.as_ref());
    let moved = event.kind == EventKind::Moved;
    Line {
        kind: match event.kind {
            EventKind::Added => "added",
            EventKind::Conflict => "conflict",
            EventKind::Linked => "linked",
            EventKind::Edited => "edited",
            EventKind::Reverted | EventKind::Restored => "restored",
            EventKind::Moved => "moved",
            EventKind::Unlinked => "unlinked",
            EventKind::Deleted => "deleted",
        },
        path: here.map(path).unwrap_or_default(),
        from: event.from.as_ref().filter(|_| moved).map(path),
        node: Some(event.node.to_string()),
        version: Some(event.after).filter(|v| *v > 0),
        ..line(commit)
    }
}

fn line(commit: &CommitEvents) -> Line {
    Line {
        time: when::exact(commit.time),
        kind: "",
        path: String::new(),
        from: None,
        user: commit.user.clone(),
        device: commit.device.clone(),
        node: None,
        version: None,
        deleted: None,
        edited: None,
        command: None,
        at: commit.time,
    }
}

fn mass_line(commit: &CommitEvents, mass: &MassChange, space: &Space, mount: &str) -> Line {
    let alarm = alarm(commit, mass, &space.path, mount);
    Line {
        kind: "mass_change",
        path: alarm.path,
        deleted: Some(alarm.deleted),
        edited: Some(alarm.edited),
        command: Some(alarm.command),
        ..line(commit)
    }
}

/// A mass change in a namespace that is mounted at `space`, with the command that takes it back.
pub fn alarm(commit: &CommitEvents, mass: &MassChange, space: &str, mount: &str) -> Alarm {
    let path = joined(space, &mass.folder);
    let whole = if path.is_empty() { mount.to_owned() } else { format!("{mount}/{path}") };
    let command = format!(
        "drivefs rewind {} --to {} --device {}",
        quoted(&whole),
        when::exact(mass.since),
        quoted(&commit.device)
    );
    Alarm {
        time: when::exact(commit.time),
        at: commit.time,
        user: commit.user.clone(),
        device: commit.device.clone(),
        deleted: mass.deleted,
        edited: mass.rewritten,
        path,
        command,
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn is_passing(e: &anyhow::Error) -> bool {
    match e.downcast_ref::<HistoryError>() {
        Some(HistoryError::Remote(e)) => e.is_passing(),
        _ => e.downcast_ref::<RemoteError>().is_some_and(RemoteError::is_passing),
    }
}

fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_are_quoted_where_a_shell_would_split_or_expand_them() {
        assert_eq!(quoted("/home/me/Drive"), "/home/me/Drive");
        assert_eq!(quoted("al's laptop"), r"'al'\''s laptop'");
        assert_eq!(quoted("$(rm)"), "'$(rm)'");
        assert_eq!(quoted(""), "''");
    }
}
