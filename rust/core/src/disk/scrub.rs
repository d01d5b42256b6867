//! Rewriting the files so that nothing of a deleted record can be read in them.
//!
//! SQLite leaves deleted bytes where they were: in free pages, in the unused parts of pages, in the log.
//! `secure_delete` overwrites most of them, at a cost to every write, and not all: a page that is rebuilt
//! while cells move to its neighbours keeps copies in its gap, which no later deletion finds. `VACUUM` builds
//! the database anew from what is stored, so nothing else can be in it; the write path pays nothing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::DiskStore;
use super::error::DiskError;
use super::lanes;

/// How many budgets a scrub waits for writers before it begins, and again for readers when it cuts the log.
const PATIENCE: u32 = 20;
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(5);

impl DiskStore {
    /// Make what was deleted before unreadable in the database, its log and the log's index. What remains to
    /// be deleted by hand: the databases set aside as damaged, whose content is not known.
    ///
    /// Takes time, and room on the disk, in proportion to what is stored: the log grows by as much, and so
    /// does a temporary file. Other writers wait meanwhile; readers do not.
    ///
    /// # Errors
    /// As [`put_many`](Self::put_many); `Busy` also when a reader does not let go of the log. What was
    /// deleted may be readable then: scrub again.
    pub fn scrub(&self) -> Result<Vec<PathBuf>, DiskError> {
        let lanes = self.lanes()?;
        let patience = PATIENCE * self.budget;
        let result = {
            let conn = lanes::lock(&lanes.writer, Instant::now() + patience)?;
            let work = || {
                // The bound on pages is of the last put; a rewritten file has no more pages than before.
                conn.pragma_update_and_check(
                    None,
                    "max_page_count",
                    i64::from(u32::MAX - 1),
                    |_| Ok(()),
                )?;
                conn.execute_batch("VACUUM")?;
                let deadline = Instant::now() + patience;
                loop {
                    conn.busy_timeout(deadline.saturating_duration_since(Instant::now()))?;
                    let busy: bool =
                        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
                    if !busy || Instant::now() >= deadline {
                        return Ok(busy);
                    }
                    // For another process that moves the log itself, SQLite does not wait.
                    std::thread::sleep(CHECKPOINT_PAUSE);
                }
            };
            work()
        };
        match result {
            Ok(false) => self.folder.damaged(),
            Ok(true) => Err(DiskError::Busy),
            Err(error) => Err(self.failed(&lanes, error)),
        }
    }
}
