//! `drivefs-server mount`: folders that several accounts share, made by the operator.

use clap::Args;
use clap::Subcommand;
use clap::ValueEnum;
use drivefs_core::name::Name;
use drivefs_core::wire::Role;

use super::user;
use crate::config::ConfigError;
use crate::config::Place;
use crate::drive::mounts;
use crate::drive::mounts::Guest;

#[derive(Debug, Subcommand)]
pub enum Mount {
    /// Make a shared folder and show it in the root of its owner's and guest's trees
    Add(Add),
}

#[derive(Debug, Args)]
pub struct Add {
    /// Account that owns the folder, and whose quota it uses
    #[arg(long)]
    email: String,
    /// Account to share it with
    #[arg(long, value_name = "EMAIL")]
    with: Option<String>,
    /// Name of the folder in both trees, e.g. /team
    #[arg(long, value_name = "/NAME")]
    path: String,
    /// What the guest may do
    #[arg(long, value_enum, default_value = "editor")]
    role: GuestRole,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GuestRole {
    Viewer,
    Editor,
}

pub fn run(mount: Mount) -> anyhow::Result<()> {
    let Mount::Add(args) = mount;
    let name = name_of(&args.path)?;
    let role = match args.role {
        GuestRole::Viewer => Role::Viewer,
        GuestRole::Editor => Role::Editor,
    };
    let guest = args.with.map(|email| Guest { email, role });
    let store = user::open_existing(&user::resolve(&args.place)?)?;
    let ns = super::runtime()?.block_on(mounts::add(&store, &args.email, guest, name))?;
    store.close();
    println!("{ns}");
    Ok(())
}

/// The name of a folder in a root, of a path like /team.
pub(super) fn name_of(path: &str) -> Result<Name, ConfigError> {
    Name::new(path.trim_matches('/').as_bytes().to_vec())
        .map_err(|e| ConfigError(format!("--path {path}: {e}; write it like /team")))
}
