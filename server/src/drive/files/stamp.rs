//! The texts by which the file API names versions, nodes and times. Pure.

use std::fmt;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::node::TimeNs;

/// A version of a file, wherever that lies: version, namespace and node in hexadecimal. People who
/// know the API see an opaque text; the version number leads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rev {
    pub ns: NamespaceId,
    pub node: NodeId,
    /// 0 for what has no content.
    pub version: VersionNo,
}

impl fmt::Display for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}{}{}", self.version, self.ns, self.node.0.simple())
    }
}

impl Rev {
    /// The text that names the node, whatever its version.
    pub fn id(&self) -> String {
        format!("id:{}{}", self.ns, self.node.0.simple())
    }
}

/// Length of the texts of namespace and node.
const ID_CHARS: usize = 16 + 32;

pub fn rev_of_text(text: &str) -> Option<Rev> {
    if !text.is_ascii() || !(ID_CHARS + 8..=ID_CHARS + 15).contains(&text.len()) {
        return None;
    }
    let (version, id) = text.split_at(text.len() - ID_CHARS);
    if !version.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let version = u64::from_str_radix(version, 16).ok()?;
    let (ns, node) = id_of_text(id)?;
    let rev = Rev { ns, node, version };
    // One text a version: what is compared as text is then the same.
    (rev.to_string() == text).then_some(rev)
}

/// Namespace and node of an id, without its `id:`.
pub fn id_of_text(text: &str) -> Option<(NamespaceId, NodeId)> {
    if !text.is_ascii() || text.len() != ID_CHARS {
        return None;
    }
    let (ns, node) = text.split_at(16);
    Some((ns.parse().ok()?, node.parse().ok()?))
}

/// A time as the API writes it: `2026-11-22T07:46:00Z`.
pub fn time_text(at: TimeNs) -> String {
    let secs = at.div_euclid(1_000_000_000);
    let (days, second) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let (year, month, day) = date_of(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads such a text.
pub fn time_of_text(text: &str) -> Option<TimeNs> {
    let bytes = text.as_bytes();
    let fits = bytes.len() == 20
        && bytes.iter().zip(b"dddd-dd-ddTdd:dd:ddZ").all(|(byte, pattern)| match pattern {
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        });
    if !fits {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_of(year, month, day);
    if date_of(days) != (year, month, day) {
        return None;
    }
    (days * 86_400 + hour * 3600 + minute * 60 + second).checked_mul(1_000_000_000)
}

/// Days since 1970-01-01, in the Gregorian calendar (Hinnant, "chrono-compatible low-level date
/// algorithms").
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let years = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * years + years / 4 - years / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (years + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_rev_survives_its_text(ns in 0..=i64::MAX as u64, random: [u8; 10], version in 0..=1u64 << 40) {
            let rev = Rev { ns: NamespaceId(ns), node: NodeId::from_parts(7, random), version };
            prop_assert_eq!(rev_of_text(&rev.to_string()), Some(rev));
        }

        #[test]
        fn hostile_text_is_no_rev_or_its_only_text(text in "[0-9a-fA-F-]{0,70}|.{0,70}") {
            if let Some(rev) = rev_of_text(&text) {
                prop_assert_eq!(rev.to_string(), text);
            }
        }

        #[test]
        fn a_time_survives_its_text_to_the_second(secs in -9_000_000_000i64..9_000_000_000) {
            let at = secs * 1_000_000_000;
            let text = time_text(at);
            prop_assert_eq!(time_of_text(&text), Some(at), "{}", text);
        }

        #[test]
        fn hostile_text_is_no_time_or_a_real_one(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z|.{0,25}") {
            let _ = time_of_text(&text);
        }
    }

    #[test]
    fn known_times_read_as_everywhere() {
        assert_eq!(time_text(0), "1970-01-01T00:00:00Z");
        assert_eq!(time_text(1_431_445_838_999_999_999), "2015-05-12T15:50:38Z");
        assert_eq!(time_text(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        for wrong in ["2015-02-29T00:00:00Z", "2015-13-01T00:00:00Z", "2015-05-12 15:50:38Z"] {
            assert_eq!(time_of_text(wrong), None, "{wrong}");
        }
    }
}
