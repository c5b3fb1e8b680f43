//! `drivefs-server user`: accounts, straight in the database, also while the server runs.

use std::io::BufRead;
use std::io::IsTerminal;

use anyhow::Context;
use anyhow::bail;
use clap::Args;
use clap::Subcommand;

use crate::app;
use crate::config;
use crate::config::Config;
use crate::config::ConfigError;
use crate::config::Place;
use crate::config::Stores;
use crate::drive::users;
use crate::metadata::Store;

#[derive(Debug, Subcommand)]
pub enum User {
    /// Add an account; asks for its password
    Add(Add),
    /// List all accounts
    List(List),
    /// Set another password; devices that are logged in stay so
    Passwd(Passwd),
    /// Lock an account out at once; its data stays
    Disable(One),
    /// Let a disabled account in again
    Enable(One),
}

#[derive(Debug, Args)]
pub struct Add {
    /// Address to log in with
    #[arg(long)]
    email: String,
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
    /// Room for current files, e.g. 10GiB [default: the server's --default-quota]
    #[arg(long, value_name = "SIZE")]
    quota: Option<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub struct List {
    /// Print JSON, one array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub struct Passwd {
    #[arg(long)]
    email: String,
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub struct One {
    #[arg(long)]
    email: String,
    #[command(flatten)]
    place: Place,
}

pub fn run(user: User) -> anyhow::Result<()> {
    super::runtime()?.block_on(async {
        match user {
            User::Add(args) => add(args).await,
            User::List(args) => list(args).await,
            User::Passwd(args) => passwd(args).await,
            User::Disable(args) => set_disabled(args, true).await,
            User::Enable(args) => set_disabled(args, false).await,
        }
    })
}

async fn add(args: Add) -> anyhow::Result<()> {
    let config = resolve(&args.place)?;
    usable_email(&args.email)?;
    let quota = args.quota.as_deref().map(config::parse_size).transpose()?;
    let password = read_password(args.password_stdin)?;
    let store = app::open_store(&config)?;
    let quota = match quota {
        Some(quota) => quota,
        None => app::default_quota_bytes(&store, &config).await?,
    };
    let user = users::add(&store, &args.email, &password, quota).await?;
    store.close();
    println!("added {} (quota {quota} bytes)", user.email);
    Ok(())
}

async fn list(args: List) -> anyhow::Result<()> {
    let store = open_existing(&resolve(&args.place)?)?;
    let users = users::all(&store).await?;
    store.close();
    if args.json {
        let rows: Vec<_> = users
            .iter()
            .map(|u| {
                serde_json::json!({
                    "user": u.user, "email": u.email, "disabled": u.disabled, "root": u.root_ns,
                    "quota_bytes": u.quota_bytes, "used_bytes": u.used_bytes, "created": u.created,
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    if users.is_empty() {
        eprintln!("no accounts yet; add one with: drivefs-server user add --email E");
    }
    for u in users {
        let state = if u.disabled { "  disabled" } else { "" };
        println!("{}  {} of {} bytes used{state}", u.email, u.used_bytes, u.quota_bytes);
    }
    Ok(())
}

async fn passwd(args: Passwd) -> anyhow::Result<()> {
    let config = resolve(&args.place)?;
    usable_email(&args.email)?;
    let store = open_existing(&config)?;
    let password = read_password(args.password_stdin)?;
    users::set_password(&store, &args.email, &password).await?;
    store.close();
    println!("password of {} is set", args.email);
    Ok(())
}

async fn set_disabled(args: One, disabled: bool) -> anyhow::Result<()> {
    let config = resolve(&args.place)?;
    usable_email(&args.email)?;
    let store = open_existing(&config)?;
    users::set_disabled(&store, &args.email, disabled).await?;
    store.close();
    println!("{} is {}", args.email, if disabled { "disabled" } else { "enabled" });
    Ok(())
}

fn usable_email(email: &str) -> Result<(), ConfigError> {
    users::checked_email(email).map(drop).map_err(|e| ConfigError(e.to_string()))
}

pub(super) fn resolve(place: &Place) -> Result<Config, ConfigError> {
    Config::with_stores(place, Stores::default())
}

/// The store of a folder that a server or `user add` has made.
pub(super) fn open_existing(config: &Config) -> anyhow::Result<Store> {
    if !config.metadata.exists() {
        bail!(
            "there is no drivefs data at {}; give its folder with --data DIR, or start with: \
             drivefs-server user add --email E --data DIR",
            config.metadata.display()
        );
    }
    app::open_store(config)
}

fn read_password(from_stdin: bool) -> anyhow::Result<String> {
    if from_stdin {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).context("cannot read the password")?;
        return Ok(line.trim_end_matches(['\n', '\r']).to_owned());
    }
    if !std::io::stdin().is_terminal() {
        return Err(ConfigError(
            "there is no terminal to ask for the password; pipe it in with --password-stdin".into(),
        )
        .into());
    }
    let first = rpassword::prompt_password("Password: ")?;
    let second = rpassword::prompt_password("Again: ")?;
    if first != second {
        bail!("the two passwords differ; nothing was changed");
    }
    Ok(first)
}
