//! Snapshots of the vector index: what comes back, and that nothing else does.

use std::os::unix::fs::PermissionsExt;

use llmcache_core::vector::{Id, Match, VectorError, VectorIndex};

const DIMENSION: usize = 6;
const PLENTY: u64 = 1 << 30;

fn id(number: u64) -> Id {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

fn vector(number: u64) -> Vec<u8> {
    let hash = blake3::hash(&(number + 1_000_000).to_le_bytes());
    hash.as_bytes()[..DIMENSION]
        .iter()
        .flat_map(|&byte| (f32::from(byte) - 127.5).to_le_bytes())
        .collect()
}

/// Three partitions: rows, a graph with vacant places and rows that are still to move, and a graph that is being
/// emptied into another.
fn filled() -> VectorIndex {
    let index = VectorIndex::scanning(DIMENSION, PLENTY, 12).unwrap();
    let add = |partition: u64, keys: std::ops::Range<u64>| {
        for key in keys {
            index.add(&id(partition), id(key), &vector(key)).unwrap();
        }
    };
    add(0, 0..5);
    add(1, 0..18);
    for key in 2..5 {
        index.remove(&id(1), &id(key)).unwrap();
    }
    add(2, 0..80);
    for key in 0..50 {
        index.remove(&id(2), &id(key)).unwrap();
    }
    assert_eq!(index.statistics().graphs, 2);
    index
}

fn bytes(index: &VectorIndex) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vectors");
    index.save(&path).unwrap();
    std::fs::read(path).unwrap()
}

/// With a digest that fits.
fn sealed(content: &[u8]) -> Vec<u8> {
    [content, blake3::hash(content).as_bytes()].concat()
}

fn found(index: &VectorIndex, partition: u64, key: u64) -> Vec<Match> {
    index
        .search(&id(partition), &vector(key), 40, -1.0)
        .unwrap()
}

#[test]
fn what_was_saved_comes_back() {
    let index = filled();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vectors");
    index.save(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let loaded = VectorIndex::load(&path, PLENTY).unwrap();
    assert_eq!(loaded.dimension(), DIMENSION);
    assert_eq!(loaded.len(), index.len());
    for partition in 0..3 {
        assert_eq!(loaded.size(&id(partition)), index.size(&id(partition)));
        for key in 0..80 {
            assert_eq!(
                loaded.contains(&id(partition), &id(key)),
                index.contains(&id(partition), &id(key))
            );
            let (before, after) = (
                found(&index, partition, key),
                found(&loaded, partition, key),
            );
            assert_eq!(
                after.first().map(|best| best.cosine),
                before.first().map(|best| best.cosine)
            );
        }
    }
    // It goes on like any other, and over the file it came from.
    for key in 0..300 {
        loaded.add(&id(2), id(key), &vector(key)).unwrap();
        loaded.remove(&id(1), &id(key)).unwrap();
    }
    assert_eq!((loaded.size(&id(2)), loaded.size(&id(1))), (300, 0));
    for key in 0..300 {
        assert_eq!(found(&loaded, 2, key)[0].key, id(key));
    }
    loaded.save(&path).unwrap();
    assert_eq!(
        VectorIndex::load(&path, PLENTY).unwrap().len(),
        loaded.len()
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_empty_index_has_a_snapshot_too() {
    let index = VectorIndex::new(3, PLENTY).unwrap();
    let loaded = VectorIndex::from_snapshot(&bytes(&index), PLENTY).unwrap();
    assert_eq!(
        (loaded.len(), loaded.dimension(), loaded.bytes()),
        (0, 3, 0)
    );
}

#[test]
fn what_does_not_fit_is_left_out_least_recently_used_first() {
    let index = VectorIndex::new(DIMENSION, PLENTY).unwrap();
    for partition in 0..10 {
        index.add(&id(partition), id(0), &vector(0)).unwrap();
    }
    found(&index, 0, 0);
    let bytes = bytes(&index);
    let small = VectorIndex::from_snapshot(&bytes, index.bytes() * 4 / 10).unwrap();
    assert!(small.bytes() <= index.bytes() * 4 / 10);
    assert_eq!((small.len(), small.statistics().evicted), (4, 6));
    let left: Vec<u64> = (0..10)
        .filter(|&number| small.size(&id(number)) == 1)
        .collect();
    assert_eq!(left, [0, 7, 8, 9]);
    // And the order of use is the same.
    small.add(&id(20), id(0), &vector(0)).unwrap();
    assert_eq!(small.size(&id(7)), 0);
}

#[test]
fn every_torn_or_flipped_file_is_refused() {
    let whole = bytes(&filled());
    assert!(VectorIndex::from_snapshot(&whole, PLENTY).is_ok());
    for end in 0..whole.len() {
        assert!(
            VectorIndex::from_snapshot(&whole[..end], PLENTY).is_err(),
            "{end}"
        );
    }
    let mut damaged = whole.clone();
    for at in 0..whole.len() {
        damaged[at] ^= 1 << (at % 8);
        assert!(
            VectorIndex::from_snapshot(&damaged, PLENTY).is_err(),
            "{at}"
        );
        damaged[at] = whole[at];
    }
    damaged.push(0);
    assert!(VectorIndex::from_snapshot(&damaged, PLENTY).is_err());
}

#[test]
fn hostile_bytes_with_a_digest_that_fits_do_no_harm() {
    let whole = bytes(&filled());
    let content = &whole[..whole.len() - 32];
    let mut accepted = 0;
    for end in 0..content.len() {
        assert!(VectorIndex::from_snapshot(&sealed(&content[..end]), PLENTY).is_err());
    }
    let mut hostile = content.to_vec();
    for at in 0..content.len() {
        for value in [0, 1, 0x7F, 0x80, 0xFF, content[at] ^ 1] {
            hostile[at] = value;
            if let Ok(index) = VectorIndex::from_snapshot(&sealed(&hostile), PLENTY) {
                accepted += 1;
                // Wrong vectors, wrong keys and refusals are all that can come of it.
                for partition in 0..3 {
                    let found = found(&index, partition, 7);
                    assert!(found.iter().all(|each| each.cosine.abs() <= 1.0));
                    drop(index.add(&id(partition), id(1000), &vector(1000)));
                    drop(index.remove(&id(partition), &id(7)));
                }
            }
        }
        hostile[at] = content[at];
    }
    assert!(
        accepted > content.len(),
        "most bytes are numbers of vectors"
    );
}

#[test]
fn a_refusal_says_what_and_where() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vectors");
    let said = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        VectorIndex::load(&path, 100_000).unwrap_err().to_string()
    };
    let content = [&b"another kind of f"[..], &[0; 40]].concat();
    for (bytes, reason) in [
        (vec![1; 10], "it is too short"),
        (vec![1; 100], "its checksum does not fit"),
        (vec![1; 200_000], "it is larger than max_bytes"),
        (sealed(&content), "it is another kind of file"),
    ] {
        let message = said(&bytes);
        assert!(
            message.starts_with(&path.display().to_string()),
            "{message}"
        );
        assert!(message.contains(reason), "{message}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        VectorIndex::load(&path, 100_000),
        Err(VectorError::Io { .. })
    ));
}
