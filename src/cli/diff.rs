//! `drivefs diff`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use drivefs_core::id::VersionNo;
use drivefs_core::wire::VersionRow;
use similar::TextDiff;

use super::drive::Drive;
use super::drive::shown;
use super::drive::which;
use super::when;
use crate::history::Pick;

/// Largest version that is compared (bytes).
const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How far into a file a NUL byte makes it binary (bytes), as for diff(1).
const PROBE_BYTES: usize = 8 * 1024;

/// Compare two versions of a text file.
///
/// Without --to it is the current version, without --from the one before --to.
#[derive(Debug, Args)]
pub struct Diff {
    /// A file of the drive, or the path of one that is gone
    path: PathBuf,
    /// The older version, as `drivefs versions` lists it
    #[arg(long, value_name = "N")]
    from: Option<VersionNo>,
    /// The newer version
    #[arg(long, value_name = "N")]
    to: Option<VersionNo>,
}

pub fn run(c: &Diff) -> anyhow::Result<()> {
    let mut drive = Drive::open()?;
    let at = drive.locate(&c.path)?;
    let (history, of) = (drive.history(at.ns), which(&at));
    let about = || shown(&at.path).to_owned();
    let get = |pick| drive.wait(history.version(&of, pick)).with_context(about);
    let (_, to) = get(c.to.map_or(Pick::Current, Pick::Number))?;
    let (_, from) = match c.from {
        Some(number) => get(Pick::Number(number))?,
        None => get(Pick::Before(to.version))?,
    };
    if at.waiting {
        eprintln!("{}: changes that are not sent yet are not in it", shown(&at.path));
    }
    if from.content == to.content {
        return Ok(());
    }
    let path = shown(&at.path);
    if from.size.max(to.size) > BYTES_MAX {
        println!("{}", differ(path, &from, &to, "too large to compare"));
        return Ok(());
    }
    let read = |v: &VersionRow| drive.wait(history.read(&v.content, BYTES_MAX)).with_context(about);
    let (old, new) = (read(&from)?, read(&to)?);
    match (text(&old), text(&new)) {
        (Some(old), Some(new)) => {
            let diff = TextDiff::from_lines(old, new);
            let mut unified = diff.unified_diff();
            unified.header(&header(path, &from), &header(path, &to));
            std::io::stdout().lock().write_all(unified.to_string().as_bytes())?;
        }
        _ => println!("{}", differ(path, &from, &to, "binary")),
    }
    Ok(())
}

/// The bytes as text; none for what is binary.
fn text(bytes: &[u8]) -> Option<&str> {
    let probe = &bytes[..bytes.len().min(PROBE_BYTES)];
    if probe.contains(&0) { None } else { std::str::from_utf8(bytes).ok() }
}

fn header(path: &str, v: &VersionRow) -> String {
    format!("{path}\tversion {} of {} by {}", v.version, when::human(v.committed), v.device)
}

fn differ(path: &str, from: &VersionRow, to: &VersionRow, why: &str) -> String {
    format!(
        "{path}: versions {} ({} bytes) and {} ({} bytes) differ ({why})",
        from.version, from.size, to.version, to.size
    )
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn text_and_binary_are_told_apart() {
        assert_eq!(text("äöü\n".as_bytes()), Some("äöü\n"));
        assert_eq!(text(b""), Some(""));
        assert_eq!(text(b"a\0b"), None);
        assert_eq!(text(b"\xff\xfe"), None);
    }
}
