//! Custom (free text) tools over wires that know only JSON functions. PURE.
//!
//! Such a tool is declared as a function with one required string, `input`; its grammar goes into the description, since
//! nothing else on the way constrains the text. Calls come back as JSON text `{"input":"…"}` in pieces; [`Unwrapper`]
//! yields the text inside as it comes. Models also answer with other shapes; those are understood at the end of the call.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{DecodeError, json::Progress};
use crate::model::{request::CallableTool, text::LazyText};

/// JSON Schema of every custom tool's arguments.
pub const PARAMETERS: &str = r#"{"type":"object","properties":{"input":{"type":"string","description":"The whole input of the tool, as plain text."}},"required":["input"],"additionalProperties":false}"#;

/// The largest input that is held back because its shape was not the expected one, in bytes.
pub const INPUT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a model is told about a custom tool: its own description, how to pass the text, and its grammar.
pub fn description<'r>(tool: &'r CallableTool<'_>) -> LazyText<'r> {
    let mut texts = Vec::new();
    if let Some(own) = tool.description.as_ref().filter(|d| !d.is_blank()) {
        texts.extend([own.as_borrowed(), "\n\n".into()]);
    }
    texts.push("Pass the tool's text, unchanged, in the one argument `input`.".into());
    if let Some((syntax, definition)) = &tool.grammar {
        let lead = [" It must satisfy this ".into(), LazyText::from(&**syntax), " grammar:\n".into()];
        texts.extend(lead);
        texts.push(definition.as_borrowed());
    }
    LazyText::join(texts, "")
}

/// JSON arguments that carry `input`, for calls of the history.
pub fn wrap(input: &LazyText<'_>) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Arguments<'i> {
        input: &'i LazyText<'i>,
    }
    serde_json::to_string(&Arguments { input })
}

/// Turns streamed JSON arguments into a custom tool's input.
///
/// ```text
/// opening ──`{"input":"` read──► inside ──`"` then `}` or `,`──► after
///    └──── anything else ──► held, understood by [`unwrap_whole`] at the end
/// ```
/// What [`Unwrapper::feed`] and [`Unwrapper::finish`] append, joined, is the input; however the text was split.
#[derive(Debug, Default)]
pub struct Unwrapper {
    state: State,
    /// Raw text: of the opening, or all of it once held.
    raw: String,
}

#[derive(Debug, Default)]
enum State {
    /// Still matching `{"input":"`.
    #[default]
    Opening,
    /// Another shape.
    Held,
    /// In the string; what a `\` has begun.
    Inside(Escape),
    /// Behind a `"`, with the white space since: the string's end if `}` or `,` follows, else the model forgot to
    /// escape it.
    Quote(String),
    /// The rest says nothing.
    After,
}

#[derive(Debug, Default, Clone)]
enum Escape {
    #[default]
    None,
    Backslash,
    /// Hexadecimal digits so far.
    Unicode(String),
    /// A high surrogate, waiting for its low one.
    High(u16),
    HighBackslash(u16),
    HighUnicode(u16, String),
}

impl Unwrapper {
    /// Takes the next piece of the arguments and appends the input it completes to `out`.
    pub fn feed(&mut self, delta: &str, out: &mut String) -> Result<(), DecodeError> {
        let mut rest = delta;
        while let Some(c) = rest.chars().next() {
            let from_here = rest;
            rest = &rest[c.len_utf8()..];
            match &mut self.state {
                State::Held => return self.hold(from_here),
                State::After => return Ok(()),
                State::Opening => {
                    self.raw.push(c);
                    match opening(&self.raw) {
                        Opening::Partial => {}
                        Opening::Whole => {
                            self.raw = String::new();
                            self.state = State::Inside(Escape::None);
                        }
                        Opening::Other => self.state = State::Held,
                    }
                }
                State::Inside(Escape::None) if c == '"' => self.state = State::Quote(String::new()),
                State::Inside(Escape::None) if c != '\\' => {
                    // The common case: a run without anything special is copied at once.
                    let end = from_here.find(['"', '\\']).unwrap_or(from_here.len());
                    out.push_str(&from_here[..end]);
                    rest = &from_here[end..];
                }
                State::Inside(escape) => step(escape, c, out),
                State::Quote(space) => match c {
                    '}' | ',' => self.state = State::After,
                    ' ' | '\t' | '\n' | '\r' => space.push(c),
                    '"' => {
                        out.push('"');
                        out.push_str(space);
                        space.clear();
                    }
                    c => {
                        out.push('"');
                        out.push_str(space);
                        let mut escape = Escape::None;
                        step(&mut escape, c, out);
                        self.state = State::Inside(escape);
                    }
                },
            }
        }
        Ok(())
    }

    /// The end of the call: appends what was held back.
    pub fn finish(self, out: &mut String) {
        match self.state {
            State::Opening | State::Held => out.push_str(&unwrap_whole(&self.raw)),
            State::Inside(escape) => flush(escape, out),
            State::Quote(_) | State::After => {}
        }
    }

    /// Whether the arguments so far are the beginning of something that has not ended: as the last word on a call they are
    /// what is left of it.
    pub fn is_cut(&self) -> bool {
        match &self.state {
            State::Opening => !self.raw.trim().is_empty(),
            State::Held => {
                let mut so_far = Progress::default();
                so_far.feed(&self.raw);
                self.raw.trim_start().starts_with(['{', '"']) && !so_far.complete
            }
            State::Inside(_) => true,
            State::Quote(_) | State::After => false,
        }
    }

    fn hold(&mut self, rest: &str) -> Result<(), DecodeError> {
        if self.raw.len() + rest.len() > INPUT_BYTES_MAX {
            return Err(DecodeError::TooLarge { what: "a tool's input", bytes_max: INPUT_BYTES_MAX });
        }
        self.raw.push_str(rest);
        Ok(())
    }
}

enum Opening {
    Partial,
    Whole,
    Other,
}

/// Whether `raw` is, or can become, `{"input":"` with white space where JSON allows it.
fn opening(raw: &str) -> Opening {
    /// Longer white space than any serialiser writes is taken for another shape, so that matching stays cheap.
    const OPENING_BYTES_MAX: usize = 64;
    let mut rest = raw;
    if raw.len() > OPENING_BYTES_MAX {
        return Opening::Other;
    }
    for token in ["{", "\"input\"", ":", "\""] {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        match rest.strip_prefix(token) {
            Some(after) => rest = after,
            None if token.starts_with(rest) => return Opening::Partial,
            None => return Opening::Other,
        }
    }
    Opening::Whole
}

/// One character inside the string, when it or an escape before it is special.
fn step(escape: &mut Escape, c: char, out: &mut String) {
    let simple = |c: char| match c {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        '"' | '\\' | '/' => Some(c),
        _ => None,
    };
    *escape = match std::mem::take(escape) {
        Escape::None if c == '\\' => Escape::Backslash,
        Escape::None => {
            out.push(c);
            Escape::None
        }
        Escape::Backslash if c == 'u' => Escape::Unicode(String::new()),
        Escape::Backslash => {
            match simple(c) {
                Some(plain) => out.push(plain),
                // No JSON escape: the model meant a backslash (a regular expression, a Windows path).
                None => out.extend(['\\', c]),
            }
            Escape::None
        }
        Escape::High(high) if c == '\\' => Escape::HighBackslash(high),
        Escape::HighBackslash(high) if c == 'u' => Escape::HighUnicode(high, String::new()),
        Escape::High(_) => {
            out.push(char::REPLACEMENT_CHARACTER);
            let mut none = Escape::None;
            step(&mut none, c, out);
            none
        }
        Escape::HighBackslash(_) => {
            out.push(char::REPLACEMENT_CHARACTER);
            let mut backslash = Escape::Backslash;
            step(&mut backslash, c, out);
            backslash
        }
        Escape::Unicode(digits) => hex(None, digits, c, out),
        Escape::HighUnicode(high, digits) => hex(Some(high), digits, c, out),
    };
}

/// One character after `\u`, perhaps after a high surrogate.
fn hex(high: Option<u16>, mut digits: String, c: char, out: &mut String) -> Escape {
    if !c.is_ascii_hexdigit() {
        if high.is_some() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
        out.push_str("\\u");
        out.push_str(&digits);
        let mut none = Escape::None;
        step(&mut none, c, out);
        return none;
    }
    digits.push(c);
    if digits.len() < 4 {
        return match high {
            Some(high) => Escape::HighUnicode(high, digits),
            None => Escape::Unicode(digits),
        };
    }
    let unit = u16::from_str_radix(&digits, 16).unwrap_or(0xfffd);
    let mut units = high.into_iter().chain([unit]).peekable();
    if high.is_none() && (0xd800..0xdc00).contains(&unit) {
        return Escape::High(unit);
    }
    if high.is_some() && (0xd800..0xdc00).contains(&unit) {
        units.next();
        out.push(char::REPLACEMENT_CHARACTER);
        return Escape::High(unit);
    }
    out.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
    Escape::None
}

/// What an escape that the end cut off stands for.
fn flush(escape: Escape, out: &mut String) {
    match escape {
        Escape::None => {}
        Escape::Backslash => out.push('\\'),
        Escape::Unicode(digits) => {
            out.push_str("\\u");
            out.push_str(&digits);
        }
        Escape::High(_) | Escape::HighBackslash(_) | Escape::HighUnicode(_, _) => out.push(char::REPLACEMENT_CHARACTER),
    }
}

/// The input inside a whole call's arguments, the same as their pieces give; and whether they are [cut](Unwrapper::is_cut).
pub fn unwrap(arguments: &str) -> Result<(String, bool), DecodeError> {
    let (mut unwrapper, mut input) = (Unwrapper::default(), String::new());
    unwrapper.feed(arguments, &mut input)?;
    let cut = unwrapper.is_cut();
    unwrapper.finish(&mut input);
    Ok((input, cut))
}

/// The input inside a whole call's arguments of any shape: an object with `input`, `patch`, `content` or `text`, or with
/// one string only; a JSON string; fenced text; bare text.
pub fn unwrap_whole(raw: &str) -> Cow<'_, str> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Shape<'a> {
        Object(serde_json::Map<String, serde_json::Value>),
        Text(#[serde(borrow)] Cow<'a, str>),
    }
    let trimmed = raw.trim();
    match serde_json::from_str(trimmed) {
        Ok(Shape::Object(object)) => match string_of(object) {
            Some(text) => Cow::Owned(text),
            None => Cow::Borrowed(raw),
        },
        Ok(Shape::Text(text)) => match serde_json::from_str(&text) {
            // Encoded twice.
            Ok(Shape::Object(object)) => Cow::Owned(string_of(object).unwrap_or_else(|| text.into_owned())),
            Ok(Shape::Text(_)) | Err(_) => Cow::Owned(unfence(&text).to_owned()),
        },
        Err(_) => match unfence(raw) {
            fenced if fenced.len() < raw.len() => match serde_json::from_str(fenced.trim()) {
                Ok(Shape::Object(object)) => string_of(object).map_or(Cow::Borrowed(fenced), Cow::Owned),
                Ok(Shape::Text(_)) | Err(_) => Cow::Borrowed(fenced),
            },
            _ => Cow::Borrowed(raw),
        },
    }
}

fn string_of(mut object: serde_json::Map<String, serde_json::Value>) -> Option<String> {
    for key in ["input", "patch", "content", "text"] {
        if let Some(serde_json::Value::String(text)) = object.get_mut(key) {
            return Some(std::mem::take(text));
        }
    }
    let mut values = object.into_iter();
    match (values.next(), values.next()) {
        (Some((_, serde_json::Value::String(text))), None) => Some(text),
        (Some(_) | None, _) => None,
    }
}

/// The text inside a Markdown fence, if the text is nothing but one.
fn unfence(text: &str) -> &str {
    let inner = text.trim().strip_prefix("```").and_then(|t| t.strip_suffix("```"));
    match inner.and_then(|t| t.split_once('\n')) {
        Some((language, body)) if !language.contains('`') => body,
        Some(_) | None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unwrapped<'a>(pieces: impl IntoIterator<Item = &'a str>) -> String {
        let (mut unwrapper, mut out) = (Unwrapper::default(), String::new());
        for piece in pieces {
            unwrapper.feed(piece, &mut out).unwrap();
        }
        unwrapper.finish(&mut out);
        out
    }

    const PATCH: &str = "*** Begin Patch\n*** Add File: a\n+x\n*** End Patch";

    #[test]
    fn the_expected_shape_streams() {
        let (mut unwrapper, mut out) = (Unwrapper::default(), String::new());
        for (piece, so_far) in
            [("{ \"inp", ""), ("ut\" : \"ab", "ab"), ("\\", "ab"), ("nc\\u00", "ab\nc"), ("e9\"", "ab\ncé")]
        {
            unwrapper.feed(piece, &mut out).unwrap();
            assert_eq!(out, so_far, "{piece}");
        }
        unwrapper.feed("}", &mut out).unwrap();
        unwrapper.finish(&mut out);
        assert_eq!(out, "ab\ncé");
    }

    #[test]
    fn other_shapes_are_understood_at_the_end() {
        let json = |key: &str| serde_json::json!({ key: PATCH }).to_string();
        let string = serde_json::to_string(PATCH).unwrap();
        let twice = serde_json::to_string(&json("input")).unwrap();
        let fenced = format!("```diff\n{PATCH}```");
        for raw in [json("patch"), json("content"), json("text"), json("cmd"), string, twice, fenced, PATCH.to_owned()]
        {
            assert_eq!(unwrapped([raw.as_str()]), PATCH, "{raw}");
        }
        let several = r#"{"a":"1","b":"2"}"#;
        assert_eq!(unwrapped([several]), several);
        assert_eq!(unwrapped([r#"{"note":"n","input":"x"}"#]), "x");
        assert_eq!(unwrapped([""]), "");
    }

    #[test]
    fn slips_of_models_are_forgiven() {
        assert_eq!(unwrapped([r#"{"input":"say "hi" now"}"#]), "say \"hi\" now");
        assert_eq!(unwrapped([r#"{"input":"\d+\."}"#]), "\\d+\\.");
        assert_eq!(unwrapped(["{\"input\":\"a\nb\"}"]), "a\nb");
        assert_eq!(unwrapped([r#"{"input":"cut"#]), "cut");
        assert_eq!(unwrapped([r#"{"input":"\ud83e\udd80 \ud83e! \udd80 \ud83e"#]), "🦀 \u{fffd}! \u{fffd} \u{fffd}");
        assert_eq!(unwrapped([r#"{"input":"x","why":"y"}"#]), "x");
    }

    #[test]
    fn what_was_cut_off_is_told_from_what_is_whole() {
        for (arguments, cut) in [
            (r#"{"input":"x"}"#, false),
            (r#"{"input":"x""#, false),
            (r#"{"input":"say "hi" now"}"#, false),
            (r#"{"patch":"x"}"#, false),
            ("*** Begin Patch", false),
            ("", false),
            (r#"{"inp"#, true),
            (r#"{"input":"*** Begin Pa"#, true),
            (r#"{"input":"a\"#, true),
            (r#"{"patch":"*** Begin"#, true),
            (r#""*** Begin"#, true),
        ] {
            assert_eq!(unwrap(arguments).unwrap().1, cut, "{arguments}");
        }
    }

    proptest! {
        #[test]
        fn what_is_wrapped_unwraps_for_any_split(text in "\\PC*|[a\"\\\\\n🦀{}]{0,40}", cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6)) {
            let raw = wrap(&text.as_str().into()).unwrap();
            prop_assert_eq!(unwrapped(split(&raw, &cuts)), text.as_str());
            prop_assert_eq!(unwrap(&raw).unwrap(), (text, false));
            let half = &raw[..raw.floor_char_boundary(raw.len() - 3)];
            prop_assert!(half.len() < 2 || unwrap(half).unwrap().1);
        }

        #[test]
        fn any_text_gives_the_same_for_any_split(raw in "(\\{\"input\":\")?[a\"\\\\u0dD8n\n🦀{},:]{0,40}", cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6)) {
            prop_assert_eq!(unwrapped(split(&raw, &cuts)), unwrapped([raw.as_str()]));
        }
    }

    fn split<'a>(text: &'a str, cuts: &[proptest::sample::Index]) -> Vec<&'a str> {
        let ends: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
        let mut at: Vec<usize> = cuts.iter().map(|c| *c.get(&ends)).chain([0, text.len()]).collect();
        at.sort_unstable();
        at.windows(2).map(|w| &text[w[0]..w[1]]).collect()
    }
}
