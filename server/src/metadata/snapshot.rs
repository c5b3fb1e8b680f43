//! Copies of a whole database: for backups, and before an upgrade changes it.
//!
//! A copy is one state of the database, taken while others write. It is on disk when it is there
//! under its name.

use std::fs;
use std::fs::File;
use std::path::Path;

use super::DbError;
use super::Sql;
use super::schema;
use super::server;
use super::sqlite::Sqlite;
use super::value::params;

/// Copies the database `from` to a file that is not there yet. Blocks no writer; takes as much room
/// as the rows need.
pub fn copy(from: &Path, to: &Path) -> Result<(), DbError> {
    let name = to.to_str().ok_or_else(|| DbError::Other("the path is not UTF-8".into()))?;
    let mut db = Sqlite::open(from)?;
    db.exec("VACUUM INTO ?1", params![name])?;
    sync(to)
}

/// Brings all that was written into the one file of a database that nobody has open any more.
pub fn settle(path: &Path) -> Result<(), DbError> {
    let mut db = Sqlite::open(path)?;
    let row = db.query_one("PRAGMA wal_checkpoint(TRUNCATE)", &[])?;
    if row.map_or(Ok(1), |r| r.get::<i64>(0))? != 0 {
        return Err(DbError::Busy);
    }
    drop(db);
    sync(path)
}

fn sync(path: &Path) -> Result<(), DbError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|e| DbError::Other(format!("{}: {e}", path.display())))
}

/// A copy that is only read: nothing of it changes, no file comes beside it.
pub struct Copy {
    db: Sqlite,
}

impl Copy {
    pub fn open(path: &Path) -> Result<Self, DbError> {
        Ok(Self { db: Sqlite::open_copy(path)? })
    }

    pub fn sql(&mut self) -> &mut dyn Sql {
        &mut self.db
    }
}

/// The schema version of a database; 0 for an empty one.
pub fn version(sql: &mut dyn Sql) -> Result<i64, DbError> {
    let text = server::note(sql, "schema_version")?;
    text.map_or(Ok(0), |t| t.parse().map_err(|_| DbError::Decode("schema version")))
}

/// The newest schema version that this program knows.
pub const NEWEST: i64 = schema::VERSION;

/// Keeps a copy of a database that this program is about to upgrade, beside it. An older copy of
/// the same version stays: it cannot be one that was upgraded half-way.
pub fn before_upgrade(path: &Path) -> Result<(), DbError> {
    let Some(found) = outdated(path)? else { return Ok(()) };
    let mut kept = path.as_os_str().to_owned();
    kept.push(format!(".before-upgrade-from-{found}"));
    let kept = Path::new(&kept);
    if kept.exists() {
        return Ok(());
    }
    tracing::info!(to = %kept.display(), "copying the database before it is upgraded");
    let mut draft = kept.as_os_str().to_owned();
    draft.push(format!(".{:016x}", crate::host::random::<u64>()));
    let draft = Path::new(&draft);
    let failed = |e: &dyn std::fmt::Display| {
        DbError::Other(format!(
            "before the upgrade from schema version {found} the database is copied to {}, and \
             that failed: {e}. Nothing was changed; make room for the copy and start again",
            kept.display()
        ))
    };
    let copied = copy(path, draft).map_err(|e| failed(&e)).and_then(|()| {
        // Never over a copy that another process has just made.
        match fs::hard_link(draft, kept) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(&e)),
            _ => Ok(()),
        }
    });
    if let Err(e) = fs::remove_file(draft)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(error = %e, path = %draft.display(), "a draft stays behind");
    }
    copied?;
    match kept.parent() {
        Some(dir) => sync(dir),
        None => Ok(()),
    }
}

/// The version of a database that an upgrade would change.
fn outdated(path: &Path) -> Result<Option<i64>, DbError> {
    if !path.exists() {
        return Ok(None);
    }
    let mut db = Sqlite::open(path)?;
    let made =
        db.query_one("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta'", &[])?;
    if made.is_none() {
        return Ok(None);
    }
    let found = version(&mut db)?;
    Ok((found > 0 && found < NEWEST).then_some(found))
}
