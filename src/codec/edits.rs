//! Changes to a JSON text, all others of whose bytes stay.

use std::{borrow::Cow, ops::Range};

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
