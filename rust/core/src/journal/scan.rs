//! Reading a file of frames whatever happened to it: what is sound is found, what is not is counted.

use super::frame::{self, CheckKey, FILE_HEAD, FRAME_HEAD, Frame, MARK, VERSION_AT};

/// What was wrong with a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Stretches of bytes that are no frames, with sound frames behind them.
    pub places: u64,
    /// How many bytes that were.
    pub bytes: u64,
    /// Bytes behind the last sound frame that are no frame: the write that a crash cut short.
    pub torn: u64,
}

/// Whether the file was written by a newer version of this package.
pub fn is_newer(bytes: &[u8]) -> bool {
    let version = |head: &[u8]| u16::from_le_bytes([head[VERSION_AT], head[VERSION_AT + 1]]);
    bytes.len() >= FILE_HEAD.len()
        && bytes[..VERSION_AT] == FILE_HEAD[..VERSION_AT]
        && version(bytes) > version(&FILE_HEAD)
}

/// Hand each sound frame with its offset and whole length to `found`, in order, from `start` on.
///
/// Cost: one pass and one hash over the bytes. Where a frame is damaged, reading goes on at the next mark; only a
/// head with a sound check of its own makes it hash a body, so bytes full of marks cost little more.
pub fn scan<'a>(
    bytes: &'a [u8],
    start: usize,
    key: &CheckKey,
    mut found: impl FnMut(usize, usize, Frame<'a>),
) -> Damage {
    let mut damage = Damage::default();
    // Preallocated and never written: zeros to the end.
    let used = bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    let (mut at, mut sound_until) = (start.min(bytes.len()), start.min(bytes.len()));
    while at < used {
        let rest = &bytes[at..];
        let body = frame::body(rest, key);
        if let Some((body, frame)) = body.and_then(|body| Some((body, frame::decode(body)?))) {
            let length = FRAME_HEAD + body.len();
            if at > sound_until {
                damage.places += 1;
                damage.bytes += (at - sound_until) as u64;
            }
            found(at, length, frame);
            at += length;
            sound_until = at;
        } else {
            at = next_mark(&bytes[..used], at + 1);
        }
    }
    damage.torn = used.saturating_sub(sound_until) as u64;
    damage
}

fn next_mark(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(step) = bytes
        .get(at..)
        .and_then(|rest| rest.iter().position(|&byte| byte == MARK[0]))
    {
        at += step;
        if bytes[at..].starts_with(&MARK) {
            return at;
        }
        at += 1;
    }
    bytes.len()
}
