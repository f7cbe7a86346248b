//! Inputs that are nearly right: kept ones, changed in a few places by somebody who knows JSON and server-sent events.

use std::collections::BTreeSet;

use proptest::{
    prelude::*,
    sample::{Index, select},
};
use serde::de::IgnoredAny;

/// What is put where something else stood.
const VALUES: &[&str] = &[
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "[{}]",
    "[null]",
    "\"\"",
    "\"x\"",
    "0",
    "-1",
    "1.5",
    "1e999",
    "-0.0",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"\\\\\"",
    "\"a\\nb\\r\\n\\r\\ndata: {}\"",
    "{\"type\":\"\"}",
    "\"\u{1f600}\"",
    "\"<html>\"",
    "[DONE]",
];
/// How deep what is too deep is.
const DEEP: usize = 300;
/// Texts of kept inputs up to this length are put elsewhere, in bytes.
const WORD_BYTES_MAX: usize = 48;

/// The kept inputs of one target, and the words in them.
#[derive(Debug)]
pub struct Corpus {
    pub inputs: Vec<Vec<u8>>,
    words: Vec<String>,
}

impl Corpus {
    pub fn new(inputs: Vec<Vec<u8>>) -> Self {
        assert!(!inputs.is_empty(), "nothing is kept");
        let mut words = BTreeSet::new();
        for input in &inputs {
            let text = String::from_utf8_lossy(input);
            words.extend(text.split('"').filter(|word| word.len() <= WORD_BYTES_MAX).map(str::to_owned));
        }
        Self { inputs, words: words.into_iter().collect() }
    }
}

/// One change.
#[derive(Debug, Clone)]
pub enum Change {
    Byte {
        at: Index,
        byte: u8,
    },
    Remove {
        at: Index,
        bytes: usize,
    },
    /// A piece stands a second time, elsewhere.
    Copy {
        from: Index,
        bytes: usize,
        to: Index,
    },
    Cut {
        at: Index,
    },
    /// A JSON value is another.
    Value {
        nth: Index,
        value: &'static str,
    },
    /// A JSON value stands in many brackets.
    Deep {
        nth: Index,
        open: char,
    },
    /// A quoted text is another one of the kept inputs.
    Word {
        nth: Index,
        word: Index,
    },
    DropFrame {
        nth: Index,
    },
    RepeatFrame {
        nth: Index,
        times: usize,
    },
    SwapFrames {
        one: Index,
        other: Index,
    },
    /// From here on, another input.
    Splice {
        at: Index,
        input: Index,
        from: Index,
    },
    LineEnds,
}

/// A kept input, and what is changed in it.
#[derive(Debug, Clone)]
pub struct Plan {
    input: Index,
    changes: Vec<Change>,
    /// Where the bytes are split on their way.
    pub cuts: Vec<Index>,
}

pub fn plan() -> impl Strategy<Value = Plan> {
    let index = any::<Index>;
    let change = prop_oneof![
        2 => (index(), any::<u8>()).prop_map(|(at, byte)| Change::Byte { at, byte }),
        2 => (index(), 1..64_usize).prop_map(|(at, bytes)| Change::Remove { at, bytes }),
        2 => (index(), 1..200_usize, index()).prop_map(|(from, bytes, to)| Change::Copy { from, bytes, to }),
        1 => index().prop_map(|at| Change::Cut { at }),
        6 => (index(), select(VALUES)).prop_map(|(nth, value)| Change::Value { nth, value }),
        1 => (index(), select(&['[', '{'][..])).prop_map(|(nth, open)| Change::Deep { nth, open }),
        6 => (index(), index()).prop_map(|(nth, word)| Change::Word { nth, word }),
        2 => index().prop_map(|nth| Change::DropFrame { nth }),
        2 => (index(), 1..4_usize).prop_map(|(nth, times)| Change::RepeatFrame { nth, times }),
        2 => (index(), index()).prop_map(|(one, other)| Change::SwapFrames { one, other }),
        2 => (index(), index(), index()).prop_map(|(at, input, from)| Change::Splice { at, input, from }),
        1 => Just(Change::LineEnds),
    ];
    let changes = prop::collection::vec(change, 0..8);
    let cuts = prop::collection::vec(any::<Index>(), 0..5);
    (any::<Index>(), changes, cuts).prop_map(|(input, changes, cuts)| Plan { input, changes, cuts })
}

impl Plan {
    pub fn bytes(&self, corpus: &Corpus) -> Vec<u8> {
        let mut bytes = self.input.get(&corpus.inputs).clone();
        for change in &self.changes {
            apply(change, &mut bytes, corpus);
        }
        bytes
    }
}

/// Splits bytes there.
pub fn pieces<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|between| &bytes[between[0]..between[1]]).collect()
}

fn apply(change: &Change, bytes: &mut Vec<u8>, corpus: &Corpus) {
    let place = |at: &Index, bytes: &[u8]| at.index(bytes.len() + 1);
    match change {
        Change::Byte { at, byte } => {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
        }
        Change::Remove { at, bytes: count } => {
            let at = place(at, bytes);
            let end = (at + count).min(bytes.len());
            bytes.drain(at..end);
        }
        Change::Copy { from, bytes: count, to } => {
            let from = place(from, bytes);
            let piece = bytes[from..(from + count).min(bytes.len())].to_vec();
            let to = place(to, bytes);
            bytes.splice(to..to, piece);
        }
        Change::Cut { at } => bytes.truncate(place(at, bytes)),
        Change::Value { nth, value } => replace_value(bytes, nth, |_| value.as_bytes().to_vec()),
        Change::Deep { nth, open } => replace_value(bytes, nth, |value| {
            let (before, after) = if *open == '[' { ("[", "]") } else { ("{\"a\":", "}") };
            [before.repeat(DEEP).as_bytes(), value, after.repeat(DEEP).as_bytes()].concat()
        }),
        Change::Word { nth, word } => {
            let quotes: Vec<usize> = places(bytes, b'"');
            if quotes.len() > 1 {
                let nth = nth.index(quotes.len() - 1);
                bytes.splice(quotes[nth] + 1..quotes[nth + 1], word.get(&corpus.words).bytes());
            }
        }
        Change::DropFrame { nth } => in_frames(bytes, |frames| {
            frames.remove(nth.index(frames.len()));
        }),
        Change::RepeatFrame { nth, times } => in_frames(bytes, |frames| {
            let nth = nth.index(frames.len());
            let frame = frames[nth].clone();
            frames.splice(nth..nth, std::iter::repeat_n(frame, *times));
        }),
        Change::SwapFrames { one, other } => in_frames(bytes, |frames| {
            let (one, other) = (one.index(frames.len()), other.index(frames.len()));
            frames.swap(one, other);
        }),
        Change::Splice { at, input, from } => {
            bytes.truncate(place(at, bytes));
            let input = input.get(&corpus.inputs);
            bytes.extend_from_slice(&input[place(from, input)..]);
        }
        Change::LineEnds => {
            let other: Vec<u8> =
                bytes.iter().flat_map(|byte| if *byte == b'\n' { b"\r\n".to_vec() } else { vec![*byte] }).collect();
            *bytes = other;
        }
    }
}

fn places(bytes: &[u8], wanted: u8) -> Vec<usize> {
    bytes.iter().enumerate().filter(|(_, byte)| **byte == wanted).map(|(at, _)| at).collect()
}

/// Puts another value in the place of the one behind the `nth` colon that has one.
fn replace_value(bytes: &mut Vec<u8>, nth: &Index, other: impl Fn(&[u8]) -> Vec<u8>) {
    let colons = places(bytes, b':');
    if colons.is_empty() {
        return;
    }
    let first = nth.index(colons.len());
    for colon in colons.iter().cycle().skip(first).take(colons.len()) {
        let behind = &bytes[colon + 1..];
        let mut values = serde_json::Deserializer::from_slice(behind).into_iter::<IgnoredAny>();
        if let Some(Ok(_)) = values.next() {
            let end = colon + 1 + values.byte_offset();
            let new = other(&bytes[colon + 1..end]);
            bytes.splice(colon + 1..end, new);
            return;
        }
    }
}

fn in_frames(bytes: &mut Vec<u8>, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut rest = &bytes[..];
    while let Some(at) = rest.windows(2).position(|two| two == b"\n\n") {
        let (frame, tail) = rest.split_at(at + 2);
        frames.push(frame.to_vec());
        rest = tail;
    }
    if frames.is_empty() {
        return;
    }
    let tail = rest.to_vec();
    change(&mut frames);
    *bytes = frames.concat();
    bytes.extend_from_slice(&tail);
}
