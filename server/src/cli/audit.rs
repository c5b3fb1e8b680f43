//! `drivefs-server audit`: who logged in, what became of tokens, accounts and keys.

use clap::Args;

use super::user;
use crate::clock;
use crate::config::Place;
use crate::metadata::audit;

const NS_AN_HOUR: i64 = 3600 * 1_000_000_000;

#[derive(Debug, Args)]
pub struct Audit {
    /// Only what is about this account
    #[arg(long, value_name = "EMAIL")]
    email: Option<String>,
    /// Only what happened in the last so many hours
    #[arg(long, value_name = "HOURS")]
    hours: Option<u32>,
    /// Most entries, the last ones
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: u32,
    /// Print JSON, one array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

pub fn run(args: Audit) -> anyhow::Result<()> {
    let store = user::open_existing(&user::resolve(&args.place)?)?;
    let since = args
        .hours
        .map_or(0, |h| clock::now_ns().saturating_sub(i64::from(h).saturating_mul(NS_AN_HOUR)));
    let email = args.email.map(|e| e.trim().to_lowercase());
    let limit = args.limit;
    let entries = super::runtime()?
        .block_on(store.read(move |sql| audit::list(sql, email.as_deref(), since, limit)))?;
    store.close();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&entries)?);
        return Ok(());
    }
    for e in entries {
        let mut line = format!("{}  {}", utc(e.at_ns / 1_000_000_000), e.kind);
        for (label, value) in
            [("", &e.account), ("device ", &e.device), ("from ", &e.peer), ("", &e.detail)]
        {
            if !value.is_empty() {
                line.push_str(&format!("  {label}{value}"));
            }
        }
        println!("{line}");
    }
    Ok(())
}

/// A time as 2026-11-22T07:46:00Z (Howard Hinnant's `civil_from_days`).
pub(super) fn utc(secs: i64) -> String {
    let (days, rest) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_told_as_people_write_them() {
        assert_eq!(super::utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(super::utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(super::utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(super::utc(1_795_333_560), "2026-11-22T07:46:00Z");
    }
}
