//! What a disk store tells about itself.

use rusqlite::Connection;

use super::bound::Totals;
use super::members;

/// Counts and sizes of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Records in the store.
    pub rows: u64,
    /// Bytes of their envelopes.
    pub bytes: u64,
    /// Bytes of the database file.
    pub file_bytes: u64,
    /// Bytes of the write-ahead log.
    pub log_bytes: u64,
    /// Bytes of the log's index.
    pub index_bytes: u64,
    /// The bound on the three together.
    pub max_bytes: u64,
    /// Pages of 4 KiB the database has.
    pub pages: u64,
    /// Pages that hold nothing.
    pub free_pages: u64,
    /// Records evicted to make room, by all processes since the file was made.
    pub evicted: u64,
    /// What computing them again costs, in micro-USD.
    pub evicted_cost: u64,
    /// Records deleted because they had expired, likewise.
    pub expired: u64,
    /// Records this process was refused because of their size.
    pub refused: u64,
    /// Records this process did not store because a newer one was there.
    pub superseded: u64,
    /// Times this process found another file at the store's place and opened that.
    pub reopened: u64,
    /// Messages of this process that a follower's full queue did not take.
    pub untold: u64,
}

impl DiskStats {
    pub(super) fn new(totals: &Totals, pages: u64, free_pages: u64) -> Self {
        let count = |value: i64| u64::try_from(value).unwrap_or(0);
        Self {
            rows: count(totals.rows),
            bytes: count(totals.bytes),
            evicted: count(totals.evicted),
            evicted_cost: count(totals.evicted_cost),
            expired: count(totals.expired),
            pages,
            free_pages,
            ..Self::default()
        }
    }
}

/// SQLite's own check of the whole file, and ours of the totals.
pub(super) fn problems(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let snapshot = conn.unchecked_transaction()?;
    let mut problems: Vec<String> = snapshot
        .prepare("PRAGMA integrity_check(20)")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    problems.retain(|line| line != "ok");
    let totals = Totals::load(&snapshot)?;
    let counted: (i64, i64) = snapshot.query_row(
        "SELECT count(*), coalesce(sum(size), 0) FROM records",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if counted != (totals.rows, totals.bytes) {
        problems.push(format!(
            "the totals say {} records of {} bytes, the table has {} of {}",
            totals.rows, totals.bytes, counted.0, counted.1
        ));
    }
    let orphans = members::orphans(&snapshot)?;
    if orphans != 0 {
        problems.push(format!("{orphans} members of partitions have no record"));
    }
    snapshot.finish()?;
    Ok(problems)
}
