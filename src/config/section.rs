//! Reads a table by its schema: asking for a key is what declares it. PURE.
//!
//! Whoever reads a table asks for every key it may hold, then calls [`Section::finish`], which refuses the others and
//! suggests from the ones asked for. So the schema stands once, in the reading code.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use super::{
    defaults::Range,
    error::{Place, Report},
    fragment::{Node, Table, Value},
    nearest::hint,
};

static NO_ENTRIES: Table = Table::new();
static NOWHERE: Place = Place::NOWHERE;

/// A table being read.
pub struct Section<'a> {
    /// Dotted path; empty for the document.
    pub path: String,
    /// Where the table is written.
    pub place: &'a Place,
    entries: &'a Table,
    known: Vec<&'static str>,
    /// Keys that were refused with a word of their own.
    refused: Vec<&'static str>,
}

/// A value being read, under its dotted path.
#[derive(Clone)]
pub struct Entry<'a> {
    /// Dotted path; list items as `routes[0]`.
    pub key: String,
    /// The value.
    pub node: &'a Node,
}

/// A number that was read, or its default.
#[derive(Clone, Copy)]
pub struct Number<'a> {
    /// What holds.
    pub value: u64,
    /// Where it is written, if it is.
    pub written: Option<&'a Place>,
}

impl Number<'_> {
    /// As seconds.
    pub fn seconds(self) -> Duration {
        Duration::from_secs(self.value)
    }
}

impl<'a> Section<'a> {
    /// The whole document.
    pub fn document(entries: &'a Table) -> Self {
        Self { path: String::new(), place: &NOWHERE, entries, known: Vec::new(), refused: Vec::new() }
    }

    /// The dotted path of a key in here.
    pub fn path_of(&self, key: &str) -> String {
        let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let key = if plain { key.to_owned() } else { format!("{key:?}") };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    /// Whether something stands under `key`.
    pub fn holds(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The value under `key`, if there is one.
    pub fn entry(&mut self, key: &'static str) -> Option<Entry<'a>> {
        self.known.push(key);
        self.entries.get(key).map(|node| Entry { key: self.path_of(key), node })
    }

    /// The table under `key`; an empty one if there is none, or something else stands there.
    pub fn section(&mut self, key: &'static str, report: &mut Report) -> Section<'a> {
        let found = self.entry(key).and_then(|entry| entry.section(report));
        found.unwrap_or_else(|| Section { path: self.path_of(key), ..Section::document(&NO_ENTRIES) })
    }

    /// Text under `key`.
    pub fn text(&mut self, key: &'static str, report: &mut Report) -> Option<(Entry<'a>, &'a str)> {
        let entry = self.entry(key)?;
        let text = entry.text(report)?;
        Some((entry, text))
    }

    /// Text under `key` that a person will read: one line, not empty, at most `bytes_max`.
    pub fn line(&mut self, key: &'static str, bytes_max: usize, report: &mut Report) -> Option<String> {
        let (entry, text) = self.text(key, report)?;
        if text.trim().is_empty() || text.len() > bytes_max || text.chars().any(char::is_control) {
            report.refuse(&entry.node.place, &entry.key, format!("must be one line of 1 to {bytes_max} bytes"));
            return None;
        }
        Some(text.to_owned())
    }

    /// `true` or `false` under `key`.
    pub fn flag(&mut self, key: &'static str, report: &mut Report) -> Option<bool> {
        let entry = self.entry(key)?;
        if let Value::Boolean(flag) = entry.node.value {
            return Some(flag);
        }
        entry.refuse_type("true or false", report);
        None
    }

    /// A whole number under `key`, if one stands there and lies in `range`.
    pub fn number(&mut self, key: &'static str, range: &Range, report: &mut Report) -> Option<Number<'a>> {
        let entry = self.entry(key)?;
        let Value::Integer(written) = entry.node.value else {
            entry.refuse_type(&format!("a whole number, {}", range.words()), report);
            return None;
        };
        match u64::try_from(written) {
            Ok(value) if (range.min..=range.max).contains(&value) => {
                Some(Number { value, written: Some(&entry.node.place) })
            }
            _ => {
                report.refuse_value(&entry.node.place, &entry.key, written, format!("must be {}", range.words()));
                None
            }
        }
    }

    /// A whole number under `key`, else the range's default.
    pub fn number_or_default(&mut self, key: &'static str, range: &Range, report: &mut Report) -> Number<'a> {
        self.number(key, range, report).unwrap_or(Number { value: range.default, written: None })
    }

    /// An amount under `key`, zero or more; whole numbers count too.
    pub fn amount(&mut self, key: &'static str, report: &mut Report) -> Option<f64> {
        let entry = self.entry(key)?;
        let amount = match entry.node.value {
            Value::Float(amount) => amount,
            #[expect(clippy::cast_precision_loss, reason = "amounts of money are far below 2^53")]
            Value::Integer(amount) => amount as f64,
            Value::String(_) | Value::Boolean(_) | Value::Datetime | Value::Array(_) | Value::Table(_) => {
                entry.refuse_type("a number, 0 or more", report);
                return None;
            }
        };
        if amount.is_finite() && amount >= 0.0 {
            return Some(amount);
        }
        report.refuse_value(&entry.node.place, &entry.key, amount, "must be 0 or more");
        None
    }

    /// Every entry, for tables whose keys are the user's.
    pub fn all(&self) -> impl Iterator<Item = (&'a str, Entry<'a>)> + use<'a> {
        let path = Self { path: self.path.clone(), ..Self::document(&NO_ENTRIES) };
        self.entries.iter().map(move |(key, node)| (key.as_str(), Entry { key: path.path_of(key), node }))
    }

    /// Refuses a key that people look for here, with a word of its own.
    pub fn elsewhere(&mut self, key: &'static str, why: &str, report: &mut Report) {
        if let Some(node) = self.entries.get(key) {
            self.refused.push(key);
            report.refuse(&node.place, &self.path_of(key), why);
        }
    }

    /// Refuses every key that nobody asked for.
    pub fn finish(self, report: &mut Report) {
        for (key, node) in self.entries {
            if !self.known.contains(&key.as_str()) && !self.refused.contains(&key.as_str()) {
                let hint = hint(key, self.known.iter().copied());
                report.refuse(&node.place, &self.path_of(key), format!("unknown key; {hint}"));
            }
        }
    }
}

impl<'a> Entry<'a> {
    /// The value as text.
    pub fn text(&self, report: &mut Report) -> Option<&'a str> {
        if let Value::String(text) = &self.node.value {
            return Some(text);
        }
        self.refuse_type("a string", report);
        None
    }

    /// The value as a table.
    pub fn section(&self, report: &mut Report) -> Option<Section<'a>> {
        if let Value::Table(entries) = &self.node.value {
            return Some(Section { path: self.key.clone(), place: &self.node.place, ..Section::document(entries) });
        }
        self.refuse_type("a table", report);
        None
    }

    /// The items of an array; `expected` says of what.
    pub fn items(&self, expected: &str, report: &mut Report) -> Option<Vec<Entry<'a>>> {
        let Value::Array(items) = &self.node.value else {
            self.refuse_type(expected, report);
            return None;
        };
        let path = |(index, node)| Entry { key: format!("{}[{index}]", self.key), node };
        Some(items.iter().enumerate().map(path).collect())
    }

    /// Refuses the value for its type.
    pub fn refuse_type(&self, expected: &str, report: &mut Report) {
        let found = self.node.value.type_name();
        report.refuse(&self.node.place, &self.key, format!("must be {expected}, found {found}"));
    }

    /// Refuses the value, without showing it.
    pub fn refuse(&self, why: impl Into<String>, report: &mut Report) {
        report.refuse(&self.node.place, &self.key, why);
    }
}
