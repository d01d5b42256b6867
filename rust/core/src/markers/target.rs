//! Targets: the numbers by which an invalidation names what it covers.

/// What an invalidation can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// All of the namespace.
    Namespace,
    /// One entry.
    Key(&'a [u8; 32]),
    /// Entries with this tag.
    Tag(&'a str),
    /// Entries with this label, or with a label below it if it ends with a slash.
    Label(&'a str),
    /// Entries that depend on this name's version.
    Version(&'a str),
}

/// The number that stands for a target, so that tiers and markers hold no text.
///
/// 64 bits of BLAKE3; of a key, whose digest is one already, 64 of its bits. A collision invalidates too much,
/// never too little.
pub fn target(namespace: &str, target: Target<'_>) -> u64 {
    let (kind, name): (u8, &[u8]) = match target {
        Target::Key(key) => return key_target(key),
        Target::Namespace => (0, &[]),
        Target::Tag(tag) => (2, tag.as_bytes()),
        Target::Label(label) => (3, label.as_bytes()),
        Target::Version(name) => (4, name.as_bytes()),
    };
    let mut hasher = blake3::Hasher::new_keyed(b"llmcache_fast/invalidate/target1");
    hasher.update(&(namespace.len() as u64).to_le_bytes());
    hasher.update(namespace.as_bytes());
    hasher.update(&[kind]);
    hasher.update(name);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// The target of a key. The namespace is in the key already.
#[inline]
pub fn key_target(key: &[u8; 32]) -> u64 {
    let mut bits = [0; 8];
    bits.copy_from_slice(&key[16..24]);
    u64::from_le_bytes(bits)
}

/// The label itself and each of its prefixes that end with a slash: `a/b/c` gives `a/`, `a/b/` and `a/b/c`.
pub fn label_prefixes(label: &str) -> impl Iterator<Item = &str> {
    let whole = if label.ends_with('/') {
        None
    } else {
        Some(label)
    };
    label
        .match_indices('/')
        .map(|(at, _)| &label[..=at])
        .chain(whole)
}
