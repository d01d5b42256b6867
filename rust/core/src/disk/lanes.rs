//! The connections of one open database file, and opening them.
//!
//! One lane writes records, one raises markers (its commits are fsynced), some read. Readers never wait
//! for a writer: in WAL mode they see the last commit.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::bound::{Bounds, PAGE};
use super::error::DiskError;
use super::folder::{FileIdentity, Folder, OpeningLock};
use super::schema::{self, Identity};

/// Connections for reading: as many reads run at once. More than the cores that serve a disk gain nothing.
const READERS: usize = 3;

/// How strong a commit of a connection is.
#[derive(Clone, Copy)]
enum Durability {
    /// Survives the death of the process at any moment.
    Process,
    /// Survives a power cut as well.
    Power,
}

pub(super) struct Lanes {
    pub(super) identity: FileIdentity,
    pub(super) writer: Mutex<Connection>,
    pub(super) clock: Mutex<Connection>,
    readers: Vec<Mutex<Connection>>,
    /// Which reader the next one to wait waits for.
    turn: AtomicUsize,
}

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// The database was made now.
    pub created: bool,
    /// A damaged file was found and kept under this name.
    pub set_aside: Option<PathBuf>,
}

impl Lanes {
    /// A free reading connection, or the first to become free before `deadline`.
    pub(super) fn reader(
        &self,
        deadline: Instant,
    ) -> Result<MutexGuard<'_, Connection>, DiskError> {
        if let Some(free) = self.readers.iter().find_map(Mutex::try_lock) {
            return Ok(free);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.readers.len();
        self.readers[turn]
            .try_lock_until(deadline)
            .ok_or(DiskError::Busy)
    }
}

/// Lock a lane before `deadline`, and let SQLite wait for other processes no longer than that.
pub(super) fn lock(
    lane: &Mutex<Connection>,
    deadline: Instant,
) -> Result<MutexGuard<'_, Connection>, DiskError> {
    let guard = lane.try_lock_until(deadline).ok_or(DiskError::Busy)?;
    wait_until(&guard, deadline)?;
    Ok(guard)
}

pub(super) fn wait_until(conn: &Connection, deadline: Instant) -> Result<(), DiskError> {
    let left = deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1));
    conn.busy_timeout(left).map_err(DiskError::Engine)
}

/// Open the database of `folder`, making it if there is none and replacing it if it is damaged.
pub(super) fn open(
    folder: &Folder,
    bounds: &Bounds,
    budget: Duration,
) -> Result<(Lanes, Opening), DiskError> {
    let mut guard = folder.lock()?;
    open_locked(folder, bounds, budget, &mut guard)
}

pub(super) fn open_locked(
    folder: &Folder,
    bounds: &Bounds,
    budget: Duration,
    guard: &mut OpeningLock,
) -> Result<(Lanes, Opening), DiskError> {
    let mut opening = Opening {
        created: folder.ensure_database(guard)?,
        set_aside: None,
    };
    let lanes = match connect_all(folder, bounds, budget) {
        Err(DiskError::Corrupt { .. }) if guard.owned => {
            opening.set_aside = folder.set_aside(guard)?;
            opening.created = folder.ensure_database(guard)?;
            connect_all(folder, bounds, budget)
        }
        // Never ours so far: what cannot be read as a database is somebody's file, not our damage.
        Err(DiskError::Corrupt { .. }) => Err(DiskError::Foreign {
            path: folder.database.clone(),
            what: "not a SQLite database".to_owned(),
        }),
        other => other,
    }?;
    guard.mark_owned()?;
    Ok((lanes, opening))
}

fn connect_all(folder: &Folder, bounds: &Bounds, budget: Duration) -> Result<Lanes, DiskError> {
    let engine = |error| DiskError::from_engine(&folder.database, error);
    let mut writer = connect(folder, bounds, budget, Durability::Process).map_err(engine)?;
    match schema::identify(&writer).map_err(engine)? {
        Identity::Empty => schema::create(&mut writer).map_err(engine)?,
        Identity::Ours => {}
        Identity::Older(found) => schema::migrate(&mut writer, found).map_err(engine)?,
        Identity::Newer(found) => {
            return Err(DiskError::Newer {
                path: folder.database.clone(),
                found,
                supported: schema::SCHEMA_VERSION,
            });
        }
        Identity::Foreign(what) => {
            return Err(DiskError::Foreign {
                path: folder.database.clone(),
                what,
            });
        }
    }
    settle(&writer, bounds, Durability::Process).map_err(engine)?;
    schema::probe(&writer).map_err(|error| {
        match DiskError::from_engine(&folder.database, error) {
            // A table or a row of ours is missing: the file says it is ours and is not whole.
            DiskError::Engine(_) => DiskError::Corrupt { set_aside: None },
            other => other,
        }
    })?;
    let clock = connect(folder, bounds, budget, Durability::Power).map_err(engine)?;
    settle(&clock, bounds, Durability::Power).map_err(engine)?;
    let readers = (0..READERS)
        .map(|_| {
            let reader = connect(folder, bounds, budget, Durability::Process)?;
            settle(&reader, bounds, Durability::Process)?;
            reader.pragma_update(None, "query_only", true)?;
            Ok(Mutex::new(reader))
        })
        .collect::<rusqlite::Result<Vec<_>>>()
        .map_err(engine)?;
    let identity = folder
        .identity()
        .ok_or_else(|| DiskError::Corrupt { set_aside: None })?;
    Ok(Lanes {
        identity,
        writer: Mutex::new(writer),
        clock: Mutex::new(clock),
        readers,
        turn: AtomicUsize::new(0),
    })
}

/// A connection that has not changed the file, and would not by closing either.
fn connect(
    folder: &Folder,
    bounds: &Bounds,
    budget: Duration,
    durability: Durability,
) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&folder.database, flags)?;
    conn.busy_timeout(budget)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // A damaged length must not make us allocate more than a record may have.
    let length = i32::try_from(bounds.max_record + PAGE).unwrap_or(i32::MAX);
    conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, length)?;
    conn.set_prepared_statement_cache_capacity(32);
    conn.pragma_update(None, "cell_size_check", true)?;
    let synchronous = match durability {
        Durability::Process => "NORMAL",
        Durability::Power => "FULL",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    Ok(conn)
}

/// Settings that only suit a file known to be ours.
fn settle(conn: &Connection, bounds: &Bounds, durability: Durability) -> rusqlite::Result<()> {
    let wal_target = bounds.wal_target.cast_signed();
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    conn.pragma_update_and_check(
        None,
        "wal_autocheckpoint",
        wal_target / PAGE.cast_signed(),
        |_| Ok(()),
    )?;
    conn.pragma_update_and_check(None, "journal_size_limit", wal_target, |_| Ok(()))?;
    // Page cache: the upper levels of the trees; record pages come from the system's own cache.
    let cache_kib: i64 = match durability {
        Durability::Process => 2048,
        Durability::Power => 256,
    };
    conn.pragma_update(None, "cache_size", -cache_kib)?;
    Ok(())
}
