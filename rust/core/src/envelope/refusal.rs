//! Why bytes are not a record, and why fields cannot be one.

use thiserror::Error;

/// Why bytes are not a record that answers the question.
///
/// All variants mean the same to a reader, a miss, but are counted apart: `WrongNamespace`,
/// `WrongFingerprint` and `Unauthentic` are incidents, `Version` and `Flags` a newer writer, `Unsealed`,
/// `NoKey` and `UnknownKey` a matter of which keys are configured where, the rest damage.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than the record says it has, or than any record has.
    #[error("the record ends early")]
    Truncated,
    /// More bytes than the record says it has.
    #[error("bytes follow the end of the record")]
    Trailing,
    /// Not a record at all.
    #[error("not a record of this cache")]
    BadMagic,
    /// Written by another version of the format.
    #[error("record format version {0} is unknown")]
    Version(u16),
    /// Written with features this build does not have.
    #[error("record flags {0:#06x} are unknown")]
    Flags(u16),
    /// Not sealed, and this reader takes only what is.
    #[error("the record is not sealed")]
    Unsealed,
    /// Sealed, and this reader has no keys.
    #[error("the record is sealed and no key is configured")]
    NoKey,
    /// Sealed with a key that this reader does not have.
    #[error("the record is sealed with a key that is not in the ring")]
    UnknownKey,
    /// Changed after it was sealed, or sealed for another namespace, fingerprint or epoch.
    #[error("the seal does not fit the record or what was asked for")]
    Unauthentic,
    /// The bytes changed after they were written.
    #[error("the checksum does not match")]
    Checksum,
    /// A kind this version does not define.
    #[error("kind {0} is unknown")]
    Kind(u8),
    /// A content type this version does not define.
    #[error("content type {0} is unknown")]
    ContentType(u8),
    /// The namespace is not UTF-8.
    #[error("the namespace is not UTF-8")]
    NamespaceText,
    /// An intact record of another namespace.
    #[error("the record belongs to another namespace")]
    WrongNamespace,
    /// An intact record of another request.
    #[error("the record belongs to another fingerprint")]
    WrongFingerprint,
    /// The payload is not compressed, and not as long as the record says it was.
    #[error("the payload's two lengths differ")]
    Size,
    /// The payload would be larger than a reader makes room for.
    #[error("the payload unpacks to {0} bytes, which is too large")]
    TooLarge(u32),
    /// The compressed payload is damaged, or unpacks to another length than the record says.
    #[error("the compressed payload cannot be unpacked")]
    Frame,
}

impl DecodeError {
    /// A short stable name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Trailing => "trailing",
            Self::BadMagic => "bad_magic",
            Self::Version(_) => "version",
            Self::Flags(_) => "flags",
            Self::Unsealed => "unsealed",
            Self::NoKey => "no_key",
            Self::UnknownKey => "unknown_key",
            Self::Unauthentic => "unauthentic",
            Self::Checksum => "checksum",
            Self::Kind(_) => "kind",
            Self::ContentType(_) => "content_type",
            Self::NamespaceText => "namespace_text",
            Self::WrongNamespace => "wrong_namespace",
            Self::WrongFingerprint => "wrong_fingerprint",
            Self::Size => "size",
            Self::TooLarge(_) => "too_large",
            Self::Frame => "frame",
        }
    }
}

/// Why fields cannot be a record.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The namespace does not fit its 16-bit length.
    #[error(
        "the namespace takes {0} bytes of UTF-8; at most 65535 fit a record: use a shorter name"
    )]
    Namespace(usize),
    /// The facts do not fit their 32-bit length.
    #[error("the facts take {0} bytes; at most 4294967295 fit a record: store fewer tags")]
    Facts(usize),
    /// The payload does not fit its 32-bit length.
    #[error("the payload takes {0} bytes; at most 4294967295 fit a record: store less")]
    Payload(usize),
    /// The operating system gives no random bytes, without which nothing can be sealed.
    #[error("the operating system gives no random bytes: nothing can be sealed")]
    Random,
}
