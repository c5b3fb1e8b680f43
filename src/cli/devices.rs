//! `drivefs devices`: the devices that are logged in to the account.

use anyhow::Context;
use anyhow::bail;
use clap::Args;
use clap::Subcommand;
use drivefs_core::wire::TokenInfo;

use super::token::when;
use crate::home::AccountFile;
use crate::home::Home;
use crate::remote::Remote;

#[derive(Debug, Args)]
pub struct Devices {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Log a device out: it keeps what is on its disk, and gets and sends nothing more
    Revoke { name: String },
}

pub fn run(c: &Devices) -> anyhow::Result<()> {
    let home = Home::from_env()?;
    let account = AccountFile::load(&home)?
        .context("this device is not logged in; `drivefs login URL --email E` does it")?;
    let remote = Remote::new(&account.url, Some(account.token))?;
    let runtime = super::runtime()?;
    let list = runtime.block_on(remote.tokens())?.tokens;
    let devices: Vec<TokenInfo> = list.into_iter().filter(|t| !t.script).collect();
    if let Some(Action::Revoke { name }) = &c.action {
        if !devices.iter().any(|d| d.name == *name) {
            bail!("there is no device '{name}'; `drivefs devices` lists them");
        }
        runtime.block_on(remote.revoke_token(name))?;
        println!("logged out {name}; `drivefs login` there brings it back");
        return Ok(());
    }
    if c.json {
        println!("{}", serde_json::to_string_pretty(&devices)?);
        return Ok(());
    }
    for d in devices {
        let this = if d.name == account.device { ", this device" } else { "" };
        println!("{}  (last seen {}{this})", d.name, when(d.last_seen));
    }
    Ok(())
}
