//! The command line: one file a command. Says what to do next when something fails.

mod audit;
mod backup;
mod devices;
mod fsck;
mod jobs;
mod mount;
mod openapi;
mod policy;
mod progress;
mod rotate;
mod scrub;
mod serve;
mod user;

use clap::Parser;
use clap::Subcommand;

use crate::config::ConfigError;

/// The companion server of drivefs: accounts, metadata, blocks and hints.
///
/// Start it with `drivefs-server serve`, add people with `drivefs-server user add --email E`, and
/// they mount with `drivefs login URL` and `drivefs mount DIR`.
#[derive(Debug, Parser)]
#[command(name = "drivefs-server", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a data folder until told to stop (SIGTERM, SIGINT)
    Serve(Box<serve::Serve>),
    /// Add, list and change accounts; works while the server runs
    #[command(subcommand)]
    User(user::User),
    /// Check everything that the server keeps, and repair what can be; works while the server runs
    Fsck(fsck::Fsck),
    /// Read all blocks to find bad ones; works while the server runs, which does so by itself, too
    Scrub(scrub::Scrub),
    /// Back up into a folder; works while the server runs
    Backup(backup::Backup),
    /// Bring a backup back into a new data folder
    Restore(backup::Restore),
    /// Change the master key; works while the server runs
    RotateKey(rotate::Rotate),
    /// List logins, and what became of tokens, accounts and keys
    Audit(audit::Audit),
    /// List and revoke devices and tokens of an account; works while the server runs
    #[command(subcommand)]
    Devices(devices::Devices),
    /// Make folders that several accounts share; works while the server runs
    #[command(subcommand)]
    Mount(mount::Mount),
    /// Show what the server does in the background; works while it runs
    Jobs(jobs::Jobs),
    Gc(jobs::Gc),
    Policy(policy::PolicyArgs),
    /// Print the OpenAPI document of all routes
    Openapi,
}

/// Runs a command; the error's text is for people.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(serve) => serve::run(*serve),
        Command::User(user) => user::run(user),
        Command::Fsck(args) => fsck::run(args),
        Command::Scrub(args) => scrub::run(args),
        Command::Backup(args) => backup::run_backup(args),
        Command::Restore(args) => backup::run_restore(args),
        Command::RotateKey(args) => rotate::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Mount(mount) => mount::run(mount),
        Command::Jobs(args) => jobs::jobs(args),
        Command::Gc(args) => jobs::gc(args),
        Command::Policy(args) => policy::run(args),
        Command::Openapi => openapi::run(),
    }
}

/// 2 for a wrong command line or setting, 1 for all other failures.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigError>() { 2 } else { 1 }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
