//! `drivefs-server devices`: what is logged in to an account, and locking it out.

use clap::Args;
use clap::Subcommand;

use super::audit::utc;
use super::user;
use crate::config::Place;
use crate::drive::users;

#[derive(Debug, Subcommand)]
pub enum Devices {
    /// List devices and tokens for scripts
    List(List),
    /// Lock a device or token out; holds from its next request on
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub struct List {
    #[arg(long)]
    email: String,
    /// Print JSON, one array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub struct Revoke {
    #[arg(long)]
    email: String,
    /// Name of the device or token
    name: String,
    #[command(flatten)]
    place: Place,
}

pub fn run(devices: Devices) -> anyhow::Result<()> {
    super::runtime()?.block_on(async {
        match devices {
            Devices::List(args) => list(args).await,
            Devices::Revoke(args) => revoke(args).await,
        }
    })
}

async fn list(args: List) -> anyhow::Result<()> {
    let store = user::open_existing(&user::resolve(&args.place)?)?;
    let devices = users::devices(&store, &args.email).await?;
    store.close();
    if args.json {
        let rows: Vec<_> = devices
            .iter()
            .map(|d| {
                serde_json::json!({
                    "name": d.name, "script": d.script, "created": d.created,
                    "last_seen": d.last_seen, "expires": d.expires,
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    for d in devices {
        let kind = if d.script { "token" } else { "device" };
        let expires = d.expires.map(|at| format!(", expires {}", utc(at))).unwrap_or_default();
        println!("{}  {kind}, last seen {}{expires}", d.name, utc(d.last_seen));
    }
    Ok(())
}

async fn revoke(args: Revoke) -> anyhow::Result<()> {
    let store = user::open_existing(&user::resolve(&args.place)?)?;
    users::revoke_device(&store, &args.email, args.name.clone()).await?;
    store.close();
    println!("{} of {} is revoked", args.name, args.email);
    Ok(())
}
