//! The disk store: what it promises, one machine, one process (the kill loop is in `tests/faults`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use llmcache_core::disk::{Asked, Changes, DATABASE_NAME, DiskError, DiskStore, Key, Record};
use tempfile::TempDir;

const NEVER: i64 = i64::MAX;
const MIB: u64 = 1 << 20;
const BUDGET: Duration = Duration::from_secs(5);

/// A folder in memory where there is one: what is tested here does not depend on a real disk's syncs.
fn temp() -> TempDir {
    TempDir::new_in("/dev/shm")
        .or_else(|_| TempDir::new())
        .unwrap()
}

fn key(number: u64) -> Key {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

fn record(number: u64, envelope: &[u8]) -> Record<'_> {
    Record {
        key: key(number),
        envelope,
        epoch: 1,
        snap: 10,
        stale_until: NEVER,
        cost: 1000,
        partition: None,
    }
}

fn open(folder: &Path) -> DiskStore {
    DiskStore::open(folder, 64 * MIB, BUDGET).expect("opens")
}

fn get(store: &DiskStore, number: u64) -> Option<Vec<u8>> {
    store.get_many(&[key(number)]).expect("reads").remove(0)
}

fn changes(store: &DiskStore, namespace: u64) -> Changes {
    let asked = Asked {
        namespace,
        epoch: 0,
        seq: 0,
    };
    store.changes(&[asked], 0).expect("answers").remove(0)
}

fn file_bytes(folder: &Path) -> u64 {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().map_or(0, |meta| meta.len()))
        .sum()
}

#[test]
fn what_was_put_is_got_also_after_opening_again() {
    let folder = temp();
    let store = open(folder.path());
    assert!(store.opening().created);
    let report = store
        .put_many(&[record(1, b"one"), record(2, b"")], 0)
        .unwrap();
    assert_eq!(
        (report.stored, report.superseded, report.refused),
        (2, 0, 0)
    );
    let found = store.get_many(&[key(2), key(3), key(1), key(1)]).unwrap();
    assert_eq!(
        found,
        [
            Some(vec![]),
            None,
            Some(b"one".to_vec()),
            Some(b"one".to_vec())
        ]
    );
    drop(store);
    let again = open(folder.path());
    assert!(!again.opening().created);
    assert_eq!(get(&again, 1).as_deref(), Some(&b"one"[..]));
}

#[test]
fn an_older_snap_of_the_same_epoch_never_replaces_a_newer() {
    let folder = temp();
    let store = open(folder.path());
    let at = |snap, epoch, envelope| Record {
        snap,
        epoch,
        ..record(1, envelope)
    };
    store.put_many(&[at(20, 1, b"newer")], 0).unwrap();
    let report = store.put_many(&[at(19, 1, b"older")], 0).unwrap();
    assert_eq!((report.stored, report.superseded), (0, 1));
    assert_eq!(get(&store, 1).as_deref(), Some(&b"newer"[..]));
    store.put_many(&[at(20, 1, b"same snap")], 0).unwrap();
    assert_eq!(get(&store, 1).as_deref(), Some(&b"same snap"[..]));
    // Another epoch is another clock: its snaps do not compare.
    store.put_many(&[at(3, 2, b"other epoch")], 0).unwrap();
    assert_eq!(get(&store, 1).as_deref(), Some(&b"other epoch"[..]));
    assert_eq!(store.stats().unwrap().superseded, 1);
}

#[test]
fn two_keys_that_share_a_row_number_are_never_mistaken() {
    let folder = temp();
    let store = open(folder.path());
    let mut twin = key(1);
    twin[31] ^= 1;
    store
        .put_many(
            &[Record {
                snap: 99,
                ..record(1, b"first")
            }],
            0,
        )
        .unwrap();
    assert_eq!(store.get_many(&[twin]).unwrap(), [None]);
    assert_eq!(store.delete_many(&[twin]).unwrap(), 0);
    store
        .put_many(
            &[Record {
                key: twin,
                snap: 1,
                ..record(1, b"second")
            }],
            0,
        )
        .unwrap();
    assert_eq!(
        store.get_many(&[key(1), twin]).unwrap(),
        [None, Some(b"second".to_vec())]
    );
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

#[test]
fn deleting_purging_and_clearing_count_what_went() {
    let folder = temp();
    let store = open(folder.path());
    let records: Vec<_> = (0..10_u64)
        .map(|n| Record {
            stale_until: 100 + n.cast_signed(),
            ..record(n, b"x")
        })
        .collect();
    store.put_many(&records, 0).unwrap();
    assert_eq!(store.delete_many(&[key(0), key(0), key(77)]).unwrap(), 1);
    // Gone means now >= stale_until: 101..=104 of those left.
    assert_eq!(store.purge(104, 2).unwrap(), 2);
    assert_eq!(store.purge(104, 100).unwrap(), 2);
    assert_eq!(store.purge(104, 100).unwrap(), 0);
    let stats = store.stats().unwrap();
    assert_eq!((stats.rows, stats.bytes, stats.expired), (5, 5, 4));
    assert_eq!(store.clear().unwrap(), 5);
    assert_eq!(store.stats().unwrap().rows, 0);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

#[test]
fn the_files_stay_within_the_bound() {
    for (max_bytes, size) in [(MIB, 700), (8 * MIB, 3_000), (MIB, 90), (8 * MIB, 400_000)] {
        let folder = temp();
        let store = DiskStore::open(folder.path(), max_bytes, BUDGET).unwrap();
        let envelope = vec![7; size];
        let mut written = 0;
        for batch in 0..u64::MAX {
            let records: Vec<_> = (0..20).map(|n| record(batch * 20 + n, &envelope)).collect();
            store.put_many(&records, 0).unwrap();
            written += 20 * size as u64;
            let total = file_bytes(folder.path());
            assert!(
                total <= max_bytes + 100,
                "{size}: {total} over {max_bytes}: {:?}",
                store.stats()
            );
            if written > 2 * max_bytes {
                break;
            }
        }
        let stats = store.stats().unwrap();
        assert!(stats.evicted > 0);
        // Keys and index entries take some 150 bytes a row, which only small rows notice.
        let used = stats.bytes + 150 * stats.rows;
        assert!(
            used * 4 > max_bytes,
            "only {used} of {max_bytes} used by {size}"
        );
        assert_eq!(store.check().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_smaller_bound_than_last_time_is_reached_by_writing() {
    let folder = temp();
    let envelope = vec![3; 5_000];
    let large = DiskStore::open(folder.path(), 32 * MIB, BUDGET).unwrap();
    for batch in 0..20 {
        let records: Vec<_> = (0..100)
            .map(|n| record(batch * 100 + n, &envelope))
            .collect();
        large.put_many(&records, 0).unwrap();
    }
    drop(large);
    assert!(file_bytes(folder.path()) > 10_000_000);
    let small = DiskStore::open(folder.path(), 4 * MIB, BUDGET).unwrap();
    for n in 5000..5040 {
        small.put_many(&[record(n, &envelope)], 0).unwrap();
    }
    assert!(file_bytes(folder.path()) <= 4 * MIB + 100);
    assert!(get(&small, 5039).is_some());
    assert_eq!(small.check().unwrap(), Vec::<String>::new());
}

#[test]
fn eviction_takes_the_expired_then_the_cheap_then_the_long_unread() {
    let folder = temp();
    let store = DiskStore::open(folder.path(), 4 * MIB, BUDGET).unwrap();
    let envelope = vec![1; 10_000];
    let with = |number, cost, stale_until| Record {
        cost,
        stale_until,
        ..record(number, &envelope)
    };
    let mut next = 1000;
    let mut fill = |rounds: u64| {
        for _ in 0..rounds {
            store.put_many(&[with(next, 10, NEVER)], 500).unwrap();
            next += 1;
        }
    };
    let dear: Vec<_> = (0..20).map(|n| with(n, 1_000_000, NEVER)).collect();
    let expired: Vec<_> = (100..120).map(|n| with(n, 1_000_000, 400)).collect();
    let read: Vec<_> = (200..205).map(|n| with(n, 10, NEVER)).collect();
    store.put_many(&dear, 0).unwrap();
    store.put_many(&expired, 0).unwrap();
    store.put_many(&read, 0).unwrap();
    let hot: Vec<_> = (200..205).map(key).collect();
    for _ in 0..1000 {
        fill(1);
        store.get_many(&hot).unwrap();
    }
    let present = |range: std::ops::Range<u64>| {
        let keys: Vec<_> = range.map(key).collect();
        store.get_many(&keys).unwrap().iter().flatten().count()
    };
    assert_eq!(present(0..20), 20, "dear rows outlive cheap ones");
    assert_eq!(present(100..120), 0, "expired rows go first, however dear");
    assert_eq!(
        present(200..205),
        5,
        "rows in use outlive rows of the same worth"
    );
    assert_eq!(present(1000..1010), 0);
    let stats = store.stats().unwrap();
    assert_eq!(stats.expired, 20);
    assert_eq!(stats.evicted_cost, stats.evicted * 10);
}

#[test]
fn a_record_too_large_is_refused_alone() {
    let folder = temp();
    let store = DiskStore::open(folder.path(), 2 * MIB, BUDGET).unwrap();
    let large = vec![0; usize::try_from(store.max_record()).unwrap() + 1];
    let report = store
        .put_many(&[record(1, b"small"), record(2, &large)], 0)
        .unwrap();
    assert_eq!((report.stored, report.refused), (1, 1));
    assert_eq!(
        store.get_many(&[key(1), key(2)]).unwrap(),
        [Some(b"small".to_vec()), None]
    );
    // Another process with a larger bound may store it; this one does not load it.
    let roomy = DiskStore::open(folder.path(), 64 * MIB, BUDGET).unwrap();
    let large = vec![0; large.len() + 8192];
    assert_eq!(roomy.put_many(&[record(2, &large)], 0).unwrap().stored, 1);
    assert_eq!(store.get_many(&[key(2)]).unwrap(), [None]);
    assert_eq!(roomy.get_many(&[key(2)]).unwrap(), [Some(large)]);
}

#[test]
fn the_file_shrinks() {
    let folder = temp();
    let store = open(folder.path());
    let envelope = vec![1; 100_000];
    let records: Vec<_> = (0..200).map(|n| record(n, &envelope)).collect();
    store.put_many(&records, 0).unwrap();
    store.vacuum().unwrap();
    let full = file_bytes(folder.path());
    assert!(full > 20_000_000);
    let half: Vec<_> = (0..100).map(key).collect();
    store.delete_many(&half).unwrap();
    assert!(store.vacuum().unwrap() > 8_000_000);
    assert!(file_bytes(folder.path()) < full * 6 / 10);
    store.clear().unwrap();
    assert!(file_bytes(folder.path()) < 500_000);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

#[test]
fn markers_can_be_raised_when_the_store_is_full() {
    let folder = temp();
    let store = DiskStore::open(folder.path(), MIB, BUDGET).unwrap();
    let envelope = vec![1; 20_000];
    for n in 0..200 {
        store.put_many(&[record(n, &envelope)], 0).unwrap();
    }
    let targets: Vec<_> = (0..2000).collect();
    store.raise_markers(1, &targets, &[], &[], 10).unwrap();
    assert_eq!(changes(&store, 1).markers.len(), 2000);
}

#[test]
fn a_foreign_or_newer_file_is_refused_and_left_alone() {
    let text = temp();
    fs::write(
        text.path().join(DATABASE_NAME),
        "my notes, not a database".repeat(100),
    )
    .unwrap();
    let sqlite = temp();
    let other = rusqlite::Connection::open(sqlite.path().join(DATABASE_NAME)).unwrap();
    other
        .execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
        .unwrap();
    drop(other);
    for folder in [&text, &sqlite] {
        let before = fs::read(folder.path().join(DATABASE_NAME)).unwrap();
        for _ in 0..2 {
            let error = DiskStore::open(folder.path(), MIB, BUDGET).unwrap_err();
            assert!(matches!(error, DiskError::Foreign { .. }), "{error}");
            assert_eq!(fs::read(folder.path().join(DATABASE_NAME)).unwrap(), before);
        }
    }
    let newer = temp();
    drop(open(newer.path()));
    rusqlite::Connection::open(newer.path().join(DATABASE_NAME))
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let error = DiskStore::open(newer.path(), MIB, BUDGET).unwrap_err();
    assert!(
        matches!(error, DiskError::Newer { found: 99, .. }),
        "{error}"
    );
    assert!(newer.path().join(DATABASE_NAME).exists());
}

fn set_aside_files(folder: &Path) -> usize {
    fs::read_dir(folder)
        .unwrap()
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .contains(".corrupt-")
        })
        .count()
}

#[test]
fn damage_found_at_opening_is_set_aside() {
    let folder = temp();
    let store = open(folder.path());
    store.put_many(&[record(1, b"one")], 0).unwrap();
    store.close().unwrap();
    fs::write(folder.path().join(DATABASE_NAME), vec![0xAB; 50_000]).unwrap();
    let again = open(folder.path());
    assert!(again.opening().created);
    assert!(again.opening().set_aside.as_ref().unwrap().exists());
    assert_eq!(get(&again, 1), None);
    again.put_many(&[record(1, b"one")], 0).unwrap();
    assert_eq!(get(&again, 1).as_deref(), Some(&b"one"[..]));
    assert_eq!(set_aside_files(folder.path()), 1);
}

#[test]
fn damage_found_while_reading_is_set_aside_once_for_all_processes() {
    let folder = temp();
    let store = open(folder.path());
    let envelope = vec![1; 3000];
    let records: Vec<_> = (0..500).map(|n| record(n, &envelope)).collect();
    store.put_many(&records, 0).unwrap();
    let epoch = changes(&store, 1).epoch;
    store.vacuum().unwrap();
    store.close().unwrap();
    let path = folder.path().join(DATABASE_NAME);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8192..].fill(0x5A);
    fs::write(&path, &bytes).unwrap();
    // Page one, and with it the schema, is sound: the damage shows when the trees are walked.
    let (first, second) = match (
        DiskStore::open(folder.path(), 64 * MIB, BUDGET),
        open(folder.path()),
    ) {
        (Ok(first), second) => (first, second),
        (Err(error), _) => panic!("{error}"),
    };
    let keys: Vec<_> = (0..500).map(key).collect();
    for store in [&first, &second] {
        match store.get_many(&keys) {
            Ok(found) => assert!(found.iter().all(Option::is_none)),
            Err(DiskError::Corrupt { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        assert!(store.get_many(&keys).unwrap().iter().all(Option::is_none));
    }
    assert!(set_aside_files(folder.path()) >= 1);
    first.put_many(&[record(1, b"fresh")], 0).unwrap();
    assert_eq!(get(&second, 1).as_deref(), Some(&b"fresh"[..]));
    // Nothing stamped by the lost clock is valid any more.
    assert_ne!(changes(&second, 1).epoch, epoch);
}

#[test]
fn a_folder_deleted_under_an_open_store_is_made_again() {
    let parent = temp();
    let folder = parent.path().join("cache");
    let store = open(&folder);
    store.put_many(&[record(1, b"one")], 0).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(get(&store, 1), None);
    store.put_many(&[record(1, b"two")], 0).unwrap();
    assert_eq!(get(&open(&folder), 1).as_deref(), Some(&b"two"[..]));
    assert_eq!(store.stats().unwrap().reopened, 1);
}

#[test]
fn files_are_private() {
    let parent = temp();
    let folder = parent.path().join("a/b");
    let store = open(&folder);
    store.put_many(&[record(1, b"one")], 0).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&parent.path().join("a")), 0o700);
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn options_that_cannot_work_and_closed_stores_say_so() {
    let folder = temp();
    assert!(matches!(
        DiskStore::open(folder.path(), 1000, BUDGET),
        Err(DiskError::Option(_))
    ));
    assert!(matches!(
        DiskStore::open(folder.path(), MIB, Duration::ZERO),
        Err(DiskError::Option(_))
    ));
    let store = open(folder.path());
    store.close().unwrap();
    store.close().unwrap();
    assert!(matches!(store.get_many(&[key(1)]), Err(DiskError::Closed)));
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(
        DiskStore::open(&file, MIB, BUDGET),
        Err(DiskError::Io { .. })
    ));
}

#[test]
fn a_writer_that_holds_the_file_makes_others_busy_not_stuck_and_readers_read_on() {
    let folder = temp();
    let store = DiskStore::open(folder.path(), 64 * MIB, Duration::from_millis(30)).unwrap();
    store.put_many(&[record(1, b"one")], 0).unwrap();
    let mut other = rusqlite::Connection::open(folder.path().join(DATABASE_NAME)).unwrap();
    let held = other
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .unwrap();
    assert!(matches!(
        store.put_many(&[record(2, b"two")], 0),
        Err(DiskError::Busy)
    ));
    assert!(matches!(
        store.raise_markers(1, &[1], &[], &[], 0),
        Err(DiskError::Busy)
    ));
    assert_eq!(get(&store, 1).as_deref(), Some(&b"one"[..]));
    drop(held);
    store.put_many(&[record(2, b"two")], 0).unwrap();
}

#[test]
fn a_reader_that_pins_the_log_cannot_break_the_bound() {
    let folder = temp();
    let store = DiskStore::open(folder.path(), 2 * MIB, BUDGET).unwrap();
    store.put_many(&[record(1, b"one")], 0).unwrap();
    let mut other = rusqlite::Connection::open(folder.path().join(DATABASE_NAME)).unwrap();
    let pinned = other.transaction().unwrap();
    pinned
        .query_row("SELECT count(*) FROM records", [], |row| {
            row.get::<_, i64>(0)
        })
        .unwrap();
    let envelope = vec![1; 50_000];
    let refused = (0..200).find_map(|n| store.put_many(&[record(n, &envelope)], 0).err());
    assert!(matches!(refused, Some(DiskError::Full(_))), "{refused:?}");
    assert!(file_bytes(folder.path()) <= 2 * MIB);
    drop(pinned);
    assert_eq!(store.put_many(&[record(1, b"again")], 0).unwrap().stored, 1);
}

#[test]
fn threads_and_stores_write_and_read_at_once() {
    let folder = temp();
    let stores = [Arc::new(open(folder.path())), Arc::new(open(folder.path()))];
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let store = Arc::clone(&stores[usize::try_from(thread % 2).unwrap()]);
            scope.spawn(move || {
                for n in 0..50 {
                    let number = thread * 1000 + n;
                    let text = number.to_string();
                    store
                        .put_many(&[record(number, text.as_bytes())], 0)
                        .unwrap();
                    assert_eq!(get(&store, number).as_deref(), Some(text.as_bytes()));
                }
            });
        }
    });
    assert_eq!(stores[0].stats().unwrap().rows, 200);
    assert_eq!(stores[1].check().unwrap(), Vec::<String>::new());
}
