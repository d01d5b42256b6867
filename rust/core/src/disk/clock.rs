//! The invalidation clock and the markers of each namespace, as the disk store keeps them.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

/// The life of a clock and its last value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// Random, made with the clock. Another epoch means another clock: nothing stamped by it is valid.
    pub epoch: u64,
    /// The last seq that was allocated.
    pub seq: u64,
}

pub(super) fn epoch(
    conn: &mut Connection,
    namespace: u64,
    now: i64,
) -> rusqlite::Result<ClockReading> {
    if let Some(reading) = load(conn, namespace)? {
        return Ok(reading);
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let reading = load_or_create(&tx, namespace, now)?;
    tx.commit()?;
    Ok(reading)
}

pub(super) fn raise_markers(
    conn: &mut Connection,
    namespace: u64,
    targets: &[u64],
    now: i64,
) -> rusqlite::Result<ClockReading> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let last = load_or_create(&tx, namespace, now)?;
    let seq = (last.seq.cast_signed().saturating_add(1)).max(now);
    tx.execute(
        "UPDATE clocks SET seq = ?2 WHERE namespace = ?1",
        params![namespace.cast_signed(), seq],
    )?;
    {
        let mut raise = tx.prepare_cached(
            "INSERT INTO markers (namespace, target, seq) VALUES (?1, ?2, ?3)
             ON CONFLICT (namespace, target) DO UPDATE SET seq = excluded.seq",
        )?;
        for target in targets {
            raise.execute(params![namespace.cast_signed(), target.cast_signed(), seq])?;
        }
    }
    tx.commit()?;
    Ok(ClockReading {
        epoch: last.epoch,
        seq: seq.cast_unsigned(),
    })
}

pub(super) fn markers_since(
    conn: &Connection,
    namespace: u64,
    seq: u64,
) -> rusqlite::Result<Vec<(u64, u64)>> {
    let since = i64::try_from(seq).unwrap_or(i64::MAX);
    let mut select = conn.prepare_cached(
        "SELECT target, seq FROM markers WHERE namespace = ?1 AND seq > ?2 ORDER BY seq, target",
    )?;
    let rows = select.query_map(params![namespace.cast_signed(), since], |row| {
        Ok((
            row.get::<_, i64>(0)?.cast_unsigned(),
            row.get::<_, i64>(1)?.cast_unsigned(),
        ))
    })?;
    rows.collect()
}

fn load(conn: &Connection, namespace: u64) -> rusqlite::Result<Option<ClockReading>> {
    conn.prepare_cached("SELECT epoch, seq FROM clocks WHERE namespace = ?1")?
        .query_row([namespace.cast_signed()], |row| {
            Ok(ClockReading {
                epoch: row.get::<_, i64>(0)?.cast_unsigned(),
                seq: row.get::<_, i64>(1)?.cast_unsigned(),
            })
        })
        .optional()
}

fn load_or_create(conn: &Connection, namespace: u64, now: i64) -> rusqlite::Result<ClockReading> {
    if let Some(reading) = load(conn, namespace)? {
        return Ok(reading);
    }
    // SQLite's generator is seeded from the operating system's.
    conn.execute(
        "INSERT INTO clocks (namespace, epoch, seq) VALUES (?1, random(), ?2)",
        params![namespace.cast_signed(), now.max(0)],
    )?;
    load(conn, namespace)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
}
