//! `drivefs-server policy`: what is kept of the past, for each account's folder and each shared one.

use clap::Args;
use clap::value_parser;
use drivefs_core::name::Name;

use super::mount::name_of;
use super::user;
use crate::config::Place;
use crate::drive::DriveError;
use crate::drive::mounts;
use crate::drive::policy::DAYS_MAX;
use crate::drive::policy::Policy;
use crate::drive::prune;
use crate::drive::users;
use crate::metadata::DbError;
use crate::metadata::Sql;
use crate::metadata::audit;
use crate::metadata::audit::Happened;
use crate::metadata::audit::Kind;
use crate::metadata::policies;

/// Show and set how much of the past is kept; works while the server runs.
///
/// Without further options it prints what holds. What is set holds from the next run of the job
/// `prune` on; what was removed before does not come back.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Account whose folder is meant: all in it but shared folders
    #[arg(long)]
    email: String,
    /// The shared folder of this name in the root of that account instead, e.g. /team
    #[arg(long, value_name = "/NAME")]
    path: Option<String>,
    /// Most versions of a file [usual: 100]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    versions: Option<u32>,
    /// Every version stays for so many hours [usual: 1]
    #[arg(long, value_name = "HOURS", value_parser = hours())]
    all_hours: Option<u32>,
    /// Then the last of each burst of 5 minutes, for so many days [usual: 1]
    #[arg(long, value_name = "DAYS", value_parser = days())]
    bursts_days: Option<u32>,
    /// Then the last of each hour [usual: 7]
    #[arg(long, value_name = "DAYS", value_parser = days())]
    hourly_days: Option<u32>,
    /// Then the last of each day [usual: 30]
    #[arg(long, value_name = "DAYS", value_parser = days())]
    daily_days: Option<u32>,
    /// Then the last of each week [usual: 365]; older ones go
    #[arg(long, value_name = "DAYS", value_parser = days())]
    weekly_days: Option<u32>,
    /// What was deleted stays in the trash for so long [usual: 30]
    #[arg(long, value_name = "DAYS", value_parser = days())]
    trash_days: Option<u32>,
    /// Back to what is usual, before anything else
    #[arg(long)]
    reset: bool,
    /// Print JSON, one object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl PolicyArgs {
    fn applied_to(&self, policy: Policy) -> Policy {
        Policy {
            versions: self.versions.unwrap_or(policy.versions),
            all_hours: self.all_hours.unwrap_or(policy.all_hours),
            bursts_days: self.bursts_days.unwrap_or(policy.bursts_days),
            hourly_days: self.hourly_days.unwrap_or(policy.hourly_days),
            daily_days: self.daily_days.unwrap_or(policy.daily_days),
            weekly_days: self.weekly_days.unwrap_or(policy.weekly_days),
            trash_days: self.trash_days.unwrap_or(policy.trash_days),
        }
    }
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    value_parser!(u32).range(..=i64::from(DAYS_MAX))
}

fn hours() -> clap::builder::RangedI64ValueParser<u32> {
    value_parser!(u32).range(..=i64::from(DAYS_MAX) * 24)
}

pub fn run(args: PolicyArgs) -> anyhow::Result<()> {
    let folder = args.path.as_deref().map(name_of).transpose()?;
    let store = user::open_existing(&user::resolve(&args.place)?)?;
    let json = args.json;
    let policy = super::runtime()?.block_on(store.write(move |sql| set(sql, &args, folder)));
    store.close();
    let policy = policy?;
    if json {
        println!("{}", serde_json::to_string_pretty(&policy)?);
        return Ok(());
    }
    println!("versions of a file       at most {}, and those that somebody keeps", policy.versions);
    println!("every version            {} h", policy.all_hours);
    println!("last of each burst       {} days", policy.bursts_days);
    println!("last of each hour        {} days", policy.hourly_days);
    println!("last of each day         {} days", policy.daily_days);
    println!("last of each week        {} days", policy.weekly_days);
    println!("trash                    {} days", policy.trash_days);
    Ok(())
}

/// Sets what the options say; what holds then.
fn set(sql: &mut dyn Sql, args: &PolicyArgs, folder: Option<Name>) -> Result<Policy, DriveError> {
    let account = users::found(sql, &users::checked_email(&args.email)?)?;
    let ns = match folder {
        Some(name) => mounts::shown_as(sql, &account, &name)?,
        None => account.root_ns,
    };
    let before = prune::policy_of(sql, ns)?;
    let begin = if args.reset { Policy::default() } else { before };
    let policy = args.applied_to(begin);
    if policy == before && !args.reset {
        return Ok(policy);
    }
    let text = serde_json::to_string(&policy).map_err(|_| DbError::Decode("policy"))?;
    policies::set(sql, ns, Some(text.as_str()).filter(|_| policy != Policy::default()))?;
    let happened = Happened {
        kind: Kind::PolicySet,
        account: account.email,
        device: String::new(),
        peer: "operator".into(),
        detail: format!("namespace {ns}: {text}"),
    };
    audit::insert(sql, &happened)?;
    Ok(policy)
}
