//! What protocols do alike to a conversation: which output belongs to which call, arguments as objects, and the words
//! that stand for what cannot be said. PURE.
//!
//! For `request.rs` of the upstream protocols.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use memchr::memmem;
use serde_json::value::RawValue;

use super::{custom, json::without_lone_surrogates, names::fnv1a};
use crate::model::{
    request::{Item, Loss, LossAction, ToolKind},
    text::LazyText,
};

/// Opens instructions that come as the user's words.
pub const INSTRUCTIONS_LEAD: &str = "[instructions of the program you work in, not of the user]";
/// Opens an output that answers no call.
pub const ORPHAN_LEAD: &str = "Result of an earlier tool call:";
/// Stands for the result of a call that has none.
pub const NO_RESULT: &str = "No result: the call was interrupted.";
/// Stands for a result without text.
pub const EMPTY_RESULT: &str = "(no output)";
/// Stands for a picture that the model cannot see.
pub const NO_PICTURE: &str = "[a picture was left out: the model takes none]";

/// What could not pass as it was, gathered.
#[derive(Debug, Default)]
pub struct Losses(pub Vec<Loss>);

impl Losses {
    /// Something is left out.
    pub fn drop(&mut self, path: impl Into<String>, why: &'static str) {
        self.0.push(Loss { path: path.into(), action: LossAction::Drop, why });
    }

    /// Something is said in another way.
    pub fn approximate(&mut self, path: impl Into<String>, why: &'static str) {
        self.0.push(Loss { path: path.into(), action: LossAction::Approximate, why });
    }
}

/// Names an item in a [`Loss`].
pub fn path(item: usize) -> String {
    format!("input[{item}]")
}

/// Names a part of an item; `key` is `content` or `output`.
pub fn part_path(item: usize, key: &str, part: usize) -> String {
    format!("input[{item}].{key}[{part}]")
}

/// Which output belongs to which call.
#[derive(Debug, Default)]
pub struct Pairs<'r> {
    /// By item of a call: its id on the wire, and the item of its output.
    pub calls: BTreeMap<usize, (Cow<'r, str>, Option<usize>)>,
    /// Items of outputs that belong to a call.
    pub paired: BTreeSet<usize>,
}

impl<'r> Pairs<'r> {
    /// Gives every call an id of its own, in the wire's shape, and finds its output: the outputs of an id belong to the
    /// calls of that id in order. `wire_id` must depend on the id alone, so that it is the same in every request.
    pub fn of(
        input: &'r [Item<'_>],
        wire_id: impl for<'i> Fn(Cow<'i, str>) -> Cow<'i, str>,
        losses: &mut Losses,
    ) -> Self {
        let mut this = Self::default();
        let mut waiting: BTreeMap<&str, VecDeque<usize>> = BTreeMap::new();
        let mut used = BTreeSet::new();
        // By id, the number that its next repetition is given.
        let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
        for (i, item) in input.iter().enumerate() {
            match item {
                Item::Call { call_id, .. } => {
                    let mut id = wire_id(Cow::Borrowed(call_id));
                    if !used.insert(id.clone()) {
                        let nth = numbers.entry(call_id).or_insert(2);
                        loop {
                            id = wire_id(Cow::Owned(format!("{call_id}_{nth}")));
                            *nth += 1;
                            if used.insert(id.clone()) {
                                break;
                            }
                        }
                        losses.approximate(path(i), "another call has the same id, so it is given its own");
                    }
                    this.calls.insert(i, (id, None));
                    waiting.entry(call_id).or_default().push_back(i);
                }
                Item::Output { call_id, .. } => {
                    let call = waiting.get_mut(&**call_id).and_then(VecDeque::pop_front);
                    if let Some((_, output)) = call.and_then(|call| this.calls.get_mut(&call)) {
                        *output = Some(i);
                        this.paired.insert(i);
                    }
                }
                Item::Message { .. } | Item::Reasoning { .. } | Item::Hosted { .. } | Item::Compaction { .. } => {}
            }
        }
        this
    }
}

/// A call's input where only a JSON object will do; and whether it is what the client's item says, not put into one.
pub fn arguments<'r>(kind: ToolKind, input: &'r LazyText<'_>) -> Result<(Cow<'r, RawValue>, bool), serde_json::Error> {
    let raw = |json| RawValue::from_string(json).map(Cow::Owned);
    match kind {
        ToolKind::Custom => Ok((raw(custom::wrap(input)?)?, true)),
        ToolKind::Function | ToolKind::ToolSearch if input.is_blank() => Ok((raw("{}".to_owned())?, true)),
        ToolKind::Function | ToolKind::ToolSearch => match object(input.read()) {
            Some(object) => Ok((object, true)),
            None => Ok((raw(custom::wrap(input)?)?, false)),
        },
    }
}

/// An id that every wire takes as it is.
pub fn same_id(id: Cow<'_, str>) -> Cow<'_, str> {
    id
}

/// The text as raw JSON, if it is an object.
fn object(text: Cow<'_, str>) -> Option<Cow<'_, RawValue>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    // It passes as it is written, and half a surrogate pair is no JSON to most hosts: they would refuse each request of the
    // conversation.
    let halves = |text: &str| [&b"\\ud"[..], b"\\uD"].iter().any(|half| memmem::find(text.as_bytes(), half).is_some());
    let text = if halves(&text) { Cow::Owned(without_lone_surrogates(&text)) } else { text };
    match text {
        Cow::Borrowed(text) => serde_json::from_str(text).ok().map(Cow::Borrowed),
        Cow::Owned(text) => RawValue::from_string(text).ok().map(Cow::Owned),
    }
}

/// Nine letters and digits that stand for an id.
pub fn short_id(id: &str) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut hash = fnv1a(id.as_bytes(), 0);
    let mut short = String::new();
    for _ in 0..9 {
        short.push(char::from(ALPHABET[(hash % 62) as usize]));
        hash /= 62;
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::responses::request::decode_request;
    use crate::codec::seal::Sealer;

    #[test]
    fn half_a_surrogate_pair_in_arguments_is_replaced() {
        let given = |text: &str| arguments(ToolKind::Function, &text.to_owned().into()).unwrap().0.get().to_owned();
        assert_eq!(given(r#"{"cmd":"a \ud83e b"}"#), "{\"cmd\":\"a \u{fffd} b\"}");
        for same in [r#"{"cmd":"a \ud83e\udd80 b"}"#, r#"{"cmd":"C:\\udir"}"#, r#"{"cmd":"\u00e4"}"#] {
            assert_eq!(given(same), same);
        }
    }

    #[test]
    fn an_id_that_is_used_over_and_over_costs_no_more_than_others() {
        const CALLS: usize = 50_000;
        let calls = vec![r#"{"type":"function_call","call_id":"call_0","name":"f","arguments":"{}"}"#; CALLS];
        let body = format!(r#"{{"model":"m","input":[{}]}}"#, calls.join(","));
        let decoded = decode_request(body.as_bytes(), &Sealer::new(&[0; 32])).unwrap();
        let pairs = Pairs::of(&decoded.request.input, same_id, &mut Losses::default());
        let ids: BTreeSet<_> = pairs.calls.values().map(|(id, _)| id.clone()).collect();
        assert_eq!(ids.len(), CALLS);
        assert_eq!(pairs.calls[&(CALLS - 1)].0, format!("call_0_{CALLS}"));
    }
}
