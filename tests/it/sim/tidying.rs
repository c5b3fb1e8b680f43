//! The server tidies up as its background jobs do: blocks that nothing refers to go, thin packs are
//! written anew. Without the day of grace, which would hide what it protects from.

use drivefs_server::drive::Drive;
use drivefs_server::drive::DriveError;
use drivefs_server::drive::collect::Collected;
use drivefs_server::drive::collect::Grace;
use drivefs_server::drive::collect::Round;
use drivefs_server::drive::compact::Compacted;

/// Objects stay for as long as any request is under way.
const GRACE: Grace = Grace { block: 0, dead: 600, orphan: 3600 };

#[derive(Default)]
pub struct Tidying {
    round: Option<Round>,
    rounds: u64,
}

impl Tidying {
    /// Some steps of a round; what ends it between two of them ends the round.
    pub async fn some(
        &mut self,
        drive: &Drive,
        steps: u32,
    ) -> Result<Option<Collected>, DriveError> {
        for _ in 0..steps {
            let mut round = match self.round.take() {
                Some(round) => round,
                None => {
                    self.rounds += 1;
                    Round::begin(drive, GRACE, Some(self.rounds), None).await?
                }
            };
            if !round.step(drive).await? {
                let mut after = None;
                loop {
                    after = drive.compact(after, 0, &mut Compacted::default()).await?;
                    if after.is_none() {
                        return Ok(Some(round.done));
                    }
                }
            }
            self.round = Some(round);
        }
        Ok(None)
    }

    /// A round that was under way when the server died is not gone on with.
    pub fn dies(&mut self) {
        self.round = None;
    }

    /// Whole rounds, until all that is unused is gone.
    pub async fn all(&mut self, drive: &Drive) {
        let mut rounds = 0;
        while rounds < 3 {
            if let Some(done) = self.some(drive, 1_000).await.expect("tidies up") {
                assert_eq!(done.unsure, 0, "a list of blocks cannot be read");
                rounds += 1;
            }
        }
    }
}
