//! Which records are of a partition, in the order of their arrival.
//!
//! A table beside the records: a file without partitions grows by two empty pages, and a record without one
//! costs what it did. Whoever deletes a record says so here.

use rusqlite::{Connection, params};

use super::bound::Totals;
use super::records::Key;

/// Some keys of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembersPage {
    /// Fingerprints, in the order of their arrival.
    pub keys: Vec<Key>,
    /// When the last of them arrived, to go on from; `None` if there are none.
    pub last: Option<i64>,
}

/// Note what partition the record of a row is of now, if any.
///
/// Arrivals only grow, across processes because transactions take turns; and they begin at the time, so that
/// who followed a file that was lost or set aside hears of what comes into the next one.
pub(super) fn set(
    conn: &Connection,
    totals: &mut Totals,
    id: i64,
    partition: Option<&Key>,
    now: i64,
) -> rusqlite::Result<()> {
    let Some(partition) = partition else {
        return forget(conn, totals, id);
    };
    totals.arrived = now.max(totals.arrived.saturating_add(1));
    conn.prepare_cached(
        "INSERT OR REPLACE INTO members (id, partition, arrival) VALUES (?1, ?2, ?3)",
    )?
    .execute(params![id, &partition[..], totals.arrived])?;
    Ok(())
}

/// The record of a row is gone. Where nothing ever arrived, there is nothing to look for.
pub(super) fn forget(conn: &Connection, totals: &Totals, id: i64) -> rusqlite::Result<()> {
    if totals.arrived == 0 {
        return Ok(());
    }
    conn.prepare_cached("DELETE FROM members WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

/// All records are gone.
pub(super) fn forget_all(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute("DELETE FROM members", [])?;
    Ok(())
}

/// Up to `limit` members of `partition` that arrived after `after`.
pub(super) fn page(
    conn: &Connection,
    partition: &Key,
    after: i64,
    limit: usize,
) -> rusqlite::Result<MembersPage> {
    let snapshot = conn.unchecked_transaction()?;
    let mut page = MembersPage::default();
    {
        let mut members = snapshot.prepare_cached(
            "SELECT records.key, members.arrival FROM members JOIN records ON records.id = members.id
             WHERE members.partition = ?1 AND members.arrival > ?2 ORDER BY members.arrival LIMIT ?3",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = members.query(params![&partition[..], after, limit])?;
        while let Some(row) = rows.next()? {
            page.last = Some(row.get(1)?);
            if let Ok(key) = Key::try_from(row.get_ref(0)?.as_blob().unwrap_or_default()) {
                page.keys.push(key);
            }
        }
    }
    snapshot.finish()?;
    Ok(page)
}

/// How many members have no record: none, in a sound file.
pub(super) fn orphans(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row(
        "SELECT count(*) FROM members WHERE id NOT IN (SELECT id FROM records)",
        [],
        |row| row.get(0),
    )
}
