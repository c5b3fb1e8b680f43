//! The command line: one file a command. Exit codes: 0 done, 1 failed, 2 usage.

mod alerts;
mod cache;
mod checkup;
mod completions;
mod conflicts;
mod daemon;
mod desktop;
mod devices;
mod diff;
mod doctor;
mod drive;
mod embedded;
mod events;
mod login;
mod mount;
mod pin;
mod raise_events;
mod rebuild;
mod restore;
mod rewind;
mod status;
mod sync;
mod token;
mod trash;
mod umount;
mod versions;
mod watch_daemon;
mod when;
mod why;

use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

/// An open cloud drive: a folder that is the same on all your devices.
///
/// `drivefs mount ~/Drive` is all it takes to begin: without an account it runs its own server on
/// this machine. Every file you change is sent by itself; `drivefs status` tells what is not there
/// yet, `drivefs sync` waits for it.
#[derive(Debug, Parser)]
#[command(name = "drivefs", version, after_help = HOME_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const HOME_HELP: &str = "Environment:\n  DRIVEFS_HOME  folder for account, replica, spool and cache \
of one device\n                [default: ~/.local/share/drivefs]; two folders are two devices\n  \
RUST_LOG      what is logged, e.g. drivefs=debug";

#[derive(Debug, Subcommand)]
enum Command {
    /// Mount the drive on a folder
    Mount(mount::Mount),
    /// Unmount it; what is not uploaded yet stays safe and is sent after the next mount
    Umount(umount::Umount),
    /// Log this device in to a server
    Login(login::Login),
    /// Log this device out and forget its account
    Logout(login::Logout),
    /// Tell how the drive is doing: online, queue, conflicts, cache
    Status(status::Status),
    /// Wait until all local changes are on the server and all of the server's are here
    Sync(sync::Sync),
    /// List the versions of a file
    Versions(versions::Versions),
    /// Bring back an old version of a file, or a folder as it was at a time
    Restore(restore::Restore),
    /// Undo what was done since a time, by anyone or from one device
    Rewind(rewind::Rewind),
    /// Keep a version for good
    Keep(versions::Keep),
    /// Compare two versions of a text file
    Diff(diff::Diff),
    /// List what was deleted, and bring it back
    Trash(trash::Trash),
    /// Tell what happened, by whom, from which device, and when
    Events(events::Events),
    /// Keep a file or folder on this device, for times without network
    Pin(pin::Pin),
    /// Let a pinned file or folder go again
    Unpin(pin::Unpin),
    /// Tell about the cache of this device, or drop files from it
    Cache(cache::Cache),
    /// Tell why a file is slow, not uploaded or not here, and what to do
    Why(why::Why),
    /// List the files that two devices changed at once
    Conflicts(conflicts::Conflicts),
    /// End a conflict: keep one content, the other, both, or merge them
    Resolve(conflicts::Resolve),
    /// List the devices of the account, or log one out
    Devices(devices::Devices),
    /// Tokens for scripts
    #[command(subcommand)]
    Token(token::Token),
    /// Check this device and tell what is wrong and what to do
    Doctor(doctor::Doctor),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Run by the daemon
    #[command(hide = true)]
    RaiseEvents(raise_events::RaiseEvents),
    /// Run by the daemon
    #[command(hide = true)]
    WatchDaemon(watch_daemon::WatchDaemon),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Mount(c) => mount::run(&c),
        Command::Umount(c) => umount::run(&c),
        Command::Login(c) => login::run(&c),
        Command::Logout(c) => login::logout(&c),
        Command::Status(c) => status::run(&c),
        Command::Sync(c) => sync::run(&c),
        Command::Versions(c) => versions::run(&c),
        Command::Restore(c) => restore::run(&c),
        Command::Rewind(c) => rewind::run(&c),
        Command::Keep(c) => versions::keep(&c),
        Command::Diff(c) => diff::run(&c),
        Command::Trash(c) => trash::run(&c),
        Command::Events(c) => events::run(&c),
        Command::Pin(c) => pin::run(&c),
        Command::Unpin(c) => pin::unpin(&c),
        Command::Cache(c) => cache::run(&c),
        Command::Why(c) => why::run(&c),
        Command::Conflicts(c) => conflicts::run(&c),
        Command::Resolve(c) => conflicts::resolve(&c),
        Command::Devices(c) => devices::run(&c),
        Command::Token(c) => token::run(&c),
        Command::Doctor(c) => doctor::run(&c),
        Command::Completions(c) => completions::run(&c),
        Command::RaiseEvents(c) => raise_events::run(&c),
        Command::WatchDaemon(c) => watch_daemon::run(&c),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("drivefs: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// A small runtime for commands that only ask the server something.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// The daemon of this home, and its mount point.
fn daemon() -> anyhow::Result<(crate::control::Control, String)> {
    let home = crate::home::Home::from_env()?;
    let mut control = crate::control::Control::connect(&home)?;
    match control.ask(&crate::control::Request::Status { limit: 0 }, |_| {})? {
        crate::control::Reply::Status(status) => Ok((control, status.mount.unwrap_or_default())),
        other => anyhow::bail!("unexpected answer of the daemon: {other:?}"),
    }
}

/// A path given by the user, as a path below the mount point; empty for the mount itself.
fn below_mount(path: &std::path::Path, mount: &str) -> anyhow::Result<String> {
    let absolute = std::path::absolute(path)?;
    // The file itself may be a symlink, its folder is what must be resolved; of what is gone, the
    // nearest folder that is there.
    let mut resolved = absolute.clone();
    for dir in absolute.ancestors().skip(1) {
        if let (Ok(dir_there), Ok(rest)) = (dir.canonicalize(), absolute.strip_prefix(dir)) {
            resolved = dir_there.join(rest);
            break;
        }
    }
    match resolved.strip_prefix(mount) {
        Ok(rest) => Ok(rest.to_string_lossy().into_owned()),
        Err(_) => anyhow::bail!("{} is not in the drive mounted on {mount}", path.display()),
    }
}

/// A number of bytes for people.
fn human(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
