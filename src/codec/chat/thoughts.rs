//! What an answer's thoughts look like inside an [`Opaque`](crate::model::request::Opaque) of this protocol, and the tags
//! that mark thoughts in plain text. PURE.
//!
//! `stream.rs` writes the stored form, `request.rs` reads it; nobody else does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::text::LazyText;

/// How thoughts came, and so how they go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) enum Field {
    #[default]
    #[serde(rename = "reasoning_content")]
    ReasoningContent,
    #[serde(rename = "reasoning")]
    Reasoning,
    #[serde(rename = "details")]
    Details,
    #[serde(rename = "tags")]
    Tags,
}

/// The stored form, read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stored<'a> {
    pub field: Field,
    /// Which of [`TAGS`] they stood in.
    pub tag: usize,
    /// Absent if the answer had no thoughts in plain text; empty if it is known to have had none at all.
    #[serde(borrow)]
    pub text: Option<LazyText<'a>>,
    #[serde(borrow)]
    pub details: Vec<&'a RawValue>,
    /// `extra_content` by call id.
    #[serde(borrow)]
    pub calls: BTreeMap<String, &'a RawValue>,
}

/// The stored form, to be written.
#[derive(Debug, Serialize)]
pub(super) struct Store<'a> {
    pub field: Field,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub details: &'a [serde_json::Map<String, serde_json::Value>],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub calls: &'a BTreeMap<String, Box<RawValue>>,
}

/// Opening and closing tags of thoughts in text: most models; some Anthropic-like ones; MiniMax M3; Gemini behind its
/// OpenAI-compatible face.
pub(super) const TAGS: [(&str, &str); 4] = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<mm:think>", "</mm:think>"),
    ("<thought>", "</thought>"),
];

/// More white space than this belongs to no tag. A model can go on with nothing else up to its limit, and what is held
/// back is looked at again with every piece.
const BLANK_BYTES_MAX: usize = 4 * 1024;

/// Separates thoughts from text, piece by piece.
///
/// ```text
/// start ──opening tag──► thought ──closing tag──► behind ──opening tag──► thought …
///   └──anything else──► text ◄──anything else────────┘   (to the end: later tags are talked about, not used)
/// ```
/// What may be the beginning of a marker is held back until it is one or is none.
#[derive(Debug)]
pub(super) struct Splitter {
    state: State,
    tag: usize,
    held: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// Behind a closing tag: white space is the tag's.
    Behind,
    Thought {
        closing: &'static str,
        begun: bool,
    },
    Text,
}

/// A separated piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// With the index of its tags.
    Thought(&'a str, usize),
    Text(&'a str),
}

impl Splitter {
    /// `inside`: the text begins in a thought that the prompt opened.
    pub fn new(inside: bool) -> Self {
        let state = if inside { State::Thought { closing: TAGS[0].1, begun: false } } else { State::Start };
        Self { state, tag: 0, held: String::new() }
    }

    /// True once nothing can be a marker any more.
    pub fn is_plain(&self) -> bool {
        self.state == State::Text
    }

    /// Takes more text and hands out the pieces it decides.
    pub fn feed<E>(&mut self, delta: &str, mut out: impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        if self.state == State::Text {
            return out(Piece::Text(delta));
        }
        let mut held = std::mem::take(&mut self.held);
        held.push_str(delta);
        let mut rest = held.as_str();
        while !rest.is_empty() {
            match self.state {
                State::Text => {
                    out(Piece::Text(rest))?;
                    rest = "";
                }
                State::Start | State::Behind => {
                    let body = rest.trim_start();
                    let tag = TAGS.iter().position(|(opening, _)| body.starts_with(opening));
                    if let Some((tag, (opening, closing))) = tag.and_then(|tag| Some((tag, TAGS.get(tag)?))) {
                        self.tag = tag;
                        self.state = State::Thought { closing, begun: false };
                        rest = &body[opening.len()..];
                    } else if body.is_empty() && self.state == State::Behind {
                        rest = body;
                    } else if body.is_empty() && rest.len() > BLANK_BYTES_MAX {
                        self.state = State::Text;
                    } else if TAGS.iter().any(|(opening, _)| opening.starts_with(body)) {
                        break;
                    } else {
                        if self.state == State::Behind {
                            rest = body;
                        }
                        self.state = State::Text;
                    }
                }
                State::Thought { closing, ref mut begun } => {
                    if !*begun {
                        rest = rest.trim_start();
                    }
                    let (thought, next) = match rest.find(closing) {
                        Some(at) => (&rest[..at], Some(&rest[at + closing.len()..])),
                        None => (&rest[..rest.len() - partial(rest, closing)], None),
                    };
                    // Trailing white space belongs to the tag if the tag follows.
                    let trimmed = thought.trim_end();
                    let shown = if thought.len() - trimmed.len() > BLANK_BYTES_MAX { thought } else { trimmed };
                    if !shown.is_empty() {
                        *begun = true;
                        out(Piece::Thought(shown, self.tag))?;
                    }
                    match next {
                        Some(next) => {
                            self.state = State::Behind;
                            rest = next;
                        }
                        None => {
                            rest = &rest[shown.len()..];
                            break;
                        }
                    }
                }
            }
        }
        self.held.push_str(rest);
        Ok(())
    }

    /// The end: hands out what was held back.
    pub fn finish<E>(&mut self, mut out: impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Thought { .. } => match held.trim_end() {
                "" => Ok(()),
                rest => out(Piece::Thought(rest, self.tag)),
            },
            State::Behind => match held.trim_start() {
                "" => Ok(()),
                rest => out(Piece::Text(rest)),
            },
            State::Start | State::Text => match held.as_str() {
                blank if blank.trim().is_empty() => Ok(()),
                rest => out(Piece::Text(rest)),
            },
        }
    }

    /// True while the text is inside a thought.
    pub fn is_inside(&self) -> bool {
        matches!(self.state, State::Thought { .. })
    }
}

/// How many bytes at the end of `text` may be the beginning of `marker`.
fn partial(text: &str, marker: &str) -> usize {
    (1..marker.len()).rev().find(|n| text.ends_with(&marker[..*n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split<'a>(inside: bool, pieces: impl IntoIterator<Item = &'a str>) -> (String, String) {
        let (mut thought, mut text) = (String::new(), String::new());
        let mut splitter = Splitter::new(inside);
        let mut out = |piece: Piece<'_>| {
            match piece {
                Piece::Thought(t, _) => thought.push_str(t),
                Piece::Text(t) => text.push_str(t),
            }
            Ok::<(), ()>(())
        };
        for piece in pieces {
            splitter.feed(piece, &mut out).unwrap();
        }
        splitter.finish(&mut out).unwrap();
        (thought, text)
    }

    #[test]
    fn endless_white_space_is_not_gathered() {
        for opening in ["", "<think>", "<think>a", "<think>a</think>"] {
            let mut splitter = Splitter::new(false);
            splitter.feed(opening, |_| Ok::<(), ()>(())).unwrap();
            for _ in 0..20_000 {
                splitter.feed("\n", |_| Ok::<(), ()>(())).unwrap();
                assert!(splitter.held.len() <= BLANK_BYTES_MAX, "{opening}");
            }
        }
    }

    #[test]
    fn tags_count_only_at_the_start() {
        for (raw, thought, text) in [
            ("<think>a b</think>\n\nc", "a b", "c"),
            ("\n<thinking>a</thinking>c", "a", "c"),
            ("<mm:think>a < b</mm:think> c", "a < b", "c"),
            ("<think>\n\n</think>\n\nc", "", "c"),
            ("<think>a</think><think>b</think>c", "ab", "c"),
            ("<think>a", "a", ""),
            ("<think>a</thi", "a</thi", ""),
            ("Use <think>a</think>", "", "Use <think>a</think>"),
            ("<thin ice>", "", "<thin ice>"),
            ("<thi", "", "<thi"),
            ("  indented", "", "  indented"),
        ] {
            assert_eq!(split(false, [raw]), (thought.into(), text.into()), "{raw}");
        }
        assert_eq!(split(true, ["a</think>b"]), ("a".into(), "b".into()));
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same(
            raw in "((<think>|</think>|<thinking>|</thinking>|<t|\n| |a|</|é)){0,12}",
            cut in any::<proptest::sample::Index>(), inside in any::<bool>(),
        ) {
            let ends: Vec<usize> = raw.char_indices().map(|(i, _)| i).chain([raw.len()]).collect();
            let at = *cut.get(&ends);
            prop_assert_eq!(split(inside, [&raw[..at], &raw[at..]]), split(inside, [raw.as_str()]));
            let chars: Vec<String> = raw.chars().map(String::from).collect();
            prop_assert_eq!(split(inside, chars.iter().map(String::as_str)), split(inside, [raw.as_str()]));
        }
    }
}
