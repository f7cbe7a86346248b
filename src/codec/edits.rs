//! Changes to a JSON text, all others of whose bytes stay.

use std::{borrow::Cow, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Changes to a text, made all at once. They do not overlap.
pub(in crate::codec) struct Edits<'a> {
    pub(in crate::codec) text: &'a str,
    edits: Vec<(Range<usize>, String)>,
}

impl<'a> Edits<'a> {
    /// None yet.
    pub(in crate::codec) fn new(text: &'a str) -> Self {
        Self { text, edits: Vec::new() }
    }

    /// Where a value stands that was borrowed from the text.
    pub(in crate::codec) fn range(&self, value: &RawValue) -> Range<usize> {
        let start = value.get().as_ptr() as usize - self.text.as_ptr() as usize;
        start..start + value.get().len()
    }

    /// Puts something in the place of a value that was borrowed from the text.
    pub(in crate::codec) fn replace(&mut self, value: &RawValue, new: impl Into<String>) {
        self.edits.push((self.range(value), new.into()));
    }

    /// Puts members (`"key":value`) at the beginning of an object that was borrowed from the text, or is all of it.
    pub(in crate::codec) fn insert(&mut self, object: &str, members: &str) {
        let at = object.as_ptr() as usize - self.text.as_ptr() as usize + object.find('{').map_or(0, |at| at + 1);
        let empty = self.text[at..].trim_start().starts_with('}');
        self.edits.push((at..at, format!("{members}{}", if empty { "" } else { "," })));
    }

    /// Puts something in at a place.
    pub(in crate::codec) fn put(&mut self, at: usize, new: String) {
        self.edits.push((at..at, new));
    }

    /// Takes a range out.
    pub(in crate::codec) fn remove(&mut self, range: Range<usize>) {
        self.edits.push((range, String::new()));
    }

    /// Takes those out of an array that are not `kept`, with their commas. `entries`: all of it, borrowed from the text.
    pub(super) fn retain(&mut self, entries: &[&RawValue], kept: &[bool]) {
        let ranges: Vec<Range<usize>> = entries.iter().map(|entry| self.range(entry)).collect();
        let last_kept = kept.iter().rposition(|kept| *kept);
        for (at, range) in ranges.iter().enumerate() {
            // With what follows, up to the next one: its comma.
            if !kept[at] && last_kept.is_some_and(|last| at < last) {
                self.remove(range.start..ranges[at + 1].start);
            }
        }
        let Some(end) = ranges.last().map(|range| range.end) else { return };
        // Those at the end go with the comma before them.
        match last_kept {
            Some(last) if ranges[last].end < end => self.remove(ranges[last].end..end),
            Some(_) => {}
            None => self.remove(ranges[0].start..end),
        }
    }

    /// The text with all changes.
    pub(in crate::codec) fn apply(mut self) -> Cow<'a, str> {
        if self.edits.is_empty() {
            return Cow::Borrowed(self.text);
        }
        self.edits.sort_by_key(|(range, _)| range.start);
        let more: usize = self.edits.iter().map(|(_, new)| new.len()).sum();
        let mut out = String::with_capacity(self.text.len() + more);
        let mut from = 0;
        for (range, new) in self.edits {
            out.push_str(&self.text[from..range.start]);
            out.push_str(&new);
            from = range.end;
        }
        out.push_str(&self.text[from..]);
        Cow::Owned(out)
    }
}

/// The members of an object, in order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Reader).map(Members)
    }
}

/// What becomes of a member.
pub(super) enum Said {
    /// It stays as it is.
    Same,
    /// It goes.
    Nothing,
    /// Another key, and JSON, stand in its place.
    Instead(&'static str, String),
}

/// An object with some members said otherwise, on one line; the others' values stay as they are. `None`: it is no object.
pub(super) fn rewritten(object: &str, mut say: impl FnMut(&str, &RawValue) -> Said) -> Option<String> {
    let Members(members) = serde_json::from_str(object).ok()?;
    let mut out = String::with_capacity(object.len() + 64);
    let mut write = |key: &str, value: &str| {
        out.push(if out.is_empty() { '{' } else { ',' });
        // A string into memory: there is nothing to fail.
        out.push_str(&serde_json::to_string(key).unwrap_or_default());
        out.push(':');
        // Line ends stand between tokens only.
        out.extend(value.chars().filter(|c| !matches!(c, '\n' | '\r')));
    };
    for (key, value) in members {
        match say(&key, value) {
            Said::Same => write(&key, value.get()),
            Said::Nothing => {}
            Said::Instead(key, value) => write(key, &value),
        }
    }
    if out.is_empty() {
        out.push('{');
    }
    out.push('}');
    Some(out)
}
