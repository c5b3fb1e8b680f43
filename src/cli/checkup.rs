//! The check of a large state database, which would take too long before a mount: in the
//! background, at most once a day. A small one is checked whenever it is opened.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use drivefs_core::node::TimeNs;
use tokio::sync::oneshot;

use crate::home::Home;
use crate::journal::now;
use crate::state::Db;
use crate::state::DbError;

/// Shortest time between two checks.
const CHECK_EVERY_NS: TimeNs = 24 * 3600 * 1_000_000_000;
/// How often is looked whether one is due, and how long after the mount first: it reads the whole
/// database, and a mount has other things to read.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
const FIRST_LOOK: Duration = Duration::from_secs(60);
/// Key in `meta`: when the last check found nothing (ns, little-endian).
const CHECKED_KEY: &str = "checked_at";

/// Checks now and then until damage is found, which `found` hears of and `status` shows.
pub async fn watch(db: Arc<Db>, home: Home, found: oneshot::Sender<String>) {
    tokio::time::sleep(FIRST_LOOK).await;
    look(db, home, found).await;
}

async fn look(db: Arc<Db>, home: Home, found: oneshot::Sender<String>) {
    loop {
        let at = db.clone();
        let checked = tokio::task::spawn_blocking(move || check_if_due(&at, now())).await;
        match checked {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => forget_damage(&home),
            Ok(Err(DbError::Damaged(what))) => {
                let text = advice(&home, &DbError::Damaged(what).to_string());
                tracing::error!("{text}");
                if let Err(error) = fs::write(note(&home), &text) {
                    tracing::error!(%error, "could not note the damage");
                }
                // The daemon ends by itself when nobody listens any more.
                let _ = found.send(text);
                return;
            }
            Ok(Err(error)) => tracing::warn!(%error, "could not check the state database"),
            Err(error) => tracing::error!(%error, "checking the state database"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Checks the database unless that was done less than a day before `time`. True if it was checked.
fn check_if_due(db: &Db, time: TimeNs) -> Result<bool, DbError> {
    let last = db.peek(|c| c.meta(CHECKED_KEY))?;
    let last = last.and_then(|v| v.try_into().ok()).map(TimeNs::from_le_bytes);
    // A time to come is one of a clock that was set back since.
    if last.is_some_and(|last| last <= time && time - last < CHECK_EVERY_NS) {
        return Ok(false);
    }
    db.check()?;
    db.change(|c| c.set_meta(CHECKED_KEY, &time.to_le_bytes()))?;
    Ok(true)
}

/// What to do about a damaged database.
pub fn advice(home: &Home, what: &str) -> String {
    format!(
        "{what}\n{} cannot be used. Nothing on the server is affected, and what was written here \
         lies in {}. `drivefs doctor --rebuild` makes a new database from both and puts what the \
         server does not have into a folder of its own",
        home.database().display(),
        home.data().display(),
    )
}

fn note(home: &Home) -> PathBuf {
    home.root().join("damage.txt")
}

/// The damage that the last check found.
pub fn known_damage(home: &Home) -> Option<String> {
    fs::read_to_string(note(home)).ok()
}

/// Nothing is damaged (any more).
pub fn forget_damage(home: &Home) {
    match fs::remove_file(note(home)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "could not remove the note of an old damage");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_check_is_due_once_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("state.db")).unwrap();
        let time = 1_700_000_000_000_000_000;
        assert!(check_if_due(&db, time).unwrap());
        assert!(!check_if_due(&db, time + CHECK_EVERY_NS - 1).unwrap());
        assert!(check_if_due(&db, time + CHECK_EVERY_NS).unwrap());
        // The clock was set back.
        assert!(check_if_due(&db, time).unwrap());
    }

    #[test]
    fn damage_is_found_noted_and_told_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path()).unwrap();
        let db = Db::open(&home.database()).unwrap();
        // Enough for a checkpoint, so that it lies in the file itself.
        for i in 0..3000 {
            db.change(|c| c.set_meta(&format!("key {i}"), &[7; 5000])).unwrap();
        }
        db.flush().unwrap();
        db.checkpoint().unwrap();
        let file = fs::File::options().write(true).open(home.database()).unwrap();
        let size = file.metadata().unwrap().len();
        for page in (size / 2 / 4096..size / 4096).step_by(2) {
            file.write_all_at(&[0xa5; 4096], page * 4096).unwrap();
        }
        assert!(matches!(check_if_due(&db, 1), Err(DbError::Damaged(_))));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (tell, found) = oneshot::channel();
        let text = runtime.block_on(async {
            tokio::spawn(look(Arc::new(db), home.clone(), tell));
            found.await.unwrap()
        });
        assert!(text.contains("doctor --rebuild"), "{text}");
        assert_eq!(known_damage(&home), Some(text));
        forget_damage(&home);
        assert_eq!(known_damage(&home), None);
    }
}
