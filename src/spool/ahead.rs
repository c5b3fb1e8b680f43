//! When and how far to fetch ahead of a reader. Pure: told of reads, answers with a range.
//!
//! A stream is a run of reads that follow each other. The kernel hands the reads of one program to
//! several threads, so they may come a little out of order. Only a run that is long enough is worth
//! anything ahead of it: who reads here and there gets exactly what was read.

use std::ops::Range;

/// Streams of one content that are told apart (a few programs reading side by side).
const STREAMS_MAX: usize = 8;
/// A run this long is sequential (bytes); at the start of a file, where most that is read is read
/// to the end, less is enough.
const RUN_BYTES: u64 = 1024 * 1024;
const RUN_BYTES_AT_START: u64 = 192 * 1024;
/// First window ahead of a sequential reader, which doubles up to the last (bytes).
const WINDOW_FIRST_BYTES: u64 = 2 * 1024 * 1024;
pub const WINDOW_LAST_BYTES: u64 = 16 * 1024 * 1024;
/// How far out of order the reads of one stream may come (bytes, reads).
const REORDER_BYTES: u64 = 4 * 1024 * 1024;
const REORDER_MAX: usize = 16;

/// Who reads one content, as far as it can be told.
#[derive(Debug, Default)]
pub struct Streams {
    /// The most recently used last.
    streams: Vec<Stream>,
}

#[derive(Debug)]
struct Stream {
    start: u64,
    /// Everything from `start` to here was read.
    end: u64,
    reads: u64,
    /// Read beyond that.
    early: Vec<Range<u64>>,
    /// Fetched ahead up to here.
    ahead: u64,
    window: u64,
}

impl Streams {
    /// Notes a read; returns what is now worth fetching before it is asked for. `most` bounds the
    /// window (bytes).
    pub fn note(&mut self, read: Range<u64>, most: u64) -> Option<Range<u64>> {
        if read.is_empty() {
            return None;
        }
        let find = |fits: fn(&Stream, &Range<u64>) -> bool| {
            self.streams.iter().rposition(|s| fits(s, &read))
        };
        let at =
            find(Stream::goes_on).or_else(|| find(Stream::began)).or_else(|| find(Stream::nears));
        let Some(at) = at else {
            if self.streams.len() >= STREAMS_MAX {
                self.streams.remove(0);
            }
            self.streams.push(Stream::new(&read));
            return None;
        };
        let mut stream = self.streams.remove(at);
        let before = stream.end;
        stream.read(read);
        let next = if stream.end > before { stream.next_window(most) } else { None };
        self.streams.push(stream);
        next
    }
}

impl Stream {
    fn new(read: &Range<u64>) -> Self {
        Self {
            start: read.start,
            end: read.end,
            reads: 1,
            early: Vec::new(),
            ahead: 0,
            window: WINDOW_FIRST_BYTES,
        }
    }

    /// True for a read that goes on where this stream is.
    fn goes_on(&self, read: &Range<u64>) -> bool {
        (self.start..=self.end).contains(&read.start) && read.end > self.end
    }

    /// True for a read that came second and is the first one of this stream.
    fn began(&self, read: &Range<u64>) -> bool {
        self.reads == 1 && read.start < self.start && read.end == self.start
    }

    /// True for a read a little ahead of this stream.
    fn nears(&self, read: &Range<u64>) -> bool {
        let ahead = self.end..=self.end.saturating_add(REORDER_BYTES);
        ahead.contains(&read.start) && self.early.len() < REORDER_MAX
    }

    fn read(&mut self, read: Range<u64>) {
        self.reads += 1;
        if read.start > self.end {
            self.early.push(read);
            return;
        }
        self.start = self.start.min(read.start);
        self.end = self.end.max(read.end);
        while let Some(i) = self.early.iter().position(|r| r.start <= self.end) {
            self.end = self.end.max(self.early.swap_remove(i).end);
        }
    }

    fn next_window(&mut self, most: u64) -> Option<Range<u64>> {
        let needed = if self.start == 0 { RUN_BYTES_AT_START } else { RUN_BYTES };
        if self.end - self.start < needed {
            return None;
        }
        let window = self.window.min(most);
        let from = self.ahead.max(self.end);
        let to = self.end + window;
        // Half a window at a time: few requests, and never less than half ahead.
        if window == 0 || from + window / 2 > to {
            return None;
        }
        self.ahead = to;
        self.window = (self.window * 2).min(WINDOW_LAST_BYTES);
        Some(from..to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    const MOST: u64 = WINDOW_LAST_BYTES;

    /// Reads `total` bytes from `start` on in steps; returns what was fetched ahead.
    fn stream(streams: &mut Streams, start: u64, total: u64, step: u64) -> Vec<Range<u64>> {
        (0..total / step)
            .filter_map(|i| {
                let at = start + i * step;
                streams.note(at..at + step, MOST)
            })
            .collect()
    }

    #[test]
    fn a_sequential_reader_gets_a_window_that_grows_to_its_bound() {
        for step in [4 * KIB, 128 * KIB, MIB] {
            let got = stream(&mut Streams::default(), 0, 200 * MIB, step);
            let longest = got.iter().map(|r| r.end - r.start).max().expect("some");
            assert!((MOST / 2..=MOST).contains(&longest), "{longest}");
            assert!(got[0].end <= 4 * MIB, "it begins small: {got:?}");
            for pair in got.windows(2) {
                assert_eq!(pair[0].end, pair[1].start, "without gaps and without repeating");
            }
            assert!(got.last().expect("some").end > 200 * MIB);
        }
    }

    #[test]
    fn reads_of_one_stream_may_come_out_of_order() {
        let mut streams = Streams::default();
        let mut got = Vec::new();
        for i in (0..800).step_by(4) {
            for j in [1, 0, 3, 2] {
                let at = (i + j) * 128 * KIB;
                got.extend(streams.note(at..at + 128 * KIB, MOST));
            }
        }
        assert!(got.last().expect("sequential all the same").end >= 100 * MIB);
        assert_eq!(streams.streams.len(), 1);
    }

    #[test]
    fn readers_side_by_side_are_told_apart() {
        let mut streams = Streams::default();
        let mut got = [const { Vec::new() }; 4];
        for i in 0..400 {
            for (k, list) in got.iter_mut().enumerate() {
                let at = k as u64 * 256 * MIB + i * 128 * KIB;
                list.extend(streams.note(at..at + 128 * KIB, MOST));
            }
        }
        for (k, list) in got.iter().enumerate() {
            let base = k as u64 * 256 * MIB;
            assert!(list.last().expect("each gets its window").end > base + 50 * MIB);
        }
    }

    #[test]
    fn reading_again_and_reading_backwards_fetch_nothing_ahead() {
        let mut streams = Streams::default();
        for i in (0..1000).rev() {
            assert_eq!(streams.note(i * 128 * KIB..(i + 1) * 128 * KIB, MOST), None);
        }
        let mut streams = Streams::default();
        for _ in 0..1000 {
            assert_eq!(streams.note(5 * MIB..6 * MIB - 1, MOST), None);
        }
    }

    #[test]
    fn a_small_cache_bounds_the_window() {
        let mut streams = Streams::default();
        for i in 0..1000 {
            if let Some(r) = streams.note(i * MIB..(i + 1) * MIB, 3 * MIB) {
                assert!(r.end - r.start <= 3 * MIB);
            }
        }
        assert_eq!(Streams::default().note(0..100 * MIB, 0), None);
    }

    proptest! {
        #[test]
        fn who_reads_here_and_there_fetches_nothing_ahead(
            places in proptest::collection::vec(0u64..262_144, 1..2000),
        ) {
            let mut streams = Streams::default();
            let mut last = u64::MAX;
            for page in places {
                // Two neighbours by chance are no run.
                prop_assume!(page != last.wrapping_add(1));
                last = page;
                let at = 4 * KIB * page;
                prop_assert_eq!(streams.note(at..at + 4 * KIB, MOST), None);
            }
        }

        #[test]
        fn nothing_behind_the_reader_and_nothing_beyond_the_window_is_asked_for(
            reads in proptest::collection::vec((0u64..64, 1u64..16), 1..300),
        ) {
            let mut streams = Streams::default();
            for (at, len) in reads {
                let read = at * 128 * KIB..(at + len) * 128 * KIB;
                if let Some(r) = streams.note(read.clone(), MOST) {
                    prop_assert!(r.start >= read.start && r.end > r.start);
                    prop_assert!(r.end <= read.end + REORDER_BYTES + 2 * MOST);
                }
            }
        }
    }
}
