//! `drivefs-server scrub`: reads all packs; exit code 1 when something bad is known.

use std::sync::Arc;

use anyhow::bail;
use clap::Args;

use super::progress::Line;
use crate::app;
use crate::config;
use crate::config::Config;
use crate::config::Place;
use crate::config::Stores;
use crate::drive::Drive;
use crate::drive::fsck::Progress;
use crate::drive::scrub::Position;
use crate::metadata::scrubbed::BadBlock;

/// Most bad blocks that are listed.
const LISTED_MAX: u32 = 10_000;

#[derive(Debug, Args)]
pub struct Scrub {
    /// Bytes a second, e.g. 20MB [default: as fast as it goes]
    #[arg(long, value_name = "SIZE")]
    rate: Option<String>,
    /// Begin a new round, even if one is under way
    #[arg(long)]
    restart: bool,
    /// Read nothing; tell how far the round is and what is known to be bad
    #[arg(long, conflicts_with_all = ["rate", "restart"])]
    status: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stores: Stores,
    #[command(flatten)]
    place: Place,
}

pub fn run(args: Scrub) -> anyhow::Result<()> {
    let config = Config::with_stores(&args.place, args.stores)?;
    let rate = args.rate.as_deref().map(config::parse_size).transpose()?.unwrap_or(0);
    super::runtime()?.block_on(async {
        let drive = app::open_existing(&config).await?;
        let position = match args.status {
            true => drive.scrub_position().await?,
            false => round(&drive, rate, args.restart).await?,
        };
        let bad = drive.bad_blocks(LISTED_MAX).await?;
        drive.store.close();
        print(&position, &bad, args.json)?;
        if !bad.is_empty() {
            bail!(
                "{} bad blocks are known; drivefs-server fsck --repair looks for copies",
                bad.len()
            );
        }
        Ok(())
    })
}

async fn round(drive: &Drive, rate: u64, restart: bool) -> anyhow::Result<Position> {
    let mut position = drive.scrub_position().await?;
    if restart || !position.running {
        drive.begin_scrub().await?;
    } else {
        eprintln!("going on with the round under way; --restart begins a new one");
    }
    let progress = Arc::new(Progress::default());
    let (packs, _) = drive.store.read(crate::metadata::check::packs_total).await?;
    progress.begin("packs", packs);
    let line = Line::show(&progress);
    let mut done = 0;
    loop {
        position = drive.scrub_step(rate).await?;
        progress.add(position.packs.saturating_sub(done));
        done = position.packs;
        if !position.running {
            drop(line);
            return Ok(position);
        }
    }
}

fn print(position: &Position, bad: &[BadBlock], json: bool) -> anyhow::Result<()> {
    if json {
        let bad: Vec<_> = bad
            .iter()
            .map(|b| {
                serde_json::json!({
                    "pack": b.pack, "account": b.block.map(|(owner, _)| owner),
                    "block": b.block.map(|(_, hash)| hash.to_string()), "what": b.what,
                    "found": b.found,
                })
            })
            .collect();
        let shown = serde_json::json!({ "position": position, "bad": bad });
        println!("{}", serde_json::to_string_pretty(&shown)?);
        return Ok(());
    }
    for b in bad {
        match b.block {
            Some((owner, hash)) => {
                println!("bad: pack {}: block {hash} of account {owner}: {}", b.pack, b.what);
            }
            None => println!("bad: pack {}: {}", b.pack, b.what),
        }
    }
    let state = if position.running { "under way" } else { "over" };
    println!(
        "round {state}: {} packs with {} blocks ({} bytes) read",
        position.packs, position.blocks, position.bytes
    );
    Ok(())
}
