//! A set of byte ranges.

use std::ops::Range;

/// Sorted, disjoint, non-touching byte ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet(Vec<Range<u64>>);

impl RangeSet {
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|r| r.end < range.start);
        let last = self.0.partition_point(|r| r.start <= range.end);
        let mut merged = range;
        if let Some(r) = self.0.get(first).filter(|_| first < last) {
            merged.start = merged.start.min(r.start);
            merged.end = merged.end.max(self.0[last - 1].end);
        }
        self.0.splice(first..last, [merged]);
    }

    /// True when all of `range` is in the set.
    pub fn contains(&self, range: Range<u64>) -> bool {
        let i = self.0.partition_point(|r| r.end < range.end);
        range.is_empty() || self.0.get(i).is_some_and(|r| r.start <= range.start)
    }

    /// Drops everything from `end` on.
    pub fn truncate(&mut self, end: u64) {
        self.0.retain(|r| r.start < end);
        if let Some(last) = self.0.last_mut() {
            last.end = last.end.min(end);
        }
    }

    /// Splits `range` at the borders of the set: parts in order, with whether they are in the set.
    pub fn split(&self, range: Range<u64>) -> Vec<(Range<u64>, bool)> {
        let mut out = Vec::new();
        let mut at = range.start;
        let first = self.0.partition_point(|r| r.end <= range.start);
        for r in &self.0[first..] {
            if r.start >= range.end {
                break;
            }
            if at < r.start {
                out.push((at..r.start, false));
            }
            let inside = r.start.max(at)..r.end.min(range.end);
            at = inside.end;
            out.push((inside, true));
        }
        if at < range.end {
            out.push((at..range.end, false));
        }
        out
    }

    pub fn as_slice(&self) -> &[Range<u64>] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_bytes(
            ops in proptest::collection::vec((0u64..60, 0u64..20, any::<bool>()), 0..30), look in (0u64..70, 0u64..30),
        ) {
            let mut set = RangeSet::default();
            let mut model = [false; 128];
            for (start, len, cut) in ops {
                if cut {
                    set.truncate(start + 20);
                    model[start as usize + 20..].fill(false);
                } else {
                    let all_in = model[start as usize..(start + len) as usize].iter().all(|&b| b);
                    prop_assert_eq!(set.contains(start..start + len), all_in);
                    set.insert(start..start + len);
                    model[start as usize..(start + len) as usize].fill(true);
                }
                for pair in set.as_slice().windows(2) {
                    prop_assert!(pair[0].end < pair[1].start);
                }
            }
            let (start, len) = look;
            let mut at = start;
            for (part, inside) in set.split(start..start + len) {
                prop_assert_eq!(part.start, at);
                prop_assert!(part.clone().all(|i| model[i as usize] == inside));
                at = part.end;
            }
            prop_assert_eq!(at, start + len);
        }
    }
}
