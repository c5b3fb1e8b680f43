//! Writing fetched blocks past the page cache.
//!
//! What is fetched was just handed to a reader, so the kernel has it already, as pages of the mount.
//! A second copy in the page cache of the data file costs more than the disk: memory that has to be
//! found, cleared and filled, twice what the reader took. Small writes, and all of them where the
//! disk is slow and a reader would have to wait for it, still go through the page cache.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use super::files::DataFiles;
use crate::state::FileId;

/// What O_DIRECT asks of memory, offset and length (bytes); no disk in use asks for more.
pub(super) const PAGE: u64 = 4096;
/// Shorter runs are not worth a write of their own (bytes).
pub(super) const DIRECT_FROM: u64 = 1024 * 1024;

/// A disk slower than this is better written behind (bytes a second).
const FAST: u64 = 200_000_000;

/// How fast direct writes were lately.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second.
    speed: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { speed: AtomicU64::new(2 * FAST) }
    }
}

impl Pace {
    /// Whether the next run should go to the disk directly. A slow disk gets another try after a
    /// while.
    pub fn is_fast(&self) -> bool {
        let speed = self.speed.load(Ordering::Relaxed);
        if speed < FAST {
            self.speed.store(speed + speed / 64 + 1, Ordering::Relaxed);
        }
        speed >= FAST
    }

    pub fn note(&self, bytes: u64, took: Duration) {
        let now = bytes as f64 / took.as_secs_f64().max(1e-6);
        let before = self.speed.load(Ordering::Relaxed);
        self.speed.store((3 * before + now as u64) / 4, Ordering::Relaxed);
    }
}

/// Blocks that lie one behind the other in a file.
pub(super) struct Run<'a> {
    pub file: FileId,
    /// Offset in the file and bytes, in order.
    pub blocks: Vec<(u64, &'a [u8])>,
}

impl Run<'_> {
    fn start(&self) -> u64 {
        self.blocks.first().map_or(0, |b| b.0)
    }

    fn len(&self) -> u64 {
        self.blocks.last().map_or(0, |b| b.0 + b.1.len() as u64) - self.start()
    }
}

/// Writes runs; holds the memory for it, which is aligned as the disk wants it.
#[derive(Default)]
pub(super) struct RunWriter {
    memory: Vec<u8>,
}

impl RunWriter {
    /// Writes a run: directly if it is long and begins on a page, and the disk is fast.
    pub fn write(&mut self, files: &DataFiles, run: &Run<'_>, pace: &Pace) -> io::Result<()> {
        let fits = run.len() >= DIRECT_FROM && run.start().is_multiple_of(PAGE);
        if fits && pace.is_fast() {
            let began = Instant::now();
            if self.write_direct(files, run)? {
                pace.note(run.len(), began.elapsed());
                return Ok(());
            }
        }
        let file = files.open(run.file)?;
        run.blocks.iter().try_for_each(|(offset, bytes)| file.write_all_at(bytes, *offset))
    }

    /// False when this file system does not do that.
    fn write_direct(&mut self, files: &DataFiles, run: &Run<'_>) -> io::Result<bool> {
        /// Asked once: all data files lie in one file system.
        static REFUSED: AtomicBool = AtomicBool::new(false);
        if REFUSED.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match files.open_direct(run.file).and_then(|file| self.write_to(&file, run)) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                tracing::info!("no direct writes here: fetched blocks go through the page cache");
                REFUSED.store(true, Ordering::Relaxed);
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    fn write_to(&mut self, file: &File, run: &Run<'_>) -> io::Result<()> {
        let padded = run.len().next_multiple_of(PAGE) as usize;
        if self.memory.len() < padded + PAGE as usize {
            self.memory = vec![0; padded + PAGE as usize];
        }
        let skip = self.memory.as_ptr().align_offset(PAGE as usize);
        let buffer = &mut self.memory[skip..][..padded];
        let mut end = 0;
        for (offset, bytes) in &run.blocks {
            let at = (offset - run.start()) as usize;
            buffer[end..at].fill(0);
            end = at + bytes.len();
            buffer[at..end].copy_from_slice(bytes);
        }
        buffer[end..].fill(0);
        file.write_all_at(buffer, run.start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_is_written_behind_and_tried_again_now_and_then() {
        let pace = Pace::default();
        assert!(pace.is_fast());
        for _ in 0..20 {
            pace.note(8 << 20, Duration::from_millis(100));
        }
        assert!(!pace.is_fast());
        let waits = (0..1000).take_while(|_| !pace.is_fast()).count();
        assert!((20..200).contains(&waits), "{waits}");
        pace.note(8 << 20, Duration::from_millis(5));
        assert!(pace.is_fast());
    }
}
