//! Payloads as zstd frames, where that pays.
//!
//! The frame format is RFC 8878. Contexts are kept, one of each kind for a thread: making one costs as much as
//! compressing an answer does.

use std::cell::RefCell;

use zstd_safe::{CCtx, DCtx};

use super::refusal::DecodeError;

/// Payloads below this many bytes are stored as they are: too little to gain.
pub const COMPRESS_FROM: usize = 512;
/// A compressed payload is kept if it is shorter by at least one part in this many.
pub const WORTH: usize = 8;
/// The largest payload that is compressed, and so the most that a record can make a reader allocate beyond its
/// own length, in bytes.
pub const MAX_UNPACKED: usize = 64 << 20;
/// zstd's level: see `docs/reference/envelope.md` for what the others gave.
const LEVEL: i32 = 1;

thread_local! {
    static PACKER: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
    static UNPACKER: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// The frame of a payload; None when it is better stored as it is.
pub(super) fn pack(payload: &[u8]) -> Option<Vec<u8>> {
    if !(COMPRESS_FROM..=MAX_UNPACKED).contains(&payload.len()) {
        return None;
    }
    // Room for no more than is worth it: zstd gives up when it is full.
    let mut frame = Vec::with_capacity(payload.len() - payload.len() / WORTH);
    PACKER.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(CCtx::try_create()?),
        };
        context.compress(&mut frame, payload, LEVEL).ok()
    })?;
    Some(frame)
}

/// The payload of a frame, of exactly `size` bytes.
///
/// Nothing is allocated before `size` was found to be within [`MAX_UNPACKED`] and to be what the frame says of
/// itself; a frame that holds more stops at `size`.
pub(super) fn unpack(frame: &[u8], size: u32) -> Result<Vec<u8>, DecodeError> {
    let wanted = size as usize;
    if wanted > MAX_UNPACKED {
        return Err(DecodeError::TooLarge(size));
    }
    let declared = zstd_safe::get_frame_content_size(frame).map_err(|_| DecodeError::Frame)?;
    if declared != Some(u64::from(size)) {
        return Err(DecodeError::Frame);
    }
    let mut payload = Vec::new();
    payload
        .try_reserve_exact(wanted)
        .map_err(|_| DecodeError::TooLarge(size))?;
    UNPACKER.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(DCtx::try_create().ok_or(DecodeError::TooLarge(size))?),
        };
        // The output's own bytes are the window: nothing else grows with what the frame asks for.
        context
            .decompress(&mut payload, frame)
            .map_err(|_| DecodeError::Frame)
    })?;
    if payload.len() != wanted {
        return Err(DecodeError::Frame);
    }
    Ok(payload)
}
