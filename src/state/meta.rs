//! Small values by key, and the namespaces of the drive.

use drivefs_core::id::Epoch;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::Seq;
use drivefs_core::limits::TRAIL_MAX;
use drivefs_core::wire::Point;
use drivefs_core::wire::Role;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;

use super::Conn;
use super::DbError;
use super::Nid;

/// A namespace that this drive shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceRow {
    pub ns: NamespaceId,
    pub root: Nid,
    pub cursor: Seq,
    pub role: Role,
}

impl Conn<'_> {
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, DbError> {
        let mut s = self.sql.prepare_cached("SELECT value FROM meta WHERE key=?1")?;
        Ok(s.query_row([key], |r| r.get(0)).optional()?)
    }

    pub fn set_meta(&self, key: &str, value: &[u8]) -> Result<(), DbError> {
        self.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![key, value])?;
        Ok(())
    }

    pub fn delete_meta(&self, key: &str) -> Result<(), DbError> {
        self.execute("DELETE FROM meta WHERE key=?1", params![key])?;
        Ok(())
    }

    pub fn namespaces(&self) -> Result<Vec<NamespaceRow>, DbError> {
        let mut s = self.sql.prepare_cached("SELECT ns, root, cursor, role FROM namespace")?;
        let rows = s.query_map([], namespace_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn namespace(&self, ns: NamespaceId) -> Result<Option<NamespaceRow>, DbError> {
        let mut s =
            self.sql.prepare_cached("SELECT ns, root, cursor, role FROM namespace WHERE ns=?1")?;
        Ok(s.query_row([ns.0 as i64], namespace_row).optional()?)
    }

    pub fn put_namespace(&self, row: &NamespaceRow) -> Result<(), DbError> {
        let role = match row.role {
            Role::Viewer => 0,
            Role::Editor => 1,
            Role::Owner => 2,
        };
        self.execute(
            "INSERT OR REPLACE INTO namespace VALUES (?1, ?2, ?3, ?4)",
            params![row.ns.0 as i64, row.root as i64, row.cursor as i64, role],
        )?;
        Ok(())
    }
}

impl Conn<'_> {
    /// Moves a namespace to its cursor, a commit of `epoch`.
    pub fn move_cursor(&self, row: &NamespaceRow, epoch: Epoch) -> Result<(), DbError> {
        self.note_point(row.ns, Point { epoch, seq: row.cursor })?;
        self.put_namespace(row)
    }

    /// Notes a commit that is known of. Our own may be behind the cursor: what they did is here
    /// before what others did in between.
    pub fn note_point(&self, ns: NamespaceId, point: Point) -> Result<(), DbError> {
        let mut trail = self.trail(ns)?;
        match trail.last_mut() {
            Some(last) if last.seq >= point.seq => return Ok(()),
            Some(last) if last.epoch == point.epoch => *last = point,
            _ => trail.push(point),
        }
        let over = trail.len().saturating_sub(TRAIL_MAX);
        self.put_trail(ns, &trail[over..])
    }

    /// The newest point of each epoch that is known of a namespace, oldest first.
    pub fn trail(&self, ns: NamespaceId) -> Result<Vec<Point>, DbError> {
        let Some(json) = self.meta(&trail_key(ns))? else { return Ok(Vec::new()) };
        serde_json::from_slice(&json).map_err(|e| DbError::Damaged(format!("trail: {e}")))
    }

    pub fn put_trail(&self, ns: NamespaceId, trail: &[Point]) -> Result<(), DbError> {
        let json = serde_json::to_vec(trail).expect("numbers serialise");
        self.set_meta(&trail_key(ns), &json)
    }

    /// The newest commit of a namespace that is known of.
    pub fn newest_point(&self, row: &NamespaceRow) -> Result<Point, DbError> {
        let last = self.trail(row.ns)?.pop().filter(|point| point.seq >= row.cursor);
        Ok(last.unwrap_or(Point { epoch: 0, seq: row.cursor }))
    }

    /// The cursor of a namespace as a commit; of epoch 0 where more is known of.
    pub fn point(&self, row: &NamespaceRow) -> Result<Point, DbError> {
        let last = self.trail(row.ns)?.pop().filter(|point| point.seq == row.cursor);
        Ok(last.unwrap_or(Point { epoch: 0, seq: row.cursor }))
    }
}

fn trail_key(ns: NamespaceId) -> String {
    format!("trail {ns}")
}

fn namespace_row(r: &Row<'_>) -> rusqlite::Result<NamespaceRow> {
    Ok(NamespaceRow {
        ns: NamespaceId(r.get::<_, i64>(0)? as u64),
        root: r.get::<_, i64>(1)? as u64,
        cursor: r.get::<_, i64>(2)? as u64,
        role: match r.get::<_, i64>(3)? {
            0 => Role::Viewer,
            1 => Role::Editor,
            _ => Role::Owner,
        },
    })
}
