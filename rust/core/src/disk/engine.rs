//! How the store's calls reach the database: budgets, transactions, and recovery from damage.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::DiskStore;
use super::bound::{self, Totals};
use super::error::DiskError;
use super::lanes::{self, Lanes};
use super::records::{self, Key, Record};

/// Ranks renewed by one write, at most: a read's recency must not make writes slow.
const REFRESH_STEP: usize = 128;
/// The longest a write waits for readers in order to cut the log.
const TRUNCATE_WAIT: Duration = Duration::from_millis(20);

impl DiskStore {
    pub(super) fn file_bytes(&self) -> u64 {
        let (file, log, index) = self.folder.file_sizes();
        file + log + index
    }

    /// How many of the first records go into one transaction: at least one.
    pub(super) fn group_len(&self, records: &[Record<'_>]) -> usize {
        let mut size = 0;
        for (index, record) in records.iter().enumerate() {
            size += record.envelope.len() as u64;
            if size > self.bounds.max_transaction || index == self.bounds.max_rows {
                return index.max(1);
            }
        }
        records.len()
    }

    pub(super) fn put_group(&self, group: &[Record<'_>], now: i64) -> Result<u64, DiskError> {
        let touched: Vec<Key> = if self.crowded.load(Ordering::Relaxed) {
            let mut touched = self.touched.lock();
            let keys: Vec<Key> = touched.iter().take(REFRESH_STEP).copied().collect();
            for key in &keys {
                touched.remove(key);
            }
            keys
        } else {
            Vec::new()
        };
        let needed = records::pages_needed(group);
        let lanes = self.lanes()?;
        let deadline = Instant::now() + self.budget;
        let result = {
            let mut conn = lanes::lock(&lanes.writer, deadline)?;
            let limit = self.page_limit(&conn, group)?;
            lanes::wait_until(&conn, deadline)?;
            match self.put_once(&mut conn, group, &touched, limit, needed, now) {
                // The estimate was short for these rows: make much more room, once.
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                    self.put_once(&mut conn, group, &touched, limit, 3 * needed + 64, now)
                }
                other => other,
            }
        };
        result.map_err(|error| self.failed(&lanes, error))
    }

    fn put_once(
        &self,
        conn: &mut Connection,
        group: &[Record<'_>],
        touched: &[Key],
        limit: u64,
        needed: u64,
        now: i64,
    ) -> rusqlite::Result<u64> {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut totals = Totals::load(&tx)?;
        records::refresh_ranks(&tx, &totals, touched)?;
        bound::make_room(&tx, &mut totals, limit, needed, now)?;
        let mut stored = 0;
        for record in group {
            stored += u64::from(records::write(&tx, &mut totals, record, now)?);
        }
        totals.save(&tx)?;
        let (count, free) = bound::pages(&tx)?;
        tx.commit()?;
        self.crowded
            .store((count - free.min(count)) * 4 > limit * 3, Ordering::Relaxed);
        Ok(stored)
    }

    /// The pages the database may have now; also told to SQLite, as the bound nothing gets past.
    fn page_limit(&self, conn: &Connection, group: &[Record<'_>]) -> Result<u64, DiskError> {
        let (_, mut log, _) = self.folder.file_sizes();
        if log > 2 * self.bounds.wal_target {
            self.truncate_log(conn)?;
            log = self.folder.file_sizes().1;
        }
        let (bytes, rows) = (records::total_size(group), records::rows(group));
        let limit = self
            .bounds
            .page_limit(log, self.folder.file_sizes().2, bytes, rows);
        if log > self.bounds.max_bytes / 2 || limit < 32 {
            return Err(DiskError::Full(format!(
                "the write-ahead log has {log} bytes and cannot be cut, because some process keeps a read open on it"
            )));
        }
        conn.pragma_update_and_check(None, "max_page_count", limit.cast_signed(), |_| Ok(()))
            .map_err(|error| DiskError::from_engine(&self.folder.database, error))?;
        Ok(limit)
    }

    /// Move the log into the database and cut it, if no reader is in the way for long.
    pub(super) fn truncate_log(&self, conn: &Connection) -> Result<(), DiskError> {
        lanes::wait_until(conn, Instant::now() + TRUNCATE_WAIT)?;
        match conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            Ok(()) => Ok(()),
            Err(error) => match DiskError::from_engine(&self.folder.database, error) {
                DiskError::Busy => Ok(()),
                other => Err(other),
            },
        }
    }

    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DiskError> {
        let lanes = self.lanes()?;
        let result = {
            let deadline = Instant::now() + self.budget;
            let conn = lanes.reader(deadline)?;
            lanes::wait_until(&conn, deadline)?;
            work(&conn)
        };
        result.map_err(|error| self.failed(&lanes, error))
    }

    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&Connection, &mut Totals) -> rusqlite::Result<T>,
    ) -> Result<T, DiskError> {
        let lanes = self.lanes()?;
        let result = {
            let mut conn = lanes::lock(&lanes.writer, Instant::now() + self.budget)?;
            let run = |conn: &mut Connection| {
                let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let mut totals = Totals::load(&tx)?;
                let done = work(&tx, &mut totals)?;
                totals.save(&tx)?;
                tx.commit()?;
                Ok(done)
            };
            run(&mut conn)
        };
        result.map_err(|error| self.failed(&lanes, error))
    }

    pub(super) fn durable<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DiskError> {
        let lanes = self.lanes()?;
        let result = {
            let deadline = Instant::now() + self.budget;
            // Within the process writers queue at a mutex: SQLite's own waiting is by polling.
            let _turn = lanes::lock(&lanes.writer, deadline)?;
            let mut conn = lanes::lock(&lanes.clock, deadline)?;
            work(&mut conn)
        };
        result.map_err(|error| self.failed(&lanes, error))
    }

    /// The connections, if they still belong to the file at the store's place.
    pub(super) fn lanes(&self) -> Result<Arc<Lanes>, DiskError> {
        if std::process::id() != self.process {
            return Err(DiskError::Forked);
        }
        let lanes = self.lanes.read().clone().ok_or(DiskError::Closed)?;
        if self.folder.identity() == Some(lanes.identity) {
            return Ok(lanes);
        }
        // Another process moved a damaged file away, or somebody deleted the folder. What is written to
        // the old file nobody else would see: markers least of all.
        let _turn = self
            .reopening
            .try_lock_for(self.budget)
            .ok_or(DiskError::Busy)?;
        let current = self.lanes.read().clone().ok_or(DiskError::Closed)?;
        if self.folder.identity() == Some(current.identity) {
            return Ok(current);
        }
        let (fresh, _) = lanes::open(&self.folder, &self.bounds, self.budget)?;
        self.install(fresh)
    }

    fn install(&self, fresh: Lanes) -> Result<Arc<Lanes>, DiskError> {
        let mut slot = self.lanes.write();
        if slot.is_none() {
            return Err(DiskError::Closed);
        }
        let fresh = Arc::new(fresh);
        *slot = Some(Arc::clone(&fresh));
        self.reopened.fetch_add(1, Ordering::Relaxed);
        Ok(fresh)
    }

    /// An engine error in this store's vocabulary; damage is set aside first.
    pub(super) fn failed(&self, lanes: &Lanes, error: rusqlite::Error) -> DiskError {
        match DiskError::from_engine(&self.folder.database, error) {
            DiskError::Corrupt { .. } => match self.replace_damaged(lanes) {
                Ok(set_aside) => DiskError::Corrupt { set_aside },
                Err(error) => error,
            },
            other => other,
        }
    }

    fn replace_damaged(&self, damaged: &Lanes) -> Result<Option<PathBuf>, DiskError> {
        let _turn = self
            .reopening
            .try_lock_for(self.budget)
            .ok_or(DiskError::Busy)?;
        let mut guard = self.folder.lock()?;
        let moved = if self.folder.identity() == Some(damaged.identity) {
            self.folder.set_aside(&guard)?
        } else {
            None
        };
        let (fresh, _) = lanes::open_locked(&self.folder, &self.bounds, self.budget, &mut guard)?;
        self.install(fresh)?;
        Ok(moved)
    }
}
