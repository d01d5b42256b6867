//! The disk store as the root of invalidation clocks: markers, rules, bounds, followers, scrubbing, old files.
#![cfg(feature = "disk")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use llmcache_core::disk::{
    Asked, Changes, DATABASE_NAME, DiskError, DiskStore, Key, MAX_MARKERS, MAX_RULES, MAX_TOLD,
    Raised, Record,
};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const BUDGET: Duration = Duration::from_secs(5);
const NEVER: i64 = i64::MAX;

fn temp() -> TempDir {
    TempDir::new_in("/dev/shm")
        .or_else(|_| TempDir::new())
        .unwrap()
}

fn open(folder: &Path) -> DiskStore {
    DiskStore::open(folder, 64 * MIB, BUDGET).expect("opens")
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

fn ask(store: &DiskStore, namespace: u64, epoch: u64, seq: u64) -> Changes {
    let asked = Asked {
        namespace,
        epoch,
        seq,
    };
    store.changes(&[asked], 1000).expect("answers").remove(0)
}

fn raise(store: &DiskStore, namespace: u64, targets: &[u64], now: i64) -> Raised {
    store
        .raise_markers(namespace, targets, &[], &[], now)
        .expect("raises")
}

#[test]
fn markers_are_raised_by_a_clock_that_never_goes_back() {
    let folder = temp();
    let store = open(folder.path());
    let start = ask(&store, 7, 0, 0);
    assert_eq!(ask(&store, 7, 0, 0), start);
    assert_eq!((start.seq, start.markers.len()), (1000, 0));
    let epoch = start.epoch;
    let raised = |seq, prev| Raised { epoch, seq, prev };
    assert_eq!(raise(&store, 7, &[1, u64::MAX], 2000), raised(2000, 1000));
    // The machine's clock stands, then goes back.
    assert_eq!(raise(&store, 7, &[2], 2000), raised(2001, 2000));
    let other = open(folder.path());
    assert_eq!(raise(&other, 7, &[1], 5), raised(2002, 2001));
    assert_eq!(
        ask(&other, 7, epoch, 0).markers,
        [(u64::MAX, 2000), (2, 2001), (1, 2002)]
    );
    assert_eq!(ask(&store, 7, epoch, 2001).markers, [(1, 2002)]);
    // Seqs of another epoch mean nothing.
    assert_eq!(ask(&store, 7, !epoch, 2001).markers.len(), 3);
    assert_eq!(ask(&store, 8, 0, 0).markers, []);
    assert_ne!(ask(&store, 8, 0, 0).epoch, epoch);
    store.clear().unwrap();
    assert_eq!(ask(&store, 7, epoch, 2002).seq, 2002);
}

#[test]
fn one_call_makes_the_clocks_that_are_missing_and_answers_for_all() {
    let folder = temp();
    let store = open(folder.path());
    raise(&store, 3, &[1], 50);
    let asked: Vec<_> = [9, 3, u64::MAX]
        .map(|namespace| Asked {
            namespace,
            epoch: 0,
            seq: 0,
        })
        .to_vec();
    let found = store.changes(&asked, 70).unwrap();
    let seqs: Vec<_> = found.iter().map(|each| each.seq).collect();
    assert_eq!(seqs, [70, 51, 70]);
    assert_eq!(found[1].markers, [(1, 51)]);
    assert_eq!(store.changes(&asked, 90).unwrap(), found);
    assert_eq!(store.changes(&[], 90).unwrap(), []);
}

#[test]
fn rules_are_kept_forgotten_and_told_by_seq() {
    let folder = temp();
    let store = open(folder.path());
    let (long, short) = (vec![0xff; 1024], b"seventeen bytes..".to_vec());
    let first = store
        .raise_markers(7, &[], &[&long, &short], &[], 10)
        .unwrap();
    let second = store
        .raise_markers(7, &[5], &[&short], &[b"unknown"], 20)
        .unwrap();
    let there = ask(&store, 7, first.epoch, 0);
    assert!(there.rules == [(long.clone(), first.seq), (short.clone(), 20)]);
    assert_eq!(ask(&store, 7, first.epoch, first.seq).rules, [(short, 20)]);
    assert_eq!(there.markers, [(5, second.seq)]);
    store
        .raise_markers(7, &[7], &[&long], &[&long, b"seventeen bytes.."], 30)
        .unwrap();
    assert_eq!(ask(&store, 7, first.epoch, 0).rules, [(long, 30)]);
}

#[test]
fn beyond_the_bound_the_older_half_becomes_one_marker() {
    let folder = temp();
    let store = open(folder.path());
    let most = MAX_MARKERS.cast_unsigned();
    for first in (1..most).step_by(1 << 12) {
        let targets: Vec<_> = (first..first + (1 << 12)).collect();
        raise(&store, 0, &targets, 0);
    }
    assert_eq!(ask(&store, 0, 0, 0).markers.len() as u64, most);
    // Raising them again adds none.
    raise(&store, 0, &[1, 2, 3], 0);
    assert_eq!(ask(&store, 0, 0, 0).markers.len() as u64, most);
    let last = raise(&store, 0, &[1 << 40, 4], 0);
    let kept = ask(&store, 0, 0, 0).markers;
    assert!((kept.len() as u64) <= most / 2 + 2);
    let floor = kept.iter().find(|(target, _)| *target == 0).unwrap().1;
    assert!(floor < last.seq - 1);
    assert!(
        kept.iter()
            .all(|(target, seq)| *target == 0 || *seq > floor)
    );
    assert!(kept.ends_with(&[(4, last.seq), (1 << 40, last.seq)]));
    // The count starts from what is left: the next half goes when the table is full again.
    raise(&store, 0, &[1 << 41], 0);
    assert_eq!(ask(&store, 0, 0, 0).markers.len(), kept.len() + 1);
}

#[test]
fn of_too_many_rules_the_older_half_becomes_a_marker() {
    let folder = temp();
    let store = open(folder.path());
    let rule = |n: i64| format!("a rule of number {n:08}").into_bytes();
    let mut seqs = Vec::new();
    for n in 0..=MAX_RULES {
        let raised = store.raise_markers(7, &[], &[&rule(n)], &[], 0).unwrap();
        seqs.push(raised.seq);
    }
    let there = ask(&store, 7, 0, 0);
    let half = usize::try_from(MAX_RULES / 2).unwrap();
    assert_eq!(there.rules.len(), half + 1);
    assert_eq!(there.rules[0].1, seqs[half]);
    assert_eq!(there.markers, [(7, seqs[half - 1])]);
}

fn follower(folder: &Path, name: &str) -> UnixDatagram {
    let followers = folder.join("followers");
    fs::create_dir_all(&followers).unwrap();
    let socket = UnixDatagram::bind(followers.join(name)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn received(socket: &UnixDatagram) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    let size = socket.recv(&mut bytes).ok()?;
    bytes.truncate(size);
    Some(bytes)
}

fn message(epoch: u64, prev: u64, seq: u64, targets: &str) -> Vec<u8> {
    format!("1:0000000000000007:{epoch:016x}:{prev}:{seq}:{targets}").into_bytes()
}

#[test]
fn followers_get_the_bytes_of_the_message() {
    let folder = temp();
    let store = open(folder.path());
    raise(&store, 7, &[1], 10);
    let (one, two) = (
        follower(folder.path(), "one.sock"),
        follower(folder.path(), "two.sock"),
    );
    fs::write(folder.path().join("followers/notes.txt"), b"not a socket").unwrap();
    fs::write(folder.path().join("followers/file.sock"), b"nor this").unwrap();
    let epoch = raise(&store, 7, &[3, u64::MAX], 20).epoch;
    let told = message(epoch, 11, 20, "0000000000000003ffffffffffffffff");
    assert_eq!(received(&one), Some(told.clone()));
    assert_eq!(received(&two), Some(told));
    let many: Vec<_> = (0..=MAX_TOLD as u64).collect();
    raise(&store, 7, &many, 30);
    assert_eq!(received(&one), Some(message(epoch, 20, 30, "*")));
    store
        .raise_markers(7, &[1], &[b"a rule of any sort"], &[], 40)
        .unwrap();
    assert_eq!(received(&one), Some(message(epoch, 30, 40, "*")));
    raise(&store, 7, &[], 50);
    assert_eq!(received(&one), Some(message(epoch, 40, 50, "")));
    assert_eq!(received(&one), None);
}

#[test]
fn sockets_of_the_dead_are_removed_and_those_of_the_slow_are_not_waited_for() {
    let folder = temp();
    let store = open(folder.path());
    drop(follower(folder.path(), "dead.sock"));
    let slow = follower(folder.path(), "slow.sock");
    let dead = folder.path().join("followers/dead.sock");
    assert!(dead.exists());
    for n in 0..2000 {
        raise(&store, 1, &[n], 0);
    }
    assert!(!dead.exists());
    let heard = std::iter::from_fn(|| received(&slow)).count() as u64;
    assert!(heard > 0);
    assert_eq!(store.stats().unwrap().untold, 2000 - heard);
}

fn walk(store: &DiskStore, limit: usize) -> Vec<Vec<(Key, Vec<u8>)>> {
    let (mut pages, mut at) = (Vec::new(), None);
    loop {
        let page = store.scan(at, limit).unwrap();
        let bytes: usize = page.records.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(page.records.len() <= limit && bytes <= 8 << 20);
        pages.push(page.records);
        at = page.next;
        if at.is_none() {
            return pages;
        }
    }
}

#[test]
fn a_walk_gives_all_in_bounded_steps() {
    let folder = temp();
    let store = DiskStore::open(folder.path(), 512 * MIB, BUDGET).unwrap();
    let large = vec![7; 5 << 20];
    let envelopes: Vec<Vec<u8>> = (0..50_u8)
        .map(|n| {
            if n % 10 == 0 {
                large.clone()
            } else {
                vec![n; 100]
            }
        })
        .collect();
    for (n, envelope) in (0..).zip(&envelopes) {
        store.put_many(&[record(n, envelope)], 0).unwrap();
    }
    let pages = walk(&store, 20);
    assert!(pages.len() >= 5);
    let mut found = pages.concat();
    found.sort();
    let mut expected: Vec<_> = (0..).map(key).zip(envelopes).collect();
    expected.sort();
    assert_eq!(found, expected);
    // A process with a smaller bound walks past what it would not store.
    let small = DiskStore::open(folder.path(), 16 * MIB, BUDGET).unwrap();
    assert_eq!(walk(&small, 100).concat().len(), 45);
}

#[test]
fn discards_what_still_has_its_stamp() {
    let folder = temp();
    let store = open(folder.path());
    let envelope = vec![1; 9000];
    let records: Vec<_> = (0..4).map(|n| record(n, &envelope)).collect();
    store.put_many(&records, 0).unwrap();
    let newer = Record {
        snap: 11,
        ..record(1, b"newer")
    };
    store.put_many(&[newer], 0).unwrap();
    let stamped: Vec<_> = (0..3).map(|n| (key(n), 1, 10)).collect();
    assert_eq!(store.discard_many(&stamped).unwrap(), 2);
    let stats = store.stats().unwrap();
    assert_eq!((stats.rows, stats.bytes), (2, 9005));
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

/// How many bytes `needle` starts at in the files of a folder.
fn readable(folder: &Path, needle: &[u8]) -> usize {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            let bytes = fs::read(path).unwrap();
            bytes
                .windows(needle.len())
                .filter(|window| *window == needle)
                .count()
        })
        .sum()
}

#[test]
fn a_scrub_leaves_nothing_of_what_was_deleted() {
    let folder = temp();
    let store = open(folder.path());
    let canary = b"THE CANARY OF A PERSON";
    // Rows of one page and of several, written over and moved about by others in between.
    for turn in 0..40_u64 {
        for n in 0..30 {
            let number = turn * 30 + n;
            let size = 100 + (number * 7919) % 9000;
            let text = if number % 3 == 0 {
                &canary[..]
            } else {
                b"someone else's words  "
            };
            let envelope = text.repeat(usize::try_from(size).unwrap() / text.len() + 1);
            store.put_many(&[record(number, &envelope)], 0).unwrap();
            store
                .put_many(&[record(number / 2, b"overwritten")], 0)
                .unwrap();
        }
    }
    let reader = open(folder.path());
    let keys: Vec<_> = (0..1200).map(key).collect();
    assert!(reader.get_many(&keys).unwrap().iter().all(Option::is_some));
    let targets: Vec<_> = (0..1200).step_by(3).map(key).collect();
    store.delete_many(&targets).unwrap();
    assert!(readable(folder.path(), canary) > 1000);
    // Giving empty pages back is not enough.
    store.vacuum().unwrap();
    assert!(readable(folder.path(), canary) > 0);
    assert_eq!(store.scrub().unwrap(), Vec::<std::path::PathBuf>::new());
    assert_eq!(readable(folder.path(), canary), 0);
    assert!(readable(folder.path(), b"someone else's words") > 1000);
    assert_eq!(store.stats().unwrap().log_bytes, 0);
    // All goes on as before.
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
    let left = reader.get_many(&keys).unwrap();
    assert_eq!(left.iter().filter(|each| each.is_some()).count(), 800);
    reader.put_many(&[record(0, b"later")], 0).unwrap();
    assert_eq!(
        store.get_many(&keys[..1]).unwrap(),
        [Some(b"later".to_vec())]
    );
    store.delete_many(&keys).unwrap();
    assert!(store.vacuum().is_ok());
    assert_eq!(store.stats().unwrap().free_pages, 0);
}

#[test]
fn a_scrub_says_what_it_could_not_do() {
    let folder = temp();
    let store = DiskStore::open(folder.path(), 64 * MIB, Duration::from_millis(20)).unwrap();
    store.put_many(&[record(1, b"one")], 0).unwrap();
    let aside = folder.path().join(format!("{DATABASE_NAME}.corrupt-1"));
    fs::write(&aside, b"perhaps").unwrap();
    assert_eq!(store.scrub().unwrap(), [aside]);
    let mut other = rusqlite::Connection::open(folder.path().join(DATABASE_NAME)).unwrap();
    let held = other
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .unwrap();
    assert!(matches!(store.scrub(), Err(DiskError::Busy)));
    drop(held);
    // A reader that stays keeps the log, and what is in it.
    let held = other.transaction().unwrap();
    held.query_row("SELECT count(*) FROM records", [], |_| Ok(()))
        .unwrap();
    assert!(matches!(store.scrub(), Err(DiskError::Busy)));
    drop(held);
    store.scrub().unwrap();
}

#[test]
fn a_scrub_keeps_what_another_process_stored_and_this_one_would_not() {
    let folder = temp();
    let large = DiskStore::open(folder.path(), 512 * MIB, BUDGET).unwrap();
    let envelope = vec![7; 5 << 20];
    large.put_many(&[record(1, &envelope)], 0).unwrap();
    let small = DiskStore::open(folder.path(), 16 * MIB, BUDGET).unwrap();
    small.scrub().unwrap();
    assert_eq!(large.get_many(&[key(1)]).unwrap(), [Some(envelope)]);
    small.put_many(&[record(2, b"two")], 0).unwrap();
}

fn member(number: u64, partition: u64, envelope: &[u8]) -> Record<'_> {
    Record {
        partition: Some(key(partition)),
        ..record(number, envelope)
    }
}

fn members(store: &DiskStore, partition: u64, after: i64) -> (Vec<Key>, Option<i64>) {
    let page = store.members(&key(partition), after, 10_000).unwrap();
    (page.keys, page.last)
}

#[test]
fn members_arrive_in_order_and_go_with_their_records() {
    let folder = temp();
    let store = open(folder.path());
    let batch: Vec<_> = (0..10).map(|n| member(n, 77, b"x")).collect();
    store.put_many(&batch, 1000).unwrap();
    assert_eq!(
        members(&store, 77, i64::MIN),
        ((0..10).map(key).collect(), Some(1009))
    );
    // The time goes back: arrivals do not. Of another store they are later all the same.
    let other = open(folder.path());
    other.put_many(&[member(3, 77, b"again")], 5).unwrap();
    assert_eq!(members(&store, 77, 1009), (vec![key(3)], Some(1010)));
    store.put_many(&[member(10, 77, b"x")], 2000).unwrap();
    assert_eq!(members(&store, 77, 1010), (vec![key(10)], Some(2000)));
    // Deleted, discarded, expired, moved, written without a partition: no members any more.
    store.delete_many(&[key(0)]).unwrap();
    store
        .discard_many(&[(key(1), 1, 10), (key(2), 1, 9)])
        .unwrap();
    let expiring = Record {
        stale_until: 50,
        ..member(4, 77, b"x")
    };
    store
        .put_many(&[expiring, member(5, 78, b"x"), record(6, b"x")], 0)
        .unwrap();
    assert_eq!(store.purge(50, 10).unwrap(), 1);
    assert_eq!(
        members(&store, 77, i64::MIN).0,
        [2, 7, 8, 9, 3, 10].map(key)
    );
    assert_eq!(members(&store, 78, i64::MIN).0, [key(5)]);
    // A key that shares a row number takes the row, and its membership with it.
    let mut twin = key(7);
    twin[31] ^= 1;
    store
        .put_many(
            &[Record {
                key: twin,
                ..record(7, b"twin")
            }],
            0,
        )
        .unwrap();
    assert_eq!(members(&store, 77, i64::MIN).0, [2, 8, 9, 3, 10].map(key));
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
    assert_eq!(store.clear().unwrap(), 8);
    assert_eq!(members(&store, 77, i64::MIN), (vec![], None));
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

#[test]
fn members_are_within_the_bound_and_evicted_with_their_records() {
    let folder = temp();
    let store = DiskStore::open(folder.path(), MIB, BUDGET).unwrap();
    for start in 0..200 {
        let batch: Vec<_> = (0..50)
            .map(|n| member(start * 50 + n, start % 3, b"a small record"))
            .collect();
        store.put_many(&batch, 0).unwrap();
        let bytes: u64 = fs::read_dir(folder.path())
            .unwrap()
            .filter_map(|entry| entry.unwrap().metadata().ok())
            .map(|meta| meta.len())
            .sum();
        assert!(bytes <= MIB, "{bytes} bytes after {start} batches");
    }
    let stats = store.stats().unwrap();
    assert!(stats.evicted > 5000);
    let listed: usize = (0..3).map(|n| members(&store, n, i64::MIN).0.len()).sum();
    assert_eq!(listed as u64, stats.rows);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}
