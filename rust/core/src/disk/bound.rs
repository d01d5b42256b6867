//! Keeping the files within their bytes: how many pages a write may use, and what goes to make room.
//!
//! The policy is `GreedyDual`-Size (Cao and Irani, "Cost-Aware WWW Proxy Caching Algorithms", USITS 1997): a
//! row's *rank* is its dollars per byte plus the *inflation*, the rank of the last row evicted. Rows that were
//! read or written lately carry a newer inflation, so rank joins worth and recency in one indexed number.
//! Expired rows go before all others.

use rusqlite::{Connection, params};

use super::members;

/// Bytes of one page; set when the file is made.
pub(super) const PAGE: u64 = 4096;
/// Rows looked at per step of an eviction.
const EVICTION_STEP: i64 = 16;
/// Pages given back to the file system by one write, at most: bounds what a put adds to its own time.
const SHRINK_STEP: u64 = 1024;
/// Fixed-point one of a rank: a row that costs one micro-USD per byte.
const RANK_ONE: u128 = 1 << 20;
/// The worth above which rows are all equally precious; keeps inflation far from overflow.
const RANK_MAX: i64 = 1 << 40;

/// Sizes derived from `max_bytes`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_bytes: u64,
    /// The largest envelope that is stored.
    pub(super) max_record: u64,
    /// Envelope bytes of one transaction; a larger record is alone in its own.
    pub(super) max_transaction: u64,
    /// Rows of one transaction: small rows cost a page each in the log.
    pub(super) max_rows: usize,
    /// The log is moved into the database, and cut to this, when it grows past it.
    pub(super) wal_target: u64,
}

impl Bounds {
    pub(super) fn new(max_bytes: u64) -> Self {
        const MIB: u64 = 1 << 20;
        let max_record = (max_bytes / 16).min(64 * MIB);
        Self {
            max_bytes,
            max_record,
            max_transaction: max_record.min(4 * MIB),
            max_rows: usize::try_from(max_bytes / (64 << 10))
                .unwrap_or(usize::MAX)
                .clamp(16, 1024),
            wal_target: (max_bytes / 8).clamp(MIB / 8, 4 * MIB),
        }
    }

    /// Pages the database may have while `rows` rows of `bytes` bytes are written with a log of `log`
    /// bytes and its index of `index` bytes beside it.
    ///
    /// A transaction logs each page it changes: for each row its own, one of each index, and the same for
    /// the rows evicted for it; but never more pages than there are.
    pub(super) fn page_limit(&self, log: u64, index: u64, bytes: u64, rows: u64) -> u64 {
        let left = self
            .max_bytes
            .saturating_sub(log.max(self.wal_target) + index)
            / PAGE;
        let logged = 2 * bytes / PAGE + 5 * rows + 48;
        left.saturating_sub(logged).max(left / 2)
    }

    /// Pages that writing `bytes` in `rows` rows can take.
    pub(super) fn pages_needed(bytes: u64, rows: u64) -> u64 {
        (bytes + 100 * rows) * 5 / 4 / PAGE + rows / 8 + 4
    }
}

/// Persistent totals, one row, exact across processes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) rows: i64,
    pub(super) bytes: i64,
    pub(super) inflation: i64,
    pub(super) evicted: i64,
    pub(super) evicted_cost: i64,
    pub(super) expired: i64,
    /// The last arrival of a partition's member.
    pub(super) arrived: i64,
}

impl Totals {
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        conn.prepare_cached(
            "SELECT rows, bytes, inflation, evicted, evicted_cost, expired, arrived FROM state
             WHERE id = 1",
        )?
        .query_row([], |row| {
            Ok(Self {
                rows: row.get(0)?,
                bytes: row.get(1)?,
                inflation: row.get(2)?,
                evicted: row.get(3)?,
                evicted_cost: row.get(4)?,
                expired: row.get(5)?,
                arrived: row.get(6)?,
            })
        })
    }

    pub(super) fn save(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.prepare_cached(
            "UPDATE state SET rows = ?1, bytes = ?2, inflation = ?3, evicted = ?4, evicted_cost = ?5,
             expired = ?6, arrived = ?7 WHERE id = 1",
        )?
        .execute(params![
            self.rows,
            self.bytes,
            self.inflation,
            self.evicted,
            self.evicted_cost,
            self.expired,
            self.arrived
        ])?;
        Ok(())
    }

    /// The rank of a row that is written or read now.
    pub(super) fn rank(&self, cost: i64, size: i64) -> i64 {
        // An unknown cost counts as one micro-USD: among such rows the small and the recent stay.
        let cost = u128::from(cost.max(1).cast_unsigned());
        let size = u128::from(size.max(1).cast_unsigned());
        let worth = i64::try_from(cost * RANK_ONE / size)
            .unwrap_or(RANK_MAX)
            .min(RANK_MAX);
        self.inflation.saturating_add(worth)
    }
}

/// Pages of the database and how many of them hold nothing.
pub(super) fn pages(conn: &Connection) -> rusqlite::Result<(u64, u64)> {
    let count: i64 = conn
        .prepare_cached("PRAGMA page_count")?
        .query_row([], |row| row.get(0))?;
    let free: i64 = conn
        .prepare_cached("PRAGMA freelist_count")?
        .query_row([], |row| row.get(0))?;
    Ok((count.cast_unsigned(), free.cast_unsigned()))
}

/// Evict until `needed` pages fit below `limit`; inside the caller's transaction.
pub(super) fn make_room(
    conn: &Connection,
    totals: &mut Totals,
    limit: u64,
    needed: u64,
    now: i64,
) -> rusqlite::Result<()> {
    loop {
        let (count, free) = pages(conn)?;
        if count + needed <= limit + free {
            if count > limit {
                shrink(conn, (count - limit).min(free).min(SHRINK_STEP))?;
            }
            return Ok(());
        }
        if delete_expired(conn, totals, now, EVICTION_STEP)? > 0 {
            continue;
        }
        if evict_lowest(conn, totals)? == 0 {
            // Nothing is left to evict; the hard bound on pages has the last word.
            return Ok(());
        }
    }
}

fn evict_lowest(conn: &Connection, totals: &mut Totals) -> rusqlite::Result<usize> {
    let mut lowest =
        conn.prepare_cached("SELECT id, size, cost, rank FROM records ORDER BY rank LIMIT ?1")?;
    let rows: Vec<(i64, i64, i64, i64)> = lowest
        .query_map([EVICTION_STEP], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut delete = conn.prepare_cached("DELETE FROM records WHERE id = ?1")?;
    for (id, size, cost, rank) in &rows {
        delete.execute([id])?;
        members::forget(conn, totals, *id)?;
        totals.rows -= 1;
        totals.bytes -= size;
        totals.evicted += 1;
        totals.evicted_cost = totals.evicted_cost.saturating_add(*cost);
        totals.inflation = totals.inflation.max(*rank);
    }
    Ok(rows.len())
}

/// Delete up to `limit` rows that may no longer be used at `now`, the longest expired first.
pub(super) fn delete_expired(
    conn: &Connection,
    totals: &mut Totals,
    now: i64,
    limit: i64,
) -> rusqlite::Result<usize> {
    let mut expired = conn.prepare_cached(
        "SELECT id, size FROM records
         WHERE stale_until <= ?1 AND stale_until < 9223372036854775807 ORDER BY stale_until LIMIT ?2",
    )?;
    let rows: Vec<(i64, i64)> = expired
        .query_map(params![now, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut delete = conn.prepare_cached("DELETE FROM records WHERE id = ?1")?;
    for (id, size) in &rows {
        delete.execute([id])?;
        members::forget(conn, totals, *id)?;
        totals.rows -= 1;
        totals.bytes -= size;
        totals.expired += 1;
    }
    Ok(rows.len())
}

/// Give up to `pages` empty pages back to the file system.
pub(super) fn shrink(conn: &Connection, pages: u64) -> rusqlite::Result<()> {
    if pages == 0 {
        return Ok(());
    }
    // The pragma frees one page per step; all its rows must be read.
    let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}
