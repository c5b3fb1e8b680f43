//! `drivefs completions`.

use clap::Args;
use clap::CommandFactory;
use clap_complete::Shell;

#[derive(Debug, Args)]
pub struct Completions {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

pub fn run(c: &Completions) -> anyhow::Result<()> {
    let mut command = super::Cli::command();
    clap_complete::generate(c.shell, &mut command, "drivefs", &mut std::io::stdout());
    Ok(())
}
