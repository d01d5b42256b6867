//! The invalidation clock, the markers and the rules of each namespace, as the disk store keeps them.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

/// Markers kept of a namespace. Beyond it the older half becomes one marker of the namespace itself.
pub const MAX_MARKERS: i64 = 1 << 16;
/// Rules kept of a namespace, likewise.
pub const MAX_RULES: i64 = 256;

/// What an invalidation allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raised {
    /// Random, made with the clock. Another epoch means another clock: nothing stamped by it is valid.
    pub epoch: u64,
    /// Where the markers stand now.
    pub seq: u64,
    /// The clock's value before.
    pub prev: u64,
}

/// What the caller knows of a namespace's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The namespace.
    pub namespace: u64,
    /// The epoch `seq` belongs to.
    pub epoch: u64,
    /// Up to which all markers are known.
    pub seq: u64,
}

/// What is new in a namespace, oldest first; all of it, when the epoch is another than the one asked with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The life of the clock.
    pub epoch: u64,
    /// The last seq that was allocated.
    pub seq: u64,
    /// `(target, seq)`.
    pub markers: Vec<(u64, u64)>,
    /// `(rule, seq)`.
    pub rules: Vec<(Vec<u8>, u64)>,
}

/// One row of `clocks`.
struct Reading {
    epoch: i64,
    seq: i64,
    /// How many markers the namespace has.
    markers: i64,
}

/// The answers to `asked`, from one snapshot; `None` when one of the clocks does not exist.
pub(super) fn changes(
    conn: &Connection,
    asked: &[Asked],
) -> rusqlite::Result<Option<Vec<Changes>>> {
    let snapshot = conn.unchecked_transaction()?;
    let mut found = Vec::with_capacity(asked.len());
    for each in asked {
        let namespace = each.namespace.cast_signed();
        let Some(reading) = load(&snapshot, namespace)? else {
            return Ok(None);
        };
        let since = if reading.epoch.cast_unsigned() == each.epoch {
            i64::try_from(each.seq).unwrap_or(i64::MAX)
        } else {
            i64::MIN
        };
        found.push(Changes {
            epoch: reading.epoch.cast_unsigned(),
            seq: reading.seq.cast_unsigned(),
            markers: markers_since(&snapshot, namespace, since)?,
            rules: rules_since(&snapshot, namespace, since)?,
        });
    }
    snapshot.finish()?;
    Ok(Some(found))
}

/// Make those clocks of `asked` that do not exist.
pub(super) fn create(conn: &mut Connection, asked: &[Asked], now: i64) -> rusqlite::Result<()> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for each in asked {
        load_or_create(&tx, each.namespace.cast_signed(), now)?;
    }
    tx.commit()
}

pub(super) fn raise_markers(
    conn: &mut Connection,
    namespace: u64,
    targets: &[u64],
    rules: &[&[u8]],
    forget: &[&[u8]],
    now: i64,
) -> rusqlite::Result<Raised> {
    let namespace = namespace.cast_signed();
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let last = load_or_create(&tx, namespace, now)?;
    let seq = last.seq.saturating_add(1).max(now);
    let mut count = last.markers;
    for target in targets {
        count += i64::from(raise(&tx, namespace, target.cast_signed(), seq)?);
    }
    for rule in forget {
        tx.prepare_cached("DELETE FROM rules WHERE namespace = ?1 AND rule = ?2")?
            .execute(params![namespace, rule])?;
    }
    for rule in rules {
        tx.prepare_cached(
            "INSERT INTO rules (namespace, rule, seq) VALUES (?1, ?2, ?3)
             ON CONFLICT (namespace, rule) DO UPDATE SET seq = excluded.seq",
        )?
        .execute(params![namespace, rule, seq])?;
    }
    if !rules.is_empty() && count_of(&tx, "rules", namespace)? > MAX_RULES {
        halve(&tx, "rules", namespace)?;
        count = count_of(&tx, "markers", namespace)?;
    }
    if count > MAX_MARKERS {
        halve(&tx, "markers", namespace)?;
        count = count_of(&tx, "markers", namespace)?;
    }
    tx.prepare_cached("UPDATE clocks SET seq = ?2, markers = ?3 WHERE namespace = ?1")?
        .execute(params![namespace, seq, count])?;
    tx.commit()?;
    Ok(Raised {
        epoch: last.epoch.cast_unsigned(),
        seq: seq.cast_unsigned(),
        prev: last.seq.cast_unsigned(),
    })
}

/// Raise one marker, never down. Whether it is a new one.
fn raise(conn: &Connection, namespace: i64, target: i64, seq: i64) -> rusqlite::Result<bool> {
    let there = conn
        .prepare_cached(
            "UPDATE markers SET seq = max(seq, ?3) WHERE namespace = ?1 AND target = ?2",
        )?
        .execute(params![namespace, target, seq])?;
    if there == 0 {
        conn.prepare_cached("INSERT INTO markers (namespace, target, seq) VALUES (?1, ?2, ?3)")?
            .execute(params![namespace, target, seq])?;
    }
    Ok(there == 0)
}

/// Delete the older half of the namespace's rows of `table` and let its own marker stand for them.
fn halve(conn: &Connection, table: &str, namespace: i64) -> rusqlite::Result<()> {
    let rows = count_of(conn, table, namespace)?;
    let youngest: i64 = conn.query_row(
        &format!("SELECT seq FROM {table} WHERE namespace = ?1 ORDER BY seq LIMIT 1 OFFSET ?2"),
        params![namespace, rows / 2 - 1],
        |row| row.get(0),
    )?;
    // Those of the same seq go with it: the namespace's marker says as much of them.
    conn.execute(
        &format!("DELETE FROM {table} WHERE namespace = ?1 AND seq <= ?2"),
        params![namespace, youngest],
    )?;
    raise(conn, namespace, namespace, youngest)?;
    Ok(())
}

fn count_of(conn: &Connection, table: &str, namespace: i64) -> rusqlite::Result<i64> {
    conn.prepare_cached(&format!(
        "SELECT count(*) FROM {table} WHERE namespace = ?1"
    ))?
    .query_row([namespace], |row| row.get(0))
}

fn markers_since(
    conn: &Connection,
    namespace: i64,
    since: i64,
) -> rusqlite::Result<Vec<(u64, u64)>> {
    conn.prepare_cached(
        "SELECT target, seq FROM markers WHERE namespace = ?1 AND seq > ?2 ORDER BY seq, target",
    )?
    .query_map([namespace, since], |row| {
        Ok((
            row.get::<_, i64>(0)?.cast_unsigned(),
            row.get::<_, i64>(1)?.cast_unsigned(),
        ))
    })?
    .collect()
}

fn rules_since(
    conn: &Connection,
    namespace: i64,
    since: i64,
) -> rusqlite::Result<Vec<(Vec<u8>, u64)>> {
    conn.prepare_cached(
        "SELECT rule, seq FROM rules WHERE namespace = ?1 AND seq > ?2 ORDER BY seq, rule",
    )?
    .query_map([namespace, since], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
    })?
    .collect()
}

fn load(conn: &Connection, namespace: i64) -> rusqlite::Result<Option<Reading>> {
    conn.prepare_cached("SELECT epoch, seq, markers FROM clocks WHERE namespace = ?1")?
        .query_row([namespace], |row| {
            Ok(Reading {
                epoch: row.get(0)?,
                seq: row.get(1)?,
                markers: row.get(2)?,
            })
        })
        .optional()
}

fn load_or_create(conn: &Connection, namespace: i64, now: i64) -> rusqlite::Result<Reading> {
    if let Some(reading) = load(conn, namespace)? {
        return Ok(reading);
    }
    // SQLite's generator is seeded from the operating system's.
    conn.execute(
        "INSERT INTO clocks (namespace, epoch, seq, markers) VALUES (?1, random(), ?2, 0)",
        params![namespace, now.max(0)],
    )?;
    load(conn, namespace)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
}
