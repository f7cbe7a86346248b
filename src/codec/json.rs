//! JSON in pieces and as hosts write it: strings borrowed where they can be, numbers in quotes, how far a document has
//! come. PURE.
//!
//! For the decoders of answers; requests have [`crate::model::text`].

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The text of a JSON string; numbers as they are written (ids, codes); `None` for the rest.
pub fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    match raw.get().as_bytes().first() {
        Some(b'"') => borrowed(raw.get()),
        Some(b'0'..=b'9' | b'-') => Some(Cow::Borrowed(raw.get())),
        Some(_) | None => None,
    }
}

/// A JSON number, or a string that holds one.
pub fn number_of(raw: &RawValue) -> Option<u64> {
    text_of(raw)?.parse().ok()
}

/// A JSON string without copying, unless it holds escapes.
pub fn borrowed(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(json).or_else(|_| serde_json::from_str(&without_lone_surrogates(json))).ok().map(Cow::Owned)
}

/// A JSON string in which `\ufffd` stands for every half of a surrogate pair that lacks the other: gateways that cut text
/// into pieces by UTF-16 units write such halves, and one is no reason to lose the piece.
pub fn without_lone_surrogates(json: &str) -> String {
    let unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let length = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
            (Some(0xd800..0xe000), _) => {
                out.push('\u{fffd}');
                rest = &escape[6..];
                continue;
            }
            // The backslash and what it escapes.
            (_, _) => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&escape[..length]);
        rest = &escape[length..];
    }
    out.push_str(rest);
    out
}

/// Why something could not be read, without its content.
pub fn why(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "it ends early",
        serde_json::error::Category::Syntax => "not JSON",
        serde_json::error::Category::Data => "a field of another type",
        serde_json::error::Category::Io => "not read",
    }
}

/// A JSON object's fields in the order they came, their values unread.
#[derive(Debug, Clone, Default)]
pub struct Fields<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// `None` if it is no object.
    pub fn of(raw: &'a RawValue) -> Option<Self> {
        if !raw.get().starts_with('{') {
            return None;
        }
        serde_json::from_str(raw.get()).ok()
    }

    /// The value of a field.
    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                #[derive(Deserialize)]
                struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
                let mut fields: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                let mut places: BTreeMap<Cow<'de, str>, usize> = BTreeMap::new();
                while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    // The last of equal keys counts, as with other readers.
                    match places.get(&key) {
                        Some(place) => fields[*place].1 = value,
                        None => {
                            places.insert(key.clone(), fields.len());
                            fields.push((key, value));
                        }
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// How far a JSON document that comes in pieces has come. It looks at brackets and quotes only.
#[derive(Debug, Default)]
pub struct Progress {
    /// Something other than white space has come.
    pub begun: bool,
    /// Whatever was opened is closed.
    pub complete: bool,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Progress {
    /// Takes the next piece.
    pub fn feed(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            self.begun |= !byte.is_ascii_whitespace();
        }
        self.complete = self.begun && self.depth == 0 && !self.in_string;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_pair_does_not_cost_the_text_around_it() {
        for (json, text) in [
            (r#""ab\ud83e""#, "ab\u{fffd}"),
            (r#""\udd80 cd""#, "\u{fffd} cd"),
            (r#""\ud83e\udd80 \ud83e\n\\ud83e""#, "🦀 \u{fffd}\n\\ud83e"),
            (r#""\ud83e\ud83e\udd80""#, "\u{fffd}🦀"),
        ] {
            assert_eq!(borrowed(json).as_deref(), Some(text), "{json}");
        }
        assert_eq!(borrowed(r#""\u12""#), None);
    }
}
