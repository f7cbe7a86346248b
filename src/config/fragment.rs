//! One configuration file as written: TOML in which each value knows its file and line. PURE.
//!
//! Next come `merge.rs`, which lays the files over one another, and `section.rs`, through which the schema is read.
//! Values stay untyped here, and `serde` is not used: it stops at the first error, knows nothing of layers and cannot
//! say which key was nearly meant.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{collections::BTreeMap, path::Path, sync::Arc};

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place};

/// A value and where it stands. For a value under a key the line is the key's.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it is written.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// A TOML table.
pub type Table = BTreeMap<String, Node>;

/// A TOML value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    String(String),
    /// A whole number; wider than any that is meant, so that one out of range can be shown.
    Integer(i128),
    /// A number with a point or an exponent, or a whole number beyond 128 bits.
    Float(f64),
    /// `true`, `false`.
    Boolean(bool),
    /// No key of ours takes one.
    Datetime,
    /// In order.
    Array(Vec<Node>),
    /// By key.
    Table(Table),
}

impl Value {
    /// The type in TOML's words.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::Integer(_) => "integer",
            Self::Float(_) => "float",
            Self::Boolean(_) => "boolean",
            Self::Datetime => "datetime",
            Self::Array(_) => "array",
            Self::Table(_) => "table",
        }
    }
}

/// Reads the text of one file. `file` is only what errors will call it.
///
/// # Errors
/// [`ConfigError::Syntax`] at the first place that is not TOML; later ones are usually its echo.
pub fn parse(file: &Path, text: &str) -> Result<Table, ConfigError> {
    let document = DeTable::parse(text).map_err(|error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        ConfigError::Syntax { file: file.to_owned(), line, column, message: error.message().to_owned() }
    })?;
    let reader = Reader { file: Arc::from(file), lines: line_starts(text) };
    Ok(reader.table(document.into_inner()))
}

struct Reader {
    file: Arc<Path>,
    /// Byte offset at which each line starts.
    lines: Vec<usize>,
}

impl Reader {
    fn place(&self, offset: usize) -> Place {
        Place { file: Some(self.file.clone()), line: self.lines.partition_point(|start| *start <= offset) }
    }

    fn table(&self, table: DeTable<'_>) -> Table {
        table
            .into_iter()
            .map(|(key, value)| {
                let place = self.place(key.span().start);
                (key.into_inner().into_owned(), Node { place, value: self.value(value.into_inner()) })
            })
            .collect()
    }

    fn value(&self, value: DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::String(text.into_owned()),
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Value::Float(number.as_str().parse().unwrap_or(f64::INFINITY)), Value::Integer),
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Value::Boolean(flag),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(items) => Value::Array(
                items
                    .into_iter()
                    .map(|item| Node { place: self.place(item.span().start), value: self.value(item.into_inner()) })
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(self.table(table)),
        }
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

/// Line and column of a byte offset, both from 1, the column in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_line() {
        let table = parse(Path::new("f"), "[proxy]\n\nkeepalive_s = 1_5\nx = [\n  1,\n 2.5]\n").unwrap();
        let Value::Table(proxy) = &table["proxy"].value else { panic!() };
        assert_eq!(table["proxy"].place.line, 1);
        assert_eq!(proxy["keepalive_s"].place.line, 3);
        assert_eq!(proxy["keepalive_s"].value, Value::Integer(15));
        let Value::Array(items) = &proxy["x"].value else { panic!() };
        assert_eq!(items[1].place.line, 6);
        assert_eq!(items[1].value, Value::Float(2.5));
    }

    #[test]
    fn columns_count_characters() {
        let error = parse(Path::new("f"), "a = \"é\" x").unwrap_err();
        assert!(error.to_string().starts_with("f:1:9: not TOML"), "{error}");
    }
}
