//! Hostile segments: no panic, nothing invented without the key, and what is accepted is encoded to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmcache_core::journal::frame::{self, FRAME_HEAD, Frame};
use llmcache_core::journal::scan;

fuzz_target!(|data: &[u8]| {
    let key = frame::check_key(&[7; 16]);
    scan::scan(data, 0, &key, |_, _, _| panic!("a frame without the key"));
    // A random checksum never fits: give the bytes ones that do, so that the decoder is reached.
    if let Some(found) = frame::decode(data) {
        let mut bytes = Vec::new();
        match &found {
            Frame::Put { sequence, record } => frame::put(&mut bytes, &key, *sequence, record),
            Frame::Done(done) => frame::done(&mut bytes, &key, done),
            Frame::Letter { at, reason, record } => {
                frame::letter(&mut bytes, &key, *at, reason, record)
            }
        }
        .expect("small");
        assert_eq!(&bytes[FRAME_HEAD..], data);
        let whole = bytes.len();
        bytes.extend_from_slice(data); // damage behind it
        let mut seen = 0;
        scan::scan(&bytes, 0, &key, |offset, length, again| {
            assert_eq!((offset, length, &again), (0, whole, &found));
            seen += 1;
        });
        assert_eq!(seen, 1);
    }
});
