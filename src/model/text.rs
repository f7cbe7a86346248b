//! Text of a request that is decoded only if somebody looks at it.

use std::{borrow::Cow, fmt};

use serde::{Serialize, Serializer};
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
    Plain(Cow<'a, str>),
    /// A JSON string, quotes included, that holds at least one escape and whose escapes all stand for characters.
    Escaped(&'a RawValue),
}

impl<'a> LazyText<'a> {
    /// Takes a JSON string as it came. `None` if it is none, or if its escapes do not make text (half a surrogate
    /// pair).
    pub fn of_json(json: &'a RawValue) -> Option<Self> {
        let inner = json.get().strip_prefix('"')?.strip_suffix('"')?;
        if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
            return Some(Self(Form::Plain(Cow::Borrowed(inner))));
        }
        // Escapes of surrogates are the only ones that a JSON parser lets by and that may stand for no text.
        let surrogates = memchr::memmem::find_iter(inner.as_bytes(), b"\\u")
            .any(|at| matches!(inner.as_bytes().get(at + 2), Some(b'd' | b'D')));
        if surrogates {
            return serde_json::from_str(json.get()).ok().map(|text| Self(Form::Plain(Cow::Owned(text))));
        }
        Some(Self(Form::Escaped(json)))
    }

    /// The text itself: borrowed unless it has escapes.
    pub fn read(&self) -> Cow<'_, str> {
        match &self.0 {
            Form::Plain(text) => Cow::Borrowed(text),
            Form::Escaped(json) => decode(json),
        }
    }

    /// The same, for as long as the body lives.
    pub fn into_read(self) -> Cow<'a, str> {
        match self.0 {
            Form::Plain(text) => text,
            Form::Escaped(json) => decode(json),
        }
    }

    /// True if there is no character in it.
    pub fn is_empty(&self) -> bool {
        // An escape stands for at least one character.
        matches!(&self.0, Form::Plain(text) if text.is_empty())
    }

    /// Bytes of the text, at most: escapes are longer than what they stand for.
    pub fn bytes_max(&self) -> usize {
        match &self.0 {
            Form::Plain(text) => text.len(),
            Form::Escaped(json) => json.get().len(),
        }
    }
}

fn decode(json: &RawValue) -> Cow<'static, str> {
    // A valid string whose escapes were looked at when it was taken: there is nothing left to fail.
    Cow::Owned(serde_json::from_str(json.get()).unwrap_or_default())
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
            Form::Escaped(json) => json.serialize(serializer),
        }
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
            prop_assert_eq!(serde_json::to_string(&lazy).unwrap(), json);
            prop_assert_eq!(lazy.into_read(), text);
        }
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
