//! Hostile snapshots of a vector index, with a digest that fits: no panic, and what is accepted can be used.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use llmcache_core::vector::VectorIndex;

const ROOM: u64 = 64 << 20;

fn vector(number: u8) -> Vec<u8> {
    (0..5)
        .flat_map(|at| (f32::from(number.wrapping_mul(37 + 2 * at)) - 99.5).to_le_bytes())
        .collect()
}

/// Rows, and a graph with vacant places.
static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let index = VectorIndex::scanning(5, ROOM, 8).expect("settings that work");
    for key in 0..60 {
        let partition = if key < 5 { [1; 32] } else { [2; 32] };
        index
            .add(&partition, [key; 32], &vector(key))
            .expect("room");
    }
    for key in 20..30 {
        index.remove(&[2; 32], &[key; 32]).expect("there");
    }
    let path = std::env::temp_dir().join(format!("llmcache-fuzz-{}", std::process::id()));
    index.save(&path).expect("a place for temporary files");
    let mut bytes = std::fs::read(&path).expect("just written");
    std::fs::remove_file(&path).expect("just written");
    bytes.truncate(bytes.len() - 32);
    bytes
});

fn look(content: &[u8]) {
    let bytes = [content, blake3::hash(content).as_bytes()].concat();
    let Ok(index) = VectorIndex::from_snapshot(&bytes, ROOM) else {
        return;
    };
    if index.dimension() == 5 {
        for partition in [[1; 32], [2; 32]] {
            for key in 0..60 {
                if let Ok(found) = index.search(&partition, &vector(key), 8, -1.0) {
                    assert!(found.iter().all(|each| each.cosine.abs() <= 1.0));
                }
                // `usearch` may find out what it was given, and say so.
                drop(index.remove(&partition, &[key; 32]));
                drop(index.add(&partition, [key ^ 0x55; 32], &vector(key)));
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    look(data);
    // A sound file with some bytes replaced gets further.
    let mut content = WHOLE.clone();
    for patch in data.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([patch[0], patch[1]])) % content.len();
        content[at] = patch[2];
    }
    look(&content);
});
