//! Conflict files: the local content that lost the race keeps living beside the committed one, with
//! a mark that tells where it stems from.

use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::limits::XATTRS_MAX_BYTES;
use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;
use drivefs_core::node::Xattrs;
use drivefs_core::wire::Blob;
use serde::Deserialize;
use serde::Serialize;

use super::Invalidation;
use super::Tree;
use super::TreeError;
use super::new_id;
use crate::journal::now;
use crate::state::Conn;
use crate::state::Nid;
use crate::state::Node;

/// Holds the `Mark` of a conflict file, in JSON.
pub use drivefs_core::node::CONFLICT_XATTR;

/// Name of what comes back where nobody knows what it was called.
pub(super) const NAMELESS: &[u8] = b"file";
/// Names tried for one conflict file.
const NAMES_MAX: u32 = 10_000;

/// Where a conflict file stems from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its origin: the node that keeps the name.
    pub node: NodeId,
    /// The version of the origin that it was an edit of; 0 when both files were made separately.
    pub version: VersionNo,
    /// The name of the origin when they came apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The device that wrote it, and when it was kept (ns).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<TimeNs>,
}

impl Mark {
    /// The mark among these attributes. The older form, node and version with a space between
    /// them, is understood.
    pub fn of(xattrs: &Xattrs) -> Option<Self> {
        let bytes = &xattrs.get(CONFLICT_XATTR)?.0;
        if let Ok(mark) = serde_json::from_slice(bytes) {
            return Some(mark);
        }
        let (node, version) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
        let (node, version) = (node.parse().ok()?, version.parse().ok()?);
        Some(Self { node, version, name: None, device: None, at: None })
    }

    /// Puts the mark among these attributes, if there is room for it.
    fn put(&self, xattrs: &mut Xattrs) {
        let value = serde_json::to_vec(self).expect("a mark serialises");
        let others: usize = xattrs.iter().map(|(name, value)| name.len() + value.0.len()).sum();
        if others + CONFLICT_XATTR.len() + value.len() > XATTRS_MAX_BYTES {
            // The server would refuse the file; the name tells, too.
            tracing::warn!("no room for the mark of a conflict file");
            return;
        }
        xattrs.insert(CONFLICT_XATTR.to_owned(), Blob(value));
    }
}

impl Tree {
    /// Turns the row `local` (whose id is about to go to the remote state) into a new node under
    /// conflict names beside each of `places`. Handles on it go on; inside a transaction.
    pub(super) fn become_conflict(
        &self,
        c: &Conn<'_>,
        local: &Node,
        places: &[(Nid, Vec<u8>)],
        base_version: VersionNo,
    ) -> Result<Vec<Invalidation>, TreeError> {
        let mut copy =
            Node { id: new_id(), version: 0, links: 0, superseded: false, ..local.clone() };
        let mut changed = Vec::new();
        self.journal.note_new_node(c, copy.id, copy.ns)?;
        // One file, one conflict file, even if it had several names.
        let (parent, name) = self.place_to_keep(c, local, places)?;
        // What was superseded has its mark: the id in its row is not that of its origin.
        let (origin, version) = match Mark::of(&local.xattrs).filter(|_| local.superseded) {
            Some(mark) => (mark.node, mark.version),
            None => (local.id, base_version),
        };
        self.mark(&mut copy.xattrs, origin, version, &name);
        let dir = c.node(parent)?.ok_or(TreeError::NotFound)?;
        let free = self.free_conflict_name(c, parent, &name)?;
        self.journal.note_dirent(c, dir.ns, dir.id, free.as_bytes(), None, Some(copy.id))?;
        copy.links = 1;
        c.update_node(&copy)?;
        c.put_dirent(parent, free.as_bytes(), copy.nid)?;
        tracing::warn!(file = %free, "conflict: the local change was kept as a file of its own");
        changed.push(Invalidation::Entry { parent, name: free.into_bytes() });
        Ok(changed)
    }

    /// The first of `places` whose folder is there, or the top of the namespace.
    fn place_to_keep(
        &self,
        c: &Conn<'_>,
        local: &Node,
        places: &[(Nid, Vec<u8>)],
    ) -> Result<(Nid, Vec<u8>), TreeError> {
        for (parent, name) in places {
            if c.node(*parent)?.is_some_and(|dir| dir.links > 0) {
                return Ok((*parent, name.clone()));
            }
        }
        let known = places.first().map(|place| place.1.clone());
        let marked = || Mark::of(&local.xattrs).and_then(|mark| mark.name).map(Name::into_bytes);
        let name = known.or_else(marked).unwrap_or_else(|| NAMELESS.to_vec());
        Ok((self.top_of(c, local.ns)?.nid, name))
    }

    /// Before a write to a file whose name went to a newer remote state: gives it a name again.
    pub fn rescue_superseded(&self, nid: Nid) -> Result<(), TreeError> {
        let content = self.spool.content(nid)?;
        let places = content.parts().superseded.clone().unwrap_or_default();
        let changed = self.db.write(|c| {
            let node = c.node(nid)?.ok_or(TreeError::NotFound)?;
            if !node.superseded {
                return Ok(Vec::new());
            }
            let base_version = node.version;
            self.become_conflict(c, &node, &places, base_version)
        })?;
        content.parts_mut().superseded = None;
        self.announce(changed);
        self.journal.wake();
        Ok(())
    }

    /// Marks attributes as those of a conflict file that this device keeps.
    pub(super) fn mark(
        &self,
        xattrs: &mut Xattrs,
        origin: NodeId,
        version: VersionNo,
        name: &[u8],
    ) {
        let mark = Mark {
            node: origin,
            version,
            name: Name::new(name).ok(),
            device: Some(self.device.clone()),
            at: Some(now()),
        };
        mark.put(xattrs);
    }

    /// Marks a file here that goes beside the file `origin` because both were given one name.
    pub(super) fn mark_separate(
        &self,
        c: &Conn<'_>,
        local: &Node,
        origin: &Node,
        name: &[u8],
    ) -> Result<(), TreeError> {
        let both_files = local.kind == NodeKind::File && origin.kind == NodeKind::File;
        if !both_files || local.xattrs.contains_key(CONFLICT_XATTR) {
            return Ok(());
        }
        self.journal.note_node(c, local)?;
        let mut marked = local.clone();
        self.mark(&mut marked.xattrs, origin.id, 0, name);
        Ok(c.update_node(&marked)?)
    }

    /// The first conflict name beside `name` that is free.
    pub(super) fn free_conflict_name(
        &self,
        c: &Conn<'_>,
        parent: Nid,
        name: &[u8],
    ) -> Result<Name, TreeError> {
        let name = Name::new(name)?;
        let date = utc_date(now());
        for n in 1..NAMES_MAX {
            let candidate = name.conflicted_copy(&self.device, &date, n);
            if c.dirent(parent, candidate.as_bytes())?.is_none() {
                return Ok(candidate);
            }
        }
        Err(TreeError::Limit)
    }
}

/// The calendar date of a time in nanoseconds since the epoch, in UTC: `2026-11-22`.
/// Days to civil date after Howard Hinnant, "chrono-compatible low-level date algorithms".
pub fn utc_date(time_ns: i64) -> String {
    let days = time_ns.div_euclid(86_400_000_000_000) + 719_468;
    let era = days.div_euclid(146_097);
    let doe = days.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::CONFLICT_XATTR;
    use super::Mark;
    use super::utc_date;
    use drivefs_core::id::NodeId;
    use drivefs_core::name::Name;
    use drivefs_core::node::Xattrs;
    use drivefs_core::wire::Blob;

    fn marked(value: &[u8]) -> Xattrs {
        Xattrs::from([(CONFLICT_XATTR.to_owned(), Blob(value.to_vec()))])
    }

    #[test]
    fn a_mark_comes_back_with_any_name() {
        let mark = Mark {
            node: NodeId::from_parts(7, [1; 10]),
            version: 3,
            name: Some(Name::new(*b"caf\xe9 $(rm)\n.txt").expect("a name")),
            device: Some("al ice".into()),
            at: Some(5),
        };
        let mut xattrs = Xattrs::new();
        mark.put(&mut xattrs);
        assert_eq!(Mark::of(&xattrs), Some(mark));
    }

    #[test]
    fn an_older_mark_is_understood_and_nonsense_is_none() {
        let node = NodeId::from_parts(7, [1; 10]);
        let old = Mark::of(&marked(format!("{node} 4").as_bytes())).expect("a mark");
        assert_eq!((old.node, old.version, old.name), (node, 4, None));
        assert_eq!(Mark::of(&marked(b"nonsense")), None);
        assert_eq!(Mark::of(&Xattrs::new()), None);
    }

    #[test]
    fn a_mark_without_room_is_left_out() {
        let mark = Mark {
            node: NodeId::from_parts(7, [1; 10]),
            version: 3,
            name: None,
            device: None,
            at: None,
        };
        let full = vec![0; drivefs_core::limits::XATTRS_MAX_BYTES - 10];
        let mut xattrs = Xattrs::from([("user.x".to_owned(), Blob(full))]);
        mark.put(&mut xattrs);
        assert_eq!(xattrs.len(), 1);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        const DAY: i64 = 86_400_000_000_000;
        assert_eq!(utc_date(0), "1970-01-01");
        assert_eq!(utc_date(-1), "1969-12-31");
        assert_eq!(utc_date(DAY * 11_016), "2000-02-29");
        assert_eq!(utc_date(1_795_305_600_000_000_000), "2026-11-22");
    }
}
