//! `drivefs-server backup` and `restore`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;

use super::progress::Line;
use crate::app;
use crate::config::Config;
use crate::config::ConfigError;
use crate::config::Place;
use crate::config::Stores;
use crate::drive::backup;
use crate::drive::backup::Target;
use crate::drive::fsck::Progress;

#[derive(Debug, Args)]
pub struct Backup {
    /// Folder of the backup; what is in it from earlier ones is not copied again
    dir: PathBuf,
    /// Afterwards remove packs that only earlier backups in this folder needed
    #[arg(long)]
    prune: bool,
    /// Make none; check that the one in the folder is as it was written
    #[arg(long, conflicts_with = "prune")]
    verify: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stores: Stores,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// Folder of the backup
    dir: PathBuf,
    /// File with the master key that was in use when it was made; it becomes DATA/master.key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stores: Stores,
    #[command(flatten)]
    place: Place,
}

pub fn run_backup(args: Backup) -> anyhow::Result<()> {
    super::runtime()?.block_on(async {
        if args.verify {
            return verify(args).await;
        }
        let config = Config::with_stores(&args.place, args.stores)?;
        apart(&config, &args.dir)?;
        let drive = app::open_existing(&config).await?;
        let progress = Arc::new(Progress::default());
        let line = Line::show(&progress);
        let taken = backup::take(&drive, &config.metadata, &args.dir, args.prune, &progress).await;
        drop(line);
        drive.store.close();
        let taken = taken?;
        if args.json {
            println!("{}", serde_json::to_string_pretty(&taken)?);
        } else {
            println!(
                "backed up {} packs ({} bytes), of these new: {} ({} bytes)",
                taken.packs, taken.bytes, taken.packs_copied, taken.bytes_copied
            );
            if taken.packs_pruned > 0 {
                println!("removed {} packs of earlier backups", taken.packs_pruned);
            }
            println!(
                "the master key ({}) is NOT in the backup, and nothing can be restored without it: \
                 keep it apart",
                taken.keys.join(", ")
            );
        }
        if !taken.damaged.is_empty() {
            bail!(
                "the backup is there, but {} packs are damaged or missing in the store; \
                 drivefs-server fsck tells more",
                taken.damaged.len()
            );
        }
        Ok(())
    })
}

async fn verify(args: Backup) -> anyhow::Result<()> {
    let progress = Arc::new(Progress::default());
    let line = Line::show(&progress);
    let dir = args.dir.clone();
    let verified = tokio::task::spawn_blocking(move || backup::verify(&dir, &progress)).await??;
    drop(line);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&verified)?);
    } else {
        for (pack, what) in &verified.wrong {
            println!("wrong: pack {pack}: {what}");
        }
        let m = &verified.manifest;
        println!("{} packs ({} bytes) and the database looked at", m.pack_count, m.pack_bytes);
    }
    if !verified.wrong.is_empty() {
        bail!("{} packs of the backup are not as they were written", verified.wrong.len());
    }
    Ok(())
}

/// A backup inside the data would be lost with it, and back up itself.
fn apart(config: &Config, dir: &std::path::Path) -> anyhow::Result<()> {
    let dir = std::path::absolute(dir)?;
    for own in [&config.data, &config.blocks] {
        if dir.starts_with(std::path::absolute(own)?) {
            return Err(ConfigError(format!(
                "{} is inside the server's data; choose a folder elsewhere, best on another disk",
                dir.display()
            ))
            .into());
        }
    }
    Ok(())
}

pub fn run_restore(args: Restore) -> anyhow::Result<()> {
    let config = Config::with_stores(&args.place, args.stores)?;
    super::runtime()?.block_on(async {
        let progress = Arc::new(Progress::default());
        let line = Line::show(&progress);
        let to = Target {
            data: config.data.clone(),
            metadata: config.metadata.clone(),
            blocks: config.blocks.clone(),
        };
        let restored = backup::restore(&args.dir, to, args.key.as_deref(), &progress).await;
        drop(line);
        let restored = restored?;
        if args.json {
            println!("{}", serde_json::to_string_pretty(&restored)?);
        } else {
            println!(
                "restored {} packs ({} bytes) to {}; start it with: drivefs-server serve --data {}",
                restored.packs,
                restored.bytes,
                config.data.display(),
                config.data.display()
            );
        }
        if !restored.damaged.is_empty() {
            bail!(
                "restored, but {} packs are damaged or missing; drivefs-server fsck names the files",
                restored.damaged.len()
            );
        }
        Ok(())
    })
}
