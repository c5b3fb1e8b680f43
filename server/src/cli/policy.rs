//! `drivefs-server policy`: what is kept of the past, for each account's folder.

use clap::Args;

use super::user;
use crate::config::ConfigError;
use crate::config::Place;
use crate::drive::policy::Policy;
use crate::drive::prune;
use crate::metadata::DbError;
use crate::metadata::accounts;
use crate::metadata::policies;

/// Shows and sets how much of the past is kept for an account; works while the server runs.
///
/// Without further options it prints what holds. What is set holds from the next run of the job
/// `prune` on; what was removed before does not come back.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Account whose root folder is meant
    #[arg(long)]
    email: String,
    /// Most versions of a file [usual: 100]
    #[arg(long, value_name = "N")]
    versions: Option<u32>,
    /// Every version stays for so many hours [usual: 1]
    #[arg(long, value_name = "HOURS")]
    all_hours: Option<u32>,
    /// Then the last of each burst of 5 minutes, for so many days [usual: 1]
    #[arg(long, value_name = "DAYS")]
    bursts_days: Option<u32>,
    /// Then the last of each hour [usual: 7]
    #[arg(long, value_name = "DAYS")]
    hourly_days: Option<u32>,
    /// Then the last of each day [usual: 30]
    #[arg(long, value_name = "DAYS")]
    daily_days: Option<u32>,
    /// Then the last of each week [usual: 365]; older ones go
    #[arg(long, value_name = "DAYS")]
    weekly_days: Option<u32>,
    /// What was deleted stays in the trash for so long [usual: 30]
    #[arg(long, value_name = "DAYS")]
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

pub fn run(args: PolicyArgs) -> anyhow::Result<()> {
    if args.versions == Some(0) {
        return Err(
            ConfigError("--versions: the newest one always stays; at least 1".into()).into()
        );
    }
    let store = user::open_existing(&user::resolve(&args.place)?)?;
    let json = args.json;
    let found = super::runtime()?.block_on(store.write(move |sql| {
        let Some(account) = accounts::by_email(sql, &args.email)? else { return Ok(None) };
        let ns = account.root_ns;
        let before = prune::policy_of(sql, ns)?;
        let begin = if args.reset { Policy::default() } else { before };
        let policy = args.applied_to(begin);
        if policy != before || args.reset {
            let text = serde_json::to_string(&policy).map_err(|_| DbError::Decode("policy"))?;
            let text = Some(text.as_str()).filter(|_| policy != Policy::default());
            policies::set(sql, ns, text)?;
        }
        Ok::<_, DbError>(Some(policy))
    }))?;
    store.close();
    let Some(policy) = found else {
        anyhow::bail!("there is no such account; `drivefs-server user list` shows all");
    };
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
