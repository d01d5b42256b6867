//! Records for Python: one function makes an envelope, one reads it.

use llmcache_core::envelope::{self, Asked, ContentType, Form, Header, Kind};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::keyring::Keyring;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("ENVELOPE_VERSION", envelope::VERSION)?;
    module.add("ENVELOPE_OVERHEAD", envelope::OVERHEAD)?;
    module.add("SEALED_OVERHEAD", envelope::SEALED_OVERHEAD)?;
    module.add("MAX_UNPACKED", envelope::MAX_UNPACKED)?;
    module.add_class::<Envelope>()?;
    module.add_function(wrap_pyfunction!(encode_envelope, module)?)?;
    module.add_function(wrap_pyfunction!(decode_envelope, module)?)?;
    module.add_function(wrap_pyfunction!(decode_entry, module)?)?;
    module.add_function(wrap_pyfunction!(examine_envelope, module)?)
}

/// From this many bytes on, hashing and copying take long enough to let other threads run meanwhile.
const DETACH_FROM: usize = 64 << 10;
/// The same, where bytes may be compressed or unpacked: ten times the work.
const DETACH_ZSTD_FROM: usize = 8 << 10;

/// A decoded record. Times are microseconds since 1970, `cost` is in micro-USD.
#[pyclass(frozen, get_all, module = "llmcache_fast._core")]
pub(crate) struct Envelope {
    /// 0 value, 1 negative, 2 tombstone.
    kind: u8,
    /// 0 bytes, 1 text, 2 json, 3 msgpack, 4 stream.
    content_type: u8,
    epoch: u64,
    snap: u64,
    created: i64,
    fresh_until: i64,
    stale_until: i64,
    compute_micros: u64,
    cost: u64,
    fingerprint: Py<PyBytes>,
    namespace: Py<PyString>,
    /// The variable facts, as the writer encoded them.
    facts: Py<PyBytes>,
    payload: Py<PyBytes>,
}

/// The bytes of a record. `kind` and `content_type` are codes, see `Envelope`. With `compress`, the payload is
/// compressed where that pays; with a ring, the record is sealed by its current key.
#[pyfunction]
#[pyo3(signature = (*, kind, content_type, epoch, snap, created, fresh_until, stale_until, compute_micros, cost, fingerprint, namespace, facts, payload, compress=false, keyring=None))]
#[allow(clippy::too_many_arguments)] // One keyword for each field of the header.
fn encode_envelope<'py>(
    py: Python<'py>,
    kind: u8,
    content_type: u8,
    epoch: u64,
    snap: u64,
    created: i64,
    fresh_until: i64,
    stale_until: i64,
    compute_micros: u64,
    cost: u64,
    fingerprint: &[u8],
    namespace: &str,
    facts: &[u8],
    payload: &[u8],
    compress: bool,
    keyring: Option<&Keyring>,
) -> PyResult<Bound<'py, PyBytes>> {
    let invalid =
        |what: &str, code: u8| PyValueError::new_err(format!("{what}: {code} is not a known code"));
    let header = Header {
        kind: Kind::from_code(kind).ok_or_else(|| invalid("kind", kind))?,
        content_type: ContentType::from_code(content_type)
            .ok_or_else(|| invalid("content_type", content_type))?,
        epoch,
        snap,
        created,
        fresh_until,
        stale_until,
        compute_micros,
        cost,
        fingerprint: to_fingerprint(fingerprint)?,
    };
    let form = Form {
        compress,
        keyring: keyring.map(Keyring::core),
    };
    let encode = || envelope::encode(&header, namespace, facts, payload, form);
    let long = if compress {
        DETACH_ZSTD_FROM
    } else {
        DETACH_FROM
    };
    let bytes = if payload.len() >= long {
        py.detach(encode)
    } else {
        encode()
    };
    bytes
        .map(|bytes| PyBytes::new(py, &bytes))
        .map_err(|error| PyValueError::new_err(error.to_string()))
}

/// `(envelope, "")` of an intact record of this namespace and fingerprint, else `(None, reason)`.
///
/// `reason` is one of those of `docs/reference/envelope.md`. Never raises because of what `data` holds.
#[pyfunction]
#[pyo3(signature = (data, namespace, fingerprint, keyring=None))]
fn decode_envelope(
    py: Python<'_>,
    data: &[u8],
    namespace: &str,
    fingerprint: &[u8],
    keyring: Option<&Keyring>,
) -> PyResult<(Option<Py<Envelope>>, &'static str)> {
    let mut room = Vec::new();
    let fingerprint = to_fingerprint(fingerprint)?;
    let view = match opened(py, data, namespace, &fingerprint, keyring, &mut room, false) {
        Ok(view) => view,
        Err(error) => return Ok((None, error.reason())),
    };
    let header = view.header;
    let envelope = Envelope {
        kind: header.kind as u8,
        content_type: header.content_type as u8,
        epoch: header.epoch,
        snap: header.snap,
        created: header.created,
        fresh_until: header.fresh_until,
        stale_until: header.stale_until,
        compute_micros: header.compute_micros,
        cost: header.cost,
        fingerprint: PyBytes::new(py, &header.fingerprint).unbind(),
        namespace: PyString::new(py, view.namespace).unbind(),
        facts: PyBytes::new(py, view.facts).unbind(),
        payload: PyBytes::new(py, &view.payload).unbind(),
    };
    Ok((Some(Py::new(py, envelope)?), ""))
}

/// Fingerprint, namespace, facts, epoch, snap, created, `fresh_until`, `stale_until`.
type Seen<'py> = (
    Bound<'py, PyBytes>,
    Bound<'py, PyString>,
    Bound<'py, PyBytes>,
    u64,
    u64,
    i64,
    i64,
    i64,
);

/// `(facts, "")` of an intact record that nobody asked for, without its payload, else `(None, reason)`.
#[pyfunction]
#[pyo3(signature = (data, keyring=None))]
fn examine_envelope<'py>(
    py: Python<'py>,
    data: &[u8],
    keyring: Option<&Keyring>,
) -> (Option<Seen<'py>>, &'static str) {
    let ring = keyring.map(Keyring::core);
    let mut room = Vec::new();
    let seen = if data.len() >= DETACH_FROM {
        py.detach(|| envelope::examine(data, ring, &mut room))
    } else {
        envelope::examine(data, ring, &mut room)
    };
    match seen {
        Ok(seen) => {
            let header = seen.header;
            let fields = (
                PyBytes::new(py, &header.fingerprint),
                PyString::new(py, seen.namespace),
                PyBytes::new(py, seen.facts),
                header.epoch,
                header.snap,
                header.created,
                header.fresh_until,
                header.stale_until,
            );
            (Some(fields), "")
        }
        Err(error) => (None, error.reason()),
    }
}

/// Content type, payload (text as `str`), packed facts, `created`, `fresh_until`, `stale_until`, epoch, snap, cost.
type EntryParts = (u8, Py<PyAny>, Py<PyBytes>, i64, i64, i64, u64, u64, u64);

/// As `decode_envelope`, of a stored response, without what the reader knows or does not need: half the time.
#[pyfunction]
#[pyo3(signature = (data, namespace, fingerprint, keyring=None))]
fn decode_entry(
    py: Python<'_>,
    data: &[u8],
    namespace: &str,
    fingerprint: &[u8],
    keyring: Option<&Keyring>,
) -> PyResult<(Option<EntryParts>, &'static str)> {
    let mut room = Vec::new();
    let fingerprint = to_fingerprint(fingerprint)?;
    let view = match opened(py, data, namespace, &fingerprint, keyring, &mut room, false) {
        Ok(view) => view,
        Err(error) => return Ok((None, error.reason())),
    };
    let header = view.header;
    if header.kind != Kind::Value {
        return Ok((None, "kind"));
    }
    let payload = if header.content_type == ContentType::Text {
        match str::from_utf8(&view.payload) {
            Ok(text) => PyString::new(py, text).into_any().unbind(),
            Err(_) => return Ok((None, "payload")),
        }
    } else {
        PyBytes::new(py, &view.payload).into_any().unbind()
    };
    let parts = (
        header.content_type as u8,
        payload,
        PyBytes::new(py, view.facts).unbind(),
        header.created,
        header.fresh_until,
        header.stale_until,
        header.epoch,
        header.snap,
        header.cost,
    );
    Ok((Some(parts), ""))
}

/// What is in a record, after all its checks; of the checksum, unless it is known to be `intact`. A long one is read while other threads run.
pub(crate) fn opened<'a>(
    py: Python<'_>,
    data: &'a [u8],
    namespace: &str,
    fingerprint: &[u8; 32],
    keyring: Option<&Keyring>,
    room: &'a mut Vec<u8>,
    intact: bool,
) -> Result<envelope::View<'a>, envelope::DecodeError> {
    let asked = Asked {
        namespace,
        fingerprint,
        keyring: keyring.map(Keyring::core),
    };
    if data.len() >= DETACH_ZSTD_FROM {
        py.detach(|| envelope::decode_checked(data, asked, room, intact))
    } else {
        envelope::decode_checked(data, asked, room, intact)
    }
}

pub(crate) fn to_fingerprint(bytes: &[u8]) -> PyResult<[u8; 32]> {
    bytes.try_into().map_err(|_| {
        PyValueError::new_err(format!(
            "fingerprint: 32 bytes are needed, {} were given",
            bytes.len()
        ))
    })
}
