//! The tables of the disk store and the marks by which its file is known.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

/// `LCFS`, in SQLite's own field for the application a file belongs to.
pub(super) const APPLICATION_ID: i64 = 0x4c43_4653;
/// The version of the tables below. A file of a newer one is refused.
pub(super) const SCHEMA_VERSION: i64 = 3;

/// The row's number is taken from the fingerprint, so a read is one descent of one tree and rows of all
/// ages share pages (a space freed by an eviction is found again). The envelope comes last: the facts
/// before it are read without following its overflow pages.
const TABLES: &str = "
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    snap INTEGER NOT NULL,
    stale_until INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    size INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    envelope BLOB NOT NULL
);
CREATE INDEX records_by_expiry ON records (stale_until) WHERE stale_until < 9223372036854775807;
CREATE INDEX records_by_rank ON records (rank);
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    inflation INTEGER NOT NULL,
    evicted INTEGER NOT NULL,
    evicted_cost INTEGER NOT NULL,
    expired INTEGER NOT NULL,
    arrived INTEGER NOT NULL
);
INSERT INTO state VALUES (1, 0, 0, 0, 0, 0, 0, 0);
CREATE TABLE clocks (
    namespace INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    markers INTEGER NOT NULL
);
CREATE TABLE markers (
    namespace INTEGER NOT NULL,
    target INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (namespace, target)
) WITHOUT ROWID;
CREATE INDEX markers_by_seq ON markers (namespace, seq);
CREATE TABLE rules (
    namespace INTEGER NOT NULL,
    rule BLOB NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (namespace, rule)
) WITHOUT ROWID;
CREATE TABLE members (
    id INTEGER PRIMARY KEY,
    partition BLOB NOT NULL,
    arrival INTEGER NOT NULL
);
CREATE INDEX members_by_arrival ON members (partition, arrival);
";

/// From version 1, which had no rules and did not count its markers.
const FROM_1: &str = "
ALTER TABLE clocks ADD COLUMN markers INTEGER NOT NULL DEFAULT 0;
UPDATE clocks SET markers = (SELECT count(*) FROM markers WHERE markers.namespace = clocks.namespace);
CREATE TABLE rules (
    namespace INTEGER NOT NULL,
    rule BLOB NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (namespace, rule)
) WITHOUT ROWID;
";

/// From version 2, which had no partitions.
const FROM_2: &str = "
ALTER TABLE state ADD COLUMN arrived INTEGER NOT NULL DEFAULT 0;
CREATE TABLE members (
    id INTEGER PRIMARY KEY,
    partition BLOB NOT NULL,
    arrival INTEGER NOT NULL
);
CREATE INDEX members_by_arrival ON members (partition, arrival);
";

/// What a database file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// No tables and no owner: free to be made ours.
    Empty,
    /// Ours, with tables of this version.
    Ours,
    /// Ours, of an older version.
    Older(i64),
    /// Ours, of a newer version.
    Newer(i64),
    /// Somebody else's.
    Foreign(String),
}

/// Look at the marks of a file; writes nothing.
pub(super) fn identify(conn: &Connection) -> rusqlite::Result<Identity> {
    let application: i64 = conn.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if application == APPLICATION_ID {
        return Ok(match version {
            older if (1..SCHEMA_VERSION).contains(&older) => Identity::Older(older),
            newer if newer > SCHEMA_VERSION => Identity::Newer(newer),
            _ => Identity::Ours,
        });
    }
    let table: Option<String> = conn
        .query_row("SELECT name FROM sqlite_master LIMIT 1", [], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(match (application, version, table) {
        (0, 0, None) => Identity::Empty,
        (0, _, _) => Identity::Foreign("a SQLite database of another program".to_owned()),
        (other, _, _) => {
            Identity::Foreign(format!("a SQLite database with application id {other:#x}"))
        }
    })
}

/// Make an empty file ours. Killed half-way, it is still empty or already ours.
pub(super) fn create(conn: &mut Connection) -> rusqlite::Result<()> {
    // Both must come before the first page is written.
    conn.pragma_update(None, "page_size", 4096)?;
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(TABLES)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    tx.commit()
}

/// Bring a file of version `found` to ours, in place. Killed half-way, it is of that version or of ours, whole.
pub(super) fn migrate(conn: &mut Connection, found: i64) -> rusqlite::Result<()> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if found == 1 {
        tx.execute_batch(FROM_1)?;
    }
    tx.execute_batch(FROM_2)?;
    tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    tx.commit()
}

/// Touch every table once, so that a file whose schema is damaged is found at opening.
pub(super) fn probe(conn: &Connection) -> rusqlite::Result<()> {
    conn.query_row("SELECT arrived FROM state WHERE id = 1", [], |row| {
        row.get::<_, i64>(0)
    })?;
    conn.query_row("SELECT id FROM records LIMIT 1", [], |_| Ok(()))
        .optional()?;
    conn.query_row("SELECT markers FROM clocks LIMIT 1", [], |_| Ok(()))
        .optional()?;
    conn.query_row("SELECT seq FROM markers LIMIT 1", [], |_| Ok(()))
        .optional()?;
    conn.query_row("SELECT seq FROM rules LIMIT 1", [], |_| Ok(()))
        .optional()?;
    conn.query_row("SELECT arrival FROM members LIMIT 1", [], |_| Ok(()))
        .optional()?;
    Ok(())
}
