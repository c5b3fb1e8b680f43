//! Which versions of a file stay. Pure.
//!
//! Time is cut into slots on the clock, each made of whole slots of the next finer kind, and of
//! each slot the last version stays. So the outcome does not depend on how often the rule ran before.

use std::collections::BTreeSet;

use drivefs_core::id::VersionNo;
use drivefs_core::node::TimeNs;
use serde::Deserialize;
use serde::Serialize;

const SEC: TimeNs = 1_000_000_000;
const MINUTE: TimeNs = 60 * SEC;
const HOUR: TimeNs = 60 * MINUTE;
const DAY: TimeNs = 24 * HOUR;
const WEEK: TimeNs = 7 * DAY;
/// Versions that one device writes in one such slot are a burst.
const BURST: TimeNs = 5 * MINUTE;
/// Longest time that a policy can name (days): a century. More is taken for that much.
pub const DAYS_MAX: u32 = 36_500;

/// What is kept of a namespace's past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Most versions of a file, without those that somebody keeps.
    pub versions: u32,
    /// Every version stays for so long (hours), ...
    pub all_hours: u32,
    /// ... then the last of each burst (days), ...
    pub bursts_days: u32,
    /// ... of each hour (days), ...
    pub hourly_days: u32,
    /// ... of each day (days), ...
    pub daily_days: u32,
    /// ... and of each week (days). Older ones go.
    pub weekly_days: u32,
    /// What was deleted stays in the trash for so long (days).
    pub trash_days: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            versions: 100,
            all_hours: 1,
            bursts_days: 1,
            hourly_days: 7,
            daily_days: 30,
            weekly_days: 365,
            trash_days: 30,
        }
    }
}

/// A version as the rule sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub version: VersionNo,
    pub device: String,
    pub committed: TimeNs,
    /// Somebody keeps it: no rule removes it.
    pub kept: bool,
}

impl Policy {
    /// The versions that go, of all versions of one file in their order. The last one is the head.
    pub fn doomed(&self, versions: &[Seen], now: TimeNs) -> Vec<VersionNo> {
        let Some((head, older)) = versions.split_last() else { return Vec::new() };
        let mut stay = BTreeSet::new();
        // From the newest: what stays of a slot is what was met first.
        let mut later = head;
        for seen in older.iter().rev() {
            if self.stays(seen, later, now) {
                stay.insert(seen.version);
            }
            later = seen;
        }
        let is_kept = |seen: &&Seen| seen.kept;
        let room = (self.versions.max(1) - 1) as usize;
        let free = older.iter().filter(|seen| stay.contains(&seen.version) && !seen.kept);
        let over = free.clone().count().saturating_sub(room);
        for seen in free.take(over).cloned().collect::<Vec<_>>() {
            stay.remove(&seen.version);
        }
        stay.extend(older.iter().filter(is_kept).map(|seen| seen.version));
        older.iter().map(|seen| seen.version).filter(|v| !stay.contains(v)).collect()
    }

    /// Whether a version stays by its age; `later` came next.
    fn stays(&self, seen: &Seen, later: &Seen, now: TimeNs) -> bool {
        let age = now.saturating_sub(seen.committed);
        let is_last_of =
            |slot: TimeNs| seen.committed.div_euclid(slot) != later.committed.div_euclid(slot);
        if age <= TimeNs::from(self.all_hours.min(DAYS_MAX * 24)) * HOUR {
            true
        } else if age <= days(self.bursts_days) {
            seen.device != later.device || is_last_of(BURST)
        } else if age <= days(self.hourly_days) {
            is_last_of(HOUR)
        } else if age <= days(self.daily_days) {
            is_last_of(DAY)
        } else if age <= days(self.weekly_days) {
            is_last_of(WEEK)
        } else {
            false
        }
    }

    /// What was deleted before this time leaves the trash.
    pub fn trash_ends(&self, now: TimeNs) -> TimeNs {
        now.saturating_sub(days(self.trash_days))
    }
}

fn days(n: u32) -> TimeNs {
    TimeNs::from(n.min(DAYS_MAX)) * DAY
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Versions in order, with pauses of seconds to days, by two devices.
    fn files() -> impl Strategy<Value = Vec<Seen>> {
        let pause = prop_oneof![0..90i64, 60..7_200i64, 3_600..400_000i64];
        let version = (pause, any::<bool>(), prop::bool::weighted(0.05));
        proptest::collection::vec(version, 1..150).prop_map(|parts| {
            let mut at = 1_700_000_000;
            let number = |(i, (pause, phone, kept)): (usize, (i64, bool, bool))| {
                at += pause;
                let device = if phone { "phone" } else { "laptop" }.to_owned();
                Seen { version: i as u64 + 1, device, committed: at * SEC, kept }
            };
            parts.into_iter().enumerate().map(number).collect()
        })
    }

    fn after(policy: &Policy, versions: &[Seen], now: TimeNs) -> Vec<Seen> {
        let doomed = policy.doomed(versions, now);
        versions.iter().filter(|seen| !doomed.contains(&seen.version)).cloned().collect()
    }

    #[test]
    fn no_number_is_too_large_for_a_time() {
        let most = u32::MAX;
        let policy = Policy {
            versions: most,
            all_hours: most,
            bursts_days: most,
            hourly_days: most,
            daily_days: most,
            weekly_days: most,
            trash_days: most,
        };
        let now = 1_800_000_000 * SEC;
        assert!(policy.trash_ends(now) < 0);
        let at = |version| Seen { version, device: "d".into(), committed: 0, kept: false };
        assert!(policy.doomed(&[at(1), at(2)], now).is_empty());
        let weekly = Policy { weekly_days: most, ..Policy::default() };
        let apart = [at(1), Seen { committed: now, ..at(2) }];
        assert!(weekly.doomed(&apart, now).is_empty());
    }

    proptest! {
        #[test]
        fn head_kept_and_fresh_versions_stay(file in files(), later in 0..100_000_000i64) {
            let policy = Policy { versions: 1_000, ..Policy::default() };
            let now = file[file.len() - 1].committed + later * SEC;
            let left = after(&policy, &file, now);
            prop_assert_eq!(left.last(), file.last());
            for seen in &file {
                if seen.kept || now - seen.committed <= HOUR {
                    prop_assert!(left.contains(seen));
                }
            }
        }

        #[test]
        fn how_often_it_ran_before_makes_no_difference(
            file in files(), first in 0..40_000_000i64, second in 0..40_000_000i64,
        ) {
            let policy = Policy { versions: 1_000, ..Policy::default() };
            let begin = file[file.len() - 1].committed;
            let (first, second) = (begin + first * SEC, begin + (first + second) * SEC);
            let once = after(&policy, &file, second);
            let twice = after(&policy, &after(&policy, &file, first), second);
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn there_are_never_more_than_so_many(file in files(), most in 1..20u32) {
            let policy = Policy { versions: most, ..Policy::default() };
            let now = file[file.len() - 1].committed;
            let left = after(&policy, &file, now);
            let head = left.last().expect("the head");
            let free = left.iter().filter(|seen| !seen.kept || *seen == head).count();
            prop_assert!(free <= most as usize, "{free}");
            prop_assert_eq!(after(&policy, &left, now), left);
        }
    }

    #[test]
    fn a_burst_a_day_ago_is_its_last_version() {
        let at = |i: i64| (1_700_000_100 + 10 * i) * SEC;
        let seen = |i: i64| Seen {
            version: i as u64 + 1,
            device: "laptop".into(),
            committed: at(i),
            kept: i == 3,
        };
        let file: Vec<Seen> =
            (0..10).map(seen).chain([Seen { version: 11, ..seen(5_000) }]).collect();
        let left = after(&Policy::default(), &file, at(5_000) + HOUR);
        assert_eq!(left.iter().map(|s| s.version).collect::<Vec<_>>(), [4, 10, 11]);
    }

    #[test]
    fn what_is_older_than_a_year_goes() {
        let seen = |i: i64| Seen {
            version: i as u64 + 1,
            device: "laptop".into(),
            committed: i * WEEK,
            kept: false,
        };
        let file: Vec<Seen> = (0..200).map(seen).collect();
        let left = after(&Policy::default(), &file, 200 * WEEK);
        // 52 weeks and the head; of the last month every day's.
        assert_eq!(left.len(), 52);
        assert_eq!(left[0].version, 149);
    }
}
