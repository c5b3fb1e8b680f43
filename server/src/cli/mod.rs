//! The command line: one file a command. Says what to do next when something fails.

mod jobs;
mod mount;
mod openapi;
mod policy;
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
    Serve(serve::Serve),
    /// Add, list and change accounts; works while the server runs
    #[command(subcommand)]
    User(user::User),
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
        Command::Serve(serve) => serve::run(serve),
        Command::User(user) => user::run(user),
        Command::Mount(mount) => mount::run(mount),
        Command::Jobs(args) => jobs::list(args),
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
