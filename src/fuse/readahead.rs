//! A wider read-ahead of the kernel.
//!
//! The kernel offers 128 KiB to every FUSE mount and takes no larger answer; its own setting of the mount
//! can be raised, by root. Streams gain by it, reads here and there do not change: the kernel reads
//! ahead only where it saw a sequence.

use std::fs;
use std::io;
use std::path::Path;

use super::mountpoint::device_of;

/// Read-ahead of a stream (KiB).
const READ_AHEAD_KIB: u32 = 512;

/// Raises the read-ahead of the mount at `dir`. What cannot be raised works as well, slower.
pub fn widen(dir: &Path) {
    if let Err(error) = set(dir) {
        tracing::debug!(%error, "the kernel's read-ahead stays as it is");
    }
}

fn set(dir: &Path) -> io::Result<()> {
    let device = device_of(dir)?.ok_or(io::ErrorKind::NotFound)?;
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    io::Write::write_all(&mut file, READ_AHEAD_KIB.to_string().as_bytes())
}
