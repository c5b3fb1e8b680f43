//! `drivefs-server fsck`: exit code 0 when all is well or repaired, 1 when something is not.

use std::sync::Arc;

use anyhow::bail;
use clap::Args;

use super::progress::Line;
use crate::app;
use crate::config::Config;
use crate::config::Place;
use crate::config::Stores;
use crate::drive::fsck;
use crate::drive::fsck::Options;
use crate::drive::fsck::Progress;
use crate::drive::fsck::Report;

#[derive(Debug, Args)]
pub struct Fsck {
    /// Set right what can be set right without a guess: counters, rows that can be made again
    #[arg(long)]
    repair: bool,
    /// Compare the rows of the database alone, and read no blocks
    #[arg(long)]
    quick: bool,
    /// Age from which a pack that nothing refers to cannot be an upload under way (seconds)
    #[arg(long, value_name = "SECS", default_value_t = 24 * 3600)]
    orphan_grace: i64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stores: Stores,
    #[command(flatten)]
    place: Place,
}

pub fn run(args: Fsck) -> anyhow::Result<()> {
    let config = Config::with_stores(&args.place, args.stores)?;
    super::runtime()?.block_on(async {
        let drive = app::open_existing(&config).await?;
        let progress = Arc::new(Progress::default());
        let options = Options {
            repair: args.repair,
            quick: args.quick,
            orphan_grace_secs: args.orphan_grace,
        };
        let line = Line::show(&progress);
        let report = fsck::run(&drive, options, progress).await;
        drop(line);
        drive.store.close();
        let report = report?;
        if args.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print(&report, args.quick);
        }
        let left = report.findings.iter().filter(|f| !f.repaired).count() as u64 + report.more;
        if !report.clean {
            bail!("{left} findings that are not repaired");
        }
        Ok(())
    })
}

fn print(report: &Report, quick: bool) {
    for finding in &report.findings {
        let mark = if finding.repaired { "repaired" } else { "wrong" };
        println!("{mark}: {}: {}", finding.kind, finding.what);
        if let Some(advice) = finding.advice {
            println!("    {advice}");
        }
    }
    if report.more > 0 {
        println!("and {} more", report.more);
    }
    for note in &report.notes {
        println!("note: {note}");
    }
    println!(
        "{} accounts, {} versions, {} packs with {} blocks ({} bytes) looked at{}",
        report.accounts,
        report.versions,
        report.packs,
        report.blocks,
        report.bytes,
        if quick { "; blocks were not read (--quick)" } else { "" }
    );
    if report.clean {
        println!("clean");
    }
}
