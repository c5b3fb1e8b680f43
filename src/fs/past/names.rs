//! Names below `.versions`: those of versions and those of former things of one name. Pure.
//!
//! `0003 2026-11-22T07.46.00Z alice-laptop.txt`: number, time and device of a version, and the
//! extension that the file has. The number alone tells versions apart.

use drivefs_core::id::VersionNo;
use drivefs_core::limits::DEVICE_NAME_MAX_BYTES;
use drivefs_core::limits::NAME_MAX_BYTES;
use drivefs_core::node::TimeNs;

use crate::tree::utc_date;

const FORMER: &str = "deleted ";
const DAY_SECS: i64 = 24 * 3600;
const SECOND_NS: i64 = 1_000_000_000;

/// The name of a version of a file that is called `of`.
pub fn version_name(version: VersionNo, time: TimeNs, device: &str, of: &[u8]) -> Vec<u8> {
    let mut name = format!("{version:04} {} {}", stamp(time), clean(device)).into_bytes();
    let extension = extension(of);
    // What is longer than that is no extension that a program looks at.
    if name.len() + extension.len() <= NAME_MAX_BYTES {
        name.extend_from_slice(extension);
    }
    name
}

/// The number in the name of a version.
pub fn version_in(name: &[u8]) -> Option<VersionNo> {
    let digits = name.split(|&b| b == b' ').next()?;
    let canonical = digits.len() == 4 || (digits.len() > 4 && digits[0] != b'0');
    if !canonical || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Names of things that were deleted at these times: ` 2`, ` 3`, ... for more in the same second.
pub fn former_names(deleted: impl Iterator<Item = TimeNs>) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for time in deleted {
        let plain = format!("{FORMER}{}", stamp(time));
        let mut name = plain.clone().into_bytes();
        let mut n = 2;
        while names.contains(&name) {
            name = format!("{plain} {n}").into_bytes();
            n += 1;
        }
        names.push(name);
    }
    names
}

/// True for what may be the name of a former thing.
pub fn is_former(name: &[u8]) -> bool {
    name.starts_with(FORMER.as_bytes())
}

/// A time by the second, in UTC, as file names of all systems can have it: `2026-11-22T07.46.00Z`.
fn stamp(time: TimeNs) -> String {
    let secs = time.div_euclid(SECOND_NS).rem_euclid(DAY_SECS);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{}T{hour:02}.{minute:02}.{second:02}Z", utc_date(time))
}

/// From the last dot on, as far as that is an extension.
fn extension(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|&b| b == b'.') {
        Some(dot) if dot > 0 && dot + 1 < name.len() => &name[dot..],
        _ => b"",
    }
}

/// A device's name as part of a file name.
fn clean(device: &str) -> String {
    let mut out = String::new();
    for c in device.trim().chars().filter(|c| !c.is_control() && *c != '/') {
        if out.len() + c.len_utf8() > DEVICE_NAME_MAX_BYTES {
            break;
        }
        out.push(c);
    }
    if out.is_empty() { "device".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivefs_core::name::Name;
    use proptest::prelude::*;

    fn named(version: VersionNo, device: &str, of: &[u8]) -> String {
        String::from_utf8_lossy(&version_name(version, 1_795_333_560_000_000_000, device, of))
            .into()
    }

    #[test]
    fn a_version_is_called_by_number_time_and_device_with_the_extension_last() {
        assert_eq!(
            named(3, "alice-laptop", b"report.txt"),
            "0003 2026-11-22T07.46.00Z alice-laptop.txt"
        );
        assert_eq!(named(12345, "a", b"Makefile"), "12345 2026-11-22T07.46.00Z a");
        for hidden in [&b".bashrc"[..], b"end."] {
            assert_eq!(named(1, "a", hidden), "0001 2026-11-22T07.46.00Z a");
        }
        assert_eq!(named(1, " /a\n/b\t", b"x.tar.gz"), "0001 2026-11-22T07.46.00Z ab.gz");
        assert_eq!(named(1, "\n", b"x"), "0001 2026-11-22T07.46.00Z device");
    }

    #[test]
    fn what_is_no_number_is_no_version() {
        for name in ["", "1", "003 x", "00003 x", "0x03 x", "+003 x", "deleted 2026", ".versions"] {
            assert_eq!(version_in(name.as_bytes()), None, "{name}");
        }
        assert_eq!(version_in(b"99999999999999999999999 x"), None);
    }

    #[test]
    fn former_things_of_one_second_are_told_apart() {
        let second = 1_795_333_560_000_000_000;
        let names = former_names([second, second + 5, second + SECOND_NS].into_iter());
        let names: Vec<_> = names.iter().map(|n| String::from_utf8_lossy(n)).collect();
        assert_eq!(
            names,
            [
                "deleted 2026-11-22T07.46.00Z",
                "deleted 2026-11-22T07.46.00Z 2",
                "deleted 2026-11-22T07.46.01Z"
            ]
        );
    }

    proptest! {
        #[test]
        fn a_name_leads_back_to_its_version(
            version in 1u64.., time: i64, device in ".{0,80}",
            of in proptest::collection::vec(1u8.., 1..256),
        ) {
            if let Ok(of) = Name::new(of) {
                let name = version_name(version, time, &device, of.as_bytes());
                prop_assert_eq!(version_in(&name), Some(version));
                prop_assert!(!is_former(&name));
                prop_assert!(Name::new(name.clone()).is_ok(), "{:?}", name);
                let dot = of.as_bytes().iter().rposition(|&b| b == b'.');
                if let Some(dot) = dot.filter(|&d| d > 0 && of.as_bytes().len() - d < 100) {
                    let extension = &of.as_bytes()[dot..];
                    prop_assert!(extension == b"." || name.ends_with(extension));
                }
            }
        }
    }
}
