//! Single values of a body: taken as raw JSON, checked one at a time, refused in the client's terms. PURE.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
    forward_to_deserialize_any,
};
use serde_json::value::RawValue;

use super::{InvalidRequest, Result};
use crate::model::{request::Text, text::LazyText};

/// Where in the body something stands; printed only when there is something to say about it.
#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'static str),
    Index(&'p Path<'p>, usize),
}

impl<'p> Path<'p> {
    pub(super) fn key(&'p self, key: &'static str) -> Path<'p> {
        Path::Key(self, key)
    }
    pub(super) fn index(&'p self, index: usize) -> Path<'p> {
        Path::Index(self, index)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(parent, key) => write!(f, "{parent}.{key}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

pub(super) fn optional<'a, T>(
    raw: Option<&'a RawValue>,
    path: &Path<'_>,
    read: impl FnOnce(&'a RawValue, &Path<'_>) -> Result<T>,
) -> Result<Option<T>> {
    raw.map(|raw| read(raw, path)).transpose()
}

pub(super) fn required<'a, T>(
    raw: Option<&'a RawValue>,
    path: &Path<'_>,
    expected: &str,
    read: impl FnOnce(&'a RawValue, &Path<'_>) -> Result<T>,
) -> Result<T> {
    read(raw.ok_or_else(|| missing(path, expected))?, path)
}

pub(super) fn fields<'a, T: Deserialize<'a>>(raw: &'a RawValue, path: &Path<'_>) -> Result<T> {
    if kind_of(raw) != "an object" {
        return Err(wrong(raw, path, "an object"));
    }
    // What is left to go wrong is a key that stands twice.
    serde_json::from_str(raw.get()).map_err(|e| InvalidRequest {
        param: Some(path.to_string()),
        message: format!("`{path}` is not an object of the Responses API: {e}."),
        code: None,
    })
}

/// Entries of one array. What is read takes many times the bytes of the shortest entries, which a limit of bytes alone
/// does not bound; no conversation comes near.
pub(super) const ENTRIES_MAX: usize = 100_000;

pub(super) fn array<'a>(raw: &'a RawValue, path: &Path<'_>, expected: &str) -> Result<Vec<&'a RawValue>> {
    if kind_of(raw) != "an array" {
        return Err(wrong(raw, path, expected));
    }
    // It is valid JSON, so nothing else can be wrong with it.
    let Entries(entries) = serde_json::from_str(raw.get()).map_err(|_| too_many(path, ENTRIES_MAX, "entries"))?;
    Ok(entries)
}

/// Gives the whole of an entry whose fields are known, for the few that are kept as they came.
pub(super) type Whole<'w, 'a> = &'w mut dyn FnMut() -> Result<&'a RawValue>;

/// Hands the entries of an array of objects to `read`, one after the other, with the path of each.
///
/// They are read in one go. Only if that fails they are split first and read one at a time, so that the first thing that
/// is wrong is told, whatever it is.
pub(super) fn each<'a, T: Deserialize<'a>>(
    raw: &'a RawValue,
    path: &Path<'_>,
    expected: &str,
    mut read: impl FnMut(T, Whole<'_, 'a>, &Path<'_>) -> Result<()>,
) -> Result<()> {
    if let Ok(Entries(entries)) = serde_json::from_str::<Entries<Object<T>>>(raw.get()) {
        let mut wholes: Option<Vec<&'a RawValue>> = None;
        for (index, Object(entry)) in entries.into_iter().enumerate() {
            let mut whole = || match &wholes {
                Some(wholes) => nth(wholes, index, raw, path, expected),
                None => nth(wholes.insert(array(raw, path, expected)?), index, raw, path, expected),
            };
            read(entry, &mut whole, &path.index(index))?;
        }
        return Ok(());
    }
    for (index, whole) in array(raw, path, expected)?.into_iter().enumerate() {
        let path = path.index(index);
        read(fields(whole, &path)?, &mut || Ok(whole), &path)?;
    }
    Ok(())
}

fn nth<'a>(
    wholes: &[&'a RawValue],
    index: usize,
    raw: &RawValue,
    path: &Path<'_>,
    expected: &str,
) -> Result<&'a RawValue> {
    // As many as were read: there is one.
    wholes.get(index).copied().ok_or_else(|| wrong(raw, path, expected))
}

/// An array of no more than [`ENTRIES_MAX`]; what is behind so many is not looked at.
pub(super) struct Entries<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = seq.next_element()? {
                    if entries.len() == ENTRIES_MAX {
                        return Err(de::Error::custom("too many entries"));
                    }
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_seq(Reader(PhantomData))
    }
}

/// Fields of an object, which must be one: derived readers also take an array of the fields in order.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Only<D>(D);
        impl<'de, D: Deserializer<'de>> Deserializer<'de> for Only<D> {
            type Error = D::Error;

            fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, D::Error> {
                self.0.deserialize_map(visitor)
            }
            forward_to_deserialize_any! {
                bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
                unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
            }
        }
        T::deserialize(Only(deserializer)).map(Object)
    }
}

pub(super) fn too_many(path: &Path<'_>, max: usize, what: &str) -> InvalidRequest {
    InvalidRequest {
        param: Some(path.to_string()),
        message: format!("`{path}` holds more than {max} {what}, which is the most that this proxy takes."),
        code: None,
    }
}

pub(super) fn object<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<&'a RawValue> {
    if kind_of(raw) == "an object" { Ok(raw) } else { Err(wrong(raw, path, "an object")) }
}

pub(super) fn string<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<Text<'a>> {
    let json = raw.get();
    if kind_of(raw) != "a string" {
        return Err(wrong(raw, path, "a string"));
    }
    if !json.as_bytes().contains(&b'\\') {
        return Ok(Cow::Borrowed(&json[1..json.len() - 1]));
    }
    serde_json::from_str::<String>(json).map(Cow::Owned).map_err(|e| InvalidRequest {
        param: Some(path.to_string()),
        message: format!("`{path}` is not a valid JSON string: {e}."),
        code: None,
    })
}

/// A string that may be long.
pub(super) fn text<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<LazyText<'a>> {
    match LazyText::of_json(raw) {
        Some(text) => Ok(text),
        None => string(raw, path).map(LazyText::from),
    }
}

/// A string that is not empty.
pub(super) fn name<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<Text<'a>> {
    let text = string(raw, path)?;
    if text.is_empty() { Err(empty(path)) } else { Ok(text) }
}

/// The same, if it may be long.
pub(super) fn url<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<LazyText<'a>> {
    let text = text(raw, path)?;
    if text.is_empty() { Err(empty(path)) } else { Ok(text) }
}

/// A string holding JSON; an object is taken as its own text.
pub(super) fn json_text<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<LazyText<'a>> {
    if kind_of(raw) == "an object" { Ok(raw.get().into()) } else { text(raw, path) }
}

pub(super) fn boolean(raw: &RawValue, path: &Path<'_>) -> Result<bool> {
    serde_json::from_str(raw.get()).map_err(|_| wrong(raw, path, "true or false"))
}

pub(super) fn positive(raw: &RawValue, path: &Path<'_>) -> Result<u64> {
    match serde_json::from_str(raw.get()) {
        Ok(number) if number > 0 => Ok(number),
        Ok(_) | Err(_) => Err(wrong(raw, path, "a whole number of at least 1")),
    }
}

pub(super) fn number_within(raw: &RawValue, path: &Path<'_>, min: f64, max: f64) -> Result<f64> {
    match serde_json::from_str::<f64>(raw.get()) {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(wrong(raw, path, &format!("a number from {min} to {max}"))),
    }
}

pub(super) fn kind_of(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') | None => "null",
        Some(_) => "a number",
    }
}

pub(super) fn missing(path: &Path<'_>, expected: &str) -> InvalidRequest {
    invalid(path, "nothing".to_owned(), expected)
}

fn empty(path: &Path<'_>) -> InvalidRequest {
    invalid(path, "an empty string".to_owned(), "a string that is not empty")
}

/// An error that shows short scalars as they came and only the kind of anything else.
pub(super) fn wrong(raw: &RawValue, path: &Path<'_>, expected: &str) -> InvalidRequest {
    let found = match kind_of(raw) {
        kind @ ("a number" | "a boolean") if raw.get().len() <= 40 => format!("{kind} ({})", raw.get()),
        kind => kind.to_owned(),
    };
    invalid(path, found, expected)
}

pub(super) fn invalid(path: &Path<'_>, found: String, expected: &str) -> InvalidRequest {
    InvalidRequest {
        param: Some(path.to_string()),
        message: format!("Invalid `{path}`: expected {expected}, found {found}."),
        code: None,
    }
}
