//! When a device deletes or rewrites so much in so short a time that everybody should hear of it.
//!
//! Counts files whose content had stood for longer than the window: each counts once, and what is
//! made and removed on the way does not. Two windows, the older one weighted by how much of it still
//! counts; pure but for the question how many names there are.

use drivefs_core::limits::MASS_FILES;
use drivefs_core::limits::MASS_HALF_FILES;
use drivefs_core::limits::MASS_WINDOW_SECS;
use drivefs_core::name::Name;
use drivefs_core::node::TimeNs;
use drivefs_core::wire::MassChange;
use serde::Deserialize;
use serde::Serialize;

const WINDOW: TimeNs = MASS_WINDOW_SECS * 1_000_000_000;
/// What goes on without a pause is told again after this time.
const TOLD_AGAIN: TimeNs = 12 * WINDOW;

/// Files that one commit deleted or rewrote.
#[derive(Debug, Clone, Default)]
pub struct Loss {
    deleted: u64,
    rewritten: u64,
    /// The folder that all of it was in.
    folder: Option<Vec<Name>>,
    /// The last one counted, as the commit lists it.
    seen: Option<u32>,
}

impl Loss {
    /// One more file, in a folder by its number in the commit's list and by its path.
    pub fn add(&mut self, deleted: bool, folder: u32, path: impl FnOnce() -> Vec<Name>) {
        self.deleted += u64::from(deleted);
        self.rewritten += u64::from(!deleted);
        if self.seen.replace(folder) != Some(folder) {
            self.folder = common(self.folder.take(), Some(path()));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.deleted + self.rewritten == 0
    }
}

/// The counter of one device in one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// When the present window began.
    begun: TimeNs,
    present: Window,
    /// The window before it.
    past: Window,
    last: TimeNs,
    told: Option<TimeNs>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Window {
    deleted: u64,
    rewritten: u64,
    first: TimeNs,
    folder: Option<Vec<Name>>,
}

impl Window {
    fn files(&self) -> u64 {
        self.deleted + self.rewritten
    }
}

impl Counter {
    /// As it was stored; what cannot be read counts from nothing.
    pub fn of(text: Option<&str>) -> Self {
        text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("numbers and names serialise")
    }

    /// Counts a commit; says so when it is the one that makes it too much. `names` counts the names
    /// there are now, up to a limit.
    pub fn count<E>(
        &mut self,
        at: TimeNs,
        loss: &Loss,
        names: impl FnOnce(u64) -> Result<u64, E>,
    ) -> Result<Option<MassChange>, E> {
        if at - self.begun >= 2 * WINDOW {
            (self.past, self.present, self.begun) = (Window::default(), Window::default(), at);
        } else if at - self.begun >= WINDOW {
            self.past = std::mem::take(&mut self.present);
            self.begun += WINDOW;
        }
        if at - self.last > WINDOW || self.told.is_some_and(|told| at - told > TOLD_AGAIN) {
            self.told = None;
        }
        self.last = at;
        let now = &mut self.present;
        if now.files() == 0 {
            now.first = at;
        }
        now.deleted += loss.deleted;
        now.rewritten += loss.rewritten;
        now.folder = common(now.folder.take(), loss.folder.clone());
        if self.told.is_some() || !self.is_much(at, names)? {
            return Ok(None);
        }
        self.told = Some(at);
        let (now, past) = (&self.present, &self.past);
        let first = if past.files() > 0 { past.first } else { now.first };
        Ok(Some(MassChange {
            deleted: now.deleted + past.deleted,
            rewritten: now.rewritten + past.rewritten,
            since: first - 1,
            folder: common(past.folder.clone(), now.folder.clone()).unwrap_or_default(),
        }))
    }

    fn is_much<E>(&self, at: TimeNs, names: impl FnOnce(u64) -> Result<u64, E>) -> Result<bool, E> {
        let left = u64::try_from((WINDOW - (at - self.begun)).max(0)).unwrap_or(0);
        let window = WINDOW.unsigned_abs();
        let past = u128::from(self.past.files()) * u128::from(left) / u128::from(window);
        let files = self.present.files() + u64::try_from(past).unwrap_or(u64::MAX);
        if !(MASS_HALF_FILES..MASS_FILES).contains(&files) {
            return Ok(files >= MASS_FILES);
        }
        let there = names(2 * files + 1)?;
        Ok(2 * files >= there + self.present.deleted + self.past.deleted)
    }
}

/// The folder that both are in; none stands for nothing yet.
fn common(a: Option<Vec<Name>>, b: Option<Vec<Name>>) -> Option<Vec<Name>> {
    match (a, b) {
        (Some(a), Some(b)) => {
            Some(a.into_iter().zip(b).take_while(|(a, b)| a == b).map(|(a, _)| a).collect())
        }
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const START: TimeNs = 1_800_000_000_000_000_000;
    const SEC: TimeNs = 1_000_000_000;

    fn loss(deleted: u64, rewritten: u64, folder: &[&str]) -> Loss {
        let path: Vec<Name> = folder.iter().map(|n| Name::new(*n).expect("valid")).collect();
        let mut loss = Loss::default();
        (0..deleted).for_each(|_| loss.add(true, 0, || path.clone()));
        (0..rewritten).for_each(|_| loss.add(false, 0, || path.clone()));
        loss
    }

    fn count(c: &mut Counter, secs: i64, loss: &Loss, names: u64) -> Option<MassChange> {
        // As it goes through the database.
        *c = Counter::of(Some(&c.text()));
        let counted =
            c.count(START + secs * SEC, loss, |limit| Ok::<_, Infallible>(names.min(limit)));
        counted.expect("counts")
    }

    #[test]
    fn many_files_within_the_window_are_told_once_with_their_folder_and_beginning() {
        let mut c = Counter::default();
        assert_eq!(count(&mut c, 0, &loss(200, 0, &["a", "b"]), 100_000), None);
        assert_eq!(count(&mut c, 100, &loss(0, 200, &["a", "c"]), 100_000), None);
        let told = count(&mut c, 200, &loss(100, 0, &["a", "b"]), 100_000).expect("much");
        assert_eq!((told.deleted, told.rewritten), (300, 200));
        assert_eq!(told.folder, [Name::new("a").expect("valid")]);
        assert_eq!(told.since, START - 1);
        assert_eq!(count(&mut c, 201, &loss(1000, 0, &["a"]), 100_000), None, "once a burst");
        assert_eq!(count(&mut c, 499, &loss(1000, 0, &["a"]), 100_000), None, "it goes on");
        let again = count(&mut c, 900, &loss(600, 0, &["z"]), 100_000).expect("after a pause");
        assert_eq!((again.deleted, again.since), (600, START + 900 * SEC - 1));
    }

    #[test]
    fn a_window_that_slides_misses_nothing_at_its_edge() {
        let mut c = Counter::default();
        assert_eq!(count(&mut c, 0, &loss(1, 0, &[]), 100_000), None);
        assert_eq!(count(&mut c, 290, &loss(300, 0, &[]), 100_000), None);
        let told = count(&mut c, 310, &loss(300, 0, &[]), 100_000).expect("600 within 20 s");
        assert_eq!(told.deleted, 601);
    }

    #[test]
    fn ordinary_work_is_not_told() {
        let mut c = Counter::default();
        for n in 0..200 {
            assert_eq!(count(&mut c, n * 60, &loss(20, 20, &[]), 100_000), None, "minute {n}");
        }
    }

    #[test]
    fn half_of_a_small_drive_is_much() {
        let mut c = Counter::default();
        assert_eq!(count(&mut c, 0, &loss(49, 0, &[]), 3), None, "too few to speak of");
        assert!(count(&mut c, 1, &loss(1, 0, &[]), 50).is_some(), "50 of 100");
        let mut c = Counter::default();
        assert_eq!(count(&mut c, 0, &loss(50, 0, &[]), 51), None, "50 of 101");
        assert!(count(&mut c, 1, &loss(0, 1, &[]), 51).is_some(), "51 of 101");
    }
}
