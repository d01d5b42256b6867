//! Reading and writing records: the statements, inside connections and transactions handed in.

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::bound::{self, Totals};
use super::members;

/// A fingerprint.
pub type Key = [u8; 32];

/// Envelope bytes of one step of a walk; a larger record is alone in its own.
const SCAN_BYTES: u64 = 8 << 20;

/// One record on its way into the store.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The fingerprint.
    pub key: Key,
    /// The whole record as `envelope::encode` made it; never looked into.
    pub envelope: &'a [u8],
    /// First half of the stamp.
    pub epoch: u64,
    /// Second half of the stamp.
    pub snap: u64,
    /// The record may be deleted from this time on (microseconds since 1970); `i64::MAX` is never.
    pub stale_until: i64,
    /// What computing it again costs, in micro-USD; 0 when unknown.
    pub cost: u64,
    /// What partition it can be found by, if any.
    pub partition: Option<Key>,
}

/// What became of the records of one put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutReport {
    /// Now in the store.
    pub stored: u64,
    /// Not stored: a record of the same epoch and a newer snap is there.
    pub superseded: u64,
    /// Not stored: larger than one record may be.
    pub refused: u64,
}

/// A step of a walk through the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPage {
    /// Records and their envelopes.
    pub records: Vec<(Key, Vec<u8>)>,
    /// Where to go on; `None` at the end.
    pub next: Option<i64>,
}

/// What stands in the way of a new record.
struct Existing {
    same_key: bool,
    epoch: i64,
    snap: i64,
    size: i64,
}

/// The row's number: the fingerprint's first 63 bits.
///
/// Two fingerprints that share them displace one another; the full key is compared at every read, so that
/// costs a miss, never a wrong answer.
pub(super) fn row_id(key: &Key) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&key[..8]);
    (u64::from_le_bytes(first) >> 1).cast_signed()
}

/// The envelopes of `keys`, from one snapshot of the database.
pub(super) fn read(conn: &Connection, keys: &[Key]) -> rusqlite::Result<Vec<Option<Vec<u8>>>> {
    let snapshot = if keys.len() > 1 {
        Some(conn.unchecked_transaction()?)
    } else {
        None
    };
    let mut select = conn.prepare_cached("SELECT key, envelope FROM records WHERE id = ?1")?;
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let row = select
            .query_row([row_id(key)], |row| {
                let stored = row.get_ref(0)?.as_blob().unwrap_or_default();
                if stored != key {
                    return Ok(None);
                }
                Ok(row.get_ref(1)?.as_blob().ok().map(<[u8]>::to_vec))
            })
            .optional();
        found.push(match row {
            Ok(row) => row.flatten(),
            // Larger than this process stores (another one may have a larger bound): not ours to load.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::TooBig) => None,
            Err(error) => return Err(error),
        });
    }
    drop(select);
    if let Some(snapshot) = snapshot {
        snapshot.finish()?;
    }
    Ok(found)
}

/// Write one record unless a newer one of its epoch is there. Whether it was written.
pub(super) fn write(
    conn: &Connection,
    totals: &mut Totals,
    record: &Record<'_>,
    now: i64,
) -> rusqlite::Result<bool> {
    let id = row_id(&record.key);
    let epoch = record.epoch.cast_signed();
    let snap = i64::try_from(record.snap).unwrap_or(i64::MAX);
    let cost = i64::try_from(record.cost).unwrap_or(i64::MAX);
    let size = i64::try_from(record.envelope.len()).unwrap_or(i64::MAX);
    let existing = conn
        .prepare_cached("SELECT key, epoch, snap, size FROM records WHERE id = ?1")?
        .query_row([id], |row| {
            Ok(Existing {
                same_key: row.get_ref(0)?.as_blob().unwrap_or_default() == record.key,
                epoch: row.get(1)?,
                snap: row.get(2)?,
                size: row.get(3)?,
            })
        })
        .optional()?;
    let replaces = existing.is_some();
    match existing {
        Some(old) if old.same_key && old.epoch == epoch && old.snap > snap => return Ok(false),
        Some(old) => totals.bytes -= old.size,
        None => totals.rows += 1,
    }
    totals.bytes += size;
    conn.prepare_cached(
        "INSERT INTO records (id, key, epoch, snap, stale_until, cost, size, rank, envelope)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (id) DO UPDATE SET key = excluded.key, epoch = excluded.epoch, snap = excluded.snap,
             stale_until = excluded.stale_until, cost = excluded.cost, size = excluded.size,
             rank = excluded.rank, envelope = excluded.envelope",
    )?
    .execute(params![
        id,
        &record.key[..],
        epoch,
        snap,
        record.stale_until,
        cost,
        size,
        totals.rank(cost, size),
        record.envelope
    ])?;
    if replaces || record.partition.is_some() {
        members::set(conn, totals, id, record.partition.as_ref(), now)?;
    }
    Ok(true)
}

/// Delete `keys`; how many were there.
pub(super) fn delete(
    conn: &Connection,
    totals: &mut Totals,
    keys: &[Key],
) -> rusqlite::Result<u64> {
    let mut delete =
        conn.prepare_cached("DELETE FROM records WHERE id = ?1 AND key = ?2 RETURNING size")?;
    let mut deleted = 0;
    for key in keys {
        let size: Option<i64> = delete
            .query_row(params![row_id(key), &key[..]], |row| row.get(0))
            .optional()?;
        if let Some(size) = size {
            totals.rows -= 1;
            totals.bytes -= size;
            members::forget(conn, totals, row_id(key))?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

/// Delete those of `stamped`, `(key, epoch, snap)`, that still have this stamp; how many had.
pub(super) fn discard(
    conn: &Connection,
    totals: &mut Totals,
    stamped: &[(Key, u64, u64)],
) -> rusqlite::Result<u64> {
    let mut delete = conn.prepare_cached(
        "DELETE FROM records WHERE id = ?1 AND key = ?2 AND epoch = ?3 AND snap = ?4 RETURNING size",
    )?;
    let mut discarded = 0;
    for (key, epoch, snap) in stamped {
        let snap = i64::try_from(*snap).unwrap_or(i64::MAX);
        let size: Option<i64> = delete
            .query_row(
                params![row_id(key), &key[..], epoch.cast_signed(), snap],
                |row| row.get(0),
            )
            .optional()?;
        if let Some(size) = size {
            totals.rows -= 1;
            totals.bytes -= size;
            members::forget(conn, totals, row_id(key))?;
            discarded += 1;
        }
    }
    Ok(discarded)
}

/// Up to `limit` records, and about `SCAN_BYTES` of them, whose row numbers are above `after`.
pub(super) fn scan(
    conn: &Connection,
    after: Option<i64>,
    limit: usize,
) -> rusqlite::Result<ScanPage> {
    let snapshot = conn.unchecked_transaction()?;
    let mut page = ScanPage::default();
    {
        // Facts first: an envelope is loaded only when the page has room for it.
        let mut facts = snapshot
            .prepare_cached("SELECT id, size, key FROM records WHERE id > ?1 ORDER BY id")?;
        let mut envelope = snapshot.prepare_cached("SELECT envelope FROM records WHERE id = ?1")?;
        let mut rows = facts.query([after.unwrap_or(-1)])?;
        let (mut seen, mut bytes, mut last) = (0, 0_u64, after);
        while let Some(row) = rows.next()? {
            let (id, size): (i64, u64) = (row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned());
            if seen > 0 && (seen >= limit || bytes + size > SCAN_BYTES) {
                page.next = last;
                break;
            }
            (seen, bytes, last) = (seen + 1, bytes + size, Some(id));
            let Ok(key) = Key::try_from(row.get_ref(2)?.as_blob().unwrap_or_default()) else {
                continue;
            };
            match envelope.query_row([id], |row| row.get(0)) {
                Ok(envelope) => page.records.push((key, envelope)),
                // As in `read`: not ours to load.
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::TooBig) => {}
                Err(error) => return Err(error),
            }
        }
    }
    snapshot.finish()?;
    Ok(page)
}

/// Delete all records; how many there were.
pub(super) fn delete_all(conn: &Connection, totals: &mut Totals) -> rusqlite::Result<u64> {
    let deleted = conn.execute("DELETE FROM records", [])?;
    members::forget_all(conn)?;
    totals.rows = 0;
    totals.bytes = 0;
    Ok(deleted as u64)
}

/// Give rows that were read lately the rank of a row written now.
pub(super) fn refresh_ranks(
    conn: &Connection,
    totals: &Totals,
    keys: &[Key],
) -> rusqlite::Result<()> {
    let mut select =
        conn.prepare_cached("SELECT cost, size, rank FROM records WHERE id = ?1 AND key = ?2")?;
    let mut update = conn.prepare_cached("UPDATE records SET rank = ?2 WHERE id = ?1")?;
    for key in keys {
        let id = row_id(key);
        let row: Option<(i64, i64, i64)> = select
            .query_row(params![id, &key[..]], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        if let Some((cost, size, rank)) = row {
            let newer = totals.rank(cost, size);
            if newer > rank {
                update.execute(params![id, newer])?;
            }
        }
    }
    Ok(())
}

/// Envelope bytes of a group of records.
pub(super) fn total_size(records: &[Record<'_>]) -> u64 {
    records
        .iter()
        .map(|record| record.envelope.len() as u64)
        .sum()
}

/// Pages a group of records can take.
pub(super) fn pages_needed(records: &[Record<'_>]) -> u64 {
    bound::Bounds::pages_needed(total_size(records), rows(records))
}

/// Rows a group of records takes: a member of a partition has one more.
pub(super) fn rows(records: &[Record<'_>]) -> u64 {
    let members = records
        .iter()
        .filter(|record| record.partition.is_some())
        .count();
    (records.len() + members) as u64
}
