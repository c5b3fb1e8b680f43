//! `drivefs-server jobs` and `gc`: what the server does in the background, seen and asked for.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use tokio::sync::watch;

use super::user;
use crate::app;
use crate::clock;
use crate::config::Config;
use crate::config::ConfigError;
use crate::config::Place;
use crate::config::Stores;
use crate::drive::collect::Grace;
use crate::jobs;
use crate::jobs::Kind;
use crate::jobs::Manner;
use crate::jobs::Turn;
use crate::metadata::jobs as rows;
use crate::metadata::jobs::Job;

/// How often `gc` looks whether another process is done.
const TURN_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub struct Jobs {
    /// Run this one now, to its end
    #[arg(long, value_name = "JOB", value_parser = kinds())]
    run: Option<Kind>,
    /// With `--run cold`: packs go that nobody has read for so many days [default: 90]
    #[arg(long, value_name = "DAYS", requires = "cold")]
    cold_after: Option<u32>,
    /// Print JSON, one array; with --run one object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stores: Stores,
    #[command(flatten)]
    place: Place,
}

/// Apply the history policy, remove unused blocks, compact packs; works while the server runs.
///
/// The server does the same on its own, a little every day.
///
/// A block is removed by the second run that finds no use for it, and not before it is a day old.
#[derive(Debug, Args)]
pub struct Gc {
    /// Leave alone what was stored within this time, e.g. 12h, 30m, 0s. With less than a day, what
    /// is unused goes now, not with the next run
    #[arg(long, value_name = "TIME", default_value = "24h")]
    grace: String,
    /// Print JSON, one object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stores: Stores,
    #[command(flatten)]
    place: Place,
}

fn kinds() -> impl TypedValueParser<Value = Kind> {
    let names = PossibleValuesParser::new(Kind::ALL.map(Kind::name));
    names.try_map(|name| Kind::called(&name).ok_or("no such job"))
}

pub fn jobs(args: Jobs) -> anyhow::Result<()> {
    match args.run {
        Some(kind) => run_now(args, kind),
        None => list(&args),
    }
}

fn run_now(args: Jobs, kind: Kind) -> anyhow::Result<()> {
    let mut config = Config::with_stores(&args.place, args.stores)?;
    if let (Some(cold), Some(days)) = (&mut config.cold, args.cold_after) {
        cold.after_days = days;
    }
    if kind == Kind::Cold && config.cold.is_none() {
        return Err(ConfigError("--run cold needs the second store: --cold URL".into()).into());
    }
    super::runtime()?.block_on(async {
        let drive = app::open_existing(&config).await?;
        let _turn = turn(&config).await?;
        let (_keep, stop) = watch::channel(false);
        let manner = Manner { grace: Grace::default(), paced: false };
        let report = jobs::run(&drive, kind, manner, &stop).await?;
        let store = drive.store.clone();
        drop(drive);
        store.close();
        if args.json {
            println!("{report}");
        } else {
            println!("{}: {report}", kind.name());
        }
        Ok(())
    })
}

fn list(args: &Jobs) -> anyhow::Result<()> {
    let store = user::open_existing(&user::resolve(&args.place)?)?;
    let found = super::runtime()?.block_on(store.read(rows::list))?;
    store.close();
    if args.json {
        let rows: Vec<_> = found.iter().map(json_of).collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    if found.is_empty() {
        println!("no job has run yet: `drivefs-server serve` runs them");
    }
    let now = clock::now_secs();
    for job in found {
        let state = match (&job.position, job.due > now) {
            (Some(_), _) => "under way".to_owned(),
            (None, true) => format!("due in {}", span(job.due - now)),
            (None, false) => "due now".to_owned(),
        };
        println!("{:<8}  {state}", job.kind);
        if let Some(ended) = job.ended {
            println!("          last done {} ago", span(now - ended));
        }
        if let Some(report) = &job.report {
            println!("          {report}");
        }
        if let Some(error) = &job.error {
            println!("          failed {} times, last: {error}", job.failures);
        }
    }
    Ok(())
}

fn json_of(job: &Job) -> serde_json::Value {
    let parsed = |text: &Option<String>| {
        text.as_deref().and_then(|t| serde_json::from_str::<serde_json::Value>(t).ok())
    };
    serde_json::json!({
        "kind": job.kind, "due": job.due, "running": job.position.is_some(),
        "report": parsed(&job.report), "began": job.began, "ended": job.ended,
        "error": job.error, "failures": job.failures,
    })
}

/// Seconds for people.
fn span(secs: i64) -> String {
    match secs {
        ..=119 => format!("{} s", secs.max(0)),
        120..=7199 => format!("{} min", secs / 60),
        7200..=172_799 => format!("{} h", secs / 3600),
        _ => format!("{} days", secs / 86_400),
    }
}

pub fn gc(args: Gc) -> anyhow::Result<()> {
    let grace_secs = parse_span(&args.grace)?;
    let config = Config::with_stores(&args.place, args.stores)?;
    let usual = Grace::default();
    let grace = Grace {
        block: grace_secs,
        dead: usual.dead.min(grace_secs),
        // An upload writes its object before its row, whatever is asked for here.
        orphan: usual.orphan,
    };
    super::runtime()?.block_on(async {
        let drive = app::open_existing(&config).await?;
        let _turn = turn(&config).await?;
        let (_keep, stop) = watch::channel(false);
        let manner = Manner { grace, paced: false };
        let pruned = jobs::run(&drive, Kind::Prune, manner, &stop).await?;
        let at_once = grace_secs < usual.block;
        let mut collected = vec![jobs::run(&drive, Kind::Collect, manner, &stop).await?];
        if at_once {
            collected.push(jobs::run(&drive, Kind::Collect, manner, &stop).await?);
        }
        let compacted = jobs::run(&drive, Kind::Compact, manner, &stop).await?;
        if at_once {
            // The packs that compaction has left behind.
            collected.push(jobs::run(&drive, Kind::Collect, manner, &stop).await?);
        }
        let store = drive.store.clone();
        drop(drive);
        store.close();
        let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text);
        let rounds = collected.iter().map(|t| parsed(t)).collect::<Result<Vec<_>, _>>()?;
        let sum = |key: &str| -> u64 { rounds.iter().filter_map(|r| r[key].as_u64()).sum() };
        let (pruned, compacted) = (parsed(&pruned)?, parsed(&compacted)?);
        if args.json {
            let all = serde_json::json!({
                "prune": pruned, "collect": rounds, "compact": compacted,
            });
            println!("{}", serde_json::to_string_pretty(&all)?);
        } else {
            println!("versions removed: {}", pruned["versions"]);
            println!("blocks removed: {}, found unused: {}", sum("removed"), sum("doomed"));
            println!("packs removed: {}, written anew: {}", sum("packs"), compacted["rewritten"]);
        }
        if sum("unsure") > 0 || compacted["damaged"].as_u64() > Some(0) {
            bail!(
                "some blocks cannot be read, so what they list was left alone; run \
                 `drivefs-server fsck`"
            );
        }
        Ok(())
    })
}

/// Waits for the turn; says so when that takes a while.
async fn turn(config: &Config) -> anyhow::Result<Turn> {
    let mut told = false;
    loop {
        if let Some(turn) = Turn::take(&config.data)? {
            return Ok(turn);
        }
        if !told && std::io::stderr().is_terminal() {
            eprintln!("waiting for a job that the server is running");
        }
        told = true;
        tokio::time::sleep(TURN_EVERY).await;
    }
}

/// A time such as `90`, `30s`, `15m`, `12h`, `7d`, in seconds.
fn parse_span(text: &str) -> Result<i64, ConfigError> {
    let wrong = || ConfigError(format!("{text:?} is not a time; write it like 30m, 12h or 7d"));
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = digits.parse().map_err(|_| wrong())?;
    i64::from(number).checked_mul(unit).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_people_write_them() {
        assert_eq!(parse_span("0"), Ok(0));
        assert_eq!(parse_span("90s"), Ok(90));
        assert_eq!(parse_span("12h"), Ok(43_200));
        assert_eq!(parse_span("7d"), Ok(604_800));
        for wrong in ["", "h", "-1h", "1w", "1.5h", "é", "99999999999999d"] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }
}
