//! `drivefs rewind`: undoes what was done since a time.

use std::path::PathBuf;

use anyhow::Context;
use anyhow::bail;
use clap::Args;
use drivefs_core::node::TimeNs;
use indicatif::ProgressBar;
use serde::Serialize;

use super::drive::Drive;
use super::drive::shown;
use super::when;
use crate::control::Located;
use crate::history::HistoryError;
use crate::history::Left;
use crate::history::Scope;
use crate::history::Step;
use crate::history::Verb;
use crate::history::Whose;

/// Lines that are printed of what was left as it is.
const LEFT_SHOWN: usize = 20;

/// Undo what was done to a file or folder and all below it since a time, by anyone or from one device.
///
/// Edits get the content of before, what was deleted comes back, what was moved goes back, what was
/// added goes to the trash. All of that is new changes: rewinding to a time before the rewind undoes
/// it. With --device, what another device changed afterwards is left as it is, and told. Modes, times
/// and extended attributes stay as they are.
#[derive(Debug, Args)]
pub struct Rewind {
    /// A file or folder of the drive, the mount itself, or the path of something that is gone
    path: PathBuf,
    /// As it was then: 14:05, '2026-11-22 14:05', 2026-11-22T14:05:00Z, or 30m, 2h, 3d ago
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    to: TimeNs,
    /// Only what was done from this device, as `drivefs events` names it; EMAIL/NAME where several
    /// people have one of that name
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Tell what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Default, Serialize)]
struct Report {
    path: String,
    /// RFC 3339, UTC.
    to: String,
    dry_run: bool,
    reverted: usize,
    restored: usize,
    removed: usize,
    moved: usize,
    names: usize,
    /// Of a dry run: each step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<StepLine>,
    left: Vec<LeftLine>,
}

#[derive(Debug, Serialize)]
struct StepLine {
    what: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
}

#[derive(Debug, Serialize)]
struct LeftLine {
    path: String,
    why: String,
}

impl Report {
    fn count(&mut self, verb: Verb) {
        match verb {
            Verb::Revert => self.reverted += 1,
            Verb::Restore => self.restored += 1,
            Verb::Remove => self.removed += 1,
            Verb::Move => self.moved += 1,
            Verb::Link | Verb::Unlink => self.names += 1,
            Verb::Aside => {}
        }
    }

    fn is_empty(&self) -> bool {
        let done = self.reverted + self.restored + self.removed + self.moved + self.names;
        done + self.left.len() == 0
    }

    fn leave(&mut self, space: &str, left: Vec<Left>) {
        let lines = left.into_iter().map(|l| LeftLine { path: below(space, &l.path), why: l.why });
        self.left.extend(lines);
    }
}

pub fn run(c: &Rewind) -> anyhow::Result<()> {
    let mut drive = Drive::open()?;
    let at = drive.locate(&c.path)?;
    drive.send_first(&at)?;
    let at = drive.locate(&c.path)?;
    let whose = whose(c.device.as_deref());
    let mut report = Report {
        path: at.path.clone(),
        to: when::exact(c.to),
        dry_run: c.dry_run,
        ..Report::default()
    };
    let mut devices = 0;
    for (space, scope) in scopes(&mut drive, &at)? {
        let history = drive.history(space.ns);
        let about = || shown(&below(&space.path, "")).to_owned();
        if c.dry_run {
            let (plan, who) = drive
                .wait(history.plan_rewind(&scope, c.to, &whose))
                .map_err(told)
                .with_context(about)?;
            devices += who.len();
            plan.steps.iter().for_each(|s| report.count(s.verb));
            report.steps.extend(plan.steps.iter().filter_map(|s| line(s, &space.path)));
            report.leave(&space.path, plan.left);
            continue;
        }
        let bar = ProgressBar::new(0);
        let done = drive.wait(history.rewind(&scope, c.to, &whose, |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }));
        bar.finish_and_clear();
        if done.is_err() {
            // Also what was done before it failed is to be seen.
            drive.sync(&at.path)?;
        }
        let done = done.map_err(told).with_context(about)?;
        devices += done.devices.len();
        done.done.iter().for_each(|verb| report.count(*verb));
        report.leave(&space.path, done.left);
    }
    if at.node.is_none() && report.is_empty() {
        bail!("nothing is known of {} since {}", c.path.display(), when::human(c.to));
    }
    if !c.dry_run {
        drive.sync("")?;
    }
    if c.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(c, &report, devices);
    }
    if report.left.is_empty() || c.dry_run {
        return Ok(());
    }
    bail!("{} thing(s) could not be rewound and are left as they are", report.left.len())
}

fn whose(device: Option<&str>) -> Whose {
    match device.map(|d| (d, d.split_once('/'))) {
        None => Whose::Anyone,
        Some((_, Some((user, device)))) if user.contains('@') => {
            Whose::Device { user: Some(user.to_owned()), device: device.to_owned() }
        }
        Some((device, _)) => Whose::Device { user: None, device: device.to_owned() },
    }
}

/// The namespaces at and below a path, each with what of it is meant.
fn scopes(drive: &mut Drive, at: &Located) -> anyhow::Result<Vec<(crate::control::Space, Scope)>> {
    let mut found = Vec::new();
    for space in drive.spaces()? {
        let scope = if space.ns == at.ns {
            Scope { node: at.node.as_ref().map(|n| n.node), path: at.names.clone() }
        } else if at.path.is_empty() || space.path.starts_with(&format!("{}/", at.path)) {
            Scope { node: None, path: Vec::new() }
        } else {
            continue;
        };
        if space.read_only {
            if space.ns == at.ns {
                bail!("{} is shared with you for reading only", shown(&space.path));
            }
            eprintln!("{}: shared for reading only, left as it is", space.path);
            continue;
        }
        found.push((space, scope));
    }
    Ok(found)
}

fn told(e: HistoryError) -> anyhow::Error {
    match e {
        HistoryError::Pruned(begins) => anyhow::anyhow!(
            "what happened up to {} is not on record any more and cannot be rewound; give a later \
             --to, or use `drivefs restore --at`, which needs no record",
            when::human(begins)
        ),
        HistoryError::Refused(_) => e.into(),
        other => {
            anyhow::Error::new(other).context("not all of it was rewound; the same command goes on")
        }
    }
}

fn below(space: &str, path: &str) -> String {
    match (space, path) {
        ("", path) => path.to_owned(),
        (space, "") => space.to_owned(),
        (space, path) => format!("{space}/{path}"),
    }
}

fn line(step: &Step, space: &str) -> Option<StepLine> {
    let what = match step.verb {
        Verb::Revert => "revert",
        Verb::Restore => "restore",
        Verb::Remove => "remove",
        Verb::Move => "move",
        Verb::Link => "link",
        Verb::Unlink => "unlink",
        Verb::Aside => return None,
    };
    let from = step.from.as_ref().map(|from| below(space, from));
    Some(StepLine { what, path: below(space, &step.path), from })
}

fn print(c: &Rewind, r: &Report, devices: usize) {
    for s in &r.steps {
        match &s.from {
            Some(from) => println!("{:8} {from} -> {}", s.what, s.path),
            None => println!("{:8} {}", s.what, s.path),
        }
    }
    let human = when::human(c.to);
    if let (Some(device), 0) = (&c.device, devices) {
        println!("nothing was done from a device '{device}' there since {human}");
        return;
    }
    let would = if r.dry_run { "would be " } else { "" };
    println!(
        "{}: back to {human}; {} file(s) {would}given their old content, {} {would}taken back from the \
         trash, {} {would}moved back, {} {would}put into the trash",
        shown(&r.path),
        r.reverted,
        r.restored,
        r.moved,
        r.removed,
    );
    for left in r.left.iter().take(LEFT_SHOWN) {
        println!("not rewound: {}: {}", left.path, left.why);
    }
    if r.left.len() > LEFT_SHOWN {
        println!("... and {} more; --json lists all", r.left.len() - LEFT_SHOWN);
    }
}
