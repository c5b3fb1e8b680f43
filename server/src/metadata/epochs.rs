//! Epochs: which run of the server made which commits of a namespace.
//!
//! Data that is restored from a backup gives the same seqs out again, for other commits. Each run
//! of the server has a random epoch, and notes at its first commit of a namespace where that stood.
//! A client that names epoch and seq of what it has seen is thus told whether that is part of this
//! history, and up to where both are the same. (Kafka finds diverged logs by the same means, see its
//! improvement proposal 101, "leader epoch".)

use drivefs_core::id::Epoch;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::Seq;
use drivefs_core::wire::Point;

use super::DbError;
use super::Sql;
use super::value::params;
use crate::host;

/// An epoch that no run had before.
pub fn fresh() -> Epoch {
    // Positive as a signed integer, and not 0.
    (host::random::<u64>() >> 1) | 1
}

/// Notes that `epoch` makes the commit `seq`.
pub fn note(sql: &mut dyn Sql, ns: NamespaceId, seq: Seq, epoch: Epoch) -> Result<(), DbError> {
    let began = seq.saturating_sub(1);
    if at(sql, ns, began + 1)? != epoch {
        sql.exec(
            "INSERT INTO epoch (ns, began_seq, epoch) VALUES (?1, ?2, ?3)
             ON CONFLICT (ns, began_seq) DO UPDATE SET epoch = ?3",
            params![ns, began, epoch],
        )?;
    }
    Ok(())
}

/// The epoch that made the commit `seq`; 0 when that was before epochs were noted.
pub fn at(sql: &mut dyn Sql, ns: NamespaceId, seq: Seq) -> Result<Epoch, DbError> {
    let row = sql.query_one(
        "SELECT epoch FROM epoch WHERE ns = ?1 AND began_seq < ?2
         ORDER BY began_seq DESC LIMIT 1",
        params![ns, seq],
    )?;
    row.map_or(Ok(0), |r| r.get(0))
}

/// True when a point is part of the history of the namespace, which stands at `head`.
pub fn holds(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    head: Seq,
    point: &Point,
) -> Result<bool, DbError> {
    if point.seq > head {
        return Ok(false);
    }
    Ok(point.epoch == 0 || point.seq == 0 || at(sql, ns, point.seq)? == point.epoch)
}

/// The last seq up to which the history that `trail` comes from and this one are the same.
pub fn common(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    head: Seq,
    trail: &[Point],
) -> Result<Seq, DbError> {
    for point in trail.iter().rev().filter(|p| p.epoch != 0) {
        if holds(sql, ns, head, point)? {
            return Ok(point.seq);
        }
        // The same run went on where this history broke off.
        let row = sql.query_one(
            "SELECT began_seq FROM epoch WHERE ns = ?1 AND epoch = ?2 AND began_seq < ?3
             ORDER BY began_seq DESC LIMIT 1",
            params![ns, point.epoch, point.seq],
        )?;
        let Some(row) = row else { continue };
        let began: Seq = row.get(0)?;
        let next = sql.query_one(
            "SELECT began_seq FROM epoch WHERE ns = ?1 AND began_seq > ?2
             ORDER BY began_seq LIMIT 1",
            params![ns, began],
        )?;
        let end = next.map_or(Ok(head), |r| r.get(0))?;
        return Ok(end.min(point.seq));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::schema;
    use crate::metadata::sqlite::Sqlite;

    const NS: NamespaceId = NamespaceId(7);

    fn history(dir: &tempfile::TempDir, name: &str, commits: &[Epoch]) -> Sqlite {
        let mut db = Sqlite::open(&dir.path().join(name)).expect("opens");
        schema::ensure(&mut db).expect("a schema");
        for (epoch, seq) in commits.iter().zip(1..) {
            note(&mut db, NS, seq, *epoch).expect("notes");
        }
        db
    }

    #[test]
    fn points_of_another_history_are_told_and_the_common_part_is_found() {
        let dir = tempfile::tempdir().expect("a folder");
        // Restored after seq 4; what epoch 2 did at 5 and 6, and epoch 3 after that, is gone.
        let mut db = history(&dir, "restored.db", &[1, 1, 2, 2, 9, 9]);
        let point = |epoch, seq| Point { epoch, seq };
        for seq in 1..=6 {
            let epoch = at(&mut db, NS, seq).expect("reads");
            assert!(holds(&mut db, NS, 6, &point(epoch, seq)).expect("reads"));
        }
        for (epoch, seq) in [(2, 5), (2, 6), (3, 7), (9, 7), (0, 7), (3, 4)] {
            assert!(!holds(&mut db, NS, 6, &point(epoch, seq)).expect("reads"), "{epoch} {seq}");
        }
        let mut common = |trail: &[Point]| super::common(&mut db, NS, 6, trail).expect("reads");
        assert_eq!(common(&[point(1, 2), point(2, 6), point(3, 9)]), 4);
        assert_eq!(common(&[point(1, 2), point(3, 9)]), 2);
        assert_eq!(common(&[point(1, 2), point(2, 3)]), 3);
        assert_eq!(common(&[point(9, 8)]), 6);
        assert_eq!(common(&[point(5, 9)]), 0);
        assert_eq!(common(&[]), 0);
    }

    #[test]
    fn epochs_that_take_turns_are_kept_apart() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut db = history(&dir, "turns.db", &[1, 5, 1, 1, 6]);
        assert_eq!(
            (1..=5).map(|s| at(&mut db, NS, s).expect("reads")).collect::<Vec<_>>(),
            [1, 5, 1, 1, 6]
        );
        let trail = [Point { epoch: 1, seq: 8 }];
        assert_eq!(common(&mut db, NS, 5, &trail), Ok(4));
    }
}
