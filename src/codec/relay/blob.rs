//! Which `encrypted_content` came by, without keeping it.
//!
//! What a native host gives is opaque to us and not sealed by us, so nothing in it says whose it is. Another host would
//! refuse the whole request for it. Hence its name is kept, and who gave it.

use std::{borrow::Cow, fmt, str::FromStr};

use memchr::memmem;

/// Names an `encrypted_content`: 64 bits of its text. The same in every version of this program, since it is kept on
/// disk. It guards against nobody: who makes two contents of one name fools only their own host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlobId(u64);

impl BlobId {
    /// Of the text, without quotes and escapes.
    pub fn of(text: &[u8]) -> Self {
        // Each step can be undone, so two texts of one length only agree by accident. An odd constant with bits all over:
        // 2⁶⁴ divided by the golden ratio.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut hash = text.len() as u64;
        for piece in text.chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR);
            hash ^= hash >> 32;
        }
        Self(hash)
    }

    /// Names every `encrypted_content` that stands anywhere in JSON text.
    pub(super) fn all_in(json: &[u8], found: &mut Vec<Self>) {
        let texts = strings(json, b"\"encrypted_content\"").filter(|text| !text.is_empty());
        found.extend(texts.map(|text| Self::of(&text)));
    }
}

/// Every string of a key, which is given in quotes, that stands anywhere in JSON text; without quotes and escapes.
pub(super) fn strings<'j>(json: &'j [u8], key: &'j [u8]) -> impl Iterator<Item = Cow<'j, [u8]>> {
    // Within a string its quotes would be escaped, so this is always a key, or a string that no colon follows.
    memmem::find_iter(json, key).filter_map(move |at| {
        let rest = json[at + key.len()..].trim_ascii_start().strip_prefix(b":")?;
        string(rest.trim_ascii_start())
    })
}

/// The names of every `encrypted_content` in a body.
pub fn blobs_in(json: &[u8]) -> Vec<BlobId> {
    let mut found = Vec::new();
    BlobId::all_in(json, &mut found);
    found
}

/// The JSON string that `json` begins with, without quotes and escapes.
pub(super) fn string(json: &[u8]) -> Option<Cow<'_, [u8]>> {
    let inner = json.strip_prefix(b"\"")?;
    let mut escaped = false;
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', &inner[from..])?;
        if inner[at] == b'"' {
            return if escaped {
                serde_json::from_slice::<String>(&json[..at + 2]).ok().map(|text| text.into_bytes().into())
            } else {
                Some(inner[..at].into())
            };
        }
        escaped = true;
        // The backslash and what it escapes.
        from = at + 2;
        if from > inner.len() {
            return None;
        }
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for BlobId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_in(json: &str) -> Vec<BlobId> {
        blobs_in(json.as_bytes())
    }

    #[test]
    fn contents_are_found_wherever_they_stand() {
        let [a, b] = ["gAAA/B+c==", "x"].map(|text| BlobId::of(text.as_bytes()));
        assert_eq!(all_in(r#"{"item":{"encrypted_content":"gAAA/B+c=="},"z":[{"encrypted_content" : "x"}]}"#), [a, b]);
        assert_eq!(all_in(r#"{"encrypted_content":"gAAA\/B\u002bc=="}"#), [a]);
        assert_eq!(all_in(r#"{"encrypted_content":null,"a":"encrypted_content","encrypted_content":""}"#), []);
        assert_eq!(all_in(r#"{"text":"say \"encrypted_content\":\"x\""}"#), []);
        for cut in [r#"{"encrypted_content""#, r#""encrypted_content":"ab"#, r#""encrypted_content":"ab\"#] {
            assert_eq!(all_in(cut), [], "{cut}");
        }
    }

    #[test]
    fn a_name_is_the_same_for_ever() {
        assert_eq!(BlobId::of(b"gAAAAABexample").to_string(), "469d3b9aa529f865");
        for id in [BlobId::of(b""), BlobId::of(b"a"), BlobId::of(b"\0"), BlobId::of(b"a\0")] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_ne!(BlobId::of(b"a"), BlobId::of(b"a\0"));
    }
}
