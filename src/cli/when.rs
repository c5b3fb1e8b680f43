//! Times as people give and read them: `14:05`, `2026-11-22 14:05`, RFC 3339, or `2h` ago.

use chrono::DateTime;
use chrono::Local;
use chrono::NaiveDate;
use chrono::NaiveDateTime;
use chrono::NaiveTime;
use chrono::SecondsFormat;
use chrono::TimeDelta;
use chrono::TimeZone;
use chrono::Timelike;
use chrono::Utc;
use drivefs_core::node::TimeNs;

const FORMS: &str = "2026-11-22T14:05:00Z, '2026-11-22 14:05', 14:05, or a span back from now such as \
     30m, 2h or 3d";

/// A time given on the command line (nanoseconds since the epoch).
pub fn parse(text: &str) -> Result<TimeNs, String> {
    parse_at(text.trim(), &Local::now())
        .and_then(|t| t.timestamp_nanos_opt())
        .ok_or_else(|| format!("'{text}' is not a time; it can be {FORMS}"))
}

/// A time for people, in the zone of this machine.
pub fn human(time: TimeNs) -> String {
    Local.timestamp_nanos(time).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// A time for programs.
pub fn exact(time: TimeNs) -> String {
    Utc.timestamp_nanos(time).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// Today's date, as it stands in file names.
pub fn today() -> String {
    Local::now().format("%Y-%m-%d").to_string()
}

fn parse_at<Z: TimeZone>(text: &str, now: &DateTime<Z>) -> Option<DateTime<Utc>> {
    if let Some(span) = span(text) {
        return now.to_utc().checked_sub_signed(span);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return whole(text, time.to_utc());
    }
    let local = |time: NaiveDateTime| {
        // A time that a change of the clocks leaves out or has twice is the earlier one.
        let zone = now.timezone();
        let found = zone.from_local_datetime(&time).earliest();
        let found = found.or_else(|| {
            zone.from_local_datetime(&time.checked_sub_signed(TimeDelta::hours(1))?).earliest()
        });
        whole(text, found?.to_utc())
    };
    for form in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"]
    {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, form) {
            return local(time);
        }
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return local(date.and_time(NaiveTime::MIN));
    }
    for form in ["%H:%M:%S", "%H:%M"] {
        let Ok(time) = NaiveTime::parse_from_str(text, form) else { continue };
        let today = now.naive_local().date();
        let found = local(today.and_time(time))?;
        // Of today, or of yesterday if it is still to come.
        if found.timestamp() <= now.timestamp() {
            return Some(found);
        }
        return local(today.pred_opt()?.and_time(time));
    }
    None
}

/// Versions are listed by the second: a time given by the second has all of that second.
fn whole(text: &str, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let seconds = text.matches(':').count() >= 2;
    if !seconds || text.contains('.') {
        return Some(time);
    }
    time.with_nanosecond(999_999_999)
}

fn span(text: &str) -> Option<TimeDelta> {
    let text = text.strip_suffix("ago").map_or(text, str::trim_end);
    let unit = text.chars().last()?;
    let number: i64 = text.get(..text.len() - unit.len_utf8())?.trim_end().parse().ok()?;
    let secs = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    TimeDelta::try_seconds(number.checked_mul(secs).filter(|s| *s >= 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::FixedOffset;

    fn at(text: &str) -> Option<String> {
        let now = DateTime::parse_from_rfc3339("2026-11-22T14:05:30.5+01:00").expect("valid");
        let zone = FixedOffset::east_opt(3_600).expect("valid");
        let time = parse_at(text, &now.with_timezone(&zone))?;
        Some(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }

    #[test]
    fn times_are_read_in_all_their_forms() {
        for (text, time) in [
            ("2h", "2026-11-22T11:05:30.500Z"),
            ("30m ago", "2026-11-22T12:35:30.500Z"),
            ("3d", "2026-11-19T13:05:30.500Z"),
            ("0s", "2026-11-22T13:05:30.500Z"),
            ("14:05", "2026-11-22T13:05:00Z"),
            ("14:06", "2026-11-21T13:06:00Z"),
            ("00:00", "2026-11-21T23:00:00Z"),
            ("2026-11-22", "2026-11-21T23:00:00Z"),
            ("2026-11-22 14:05", "2026-11-22T13:05:00Z"),
            ("2026-11-22T14:05", "2026-11-22T13:05:00Z"),
            ("2026-11-22T14:05:00Z", "2026-11-22T14:05:00.999999999Z"),
            ("2026-11-22T14:05:00.25Z", "2026-11-22T14:05:00.250Z"),
            ("2026-11-22T14:05:00-02:00", "2026-11-22T16:05:00.999999999Z"),
            ("2026-11-22 14:05:07", "2026-11-22T13:05:07.999999999Z"),
            ("2026-11-22 14:05:07.5", "2026-11-22T13:05:07.500Z"),
        ] {
            assert_eq!(at(text).as_deref(), Some(time), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "h", "2x", "-2h", "yesterday", "25:00", "2026-13-01", "99999999999999999d"]
        {
            assert_eq!(at(text), None, "{text}");
        }
        assert!(parse("soon").expect_err("no time").contains("14:05"));
    }
}
