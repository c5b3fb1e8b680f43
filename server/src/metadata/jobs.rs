//! Background jobs: one row a kind, with where it goes on after whatever ended it.

use super::DbError;
use super::Sql;
use super::value::Row;
use super::value::params;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub kind: String,
    /// When it is to run next, or to go on (seconds).
    pub due: i64,
    /// JSON; none when it is not under way.
    pub position: Option<String>,
    /// JSON: what it did so far, or the last time.
    pub report: Option<String>,
    pub began: Option<i64>,
    pub ended: Option<i64>,
    pub error: Option<String>,
    pub failures: u32,
}

const COLUMNS: &str = "kind, due, position, report, began, ended, error, failures";

pub fn find(sql: &mut dyn Sql, kind: &str) -> Result<Option<Job>, DbError> {
    let statement = format!("SELECT {COLUMNS} FROM job WHERE kind = ?1");
    sql.query_one(&statement, params![kind])?.as_ref().map(job_of).transpose()
}

pub fn list(sql: &mut dyn Sql) -> Result<Vec<Job>, DbError> {
    let statement = format!("SELECT {COLUMNS} FROM job ORDER BY kind");
    sql.query(&statement, &[])?.iter().map(job_of).collect()
}

pub fn put(sql: &mut dyn Sql, job: &Job) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO job (kind, due, position, report, began, ended, error, failures)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (kind) DO UPDATE SET due = ?2, position = ?3, report = ?4, began = ?5,
             ended = ?6, error = ?7, failures = ?8",
        params![
            &job.kind[..],
            job.due,
            job.position.clone(),
            job.report.clone(),
            job.began,
            job.ended,
            job.error.clone(),
            job.failures,
        ],
    )?;
    Ok(())
}

fn job_of(r: &Row) -> Result<Job, DbError> {
    Ok(Job {
        kind: r.get(0)?,
        due: r.get(1)?,
        position: r.get(2)?,
        report: r.get(3)?,
        began: r.get(4)?,
        ended: r.get(5)?,
        error: r.get(6)?,
        failures: r.get(7)?,
    })
}
