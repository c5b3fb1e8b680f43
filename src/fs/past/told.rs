//! What the server said about the past, kept for a while: bounded by bytes, the least recently used
//! goes first.
//!
//! An answer is as new as the mount itself while the cursor of its namespace has not moved. Only what
//! moves no cursor (an emptied trash, versions that were thinned out) shows after some seconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::id::VersionNo;
use drivefs_core::node::Attrs;
use drivefs_core::node::TimeNs;
use drivefs_core::wire::Blob;
use drivefs_core::wire::GoneEntry;
use lru::LruCache;

/// How long an answer is good while nothing is known to have changed, and at all for looking up what
/// a listing has just told.
const GOOD: Duration = Duration::from_secs(10);
const GOOD_FOR_NAMES: Duration = Duration::from_millis(500);
/// Block lists of one file are kept up to this much (bytes); of older versions they are asked for.
const ROOTS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Memory of an entry beside its bytes, about.
const ENTRY_BYTES: usize = 96;

/// What is asked of the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Question {
    /// The versions of a file.
    Versions(NamespaceId, NodeId),
    /// Names of what was deleted out of a folder.
    Names(NamespaceId, NodeId),
    /// What was deleted at one place.
    Place(NamespaceId, NodeId, Vec<u8>),
}

impl Question {
    pub fn ns(&self) -> NamespaceId {
        match self {
            Self::Versions(ns, _) | Self::Names(ns, _) | Self::Place(ns, _, _) => *ns,
        }
    }
}

#[derive(Debug, Clone)]
pub enum Answer {
    Versions(Arc<Versions>),
    Names(Arc<BTreeMap<Vec<u8>, GoneEntry>>),
    Place(Arc<Vec<GoneEntry>>),
}

/// The versions of a file, oldest first.
#[derive(Debug)]
pub struct Versions {
    /// Attributes of the file now.
    pub attrs: Attrs,
    pub rows: Vec<Version>,
}

#[derive(Debug)]
pub struct Version {
    pub version: VersionNo,
    pub size: u64,
    pub committed: TimeNs,
    pub device: String,
    /// Encoded manifest root, while that is not too much.
    pub root: Option<Blob>,
}

impl Versions {
    /// Takes rows that come newest first.
    pub fn new(attrs: Attrs, mut rows: Vec<Version>) -> Self {
        let mut bytes = 0;
        for row in &mut rows {
            bytes += row.root.as_ref().map_or(0, |root| root.0.len());
            if bytes > ROOTS_BYTES_MAX {
                row.root = None;
            }
        }
        rows.reverse();
        Self { attrs, rows }
    }

    pub fn find(&self, version: VersionNo) -> Option<&Version> {
        let at = self.rows.binary_search_by_key(&version, |row| row.version).ok()?;
        self.rows.get(at)
    }

    pub fn newest(&self) -> VersionNo {
        self.rows.last().map_or(0, |row| row.version)
    }
}

impl Answer {
    fn bytes(&self) -> usize {
        let entry = |e: &GoneEntry| ENTRY_BYTES + 2 * e.name.as_bytes().len();
        ENTRY_BYTES
            + match self {
                Self::Versions(all) => {
                    let row = |v: &Version| {
                        let root = v.root.as_ref().map_or(0, |root| root.0.len());
                        ENTRY_BYTES + v.device.len() + root
                    };
                    all.rows.iter().map(row).sum::<usize>()
                }
                Self::Names(names) => names.values().map(entry).sum(),
                Self::Place(former) => former.iter().map(entry).sum(),
            }
    }
}

/// How new an answer has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// As new as the tree: what a listing shows.
    Newest,
    /// As of a moment ago: what was listed, looked up.
    Recent,
    /// Any: it cannot have changed, or nothing newer can be had.
    Any,
}

struct Told {
    answer: Answer,
    at: Instant,
    cursor: Option<Seq>,
    bytes: usize,
}

/// Answers by question.
pub struct Answers {
    told: LruCache<Question, Told>,
    bytes: usize,
    bytes_max: usize,
}

impl Answers {
    pub fn new(bytes_max: usize) -> Self {
        Self { told: LruCache::unbounded(), bytes: 0, bytes_max }
    }

    /// An answer that is new enough, where the cursor of the namespace stands at `cursor`.
    pub fn get(
        &mut self,
        question: &Question,
        want: Want,
        cursor: Option<Seq>,
        now: Instant,
    ) -> Option<Answer> {
        let told = self.told.get(question)?;
        let age = now.saturating_duration_since(told.at);
        let is_newest = told.cursor == cursor && age < GOOD;
        let good = match want {
            Want::Newest => is_newest,
            Want::Recent => is_newest || age < GOOD_FOR_NAMES,
            Want::Any => true,
        };
        good.then(|| told.answer.clone())
    }

    /// Keeps an answer that was asked for when the cursor stood at `cursor`.
    pub fn put(&mut self, question: Question, answer: Answer, cursor: Option<Seq>, now: Instant) {
        let bytes = answer.bytes();
        if let Some(before) = self.told.put(question, Told { answer, at: now, cursor, bytes }) {
            self.bytes -= before.bytes;
        }
        self.bytes += bytes;
        // The last one stays even if it is larger by itself: somebody is about to use it.
        while self.bytes > self.bytes_max
            && self.told.len() > 1
            && let Some((_, oldest)) = self.told.pop_lru()
        {
            self.bytes -= oldest.bytes;
        }
    }

    pub fn forget(&mut self, question: &Question) {
        if let Some(told) = self.told.pop(question) {
            self.bytes -= told.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: NamespaceId = NamespaceId(1);

    fn file(n: u8) -> Question {
        Question::Versions(NS, NodeId::from_parts(1, [n; 10]))
    }

    fn answer(versions: u64, root: usize) -> Answer {
        let attrs = Attrs { mode: 0o644, uid: None, gid: None, mtime: 0, btime: 0 };
        let row = |version| Version {
            version,
            size: 0,
            committed: 0,
            device: String::new(),
            root: Some(Blob(vec![0; root])),
        };
        Answer::Versions(Arc::new(Versions::new(attrs, (1..=versions).rev().map(row).collect())))
    }

    #[test]
    fn an_answer_is_the_newest_until_the_cursor_moves() {
        let mut answers = Answers::new(1 << 20);
        let start = Instant::now();
        answers.put(file(1), answer(1, 10), Some(5), start);
        let mut has = |want, cursor, after: u64| {
            let now = start + Duration::from_millis(after);
            answers.get(&file(1), want, Some(cursor), now).is_some()
        };
        assert!(has(Want::Newest, 5, 9_999) && !has(Want::Newest, 5, 10_001));
        assert!(!has(Want::Newest, 6, 1));
        assert!(has(Want::Recent, 6, 499) && !has(Want::Recent, 6, 501));
        assert!(has(Want::Recent, 5, 9_999) && !has(Want::Recent, 5, 10_001));
        assert!(has(Want::Any, 6, 1_000_000));
        assert!(answers.get(&file(2), Want::Any, Some(5), start).is_none());
    }

    #[test]
    fn memory_is_bounded_and_the_least_recently_used_goes_first() {
        let (mut answers, now) = (Answers::new(100_000), Instant::now());
        for n in 0..100 {
            answers.put(file(n), answer(3, 10_000), None, now);
            assert!(answers.get(&file(0), Want::Any, None, now).is_some());
            assert!(answers.bytes <= 100_000);
        }
        assert!(answers.get(&file(1), Want::Any, None, now).is_none());
        assert_eq!(answers.bytes, answers.told.iter().map(|(_, t)| t.bytes).sum::<usize>());
        answers.forget(&file(0));
        answers.put(file(99), answer(1, 1), None, now);
        assert_eq!(answers.bytes, answers.told.iter().map(|(_, t)| t.bytes).sum::<usize>());
    }

    #[test]
    fn of_too_many_versions_the_older_ones_have_no_block_list() {
        let Answer::Versions(all) = answer(1000, 10_000) else { panic!("versions") };
        assert_eq!((all.newest(), all.rows[0].version), (1000, 1));
        assert!(all.find(1000).expect("is there").root.is_some());
        assert!(all.find(1).expect("is there").root.is_none());
        assert!(all.find(1001).is_none());
        let kept = all.rows.iter().filter(|v| v.root.is_some()).count();
        assert_eq!(kept, ROOTS_BYTES_MAX / 10_000);
    }
}
