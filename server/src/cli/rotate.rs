//! `drivefs-server rotate-key`.

use std::sync::Arc;

use anyhow::bail;
use clap::Args;

use super::progress::Line;
use crate::app;
use crate::config::Config;
use crate::config::Place;
use crate::config::Stores;
use crate::drive::fsck::Progress;

#[derive(Debug, Args)]
pub struct Rotate {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stores: Stores,
    #[command(flatten)]
    place: Place,
}

pub fn run(args: Rotate) -> anyhow::Result<()> {
    let config = Config::with_stores(&args.place, args.stores)?;
    super::runtime()?.block_on(async {
        let drive = app::open_existing(&config).await?;
        let progress = Arc::new(Progress::default());
        let line = Line::show(&progress);
        let rotated = app::rotate_key(&config, &drive, &progress).await;
        drop(line);
        drive.store.close();
        let rotated = rotated?;
        if args.json {
            println!("{}", serde_json::to_string_pretty(&rotated)?);
        } else {
            if rotated.resumed {
                println!("a rotation that was cut off is finished now");
            }
            println!(
                "the master key is {} now, it was {}; {} packs were wrapped anew",
                rotated.new, rotated.old, rotated.packs
            );
            if drive.keys.is_rotatable() {
                println!(
                    "the old key is in {}: backups made until now need it. Back up the new \
                     master.key, apart from the data",
                    config.data.join(crate::blocks::keys::RETIRED_FILE).display()
                );
            }
        }
        if !rotated.unreadable.is_empty() {
            bail!(
                "{} packs open under neither key; drivefs-server fsck names them",
                rotated.unreadable.len()
            );
        }
        Ok(())
    })
}
