//! Writes JSON, member by member, into bytes that are on their way to the client. PURE.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

/// `,"KEY":VALUE`.
pub(in crate::codec) fn write_next<T: Serialize + ?Sized>(out: &mut Vec<u8>, key: &str, value: &T) {
    out.push(b',');
    write_member(out, key, value);
}

/// `"KEY":VALUE`.
pub(in crate::codec) fn write_member<T: Serialize + ?Sized>(out: &mut Vec<u8>, key: &str, value: &T) {
    out.push(b'"');
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    write_json(out, value);
}

/// `VALUE`.
pub(in crate::codec) fn write_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Strings and numbers into memory: there is nothing to fail.
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.extend_from_slice(b"null");
    }
}

/// JSON as it came, but for its line breaks: they would end an event's line. Inside strings JSON has none.
pub(in crate::codec) fn one_line(raw: &RawValue) -> Cow<'_, str> {
    let breaks = |c| matches!(c, '\n' | '\r');
    if raw.get().contains(breaks) { raw.get().replace(breaks, "").into() } else { raw.get().into() }
}
