//! Text of a request that is decoded only if somebody looks at it.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::value::RawValue;

/// A text as it stands in the request's body, JSON escapes and all.
///
/// Most of a conversation goes from one JSON document into another without anybody reading it: undoing its escapes and
/// making them again would cost more than everything else that is done to a request. Who does look at it calls
/// [`LazyText::read`]. Serialised as a JSON string; [`serde_json`] only, since the escaped form is passed on raw.
#[derive(Clone)]
pub struct LazyText<'a>(Form<'a>);

#[derive(Clone)]
enum Form<'a> {
    /// In clear.
    Plain(Cow<'a, str>),
    /// A JSON string, quotes included, without any escape: what is between the quotes is the text.
    Quoted(&'a RawValue),
    /// A JSON string, quotes included, that holds at least one escape and whose escapes all stand for characters.
    Escaped(&'a RawValue),
    /// The same, but of our own making; it may be without escapes, and even empty.
    Joined(Box<RawValue>),
}

impl<'a> LazyText<'a> {
    /// Takes a JSON string as it came. `None` if it is none, or if its escapes do not make text (half a surrogate
    /// pair).
    pub fn of_json(json: &'a RawValue) -> Option<Self> {
        let inner = json.get().strip_prefix('"')?.strip_suffix('"')?.as_bytes();
        let Some(first) = memchr::memchr(b'\\', inner) else { return Some(Self(Form::Quoted(json))) };
        // Escapes of surrogates are the only ones that a JSON parser lets by and that may stand for no text.
        let surrogates = memchr::memmem::find_iter(&inner[first..], b"\\u")
            .any(|at| matches!(inner.get(first + at + 2), Some(b'd' | b'D')));
        if surrogates {
            return serde_json::from_str(json.get()).ok().map(|text| Self(Form::Plain(Cow::Owned(text))));
        }
        Some(Self(Form::Escaped(json)))
    }

    /// One text after the other, `separator` between them.
    pub fn join(mut pieces: Vec<Self>, separator: &'static str) -> Self {
        match pieces.pop() {
            None => Self::default(),
            Some(only) if pieces.is_empty() => only,
            Some(last) => {
                pieces.push(last);
                Self(join(&pieces, separator))
            }
        }
    }

    /// The same text, without taking it.
    pub fn as_borrowed(&self) -> LazyText<'_> {
        LazyText(match &self.0 {
            Form::Plain(text) => Form::Plain(Cow::Borrowed(text)),
            Form::Quoted(json) => Form::Quoted(json),
            Form::Escaped(json) => Form::Escaped(json),
            Form::Joined(json) => Form::Escaped(json),
        })
    }

    /// The text itself: borrowed unless it has escapes.
    pub fn read(&self) -> Cow<'_, str> {
        match &self.0 {
            Form::Plain(text) => Cow::Borrowed(text),
            Form::Quoted(json) => Cow::Borrowed(inside(json)),
            Form::Escaped(json) => decode(json),
            Form::Joined(json) => decode(json),
        }
    }

    /// The same, for as long as the body lives.
    pub fn into_read(self) -> Cow<'a, str> {
        match self.0 {
            Form::Plain(text) => text,
            Form::Quoted(json) => Cow::Borrowed(inside(json)),
            Form::Escaped(json) => decode(json),
            Form::Joined(json) => decode(&json),
        }
    }

    /// True if there is no character in it.
    pub fn is_empty(&self) -> bool {
        // An escape stands for at least one character.
        self.written().is_empty()
    }

    /// True if there is nothing but white space in it.
    pub fn is_blank(&self) -> bool {
        // The first character tells, unless it is white space or an escape, which may be one.
        self.written().chars().next().is_none_or(|c| (c == '\\' || c.is_whitespace()) && self.read().trim().is_empty())
    }

    /// Bytes of the text, at most: escapes are longer than what they stand for.
    pub fn bytes_max(&self) -> usize {
        self.written().len()
    }

    /// What is written of it, in clear or escaped.
    fn written(&self) -> &str {
        match &self.0 {
            Form::Plain(text) => text,
            Form::Quoted(json) | Form::Escaped(json) => inside(json),
            Form::Joined(json) => inside(json),
        }
    }
}

/// What stands between the quotes.
fn inside(json: &RawValue) -> &str {
    let json = json.get();
    json.get(1..json.len().saturating_sub(1)).unwrap_or_default()
}

fn decode(json: &RawValue) -> Cow<'static, str> {
    // A valid string whose escapes were looked at when it was taken: there is nothing left to fail.
    Cow::Owned(serde_json::from_str(json.get()).unwrap_or_default())
}

/// Joins what is written, so that no escape is undone.
fn join(pieces: &[LazyText<'_>], separator: &str) -> Form<'static> {
    let mut json = String::with_capacity(pieces.iter().map(|p| p.bytes_max() + separator.len() + 2).sum());
    json.push('"');
    for (n, piece) in pieces.iter().enumerate() {
        if n > 0 {
            push_escaped(separator, &mut json);
        }
        match &piece.0 {
            Form::Plain(text) => push_escaped(text, &mut json),
            Form::Quoted(_) | Form::Escaped(_) | Form::Joined(_) => json.push_str(piece.written()),
        }
    }
    json.push('"');
    match RawValue::from_string(json) {
        Ok(json) => Form::Joined(json),
        // Escaped texts one after the other are an escaped text: this does not happen.
        Err(_) => {
            let pieces: Vec<Cow<'_, str>> = pieces.iter().map(LazyText::read).collect();
            Form::Plain(Cow::Owned(pieces.join(separator)))
        }
    }
}

fn push_escaped(text: &str, json: &mut String) {
    if text.bytes().any(|b| b < b' ' || b == b'"' || b == b'\\') {
        let quoted = serde_json::to_string(text).unwrap_or_default();
        json.push_str(quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default());
    } else {
        json.push_str(text);
    }
}

impl Default for LazyText<'_> {
    fn default() -> Self {
        Self(Form::Plain(Cow::Borrowed("")))
    }
}

impl<'a> From<Cow<'a, str>> for LazyText<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self(Form::Plain(text))
    }
}

impl<'a> From<&'a str> for LazyText<'a> {
    fn from(text: &'a str) -> Self {
        Cow::Borrowed(text).into()
    }
}

impl From<String> for LazyText<'_> {
    fn from(text: String) -> Self {
        Cow::<str>::Owned(text).into()
    }
}

impl PartialEq for LazyText<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.read() == other.read()
    }
}

impl Eq for LazyText<'_> {}

impl fmt::Debug for LazyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.read(), f)
    }
}

impl Serialize for LazyText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Form::Plain(text) => serializer.serialize_str(text),
            Form::Quoted(json) | Form::Escaped(json) => json.serialize(serializer),
            Form::Joined(json) => json.serialize(serializer),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for LazyText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of_json(<&RawValue>::deserialize(deserializer)?).ok_or_else(|| Error::custom("expected a string"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(json: &str) -> Option<LazyText<'_>> {
        LazyText::of_json(serde_json::from_str(json).unwrap())
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_written_as_it_is(text: String) {
            let json = serde_json::to_string(&text).unwrap();
            let lazy = of(&json).unwrap();
            prop_assert_eq!(lazy.read(), &*text);
            prop_assert_eq!(lazy.is_empty(), text.is_empty());
            prop_assert!(lazy.bytes_max() >= text.len());
            prop_assert_eq!(&serde_json::to_string(&lazy).unwrap(), &json);
            prop_assert_eq!(lazy.as_borrowed().is_blank(), text.trim().is_empty());
            prop_assert_eq!(lazy.into_read(), text);
        }

        /// In whatever form the pieces are.
        #[test]
        fn joined_texts_are_read_as_their_pieces_joined(
            texts in proptest::collection::vec(("[a\"\\\\\n\u{7f}é🦀 ]{0,6}", 0..3u8), 0..6),
            separator in prop_oneof![Just(""), Just("\n\n"), Just("\"")],
        ) {
            let json: Vec<String> = texts.iter().map(|(text, _)| serde_json::to_string(text).unwrap()).collect();
            let pieces: Vec<LazyText<'_>> = texts.iter().zip(&json).map(|((text, form), json)| match form {
                0 => text.as_str().into(),
                1 => of(json).unwrap(),
                _ => LazyText::join(vec![of(json).unwrap(), "".into()], ""),
            }).collect();
            let plain: Vec<&str> = texts.iter().map(|(text, _)| text.as_str()).collect();
            let plain = plain.join(separator);
            let joined = LazyText::join(pieces, separator);
            prop_assert_eq!(joined.as_borrowed().into_read(), &*plain);
            prop_assert_eq!(joined.is_empty(), plain.is_empty());
            prop_assert_eq!(joined.is_blank(), plain.trim().is_empty());
            prop_assert_eq!(serde_json::to_string(&joined).unwrap(), serde_json::to_string(&plain).unwrap());
            prop_assert_eq!(joined.into_read(), plain);
        }
    }

    #[test]
    fn escapes_stay_as_they_came() {
        let text = of(r#""a\/\u00e9""#).unwrap();
        let joined = LazyText::join(vec![text, "b\n".into()], ", ");
        assert_eq!(serde_json::to_string(&joined).unwrap(), r#""a\/\u00e9, b\n""#);
        assert_eq!(joined, "a/é, b\n".into());
    }

    #[test]
    fn escapes_of_surrogates_are_looked_at() {
        assert_eq!(of(r#""a\ud83e\udd80b""#).unwrap().read(), "a🦀b");
        assert_eq!(of(r#""\\ud83e""#).unwrap().read(), "\\ud83e");
        for half in [r#""\ud83e""#, r#""\uD83E\n""#, r#""\udd80\ud83e""#] {
            assert!(of(half).is_none(), "{half}");
        }
        assert!(of("12").is_none());
    }
}
