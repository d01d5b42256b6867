//! The disk tier's store: envelopes by fingerprint in one SQLite file, shared by the processes of one machine.
//!
//! What belongs here: files, transactions, bounds, the markers' durable home. What does not: what an
//! envelope means, whether it is still valid, threads and event loops. All calls are synchronous and
//! bounded in time by the budget given at opening (file-system calls excepted: the kernel gives no bound).
//!
//! **What is guaranteed.** A call that returned has committed to the write-ahead log. That survives the
//! death of this process, by SIGKILL too, at any moment, because the log's pages are the kernel's by then.
//! Records are written with `synchronous=NORMAL`: a power cut or a kernel crash may lose the transactions
//! since the last checkpoint, in whole, newest first, and never damages the file. Markers are written with
//! `synchronous=FULL`: a raised marker survives a power cut as well, and so does every record committed
//! before it.
//!
//! **What is needed.** A local file system: WAL mode shares memory between processes and relies on POSIX
//! locks, which network file systems do not give. A store does not cross a fork: open it in the child.

mod bound;
mod clock;
mod engine;
mod error;
mod folder;
mod followers;
mod lanes;
mod members;
mod records;
mod schema;
mod scrub;
mod stats;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

pub use self::clock::{Asked, Changes, MAX_MARKERS, MAX_RULES, Raised};
pub use self::error::DiskError;
pub use self::folder::DATABASE_NAME;
pub use self::followers::MAX_TOLD;
pub use self::lanes::Opening;
pub use self::members::MembersPage;
pub use self::records::{Key, PutReport, Record, ScanPage};
pub use self::stats::DiskStats;

use self::bound::{Bounds, Totals};
use self::folder::Folder;
use self::lanes::Lanes;

/// The smallest bound a store can keep.
pub const MIN_BYTES: u64 = 1 << 20;

/// Keys read lately whose rank waits for the next write.
const TOUCHED_MAX: usize = 1024;
/// Pages given back per transaction by `vacuum` and `clear`, so that other writers get their turn.
const VACUUM_STEP: u64 = 2048;

/// An open store. Shared between threads by reference.
pub struct DiskStore {
    folder: Folder,
    bounds: Bounds,
    budget: Duration,
    process: u32,
    opening: Opening,
    lanes: RwLock<Option<Arc<Lanes>>>,
    reopening: Mutex<()>,
    touched: Mutex<HashSet<Key>>,
    /// The file is near its bound, so recency matters.
    crowded: AtomicBool,
    refused: AtomicU64,
    superseded: AtomicU64,
    reopened: AtomicU64,
    untold: AtomicU64,
}

impl std::fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskStore")
            .field("folder", &self.folder.path)
            .finish_non_exhaustive()
    }
}

impl DiskStore {
    /// Open the store in the folder `path`, made with mode 0700 if it is missing.
    ///
    /// `max_bytes` bounds the database, its log and the log's index together (at least 1 MiB); `budget`
    /// bounds the wait of each call for other writers. A record may have a sixteenth of `max_bytes`, and
    /// 64 MiB, at most.
    ///
    /// A foreign or newer file is refused and left alone; a damaged one of ours is renamed and replaced,
    /// which [`opening`](Self::opening) tells.
    ///
    /// # Errors
    /// Fails with `Option` for bounds that cannot work, `Permission`, `ReadOnly`, `Io` or `Full` when the folder
    /// cannot be used, `Foreign` or `Newer` for a file that is not ours to use, `Busy` while another process
    /// opens or moves the files for seconds.
    pub fn open(path: &Path, max_bytes: u64, budget: Duration) -> Result<Self, DiskError> {
        if max_bytes < MIN_BYTES {
            return Err(DiskError::Option(format!(
                "max_bytes is {max_bytes}: a disk store needs at least {MIN_BYTES} (1 MiB)"
            )));
        }
        if budget.is_zero() {
            return Err(DiskError::Option(
                "the budget is zero: give a positive time".to_owned(),
            ));
        }
        let folder = Folder::new(path);
        let bounds = Bounds::new(max_bytes);
        let (lanes, opening) = lanes::open(&folder, &bounds, budget)?;
        Ok(Self {
            folder,
            bounds,
            budget,
            process: std::process::id(),
            opening,
            lanes: RwLock::new(Some(Arc::new(lanes))),
            reopening: Mutex::new(()),
            touched: Mutex::new(HashSet::new()),
            crowded: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            superseded: AtomicU64::new(0),
            reopened: AtomicU64::new(0),
            untold: AtomicU64::new(0),
        })
    }

    /// What opening found and did.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// The database file.
    pub fn database(&self) -> &Path {
        &self.folder.database
    }

    /// The largest envelope that is stored, in bytes.
    pub fn max_record(&self) -> u64 {
        self.bounds.max_record
    }

    /// The envelope of each key, or `None`; one snapshot for all. Does not wait for writers.
    ///
    /// # Errors
    /// Fails with `Busy` when all readers stay in use for the whole budget, `Corrupt` after setting damage
    /// aside, or `Io`, `Engine`, `Closed`, `Forked`.
    pub fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, DiskError> {
        let found = self.read(|conn| records::read(conn, keys))?;
        if self.crowded.load(Ordering::Relaxed) {
            let mut touched = self.touched.lock();
            let room = TOUCHED_MAX.saturating_sub(touched.len());
            let hits = keys
                .iter()
                .zip(&found)
                .filter(|(_, envelope)| envelope.is_some());
            touched.extend(hits.take(room).map(|(key, _)| *key));
        }
        Ok(found)
    }

    /// Store all records, evicting what is worth least to stay within the bound.
    ///
    /// One transaction per 4 MiB of envelopes and 1024 records (fewer under a bound below 64 MiB), each all
    /// or nothing. A
    /// record of the same epoch and a newer snap is never replaced. Putting again what was put is harmless.
    ///
    /// # Errors
    /// As [`get_many`](Self::get_many), and with `Busy` while another writer holds the file, `Full` when the
    /// disk is full. Groups before the one that failed are stored; putting all again is harmless.
    pub fn put_many(&self, records: &[Record<'_>], now: i64) -> Result<PutReport, DiskError> {
        let mut report = PutReport::default();
        let mut fitting = Vec::with_capacity(records.len());
        for record in records {
            if record.envelope.len() as u64 > self.bounds.max_record {
                report.refused += 1;
            } else {
                fitting.push(*record);
            }
        }
        let mut rest = &fitting[..];
        while !rest.is_empty() {
            let (group, more) = rest.split_at(self.group_len(rest));
            let stored = self.put_group(group, now)?;
            report.stored += stored;
            report.superseded += group.len() as u64 - stored;
            rest = more;
        }
        self.refused.fetch_add(report.refused, Ordering::Relaxed);
        self.superseded
            .fetch_add(report.superseded, Ordering::Relaxed);
        Ok(report)
    }

    /// Delete `keys`; how many were there.
    ///
    /// # Errors
    /// As [`put_many`](Self::put_many); nothing was deleted then.
    pub fn delete_many(&self, keys: &[Key]) -> Result<u64, DiskError> {
        self.write(|conn, totals| records::delete(conn, totals, keys))
    }

    /// Delete up to `limit` records that may no longer be used at `now`; how many were. A file that is a
    /// quarter empty gives pages back.
    ///
    /// # Errors
    /// As [`put_many`](Self::put_many); nothing was deleted then.
    pub fn purge(&self, now: i64, limit: u64) -> Result<u64, DiskError> {
        self.write(|conn, totals| {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let purged = bound::delete_expired(conn, totals, now, limit)?;
            let (count, free) = bound::pages(conn)?;
            if free > count / 4 {
                bound::shrink(conn, (free / 2).min(VACUUM_STEP))?;
            }
            Ok(purged as u64)
        })
    }

    /// Delete every record; clocks and markers stay. How many there were.
    ///
    /// # Errors
    /// As [`put_many`](Self::put_many).
    pub fn clear(&self) -> Result<u64, DiskError> {
        let cleared = self.write(records::delete_all)?;
        self.vacuum()?;
        Ok(cleared)
    }

    /// Give empty pages back to the file system; the bytes by which the files shrank.
    ///
    /// Works in short transactions, between which other writers get their turn; the call as a whole takes
    /// as long as there are empty pages.
    ///
    /// # Errors
    /// As [`put_many`](Self::put_many); what was given back before stays given back.
    pub fn vacuum(&self) -> Result<u64, DiskError> {
        let before = self.file_bytes();
        loop {
            let left = self.write(|conn, _| {
                let (_, free) = bound::pages(conn)?;
                bound::shrink(conn, free.min(VACUUM_STEP))?;
                Ok(free.saturating_sub(VACUUM_STEP))
            })?;
            if left == 0 {
                break;
            }
        }
        // The file itself is cut when the log is moved into it.
        let lanes = self.lanes()?;
        let conn = lanes::lock(&lanes.writer, Instant::now() + self.budget)?;
        self.truncate_log(&conn)?;
        Ok(before.saturating_sub(self.file_bytes()))
    }

    /// Allocate the next seq of a namespace's clock, `max(last + 1, now)`, and raise the markers of all
    /// `targets`, and the `rules`, to it, in one transaction that survives a power cut; then tell those who
    /// follow. In the same transaction the rules of `forget` go.
    ///
    /// Beyond [`MAX_MARKERS`] or [`MAX_RULES`] the older half becomes one marker of the namespace.
    ///
    /// # Errors
    /// As [`put_many`](Self::put_many); no marker was raised then. The store's own bound does not apply.
    pub fn raise_markers(
        &self,
        namespace: u64,
        targets: &[u64],
        rules: &[&[u8]],
        forget: &[&[u8]],
        now: i64,
    ) -> Result<Raised, DiskError> {
        self.durable(|conn| {
            let raised = clock::raise_markers(conn, namespace, targets, rules, forget, now)?;
            // While the lane is held, so that what this store tells is in order.
            let told = Some(targets).filter(|_| rules.is_empty());
            let untold = followers::tell(&self.folder.path, namespace, raised, told);
            self.untold.fetch_add(untold, Ordering::Relaxed);
            Ok(raised)
        })
    }

    /// What changed in each namespace since what was asked, from one snapshot. A clock that does not exist
    /// is made, with a random epoch.
    ///
    /// # Errors
    /// As [`get_many`](Self::get_many), and as [`raise_markers`](Self::raise_markers) when a clock is made.
    pub fn changes(&self, asked: &[Asked], now: i64) -> Result<Vec<Changes>, DiskError> {
        if let Some(found) = self.read(|conn| clock::changes(conn, asked))? {
            return Ok(found);
        }
        self.durable(|conn| clock::create(conn, asked, now))?;
        self.read(|conn| clock::changes(conn, asked)?.ok_or(rusqlite::Error::QueryReturnedNoRows))
    }

    /// About `limit` records whose row numbers follow `after` (`None`: from the start), and where to go on.
    ///
    /// A record that is there from the first step of a walk to the last is given once.
    ///
    /// # Errors
    /// As [`get_many`](Self::get_many).
    pub fn scan(&self, after: Option<i64>, limit: usize) -> Result<ScanPage, DiskError> {
        self.read(|conn| records::scan(conn, after, limit))
    }

    /// Delete each of `stamped`, `(key, epoch, snap)`, that still has this stamp; how many had.
    ///
    /// # Errors
    /// As [`put_many`](Self::put_many); nothing was deleted then.
    pub fn discard_many(&self, stamped: &[(Key, u64, u64)]) -> Result<u64, DiskError> {
        self.write(|conn, totals| records::discard(conn, totals, stamped))
    }

    /// Up to `limit` fingerprints of a partition's records that arrived after `after` (`i64::MIN`: all), in the
    /// order of their arrival. A record that is written again arrives again.
    ///
    /// # Errors
    /// As [`get_many`](Self::get_many).
    pub fn members(
        &self,
        partition: &Key,
        after: i64,
        limit: usize,
    ) -> Result<MembersPage, DiskError> {
        self.read(|conn| members::page(conn, partition, after, limit))
    }

    /// Problems of the file, none if it is sound. Reads the whole file: for tools, not for traffic.
    ///
    /// # Errors
    /// As [`get_many`](Self::get_many), but damage is a finding here, and nothing is set aside.
    pub fn check(&self) -> Result<Vec<String>, DiskError> {
        let lanes = self.lanes()?;
        let conn = lanes.reader(Instant::now() + self.budget)?;
        match stats::problems(&conn) {
            Ok(problems) => Ok(problems),
            Err(error) => match DiskError::from_engine(&self.folder.database, error) {
                DiskError::Corrupt { .. } => {
                    Ok(vec!["the file is not readable as a database".to_owned()])
                }
                other => Err(other),
            },
        }
    }

    /// Counts and sizes, exact at the moment of the call.
    ///
    /// # Errors
    /// As [`get_many`](Self::get_many).
    pub fn stats(&self) -> Result<DiskStats, DiskError> {
        let (totals, pages, free_pages) = self.read(|conn| {
            let snapshot = conn.unchecked_transaction()?;
            let totals = Totals::load(&snapshot)?;
            let (pages, free) = bound::pages(&snapshot)?;
            snapshot.finish()?;
            Ok((totals, pages, free))
        })?;
        let mut stats = DiskStats::new(&totals, pages, free_pages);
        (stats.file_bytes, stats.log_bytes, stats.index_bytes) = self.folder.file_sizes();
        stats.max_bytes = self.bounds.max_bytes;
        stats.refused = self.refused.load(Ordering::Relaxed);
        stats.superseded = self.superseded.load(Ordering::Relaxed);
        stats.reopened = self.reopened.load(Ordering::Relaxed);
        stats.untold = self.untold.load(Ordering::Relaxed);
        Ok(stats)
    }

    /// Close. Calls that are running end normally; later ones fail with [`DiskError::Closed`].
    ///
    /// # Errors
    /// Fails with `Forked` in a process that did not open the store.
    pub fn close(&self) -> Result<(), DiskError> {
        // In a forked child the lock could be held by a thread that does not exist here.
        if std::process::id() != self.process {
            return Err(DiskError::Forked);
        }
        drop(self.lanes.write().take());
        Ok(())
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // A forked child: closing these connections would disturb the parent's locks and log.
            std::mem::forget(self.lanes.get_mut().take());
        }
    }
}
