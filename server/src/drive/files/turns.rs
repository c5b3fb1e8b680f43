//! One request at a time adds to an upload. Who comes later has given the earlier one up: that stops,
//! keeps what it has, and only then the later one looks how far the upload is.
//!
//! Of this process alone; between processes the condition on every step decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::metadata::uploads::UploadId;

#[derive(Clone, Default)]
pub struct Turns {
    slots: Arc<Mutex<HashMap<UploadId, Weak<Slot>>>>,
}

struct Slot {
    busy: Arc<tokio::sync::Mutex<()>>,
    /// How many have wanted a turn.
    wanted: watch::Sender<u64>,
}

/// The right to add to an upload.
pub struct Turn {
    slot: Arc<Slot>,
    number: u64,
    _busy: OwnedMutexGuard<()>,
}

impl Turns {
    /// Waits for the turn, which whoever has it now gives up.
    pub async fn take(&self, upload: UploadId) -> Turn {
        let slot = self.slot(upload);
        let mut number = 0;
        slot.wanted.send_modify(|wanted| {
            *wanted += 1;
            number = *wanted;
        });
        let busy = Arc::clone(&slot.busy).lock_owned().await;
        Turn { slot, number, _busy: busy }
    }

    /// Waits a little until nobody has a turn.
    pub async fn quiet(&self, upload: UploadId, most: Duration) {
        let slot = self.slot(upload);
        // One that takes long goes on; what is asked is then answered as it is on disk.
        let _ = timeout(most, slot.busy.lock()).await;
    }

    fn slot(&self, upload: UploadId) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&upload).and_then(Weak::upgrade) {
            return slot;
        }
        slots.retain(|_, slot| slot.strong_count() > 0);
        let slot = Arc::new(Slot { busy: Arc::default(), wanted: watch::Sender::new(0) });
        slots.insert(upload, Arc::downgrade(&slot));
        slot
    }
}

impl Turn {
    /// Returns when somebody else wants the turn.
    pub async fn is_wanted(&self) {
        let mut wanted = self.slot.wanted.subscribe();
        // The sender lives as long as this turn.
        let _ = wanted.wait_for(|wanted| *wanted > self.number).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[tokio::test]
    async fn the_later_comes_when_the_earlier_has_stopped() {
        let turns = Turns::default();
        let id = UploadId(Uuid::from_u128(1));
        let first = turns.take(id).await;
        let later = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(id).await }
        });
        first.is_wanted().await;
        assert!(!later.is_finished());
        drop(first);
        let second = later.await.expect("its turn");
        let nobody = timeout(Duration::from_millis(20), second.is_wanted()).await;
        assert!(nobody.is_err());
        turns.quiet(id, Duration::from_millis(1)).await;
        drop(second);
        turns.quiet(id, Duration::from_secs(60)).await;
    }
}
