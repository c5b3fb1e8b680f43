//! Conflict files: the local content that lost the race keeps living beside the committed one.

use drivefs_core::id::VersionNo;
use drivefs_core::name::Name;
use drivefs_core::wire::Blob;

use super::Invalidation;
use super::Tree;
use super::TreeError;
use super::new_id;
use crate::journal::now;
use crate::state::Conn;
use crate::state::Nid;
use crate::state::Node;

/// Extended attribute of a conflict file: the node it stems from and the version it was based on.
pub const CONFLICT_XATTR: &str = "user.drivefs.conflict-of";
/// Names tried for one conflict file.
const NAMES_MAX: u32 = 10_000;

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
        let origin = format!("{} {base_version}", local.id);
        copy.xattrs.insert(CONFLICT_XATTR.to_owned(), Blob(origin.into_bytes()));
        let mut changed = Vec::new();
        self.journal.note_new_node(c, copy.id, copy.ns)?;
        // One file, one conflict file, even if it had several names.
        let (parent, name) =
            places.first().cloned().unwrap_or((crate::state::ROOT, b"file".to_vec()));
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
fn utc_date(time_ns: i64) -> String {
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
    use super::utc_date;

    #[test]
    fn dates_are_those_of_the_calendar() {
        const DAY: i64 = 86_400_000_000_000;
        assert_eq!(utc_date(0), "1970-01-01");
        assert_eq!(utc_date(-1), "1969-12-31");
        assert_eq!(utc_date(DAY * 11_016), "2000-02-29");
        assert_eq!(utc_date(1_795_305_600_000_000_000), "2026-11-22");
    }
}
