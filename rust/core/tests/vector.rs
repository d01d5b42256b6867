//! The vector index against brute force, its bound, its threads, and what it refuses.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "small numbers"
)]

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use llmcache_core::vector::{FLAT, Id, MAX_DIMENSION, VectorError, VectorIndex, to_half};
use proptest::prelude::*;

/// Room that no test here needs.
const PLENTY: u64 = 1 << 30;

/// Numbers that look random (`SplitMix64`).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// About normal: the sum of twelve uniform numbers.
    fn normal(&mut self) -> f32 {
        (0..12)
            .map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32)
            .sum::<f32>()
            - 6.0
    }

    fn vector(&mut self, dimension: usize) -> Vec<f32> {
        (0..dimension).map(|_| self.normal()).collect()
    }

    /// Another wording: at a cosine of about 0.93 for vectors of this kind.
    fn near(&mut self, vector: &[f32]) -> Vec<f32> {
        vector
            .iter()
            .map(|number| number + 0.4 * self.normal())
            .collect()
    }
}

fn id(number: u64) -> Id {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

fn bytes(vector: &[f32]) -> Vec<u8> {
    vector
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn index(dimension: usize) -> VectorIndex {
    VectorIndex::new(dimension, PLENTY).unwrap()
}

#[test]
fn what_was_put_is_found_again_and_nearest() {
    let mut numbers = Numbers(1);
    for dimension in [1, 2, 3, 31, 256, 384, 511, 1536] {
        let index = index(dimension);
        let vectors: Vec<_> = (0..50).map(|_| numbers.vector(dimension)).collect();
        for (number, vector) in vectors.iter().enumerate() {
            assert!(
                !index
                    .add(&id(0), id(number as u64), &bytes(vector))
                    .unwrap()
            );
        }
        for vector in &vectors {
            let found = index.search(&id(0), &bytes(vector), 50, -1.0).unwrap();
            assert_eq!(found.len(), 50);
            assert!((found[0].cosine - 1.0).abs() < 1e-6);
            for pair in found.windows(2) {
                assert!(pair[0].cosine >= pair[1].cosine);
            }
            for each in &found {
                let number = (0..50).find(|&number| id(number) == each.key).unwrap();
                let exact = cosine(vector, &vectors[number as usize]);
                // Steps of 1/508 of the largest number, which even out where there are many.
                let bound = 0.02 / (dimension as f64).sqrt();
                assert!(
                    (f64::from(each.cosine) - exact).abs() < bound,
                    "{dimension}"
                );
            }
        }
    }
}

#[test]
fn a_vector_counts_by_its_direction_and_in_either_precision() {
    let mut numbers = Numbers(2);
    let index = index(96);
    let vector = numbers.vector(96);
    for (number, scale) in [1e-30, 1e-3, 1.0, 1e30].into_iter().enumerate() {
        let scaled: Vec<f32> = vector.iter().map(|number| number * scale).collect();
        index
            .add(&id(0), id(number as u64), &bytes(&scaled))
            .unwrap();
    }
    let half = to_half(&bytes(&vector), 96).unwrap();
    assert_eq!(half.len(), 192);
    index.add(&id(0), id(9), &half).unwrap();
    for query in [bytes(&vector), half] {
        let found = index.search(&id(0), &query, 8, 0.999_9).unwrap();
        assert_eq!(found.len(), 5);
    }
    // The smallest numbers there are, whose scale overflows.
    let tiny: Vec<f32> = vector.iter().map(|number| number * 1e-40).collect();
    assert_eq!(
        index.search(&id(0), &bytes(&tiny), 8, 0.9).unwrap().len(),
        5
    );
}

#[test]
fn a_half_has_length_one() {
    let mut numbers = Numbers(3);
    for scale in [1e-40, 1e-20, 1.0, 1e30, 3e37] {
        let vector: Vec<f32> = numbers
            .vector(64)
            .iter()
            .map(|number| number * scale)
            .collect();
        let half = to_half(&bytes(&vector), 64).unwrap();
        let squares: f64 = half
            .chunks_exact(2)
            .map(|pair| {
                let bits = u16::from_le_bytes([pair[0], pair[1]]);
                f64::from(numkong::f16(bits).to_f32()).powi(2)
            })
            .sum();
        assert!((squares - 1.0).abs() < 2e-3, "{scale}: {squares}");
    }
}

#[test]
fn a_vector_without_direction_is_refused_and_changes_nothing() {
    let index = index(4);
    index
        .add(&id(0), id(0), &bytes(&[1.0, 2.0, 3.0, 4.0]))
        .unwrap();
    let wrong = |vector: &[f32]| {
        let error = index.add(&id(0), id(0), &bytes(vector)).unwrap_err();
        let asked = index.search(&id(0), &bytes(vector), 8, -1.0).unwrap_err();
        assert_eq!(error.to_string(), asked.to_string());
        error
    };
    assert!(matches!(wrong(&[0.0, -0.0, 0.0, 0.0]), VectorError::Zero));
    assert!(matches!(
        wrong(&[1.0, f32::NAN, 0.0, 0.0]),
        VectorError::NotFinite(1)
    ));
    assert!(matches!(
        wrong(&[1.0, 0.0, 0.0, f32::INFINITY]),
        VectorError::NotFinite(3)
    ));
    assert!(matches!(
        wrong(&[1.0; 3]),
        VectorError::Length {
            got: 12,
            dimension: 4
        }
    ));
    assert!(matches!(
        wrong(&[]),
        VectorError::Length {
            got: 0,
            dimension: 4
        }
    ));
    // Infinity in float16.
    let infinite = [0, 0x7C, 0, 0, 0, 0, 0, 0];
    assert!(matches!(
        index.add(&id(0), id(0), &infinite),
        Err(VectorError::NotFinite(0))
    ));
    assert_eq!((index.len(), index.size(&id(0))), (1, 1));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    for dimension in [0, MAX_DIMENSION + 1] {
        assert!(matches!(
            VectorIndex::new(dimension, PLENTY),
            Err(VectorError::Option(_))
        ));
    }
    let error = VectorIndex::new(384, 100).unwrap_err().to_string();
    assert!(error.starts_with("max_bytes: 100 is too little"), "{error}");
}

#[test]
fn partitions_never_meet() {
    let mut numbers = Numbers(4);
    let index = index(32);
    let vector = bytes(&numbers.vector(32));
    index.add(&id(1), id(7), &vector).unwrap();
    assert!(index.search(&id(2), &vector, 8, -1.0).unwrap().is_empty());
    index.add(&id(2), id(8), &vector).unwrap();
    let found = index.search(&id(2), &vector, 8, -1.0).unwrap();
    assert_eq!(
        found.iter().map(|each| each.key).collect::<Vec<_>>(),
        [id(8)]
    );
    assert!(!index.remove(&id(1), &id(8)).unwrap());
    assert_eq!(index.drop_partition(&id(1)), 1);
    assert_eq!((index.size(&id(1)), index.size(&id(2))), (0, 1));
}

#[test]
fn equals_come_oldest_first() {
    let index = index(3);
    for number in [5, 3, 4] {
        index
            .add(&id(0), id(number), &bytes(&[1.0, 2.0, 3.0]))
            .unwrap();
    }
    let found = index
        .search(&id(0), &bytes(&[1.0, 2.0, 3.0]), 2, -1.0)
        .unwrap();
    assert_eq!(
        found.iter().map(|each| each.key).collect::<Vec<_>>(),
        [id(5), id(3)]
    );
}

#[test]
fn the_floor_and_the_limit_hold() {
    let index = index(2);
    for (number, vector) in [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]]
        .iter()
        .enumerate()
    {
        index
            .add(&id(0), id(number as u64), &bytes(vector))
            .unwrap();
    }
    let found = |limit, floor| {
        index
            .search(&id(0), &bytes(&[1.0, 0.0]), limit, floor)
            .unwrap()
            .len()
    };
    assert_eq!(found(8, -1.0), 4);
    assert_eq!(found(8, 0.79), 2);
    assert_eq!(found(8, 0.81), 1);
    assert_eq!(found(8, f32::NAN), 0);
    assert_eq!(found(1, -1.0), 1);
    assert_eq!(found(0, -1.0), 0);
    assert_eq!(found(usize::MAX, -1.0), 4);
}

/// The share of `asked` whose nearest entry was found.
fn recall(
    index: &VectorIndex,
    held: &BTreeMap<u64, Vec<f32>>,
    asked: usize,
    numbers: &mut Numbers,
) -> f64 {
    let all: Vec<_> = held.iter().collect();
    let mut found = 0_u32;
    for _ in 0..asked {
        let chosen = numbers.below(all.len());
        let query = numbers.near(all[chosen].1);
        let best = all
            .iter()
            .map(|(_, vector)| cosine(&query, vector))
            .fold(-1.0, f64::max);
        let matches = index.search(&id(0), &bytes(&query), 1, -1.0).unwrap();
        if matches
            .first()
            .is_some_and(|each| f64::from(each.cosine) > best - 1e-3)
        {
            found += 1;
        }
    }
    f64::from(found) / asked as f64
}

#[test]
fn a_partition_becomes_a_graph_and_rows_again() {
    const DIMENSION: usize = 48;
    let mut numbers = Numbers(5);
    let index = index(DIMENSION);
    let mut held = BTreeMap::new();
    let total = FLAT + FLAT / 4;
    for number in 0..total as u64 {
        let vector = numbers.vector(DIMENSION);
        index.add(&id(0), id(number), &bytes(&vector)).unwrap();
        held.insert(number, vector);
        if number as usize == FLAT + 50 {
            assert_eq!(index.statistics().graphs, 1);
            // Rows and graph at once.
            assert!(recall(&index, &held, 100, &mut numbers) >= 0.99);
        }
    }
    let full = index.bytes();
    assert!(recall(&index, &held, 300, &mut numbers) >= 0.99);
    // Replaced ones are found at their new place alone.
    for number in 0..300 {
        let vector = numbers.vector(DIMENSION);
        assert!(index.add(&id(0), id(number), &bytes(&vector)).unwrap());
        held.insert(number, vector);
    }
    assert_eq!(index.len(), total as u64);
    assert!(recall(&index, &held, 300, &mut numbers) >= 0.99);
    // Down to a few: rows, and the memory of the graph is free.
    for number in 100..total as u64 {
        assert!(index.remove(&id(0), &id(number)).unwrap());
        held.remove(&number);
    }
    assert_eq!(index.statistics().graphs, 0);
    assert!(index.bytes() < full / 20);
    assert!((recall(&index, &held, 100, &mut numbers) - 1.0).abs() < 1e-9);
}

#[test]
fn a_graph_of_vacant_places_gives_memory_back() {
    const DIMENSION: usize = 32;
    let mut numbers = Numbers(6);
    let index = VectorIndex::scanning(DIMENSION, PLENTY, 100).unwrap();
    let mut held = BTreeMap::new();
    for number in 0..3000 {
        let vector = numbers.vector(DIMENSION);
        index.add(&id(0), id(number), &bytes(&vector)).unwrap();
        held.insert(number, vector);
    }
    let full = index.bytes();
    for number in 0..2300 {
        assert!(index.remove(&id(0), &id(number)).unwrap());
        held.remove(&number);
    }
    assert_eq!(index.statistics().graphs, 1);
    assert!(index.bytes() < full * 2 / 3, "{} of {full}", index.bytes());
    assert_eq!(index.size(&id(0)), 700);
    let keys = index.keys(&id(0));
    assert_eq!(keys.len(), 700);
    assert!(keys.iter().all(|key| index.contains(&id(0), key)));
    assert!(recall(&index, &held, 200, &mut numbers) >= 0.99);
}

#[test]
fn partitions_leave_least_recently_used_first() {
    let mut numbers = Numbers(7);
    let probe = VectorIndex::new(64, PLENTY).unwrap();
    let vector = bytes(&numbers.vector(64));
    probe.add(&id(0), id(0), &vector).unwrap();
    let index = VectorIndex::new(64, probe.bytes() * 4).unwrap();
    for partition in 0..4 {
        index.add(&id(partition), id(0), &vector).unwrap();
    }
    assert_eq!(index.statistics().evicted, 0);
    index.search(&id(0), &vector, 1, -1.0).unwrap();
    index.add(&id(4), id(0), &vector).unwrap();
    let sizes: Vec<u64> = (0..5).map(|partition| index.size(&id(partition))).collect();
    assert_eq!(sizes, [1, 0, 1, 1, 1]);
    assert_eq!(index.statistics().evicted, 1);
    assert_eq!(index.bytes(), probe.bytes() * 4);
}

#[test]
fn of_the_only_partition_the_oldest_leave() {
    for flat in [FLAT, 64] {
        let mut numbers = Numbers(8);
        let index = VectorIndex::scanning(64, 900_000, flat).unwrap();
        let vectors: Vec<_> = (0..8000).map(|_| bytes(&numbers.vector(64))).collect();
        for (number, vector) in vectors.iter().enumerate() {
            index.add(&id(0), id(number as u64), vector).unwrap();
            assert!(index.bytes() <= 900_000, "{number}");
        }
        let statistics = index.statistics();
        assert!(statistics.evicted > 0);
        assert_eq!(statistics.evicted + statistics.vectors, 8000);
        // What is left are the newest.
        for number in 0..8000 {
            let newest = number >= statistics.evicted;
            assert_eq!(
                index.contains(&id(0), &id(number)),
                newest,
                "{number} {flat}"
            );
        }
    }
}

#[test]
fn a_renewed_index_is_empty_and_its_own() {
    let index = index(8);
    index.add(&id(0), id(0), &bytes(&[1.0; 8])).unwrap();
    let renewed = index.renewed();
    assert!(renewed.is_empty());
    renewed.add(&id(0), id(1), &bytes(&[1.0; 8])).unwrap();
    assert!(!index.contains(&id(0), &id(1)));
}

#[test]
fn threads_see_whole_entries() {
    const DIMENSION: usize = 24;
    let index = VectorIndex::scanning(DIMENSION, 3_000_000, 60).unwrap();
    let stop = AtomicBool::new(false);
    // A key's vector is known, so that a match can be checked.
    let vector = |number: u64| Numbers(number + 1).vector(DIMENSION);
    let keys: HashMap<Id, u64> = (0..400).map(|number| (id(number), number)).collect();
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (index, stop) = (&index, &stop);
            scope.spawn(move || {
                let mut numbers = Numbers(100 + thread);
                for _ in 0..4000 {
                    let (partition, number) = (id(numbers.next() % 3), numbers.next() % 400);
                    match numbers.next() % 50 {
                        0 => drop(index.drop_partition(&partition)),
                        1..12 => drop(index.remove(&partition, &id(number)).unwrap()),
                        _ => drop(
                            index
                                .add(&partition, id(number), &bytes(&vector(number)))
                                .unwrap(),
                        ),
                    }
                    assert!(index.bytes() <= 3_000_000);
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
        for thread in 0..12u64 {
            let (index, stop, keys) = (&index, &stop, &keys);
            scope.spawn(move || {
                let mut numbers = Numbers(200 + thread);
                while !stop.load(Ordering::Relaxed) {
                    let asked = vector(numbers.next() % 400);
                    let partition = id(numbers.next() % 3);
                    for found in index.search(&partition, &bytes(&asked), 4, -1.0).unwrap() {
                        let exact = cosine(&asked, &vector(keys[&found.key]));
                        assert!((f64::from(found.cosine) - exact).abs() < 2e-3);
                    }
                }
            });
        }
    });
    let statistics = index.statistics();
    let sizes: u64 = (0..3).map(|partition| index.size(&id(partition))).sum();
    assert_eq!((statistics.vectors, index.len()), (sizes, sizes));
    for partition in 0..3 {
        index.drop_partition(&id(partition));
    }
    assert_eq!((index.bytes(), index.len()), (0, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Add(u64, std::ops::Range<u64>),
    Remove(u64, std::ops::Range<u64>),
    Drop(u64),
    Clear,
    Search(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = (0..150u64, 1..60u64).prop_map(|(from, count)| from..from + count);
    prop::collection::vec(
        prop_oneof![
            6 => (0..3u64, range.clone()).prop_map(|(partition, keys)| Step::Add(partition, keys)),
            4 => (0..3u64, range).prop_map(|(partition, keys)| Step::Remove(partition, keys)),
            1 => (0..3u64).prop_map(Step::Drop),
            1 => Just(Step::Clear),
            6 => (0..3u64, any::<u64>()).prop_map(|(partition, seed)| Step::Search(partition, seed)),
        ],
        1..40,
    )
}

type Model = BTreeMap<u64, BTreeMap<u64, Vec<f32>>>;

/// Whether the index answers as the model does: the right cosines, no entry twice, and all that a scan finds.
fn check_search(index: &VectorIndex, model: &Model, partition: u64, seed: u64, graph: bool) {
    let query = Numbers(seed).vector(20);
    let found = index
        .search(&id(partition), &bytes(&query), 5, 0.1)
        .unwrap();
    let none = BTreeMap::new();
    let held = model.get(&partition).unwrap_or(&none);
    let mut wanted: Vec<f64> = held.values().map(|vector| cosine(&query, vector)).collect();
    wanted.sort_by(|a, b| b.total_cmp(a));
    let exact: HashMap<Id, f64> = held
        .iter()
        .map(|(&key, vector)| (id(key), cosine(&query, vector)))
        .collect();
    let mut keys: Vec<Id> = found.iter().map(|each| each.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), found.len());
    for (place, each) in found.iter().enumerate() {
        assert!((f64::from(each.cosine) - exact[&each.key]).abs() < 2e-3);
        if !graph {
            assert!((f64::from(each.cosine) - wanted[place]).abs() < 2e-3);
        }
    }
    let sure = wanted
        .iter()
        .take(5)
        .filter(|&&cosine| cosine > 0.102)
        .count();
    assert!(graph || found.len() >= sure);
}

fn run(steps: &[Step], flat: usize) {
    let index = VectorIndex::scanning(20, PLENTY, flat).unwrap();
    let mut model = Model::new();
    let mut numbers = Numbers(9);
    for step in steps {
        match step {
            Step::Add(partition, keys) => {
                for key in keys.clone() {
                    let vector = numbers.vector(20);
                    let replaced = index
                        .add(&id(*partition), id(key), &bytes(&vector))
                        .unwrap();
                    let before = model.entry(*partition).or_default().insert(key, vector);
                    assert_eq!(replaced, before.is_some());
                }
            }
            Step::Remove(partition, keys) => {
                for key in keys.clone() {
                    let removed = index.remove(&id(*partition), &id(key)).unwrap();
                    let held = model.get_mut(partition).and_then(|held| held.remove(&key));
                    assert_eq!(removed, held.is_some());
                }
            }
            Step::Drop(partition) => {
                let held = model.remove(partition).unwrap_or_default();
                assert_eq!(index.drop_partition(&id(*partition)), held.len() as u64);
            }
            Step::Clear => {
                let held: usize = model.values().map(BTreeMap::len).sum();
                assert_eq!(index.clear(), held as u64);
                model.clear();
                assert_eq!(index.bytes(), 0);
            }
            Step::Search(partition, seed) => {
                check_search(&index, &model, *partition, *seed, flat < 1000);
            }
        }
        model.retain(|_, held| !held.is_empty());
        assert_eq!(index.statistics().partitions, model.len() as u64);
        for partition in 0..3 {
            let held = model.get(&partition);
            assert_eq!(
                index.size(&id(partition)),
                held.map_or(0, |held| held.len() as u64)
            );
            for key in [0, 30, 77, 149] {
                let wanted = held.is_some_and(|held| held.contains_key(&key));
                assert_eq!(index.contains(&id(partition), &id(key)), wanted);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn rows_do_what_the_model_does(steps in steps()) {
        run(&steps, FLAT);
    }

    #[test]
    fn graphs_do_what_the_model_does(steps in steps()) {
        run(&steps, 10);
    }
}
