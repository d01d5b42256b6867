//! Telling the processes that follow a store that markers were raised: one datagram to the socket of each.
//!
//! A follower binds a Unix datagram socket in the folder `followers` beside the database, which nobody but
//! the owner of the store can enter. Nobody waits for a follower: what its queue does not take is lost to it,
//! and `prev` of the next message, or its next question, shows it that something was.
//!
//! The message is a line of text, the one that servers send, too: `1:NAMESPACE:EPOCH:prev:seq:TARGETS`, with
//! 16 hexadecimal digits for namespace, epoch and each target, and `*` for targets that are not told
//! (`python/llmcache_fast/tiers/messages.py` reads it).

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::clock::Raised;

const FOLDER: &str = "followers";
/// Targets in one message: it stays far below what a socket takes as one datagram.
pub const MAX_TOLD: usize = 256;

/// The bytes of a message; `targets` are not told when there are too many, or `None`.
fn message(namespace: u64, raised: Raised, targets: Option<&[u64]>) -> String {
    let Raised { epoch, prev, seq } = raised;
    let mut line = format!("1:{namespace:016x}:{epoch:016x}:{prev}:{seq}:");
    match targets {
        Some(told) if told.len() <= MAX_TOLD => {
            for target in told {
                let _ = write!(line, "{target:016x}");
            }
        }
        _ => line.push('*'),
    }
    line
}

/// Tell all followers of the store in `store`; how many could not be told. Waits for nobody.
pub(super) fn tell(store: &Path, namespace: u64, raised: Raised, targets: Option<&[u64]>) -> u64 {
    let folder = store.join(FOLDER);
    // No folder: nobody ever followed.
    let (Ok(handle), Ok(entries)) = (File::open(&folder), fs::read_dir(&folder)) else {
        return 0;
    };
    let Ok(socket) = UnixDatagram::unbound() else {
        return 0;
    };
    if socket.set_nonblocking(true).is_err() {
        return 0;
    }
    // A socket's address has 108 bytes; by the folder's handle it is short whatever the folder is called.
    let near = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    let line = message(namespace, raised, targets);
    let mut untold = 0;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if Path::new(&name).extension().is_none_or(|end| end != "sock") {
            continue;
        }
        match socket.send_to(line.as_bytes(), near.join(&name)) {
            Ok(_) => {}
            // Its process is gone. Names are random, so nobody else has it meanwhile.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                let _ = fs::remove_file(folder.join(&name));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => untold += 1,
        }
    }
    untold
}
