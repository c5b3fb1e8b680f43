//! Three-way merge of texts, line by line. Pure.

use drivefs_core::limits::MERGE_MAX_LINES;

/// What a merge came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// All changes of both sides.
    Clean(Vec<u8>),
    /// Both sides changed the same lines, in so many places.
    Overlapping(usize),
    /// One of the three is no text.
    NotText,
    /// More lines than are compared.
    TooDifferent,
}

/// Merges the changes from `base` to `theirs` and from `base` to `mine`.
pub fn merge_texts(base: &[u8], theirs: &[u8], mine: &[u8]) -> Merged {
    if [base, theirs, mine].iter().any(|text| text.contains(&0)) {
        return Merged::NotText;
    }
    // What only one side changed needs no comparison, whatever its size.
    if theirs == base || theirs == mine {
        return Merged::Clean(mine.to_vec());
    }
    if mine == base {
        return Merged::Clean(theirs.to_vec());
    }
    let lines = |text: &[u8]| text.iter().filter(|b| **b == b'\n').count();
    if [base, theirs, mine].iter().any(|text| lines(text) > MERGE_MAX_LINES) {
        return Merged::TooDifferent;
    }
    match diffy::merge_bytes(base, theirs, mine) {
        Ok(merged) => Merged::Clean(merged),
        Err(with_markers) => {
            let marker = b"<<<<<<< ";
            let count =
                |text: &[u8]| text.split(|b| *b == b'\n').filter(|l| l.starts_with(marker)).count();
            // Lines that look like a marker may stand in the texts themselves.
            let own = count(theirs).max(count(mine));
            Merged::Overlapping(count(&with_markers).saturating_sub(own).max(1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: &[u8] = b"one\ntwo\nthree\nfour\nfive\n";

    fn clean(base: &[u8], theirs: &[u8], mine: &[u8]) -> String {
        match merge_texts(base, theirs, mine) {
            Merged::Clean(bytes) => String::from_utf8(bytes).expect("a text"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn changes_of_different_lines_all_apply() {
        let theirs = b"ONE\ntwo\nthree\nfour\nfive\n";
        let mine = b"one\ntwo\nthree\nfour\nFIVE\nsix\n";
        assert_eq!(clean(BASE, theirs, mine), "ONE\ntwo\nthree\nfour\nFIVE\nsix\n");
        // The same change on both sides is one.
        assert_eq!(clean(BASE, theirs, theirs), "ONE\ntwo\nthree\nfour\nfive\n");
        // Removed on one side, added to on the other.
        assert_eq!(clean(BASE, b"two\nthree\nfour\nfive\n", mine), "two\nthree\nfour\nFIVE\nsix\n");
    }

    #[test]
    fn lines_without_an_end_and_with_carriage_returns_stay_as_they_are() {
        assert_eq!(clean(b"a\nb\nc\nd", b"A\nb\nc\nd", b"a\nb\nc\nD"), "A\nb\nc\nD");
        let merged =
            clean(b"a\r\nb\r\nc\r\nd\r\n", b"A\r\nb\r\nc\r\nd\r\n", b"a\r\nb\r\nc\r\nD\r\n");
        assert_eq!(merged, "A\r\nb\r\nc\r\nD\r\n");
        let latin1 = merge_texts(b"caf\xe9\nb\nc\n", b"CAF\xe9\nb\nc\n", b"caf\xe9\nb\nC\n");
        assert_eq!(latin1, Merged::Clean(b"CAF\xe9\nb\nC\n".to_vec()));
    }

    #[test]
    fn overlapping_changes_are_told_and_counted() {
        let theirs = b"ONE\ntwo\nthree\nfour\nV\n";
        let mine = b"Uno\ntwo\nthree\nfour\nfive!\n";
        assert_eq!(merge_texts(BASE, theirs, mine), Merged::Overlapping(2));
        // Lines that look like markers are not counted.
        let marked = b"<<<<<<< x\ntwo\nthree\nfour\nfive\n";
        assert_eq!(
            merge_texts(BASE, marked, b"1\ntwo\nthree\nfour\nfive\n"),
            Merged::Overlapping(1)
        );
        // One side removes what the other changes.
        assert_eq!(merge_texts(BASE, b"one\ntwo\n", mine), Merged::Overlapping(1));
        assert_eq!(merge_texts(b"a\n", b"", b"b\n"), Merged::Overlapping(1));
    }

    #[test]
    fn what_is_no_text_and_what_is_too_long_stays() {
        assert_eq!(merge_texts(b"a\0", b"b\0", b"c\0"), Merged::NotText);
        let long = b"x\n".repeat(MERGE_MAX_LINES + 1);
        let longer = b"x\n".repeat(MERGE_MAX_LINES + 2);
        assert_eq!(merge_texts(BASE, &long, &longer), Merged::TooDifferent);
    }

    #[test]
    fn the_worst_case_takes_seconds_at_most() {
        let text = |seed: usize| -> Vec<u8> {
            (0..MERGE_MAX_LINES).flat_map(|n| format!("{}\n", n * 3 + seed).into_bytes()).collect()
        };
        let began = std::time::Instant::now();
        merge_texts(&text(0), &text(1), &text(2));
        assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
    }

    /// A text of numbered lines, and two sets of lines to be changed.
    fn edits() -> impl Strategy<Value = (usize, Vec<bool>, Vec<bool>)> {
        (4usize..40).prop_flat_map(|n| {
            let flags = || proptest::collection::vec(proptest::bool::weighted(0.2), n);
            (Just(n), flags(), flags())
        })
    }

    fn text(n: usize, changed: &[bool], how: &str) -> Vec<u8> {
        let line = |i: usize| if changed[i] { format!("{i} {how}\n") } else { format!("{i}\n") };
        (0..n).flat_map(|i| line(i).into_bytes()).collect()
    }

    proptest! {
        #[test]
        fn every_changed_line_is_in_a_clean_merge_and_clashes_are_never_clean(
            (n, theirs, mine) in edits(),
        ) {
            let base = text(n, &vec![false; n], "");
            let merged = merge_texts(&base, &text(n, &theirs, "theirs"), &text(n, &mine, "mine"));
            let clash = (0..n).any(|i| theirs[i] && mine[i]);
            match merged {
                Merged::Clean(bytes) => {
                    prop_assert!(!clash);
                    let expected: Vec<u8> = (0..n)
                        .flat_map(|i| {
                            let line = match (theirs[i], mine[i]) {
                                (true, _) => format!("{i} theirs\n"),
                                (_, true) => format!("{i} mine\n"),
                                _ => format!("{i}\n"),
                            };
                            line.into_bytes()
                        })
                        .collect();
                    prop_assert_eq!(bytes, expected);
                }
                Merged::Overlapping(places) => {
                    // Neighbours count as one place.
                    let near = (0..n).any(|i| {
                        theirs[i] && mine[i.saturating_sub(1)..(i + 2).min(n)].iter().any(|m| *m)
                    });
                    prop_assert!(places > 0 && near);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn what_one_side_changed_is_the_result(
            base in "[ab\n]{0,30}", other in "[ab\n]{0,30}",
        ) {
            let (base, other) = (base.as_bytes(), other.as_bytes());
            prop_assert_eq!(merge_texts(base, other, base), Merged::Clean(other.to_vec()));
            prop_assert_eq!(merge_texts(base, base, other), Merged::Clean(other.to_vec()));
            prop_assert_eq!(merge_texts(base, other, other), Merged::Clean(other.to_vec()));
        }
    }
}
