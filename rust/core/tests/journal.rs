//! The journal: what was synced is found again after any crash, nothing else is, and damage is counted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use llmcache_core::journal::frame::{self, FILE_HEAD, FRAME_HEAD, Frame, Record};
use llmcache_core::journal::{Journal, JournalError, Letters, MIN_SEGMENT, Recovery, scan};
use proptest::prelude::*;
use tempfile::TempDir;

/// In memory where there is such a place: these tests care for bytes, and an fsync of a disk takes long.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder")
}

/// A record whose every byte follows from its number.
struct Sample {
    key: [u8; 32],
    envelope: Vec<u8>,
    number: u64,
}

impl Sample {
    fn new(number: u64) -> Self {
        let key = *blake3::hash(&number.to_le_bytes()).as_bytes();
        let length = usize::from(key[0]) * 4;
        Self {
            key,
            envelope: key.iter().copied().cycle().take(length).collect(),
            number,
        }
    }

    fn record(&self) -> Record<'_> {
        Record {
            key: self.key,
            epoch: self.number,
            snap: u64::MAX - self.number,
            stale_until: i64::MAX,
            cost: self.number * 10,
            created: -1,
            fresh_until: 7,
            tiers: "disk\nredis",
            namespace: self.number.is_multiple_of(2).then_some("räume"),
            facts: self.number.is_multiple_of(3).then_some(b"\x01\x02"),
            envelope: &self.envelope,
        }
    }
}

const BOTH: u64 = 0b11;

fn append(journal: &Journal, number: u64) -> u64 {
    journal.append(&Sample::new(number).record()).expect("room")
}

fn sync(journal: &Journal) {
    journal
        .sync()
        .expect("open")
        .result
        .expect("a disk that works");
}

fn adopt(folder: &Path) -> Vec<Journal> {
    Journal::adopt(folder, MIN_SEGMENT)
        .expect("a folder")
        .into_iter()
        .map(|lane| lane.expect("readable"))
        .collect()
}

/// By the number of the sample: the bits of tiers left. Every record is compared byte by byte.
fn contents(journal: &Journal) -> BTreeMap<u64, u64> {
    let mut after = 0;
    let mut contents = BTreeMap::new();
    loop {
        let batch = journal.read(after, 7, 3000).expect("readable");
        let Some(last) = batch.last() else {
            return contents;
        };
        after = last.sequence;
        for found in &batch {
            let record = found.record();
            let sample = Sample::new(record.epoch);
            assert_eq!(record, sample.record(), "invented");
            assert!(contents.insert(record.epoch, found.left).is_none(), "twice");
        }
    }
}

fn segments(lane: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(lane)
        .expect("a lane")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    files.sort();
    files
}

/// The lane as a crash left it, in a folder of its own.
fn copy_lane(lane: &Path) -> (TempDir, PathBuf) {
    let folder = folder();
    let to = folder.path().join(lane.file_name().expect("a name"));
    fs::create_dir(&to).expect("made");
    for file in segments(lane) {
        fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("copied");
    }
    (folder, to)
}

fn used(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1)
}

#[test]
fn what_was_synced_is_found_and_what_is_done_is_not() {
    let folder = folder();
    let journal = Journal::create(folder.path(), MIN_SEGMENT).expect("made");
    let sequences: Vec<u64> = (0..10).map(|number| append(&journal, number)).collect();
    sync(&journal);
    journal
        .done(&[(sequences[0], 1), (sequences[1], BOTH), (sequences[2], 2)])
        .expect("open");
    append(&journal, 10);
    sync(&journal);
    append(&journal, 11); // never synced
    assert!(adopt(folder.path()).is_empty(), "its owner lives");
    drop(journal);
    let found = adopt(folder.path());
    let [lane] = &found[..] else {
        panic!("one lane")
    };
    let mut expected: BTreeMap<u64, u64> = (0..=10).map(|number| (number, BOTH)).collect();
    expected.insert(0, 0b10);
    expected.insert(2, 0b01);
    expected.remove(&1);
    assert_eq!(contents(lane), expected);
    let report = lane.recovery();
    assert_eq!(
        (report.records, report.damaged, report.torn_bytes),
        (10, 0, 0)
    );
    assert!(adopt(folder.path()).is_empty(), "adopted once");
    // All done: the lane goes with its owner.
    let all: Vec<(u64, u64)> = sequences.iter().map(|&sequence| (sequence, BOTH)).collect();
    lane.done(&all).expect("open");
    assert_eq!(contents(lane).len(), 1);
    lane.done(&[(11, BOTH)]).expect("open");
    lane.close().expect("closed");
    assert!(!lane.path().exists());
    assert!(matches!(lane.sync(), Err(JournalError::Closed)));
    lane.close().expect("closing twice is nothing");
}

#[test]
fn old_segments_go_and_one_that_is_waited_for_does_not_keep_them() {
    let folder = folder();
    let journal = Journal::create(folder.path(), MIN_SEGMENT).expect("made");
    let waiting = append(&journal, 1);
    sync(&journal);
    journal.done(&[(waiting, 1)]).expect("open");
    for round in 0..400 {
        let sequences: Vec<(u64, u64)> = (0..8)
            .map(|number| (append(&journal, round * 8 + number), BOTH))
            .collect();
        sync(&journal);
        journal.done(&sequences).expect("open");
    }
    let stats = journal.stats().expect("open");
    assert_eq!(stats.records, 1);
    assert!(stats.moved >= 1, "{stats:?}");
    assert!(stats.file_bytes <= 6 * MIN_SEGMENT, "{stats:?}");
    assert_eq!(segments(journal.path()).len() as u64, stats.segments);
    journal.compact().expect("compacted");
    drop(journal);
    let found = adopt(folder.path());
    assert_eq!(contents(&found[0]), BTreeMap::from([(1, 0b10)]));
}

#[test]
fn compacting_leaves_no_byte_of_what_is_done() {
    let folder = folder();
    let journal = Journal::create(folder.path(), MIN_SEGMENT).expect("made");
    let erased = append(&journal, 77);
    append(&journal, 78);
    sync(&journal);
    append(&journal, 79);
    journal.done(&[(erased, u64::MAX)]).expect("open");
    journal.compact().expect("compacted");
    let needle = Sample::new(77).key;
    for file in segments(journal.path()) {
        let bytes = fs::read(file).expect("read");
        assert!(!bytes.windows(32).any(|window| window == needle));
    }
    drop(journal);
    let kept: Vec<u64> = contents(&adopt(folder.path())[0]).into_keys().collect();
    assert_eq!(kept, [78, 79]);
}

/// Groups of two records, and the bytes of the file after each sync.
fn three_groups(folder: &Path) -> (PathBuf, Vec<usize>) {
    let journal = Journal::create(folder, MIN_SEGMENT).expect("made");
    let mut ends = Vec::new();
    for group in 0..3 {
        append(&journal, group * 2 + 20);
        append(&journal, group * 2 + 21);
        sync(&journal);
        ends.push(used(&fs::read(&segments(journal.path())[0]).expect("read")));
    }
    (journal.path().to_owned(), ends)
}

type Reader = fn(&Path) -> Result<(BTreeMap<u64, u64>, Recovery), String>;

#[expect(clippy::unnecessary_wraps, reason = "one signature for both readers")]
fn sound_reader(folder: &Path) -> Result<(BTreeMap<u64, u64>, Recovery), String> {
    let found = adopt(folder);
    Ok((contents(&found[0]), found[0].recovery()))
}

/// The planted bug: believes every frame that has the mark and a length.
fn credulous_reader(folder: &Path) -> Result<(BTreeMap<u64, u64>, Recovery), String> {
    let lane = fs::read_dir(folder)
        .expect("a folder")
        .next()
        .expect("a lane");
    let bytes = fs::read(&segments(&lane.expect("an entry").path())[0]).expect("read");
    let (mut at, mut found) = (FILE_HEAD.len(), BTreeMap::new());
    while bytes.get(at..at + 4) == Some(&frame::MARK[..]) {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("four")) as usize;
        let Some(body) = bytes.get(at + FRAME_HEAD..at + FRAME_HEAD + length) else {
            break;
        };
        if let Some(Frame::Put { record, .. }) = frame::decode(body) {
            if record != Sample::new(record.epoch).record() {
                return Err(format!("invented at {at}"));
            }
            found.insert(record.epoch, BOTH);
        }
        at += FRAME_HEAD + length;
    }
    Ok((found, Recovery::default()))
}

/// Every prefix of a file that grew by three groups, with and without its preallocated rest: whatever was
/// synced before the cut is there, and nothing that was not appended.
fn every_prefix(read: Reader) -> Result<(), String> {
    let folder = folder();
    let (lane, ends) = three_groups(folder.path());
    let file = segments(&lane)[0].clone();
    let whole = fs::read(&file).expect("read");
    for cut in 0..=ends[2] {
        for rest in [0, 4096] {
            let (copy, copied) = copy_lane(&lane);
            let mut bytes = whole[..cut].to_vec();
            bytes.resize(cut + rest, 0);
            fs::write(&segments(&copied)[0], &bytes).expect("written");
            let (found, report) = read(copy.path())?;
            let groups = ends.iter().filter(|&&end| end <= cut).count() as u64;
            let missing = (20..20 + groups * 2).filter(|number| !found.contains_key(number));
            if missing.count() > 0 || found.keys().any(|number| !(20..26).contains(number)) {
                return Err(format!("cut at {cut}: {found:?}"));
            }
            if report.damaged > 0 {
                return Err(format!("cut at {cut}: a torn tail is no damage"));
            }
        }
    }
    Ok(())
}

/// The last group torn in any way: sectors missing, zeroed or old, bits flipped.
fn every_torn_group(read: Reader, seed: u64, rounds: u64) -> Result<(), String> {
    let folder = folder();
    let (lane, ends) = three_groups(folder.path());
    let whole = fs::read(&segments(&lane)[0]).expect("read");
    let last = ends[1]..ends[2];
    for round in 0..rounds {
        let random = blake3::hash(&[seed.to_le_bytes(), round.to_le_bytes()].concat());
        let random = random.as_bytes();
        let mut bytes = whole.clone();
        for (index, byte) in random
            .iter()
            .take(1 + usize::from(random[31] % 4))
            .enumerate()
        {
            let span = last.end - last.start;
            let at = last.start + usize::from(*byte) * span / 256 + index;
            match random[16 + index] % 3 {
                0 => bytes[at.min(last.end - 1)] ^= 1 << (random[20 + index] % 8),
                1 => bytes[at..(at + 64).min(last.end)].fill(0),
                _ => bytes[at..(at + 64).min(last.end)].fill(0xf7),
            }
        }
        let (copy, copied) = copy_lane(&lane);
        fs::write(&segments(&copied)[0], &bytes).expect("written");
        let (found, _) = read(copy.path())?;
        if (20..24).any(|number| !found.contains_key(&number)) {
            return Err(format!(
                "round {round}: an acknowledged record is lost: {found:?}"
            ));
        }
    }
    Ok(())
}

#[test]
fn every_prefix_keeps_what_was_acknowledged() {
    every_prefix(sound_reader).expect("sound");
}

#[test]
fn every_torn_last_write_keeps_what_was_acknowledged() {
    every_torn_group(sound_reader, 1, 500).expect("sound");
}

#[test]
#[ignore = "a minute"]
fn every_torn_last_write_in_many_ways() {
    every_torn_group(sound_reader, 2, 50_000).expect("sound");
}

#[test]
fn a_reader_that_does_not_check_is_caught() {
    every_torn_group(credulous_reader, 1, 500).expect_err("the planted bug");
}

/// Any single byte of an older group damaged: what is lost is counted, and only the record that was hit.
#[test]
fn damage_in_the_middle_costs_what_it_hit_and_is_counted() {
    let folder = folder();
    let (lane, ends) = three_groups(folder.path());
    let whole = fs::read(&segments(&lane)[0]).expect("read");
    for at in FILE_HEAD.len()..ends[1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        let (copy, copied) = copy_lane(&lane);
        fs::write(&segments(&copied)[0], &bytes).expect("written");
        let found = adopt(copy.path());
        let report = found[0].recovery();
        assert_eq!(contents(&found[0]).len(), 5, "at {at}");
        assert_eq!((report.damaged, report.torn_bytes), (1, 0), "at {at}");
    }
    // A damaged head of the file costs nothing.
    let (copy, copied) = copy_lane(&lane);
    let mut bytes = whole.clone();
    bytes[..FILE_HEAD.len()].fill(9);
    fs::write(&segments(&copied)[0], &bytes).expect("written");
    assert_eq!(contents(&adopt(copy.path())[0]).len(), 6);
    // A newer version is left alone.
    let (copy, copied) = copy_lane(&lane);
    let mut bytes = whole;
    bytes[14] = 2;
    fs::write(&segments(&copied)[0], &bytes).expect("written");
    assert!(adopt(copy.path()).is_empty());
    assert_eq!(fs::read(&segments(&copied)[0]).expect("read"), bytes);
}

#[test]
fn a_file_that_is_missing_is_counted() {
    let folder = folder();
    let journal = Journal::create(folder.path(), MIN_SEGMENT).expect("made");
    for number in 0..600 {
        append(&journal, number);
        if number % 50 == 0 {
            sync(&journal);
        }
    }
    sync(&journal);
    let lane = journal.path().to_owned();
    drop(journal);
    assert!(segments(&lane).len() > 3);
    fs::remove_file(&segments(&lane)[1]).expect("removed");
    let found = adopt(folder.path());
    assert_eq!(found[0].recovery().missing_files, 1);
    assert!(contents(&found[0]).len() > 300);
}

/// An answer that quotes a journal, its own salt included in no place it could know, is no record.
#[test]
fn frames_inside_a_payload_are_not_invented() {
    let foreign = frame::check_key(&[1; 16]);
    let mut quoted = Vec::new();
    frame::put(&mut quoted, &foreign, 5, &Sample::new(99).record()).expect("small");
    let own = frame::check_key(&[2; 16]);
    let mut bytes = Vec::new();
    let sample = Sample::new(98);
    let record = Record {
        envelope: &quoted,
        ..sample.record()
    };
    frame::put(&mut bytes, &own, 1, &record).expect("small");
    let after = bytes.len();
    frame::put(&mut bytes, &own, 2, &sample.record()).expect("small");
    bytes[6] ^= 1; // the outer head: reading has to find its place inside the payload
    let mut found = Vec::new();
    let damage = scan::scan(&bytes, 0, &own, |offset, _, _| found.push(offset));
    assert_eq!(found, [after]);
    assert_eq!((damage.places, damage.bytes), (1, after as u64));
}

#[test]
fn a_record_that_is_too_large_is_refused_and_the_group_goes_on() {
    let folder = folder();
    let journal = Journal::create(folder.path(), MIN_SEGMENT).expect("made");
    let sample = Sample::new(1);
    let huge = vec![7; frame::MAX_BODY];
    let refused = journal.append(&Record {
        envelope: &huge,
        ..sample.record()
    });
    assert!(matches!(refused, Err(JournalError::TooLarge(_))));
    append(&journal, 1);
    // Larger than a segment, and taken.
    let large = vec![7; 192 << 10];
    let record = Record {
        envelope: &large,
        ..sample.record()
    };
    journal.append(&record).expect("taken");
    sync(&journal);
    let found = journal.read(0, 10, usize::MAX).expect("readable");
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].record(), record);
}

#[test]
fn threads_that_append_and_sync_at_once_lose_nothing() {
    let folder = folder();
    let journal = Journal::create(folder.path(), 4 * MIN_SEGMENT).expect("made");
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let journal = &journal;
            scope.spawn(move || {
                for number in 0..50 {
                    let sequence = append(journal, thread * 1000 + number);
                    let synced = journal.sync().expect("open");
                    synced.result.expect("a disk that works");
                    assert!(synced.through >= sequence);
                }
            });
        }
    });
    drop(journal);
    assert_eq!(contents(&adopt(folder.path())[0]).len(), 200);
}

#[test]
fn dead_letters_are_kept_removed_and_bounded() {
    let folder = folder();
    let letters = Letters::new(&folder.path().join("dead"), 64 << 10);
    assert_eq!(letters.all().expect("none").0, []);
    let one = Sample::new(1);
    let record = Record {
        tiers: "redis",
        ..one.record()
    };
    letters.add(&[(5, "refused", record)]).expect("added");
    letters.add(&[(6, "io", record)]).expect("added");
    let (all, damage) = letters.all().expect("readable");
    assert_eq!(damage, scan::Damage::default());
    assert_eq!(all[0].parts(), (5, "refused", record));
    assert_eq!(all[1].parts(), (6, "io", record));
    assert_eq!(letters.remove(&[all[0].id]).expect("removed"), 1);
    let (rest, _) = letters.all().expect("readable");
    assert_eq!(rest, all[1..]);
    let mut lost = 0;
    for number in 0..400 {
        let sample = Sample::new(number);
        lost += letters.add(&[(7, "io", sample.record())]).expect("added");
    }
    let (kept, _) = letters.all().expect("readable");
    assert_eq!(kept.len() as u64 + lost, 401);
    assert!(lost > 0);
    // A torn addition costs itself; what follows it is found.
    let file = folder.path().join("dead/letters.0");
    let mut bytes = fs::read(&file).expect("read");
    bytes.truncate(bytes.len() - 3);
    fs::write(&file, bytes).expect("written");
    letters.add(&[(8, "io", one.record())]).expect("added");
    let (again, damage) = letters.all().expect("readable");
    assert_eq!((again.len(), damage.places), (kept.len(), 1));
    let ids: Vec<[u8; 16]> = again.iter().map(|letter| letter.id).collect();
    assert_eq!(letters.remove(&ids).expect("removed"), ids.len() as u64);
    assert_eq!(letters.all().expect("readable").0, []);
}

/// What a random program does.
#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    Sync,
    Done {
        which: usize,
        tiers: u64,
    },
    Compact,
    /// The owner dies; what was not synced may be gone, in part or in whole.
    Crash {
        cut: usize,
    },
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..20_u8).prop_map(Step::Append),
        4 => Just(Step::Sync),
        5 => (any::<usize>(), 1..4_u64).prop_map(|(which, tiers)| Step::Done { which, tiers }),
        1 => Just(Step::Compact),
        2 => any::<usize>().prop_map(|cut| Step::Crash { cut }),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 1..60)
}

/// The oracle: of each record whether it was synced, and which tiers were told to be done with it.
#[derive(Default)]
struct Oracle {
    /// By sample: sequence in the present lane, synced, bits left.
    records: BTreeMap<u64, (u64, bool, u64)>,
}

impl Oracle {
    /// What is found must be what was appended; what was synced and is not done must be found.
    fn check(&mut self, found: &BTreeMap<u64, u64>) {
        for (number, left) in found {
            let (_, _, expected) = self.records[number];
            assert_eq!(left & expected, expected, "bits of {number} lost");
        }
        for (number, (_, synced, left)) in &self.records {
            assert!(
                !synced || *left == 0 || found.contains_key(number),
                "{number} was acknowledged and is lost"
            );
        }
        self.records.retain(|number, _| found.contains_key(number));
        for (number, state) in &mut self.records {
            // Which news of done records the crash left is the journal's affair: redoing is harmless.
            (state.1, state.2) = (true, found[number]);
        }
    }
}

fn run(steps: Vec<Step>) {
    let folder = folder();
    let mut journal = Journal::create(folder.path(), MIN_SEGMENT).expect("made");
    let mut oracle = Oracle::default();
    let mut next = 0;
    let mut synced_len = BTreeMap::<PathBuf, usize>::new();
    for step in steps {
        match step {
            Step::Append(count) => {
                for _ in 0..count {
                    let sequence = append(&journal, next);
                    oracle.records.insert(next, (sequence, false, BOTH));
                    next += 1;
                }
                continue;
            }
            Step::Sync => sync(&journal),
            Step::Compact => journal.compact().expect("compacted"),
            Step::Done { which, tiers } => {
                let count = oracle.records.len().max(1);
                if let Some(state) = oracle.records.values_mut().nth(which % count) {
                    state.2 &= !tiers;
                    journal.done(&[(state.0, tiers)]).expect("open");
                }
                continue;
            }
            Step::Crash { cut } => {
                // Bytes written since the last sync may be there or not: cut them anywhere.
                for file in segments(journal.path()) {
                    let mut bytes = fs::read(&file).expect("read");
                    let (from, until) = (synced_len.get(&file).copied().unwrap_or(0), used(&bytes));
                    if from > 0 && until > from {
                        bytes[from + cut % (until - from)..].fill(0);
                        fs::write(&file, bytes).expect("written");
                    }
                }
                reopen(&mut journal, folder.path(), &mut oracle);
            }
            Step::Close => {
                journal.close().expect("closed");
                for state in oracle.records.values_mut() {
                    state.1 = true;
                }
                reopen(&mut journal, folder.path(), &mut oracle);
            }
        }
        for state in oracle.records.values_mut() {
            state.1 = true;
        }
        synced_len = segments(journal.path())
            .into_iter()
            .map(|file| {
                let length = used(&fs::read(&file).expect("read"));
                (file, length)
            })
            .collect();
    }
    reopen(&mut journal, folder.path(), &mut oracle);
}

fn reopen(journal: &mut Journal, folder: &Path, oracle: &mut Oracle) {
    let placeholder = tempfile::tempdir().expect("a folder");
    let fresh = Journal::create(placeholder.path(), MIN_SEGMENT).expect("made");
    drop(std::mem::replace(journal, fresh));
    let mut lanes = adopt(folder);
    assert!(lanes.len() <= 1);
    if let Some(lane) = lanes.pop() {
        let report = lane.recovery();
        assert_eq!((report.damaged, report.missing_files), (0, 0));
        oracle.check(&contents(&lane));
        *journal = lane;
    } else {
        oracle.check(&BTreeMap::new());
        *journal = Journal::create(folder, MIN_SEGMENT).expect("made");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_random_program_loses_nothing_that_was_synced(steps in steps()) {
        run(steps);
    }

    #[test]
    fn frames_come_back_as_they_were(number in any::<u64>(), at in any::<i64>(), reason in "[a-z_]{0,20}") {
        let number = number >> 8;
        let key = frame::check_key(&[3; 16]);
        let sample = Sample::new(number);
        let mut bytes = Vec::new();
        frame::put(&mut bytes, &key, number, &sample.record()).expect("small");
        frame::done(&mut bytes, &key, &[(number, 1), (2, u64::MAX)]).expect("small");
        frame::letter(&mut bytes, &key, at, &reason, &sample.record()).expect("small");
        let mut found = Vec::new();
        let damage = scan::scan(&bytes, 0, &key, |_, _, frame| found.push(frame));
        prop_assert_eq!(damage, scan::Damage::default());
        prop_assert_eq!(found, vec![
            Frame::Put { sequence: number, record: sample.record() },
            Frame::Done(vec![(number, 1), (2, u64::MAX)]),
            Frame::Letter { at, reason: &reason, record: sample.record() },
        ]);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let key = frame::check_key(&[4; 16]);
        scan::scan(&bytes, 0, &key, |_, _, _| panic!("invented"));
        let _ = frame::decode(&bytes);
    }
}
