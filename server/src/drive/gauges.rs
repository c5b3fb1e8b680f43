//! What `/metrics` tells beside requests: queues, disks, sizes, the state of the data.

use std::time::Duration;

use super::Drive;
use super::DriveError;
use crate::metadata::DbError;
use crate::metadata::accounts;
use crate::metadata::check;
use crate::metadata::jobs;
use crate::metadata::scrubbed;
use crate::metadata::tiers;

/// How often what has to be counted in the database is counted.
const COUNT_EVERY: Duration = Duration::from_secs(300);

impl Drive {
    /// Sets what can be told at once: for each look at the metrics.
    pub fn gauge(&self) {
        metrics::gauge!("drivefs_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        metrics::gauge!("drivefs_long_polls").set(self.hub.waiters() as f64);
        let (busy, all) = self.store.readers_busy();
        in_use("database_readers", busy, all);
        let [cores, mib] = self.work.in_use();
        in_use("cores", cores.0, cores.1);
        in_use("block_memory_mib", mib.0, mib.1);
        let (database, log) = self.store.file_bytes();
        metrics::gauge!("drivefs_database_bytes").set(database as f64);
        metrics::gauge!("drivefs_database_log_bytes").set(log as f64);
        if let Some((free, all)) = self.blocks.room() {
            metrics::gauge!("drivefs_disk_free_bytes").set(free as f64);
            metrics::gauge!("drivefs_disk_bytes").set(all as f64);
        }
    }

    /// Counts what is stored, again and again, for as long as the server runs.
    pub async fn gauge_forever(self) {
        loop {
            if let Err(e) = self.count().await {
                tracing::warn!(error = %e, "the gauges of what is stored are not up to date");
            }
            tokio::time::sleep(COUNT_EVERY).await;
        }
    }

    async fn count(&self) -> Result<(), DriveError> {
        let (users, packs, cold, bad, jobs) = self
            .store
            .read(|sql| {
                let users = accounts::count(sql)?;
                let (packs, cold) = (check::packs_total(sql)?, tiers::cold(sql)?);
                Ok::<_, DbError>((users, packs, cold, scrubbed::count(sql)?, jobs::list(sql)?))
            })
            .await?;
        metrics::gauge!("drivefs_accounts").set(users as f64);
        metrics::gauge!("drivefs_packs").set(packs.0 as f64);
        metrics::gauge!("drivefs_pack_bytes").set(packs.1 as f64);
        metrics::gauge!("drivefs_cold_packs").set(cold.0 as f64);
        metrics::gauge!("drivefs_cold_bytes").set(cold.1 as f64);
        metrics::gauge!("drivefs_bad_blocks").set(bad as f64);
        for job in jobs {
            let ended = job.ended.unwrap_or(0) as f64;
            metrics::gauge!("drivefs_job_ended_seconds", "job" => job.kind.clone()).set(ended);
            metrics::gauge!("drivefs_job_failures", "job" => job.kind).set(f64::from(job.failures));
        }
        let scrub = self.scrub_position().await?;
        metrics::gauge!("drivefs_scrub_running").set(f64::from(u8::from(scrub.running)));
        metrics::gauge!("drivefs_scrub_ended_seconds").set(scrub.ended.unwrap_or(0) as f64);
        Ok(())
    }
}

fn in_use(what: &'static str, used: usize, all: usize) {
    metrics::gauge!("drivefs_in_use", "what" => what).set(used as f64);
    metrics::gauge!("drivefs_in_use_max", "what" => what).set(all as f64);
}
