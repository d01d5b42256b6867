//! What hostile records make the decoder allocate.
//!
//! An allocator that counts, in this test only; see `l1_memory.rs`. zstd's own context comes from the C library
//! and is not counted here: `tests/unit/test_wire.py` bounds the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use llmcache_core::envelope::{
    Asked, CHECKSUM_LEN, ContentType, Form, HEADER_LEN, Header, Kind, MAX_UNPACKED, decode, encode,
};
use llmcache_core::keyring::{Key, Keyring};

struct Counting;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // After a thread's end nothing is counted any more.
        let _ = TAKEN.try_with(|taken| taken.set(taken.get() + layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn record(compress: bool, keyring: Option<&Keyring>, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        kind: Kind::Value,
        content_type: ContentType::Text,
        epoch: 1,
        snap: 2,
        created: 3,
        fresh_until: 4,
        stale_until: 5,
        compute_micros: 6,
        cost: 7,
        fingerprint: [8; 32],
    };
    encode(&header, "n", b"", payload, Form { compress, keyring }).unwrap()
}

/// Bytes taken from the allocator while a record is read, freed or not; and whether it was one.
fn taken(bytes: &[u8], keyring: Option<&Keyring>) -> (usize, &'static str) {
    let asked = Asked {
        namespace: "n",
        fingerprint: &[8; 32],
        keyring,
    };
    let before = TAKEN.get();
    let mut room = Vec::new();
    let reason = decode(bytes, asked, &mut room).map_or_else(|error| error.reason(), |_| "");
    (TAKEN.get() - before, reason)
}

/// A compressed record that says it has so many bytes, in its fields and in its frame.
fn declaring(size: u32) -> Vec<u8> {
    let mut bytes = record(true, None, &b"a tide table ".repeat(6000));
    assert_eq!(bytes[6], 1, "compressed");
    let frame = HEADER_LEN + 1;
    // A frame of 64 KiB to 4 GiB in one segment has its size in four bytes behind magic and descriptor.
    assert_eq!(bytes[frame + 4] & 0xE0, 0xA0);
    bytes[76..80].copy_from_slice(&size.to_le_bytes());
    bytes[frame + 5..frame + 9].copy_from_slice(&size.to_le_bytes());
    let end = bytes.len() - CHECKSUM_LEN;
    let checksum = blake3::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&checksum.as_bytes()[..CHECKSUM_LEN]);
    bytes
}

#[test]
fn reading_takes_a_copy_of_what_is_sealed_and_what_is_declared_within_the_limit() {
    let keys = Keyring::new(vec![Key::new(&[1; 32])], false).unwrap();
    let payload = vec![b'x'; 100_000];
    let plain = record(false, None, &payload);
    assert_eq!(taken(&plain, None), (0, ""));
    let sealed = record(false, Some(&keys), &payload);
    let (bytes, reason) = taken(&sealed, Some(&keys));
    assert_eq!(reason, "");
    assert!(bytes <= sealed.len() + 1024, "{bytes}");
    // Refused before anything is taken.
    assert_eq!(taken(&sealed, None), (0, "no_key"));
    assert_eq!(taken(&plain, Some(&keys)), (0, "unsealed"));
}

#[test]
fn a_lie_about_the_size_takes_no_more_than_the_limit() {
    let limit = u32::try_from(MAX_UNPACKED).unwrap();
    assert_eq!(taken(&declaring(78_000), None), (78_000, ""));
    assert_eq!(taken(&declaring(77_999), None), (77_999, "frame"));
    assert_eq!(taken(&declaring(limit), None), (MAX_UNPACKED, "frame"));
    assert_eq!(taken(&declaring(limit + 1), None), (0, "too_large"));
    assert_eq!(taken(&declaring(u32::MAX), None), (0, "too_large"));
}
