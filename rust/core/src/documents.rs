//! Remembers the fingerprints of documents that come again and again: a request that is a hit was made before.
//!
//! What belongs here: which documents are kept, and finding one by its bytes. What does not: hashing them
//! (`fingerprint`). A fingerprint does not depend on it, since documents are compared whole.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use crate::fingerprint::{Fingerprint, of_document};

/// Documents kept at the most. One of a chat request of 4 KB takes 1.5 KB, because long texts are digests in it.
const PLACES: usize = 1024;
/// Longer ones are hashed each time: what is kept stays below 4 MiB.
const LONGEST: usize = 4096;

/// Of one place, zero if there is none: half the hash of the document kept, and of the last one met that is not. Apart from the documents,
/// so that a new one costs no look at an old one.
#[derive(Clone, Copy, Default)]
struct Tags {
    kept: u32,
    met: u32,
}

#[derive(Default)]
struct Kept {
    fingerprint: Fingerprint,
    document: Vec<u8>,
}

/// A bounded table of documents, one place for each by its hash.
///
/// Finding one takes a tenth of the time of hashing it (`benches/test_fingerprint.py`, a chat request with a warm
/// memo); a new one costs 50 ns more than before. It is kept when it is met for the second time in a row at its
/// place, so that requests made once neither are copied nor drive out those that are made often.
#[derive(Default)]
pub struct Documents {
    tags: Vec<Tags>,
    kept: Vec<Kept>,
    hasher: RandomState,
}

impl std::fmt::Debug for Documents {
    /// Documents hold texts of requests.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Documents").finish_non_exhaustive()
    }
}

impl Documents {
    /// `of_document`, remembered.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of a hash choose the place and tell documents apart"
    )]
    pub fn fingerprint(&mut self, document: &[u8]) -> Fingerprint {
        if document.len() > LONGEST {
            return of_document(document);
        }
        if self.tags.is_empty() {
            self.tags.resize(PLACES, Tags::default());
            self.kept.resize_with(PLACES, Kept::default);
        }
        let mut hasher = self.hasher.build_hasher();
        hasher.write(document);
        let hash = hasher.finish();
        let (place, tag) = (hash as usize % PLACES, (hash >> 32) as u32 | 1);
        let tags = &mut self.tags[place];
        if tags.kept == tag && self.kept[place].document == document {
            return self.kept[place].fingerprint;
        }
        let fingerprint = of_document(document);
        if tags.met == tag {
            tags.kept = tag;
            let kept = &mut self.kept[place];
            kept.document.clear();
            kept.document.extend_from_slice(document);
            kept.fingerprint = fingerprint;
        } else {
            tags.met = tag;
        }
        fingerprint
    }
}
