//! The headers `Content-Range` (of parts that are sent) and `Range` (of bytes that are wanted),
//! RFC 9110 section 14. Pure.

use std::ops::Range;

/// What a part says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// First and last byte; none in a question after the state.
    pub bytes: Option<(u64, u64)>,
    /// Length of the whole, where it is known.
    pub total: Option<u64>,
}

/// Reads `bytes A-B/N`, `bytes A-B/*`, `bytes */N` or `bytes */*`.
pub fn content_range(text: &str) -> Option<ContentRange> {
    let (unit, rest) = text.trim().split_once(' ')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (span, total) = rest.trim().split_once('/')?;
    let total = if total == "*" { None } else { Some(number(total)?) };
    let bytes = match span {
        "*" => None,
        span => {
            let (first, last) = span.split_once('-')?;
            Some((number(first)?, number(last)?))
        }
    };
    if let Some((first, last)) = bytes
        && (first > last || last == u64::MAX || total.is_some_and(|total| last >= total))
    {
        return None;
    }
    Some(ContentRange { bytes, total })
}

/// What of a content of some length is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Whole,
    Part(Range<u64>),
    /// Nothing that there is.
    Nothing,
}

/// Reads the header `Range`. What is no range of bytes, or several, is answered with the whole, as
/// the standard allows.
pub fn wanted(text: &str, len: u64) -> Wanted {
    let Some((unit, spec)) = text.trim().split_once('=') else { return Wanted::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return Wanted::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::Whole };
    let range = match (first.trim(), last.trim()) {
        ("", "") => return Wanted::Whole,
        ("", suffix) => match number(suffix) {
            Some(suffix) => len.saturating_sub(suffix)..len,
            None => return Wanted::Whole,
        },
        (first, last) => {
            let Some(first) = number(first) else { return Wanted::Whole };
            let end = match last {
                "" => len,
                last => match number(last) {
                    Some(last) if last < first => return Wanted::Whole,
                    Some(last) => last.saturating_add(1).min(len),
                    None => return Wanted::Whole,
                },
            };
            first..end
        }
    };
    if range.start >= range.end { Wanted::Nothing } else { Wanted::Part(range) }
}

/// Digits alone, and not too many of them.
fn number(text: &str) -> Option<u64> {
    let is_number =
        !text.is_empty() && text.len() <= 19 && text.bytes().all(|b| b.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_part_reads_as_it_was_written(first in 0..1u64 << 60, more in 0..1u64 << 60, beyond in 1..1u64 << 60, known: bool) {
            let last = first + more;
            let total = known.then_some(last + beyond);
            let shown = total.map_or_else(|| "*".to_owned(), |t| t.to_string());
            let got = content_range(&format!("bytes {first}-{last}/{shown}"));
            prop_assert_eq!(got, Some(ContentRange { bytes: Some((first, last)), total }));
        }

        #[test]
        fn hostile_text_is_no_part_or_one_that_makes_sense(text in "(bytes|BYTES)? ?[0-9*/-]{0,30}|.{0,40}") {
            if let Some(ContentRange { bytes: Some((first, last)), total }) = content_range(&text) {
                prop_assert!(first <= last);
                prop_assert!(total.is_none_or(|t| last < t));
            }
        }

        #[test]
        fn a_wanted_range_lies_inside(text in "bytes ?= ?[0-9]{0,20}-[0-9]{0,20}(,[0-9]-[0-9])?|.{0,40}", len: u64) {
            if let Wanted::Part(range) = wanted(&text, len) {
                prop_assert!(range.start < range.end && range.end <= len);
            }
        }

        #[test]
        fn a_range_that_is_there_is_given(len in 1..1u64 << 50, a: u64, b: u64) {
            let (a, b) = (a % len, b % len);
            let (first, last) = (a.min(b), a.max(b));
            prop_assert_eq!(wanted(&format!("bytes={first}-{last}"), len), Wanted::Part(first..last + 1));
            prop_assert_eq!(wanted(&format!("bytes={first}-"), len), Wanted::Part(first..len));
            prop_assert_eq!(wanted(&format!("bytes=-{last}"), len), if last == 0 { Wanted::Nothing } else { Wanted::Part(len - last..len) });
            prop_assert_eq!(wanted(&format!("bytes={}-", len + first), len), Wanted::Nothing);
        }
    }

    #[test]
    fn questions_after_the_state_are_told_from_parts() {
        let state = |total| Some(ContentRange { bytes: None, total });
        assert_eq!(content_range("bytes */100"), state(Some(100)));
        assert_eq!(content_range("bytes */*"), state(None));
        for wrong in [
            "",
            "bytes",
            "bytes 1-2",
            "bytes 2-1/5",
            "bytes 0-5/5",
            "items 0-1/2",
            "bytes -5/9",
            "bytes 0-+1/9",
        ] {
            assert_eq!(content_range(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn several_ranges_and_other_units_give_the_whole() {
        for text in ["bytes=0-1,3-4", "lines=0-1", "bytes", "bytes=a-b", "bytes=5-2", "bytes=-"] {
            assert_eq!(wanted(text, 10), Wanted::Whole, "{text:?}");
        }
        assert_eq!(wanted("bytes=0-", 0), Wanted::Nothing);
        assert_eq!(wanted("bytes=10-", 10), Wanted::Nothing);
        assert_eq!(wanted("bytes=-99", 10), Wanted::Part(0..10));
    }
}
