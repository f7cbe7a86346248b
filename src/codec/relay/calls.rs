//! Calls of a host that was given custom tools as functions (`tools.rs`) → custom tool calls.
//!
//! ```text
//! output_item.added    function_call "" ─► custom_tool_call ""
//! function_call_arguments.delta         ─► custom_tool_call_input.delta, once there is text in it
//! function_call_arguments.done          ─► the rest as a delta, custom_tool_call_input.done
//! output_item.done     function_call    ─► custom_tool_call; nothing if its arguments are cut
//! ```
//! Only calls of those tools are touched; the ids, numbers and all else in their events stay the host's, but for how an
//! id begins. A call whose arguments are cut would run all the same as a custom one, since its text need not be JSON: it
//! is held back, and an answer that claims to be complete without it fails.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::wire::number;
use crate::{
    codec::{
        CALLS_MAX, DecodeError, custom,
        custom::Unwrapper,
        edits::{Edits, Said, rewritten},
        json::borrowed,
        names::Names,
    },
    model::{
        failure::{Failure, FailureKind},
        request::{ToolKind, ToolRef},
    },
};

/// An event that a call can have a part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `response.output_item.added`.
    Added,
    /// `response.function_call_arguments.delta`.
    Delta,
    /// `response.function_call_arguments.done`.
    Arguments,
    /// `response.output_item.done`.
    Done,
}

/// What becomes of an event or an item.
#[derive(Debug)]
pub(super) enum Turned {
    /// It is no such call.
    Same,
    /// This stands in its place, perhaps nothing.
    Instead(String),
    /// The call is cut.
    Cut,
}

/// The calls of one answer.
#[derive(Debug)]
pub(super) struct Calls {
    names: Names,
    open: Vec<Open>,
    withheld: bool,
}

/// A call that has begun.
#[derive(Debug)]
struct Open {
    index: Option<u64>,
    id: Option<String>,
    unwrapper: Unwrapper,
    /// So many bytes of the input were told.
    told: usize,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    output_index: Option<&'a RawValue>,
    #[serde(borrow, default)]
    item_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    item: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, default)]
    r#type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    namespace: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
}

impl Calls {
    /// Of these tools. `None`: there are none.
    pub(super) fn of(names: Names) -> Option<Self> {
        (!names.is_empty()).then(|| Self { names, open: Vec::new(), withheld: false })
    }

    /// Takes the data of an event; gives the frames that stand in its place.
    pub(super) fn event(&mut self, part: Part, data: &str) -> Result<Turned, DecodeError> {
        let Ok(event) = serde_json::from_str::<Event<'_>>(data) else { return Ok(Turned::Same) };
        let (index, id) = (number(event.output_index), event.item_id.and_then(text));
        match (part, event.item) {
            (Part::Added | Part::Done, Some(item)) => self.item_event(part, data, index, item),
            (Part::Delta | Part::Arguments, None) => {
                let Some(at) = self.open.iter().position(|open| open.is(index, id.as_deref())) else {
                    return Ok(Turned::Same);
                };
                let open = &mut self.open[at];
                if part == Part::Delta { open.delta(data, event.delta) } else { open.arguments(data, event.arguments) }
            }
            (_, _) => Ok(Turned::Same),
        }
    }

    fn item_event(
        &mut self,
        part: Part,
        data: &str,
        index: Option<u64>,
        item: &RawValue,
    ) -> Result<Turned, DecodeError> {
        let turned = match (part, self.turn(item, part == Part::Added)?) {
            (_, Turned::Same) => return Ok(Turned::Same),
            (Part::Added, _) if self.open.len() == CALLS_MAX => {
                return Err(DecodeError::TooLarge { what: "the number of calls in an answer", bytes_max: CALLS_MAX });
            }
            (_, turned) => turned,
        };
        let id = serde_json::from_str::<Item<'_>>(item.get()).ok().and_then(|item| item.id.and_then(text));
        if part == Part::Added {
            self.open.push(Open { index, id, unwrapper: Unwrapper::default(), told: 0 });
        } else {
            self.open.retain(|open| !open.is(index, id.as_deref()));
        }
        let kind = if part == Part::Added { "response.output_item.added" } else { "response.output_item.done" };
        match turned {
            Turned::Instead(new) => Ok(framed(kind, data, |key, _| match key {
                "item" => Said::Instead("item", new.clone()),
                _ => Said::Same,
            })),
            Turned::Cut => {
                self.withheld = true;
                Ok(Turned::Instead(String::new()))
            }
            Turned::Same => Ok(Turned::Same),
        }
    }

    /// An item as the client's. `opening`: it has only begun.
    pub(super) fn turn(&self, item: &RawValue, opening: bool) -> Result<Turned, DecodeError> {
        let Ok(said) = serde_json::from_str::<Item<'_>>(item.get()) else { return Ok(Turned::Same) };
        if said.r#type.and_then(text).as_deref() != Some("function_call") || !self.is_custom(&said) {
            return Ok(Turned::Same);
        }
        let arguments = said.arguments.and_then(text).unwrap_or_default();
        let (input, cut) = custom::unwrap(&arguments)?;
        if !opening && (cut || said.status.and_then(text).as_deref() == Some("incomplete")) {
            return Ok(Turned::Cut);
        }
        // What has only begun is told by what follows.
        let input = if opening { String::new() } else { input };
        let new = rewritten(item.get(), |key, value| match key {
            "type" => Said::Instead("type", json("custom_tool_call")),
            "id" => id_for_client(key, value),
            "arguments" => Said::Nothing,
            _ => Said::Same,
        });
        let Some(new) = new else { return Ok(Turned::Same) };
        Ok(Turned::Instead(format!("{},\"input\":{}}}", new.strip_suffix('}').unwrap_or(&new), json(&input))))
    }

    fn is_custom(&self, item: &Item<'_>) -> bool {
        let Some(name) = item.name.and_then(text) else { return false };
        let namespace = item.namespace.and_then(text).filter(|namespace| !namespace.is_empty());
        let tool = ToolRef { namespace: namespace.map(Into::into), name: name.into(), kind: ToolKind::Custom };
        self.names.wire_name(&tool).is_some()
    }

    /// Turns the items of a final object. `claimed`: it says that it is complete.
    pub(super) fn output(
        &self,
        output: Option<&RawValue>,
        claimed: bool,
        edits: &mut Edits<'_>,
    ) -> Result<(), DecodeError> {
        let items: Vec<&RawValue> = output.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        let mut kept = vec![true; items.len()];
        for (item, kept) in items.iter().zip(&mut kept) {
            match self.turn(item, false)? {
                Turned::Same => {}
                Turned::Instead(new) => edits.replace(item, new),
                Turned::Cut => *kept = false,
            }
        }
        if claimed && (self.withheld || kept.contains(&false)) {
            let message = "The provider's answer ended in the middle of a tool call.";
            return Err(DecodeError::Upstream(Failure::new(FailureKind::Upstream, message)));
        }
        edits.retain(&items, &kept);
        Ok(())
    }
}

impl Open {
    /// Hosts name a call by its place, its id, or both; some give another id in each event.
    fn is(&self, index: Option<u64>, id: Option<&str>) -> bool {
        match (self.index, index) {
            (Some(own), Some(other)) => own == other,
            (_, _) => self.id.is_some() && self.id.as_deref() == id,
        }
    }

    fn delta(&mut self, data: &str, delta: Option<&RawValue>) -> Result<Turned, DecodeError> {
        let mut input = String::new();
        self.unwrapper.feed(&delta.and_then(text).unwrap_or_default(), &mut input)?;
        self.told += input.len();
        if input.is_empty() {
            return Ok(Turned::Instead(String::new()));
        }
        Ok(framed("response.custom_tool_call_input.delta", data, |key, value| match key {
            "delta" => Said::Instead("delta", json(&input)),
            _ => id_for_client(key, value),
        }))
    }

    fn arguments(&mut self, data: &str, arguments: Option<&RawValue>) -> Result<Turned, DecodeError> {
        let (input, cut) = custom::unwrap(&arguments.and_then(text).unwrap_or_default())?;
        if cut {
            return Ok(Turned::Instead(String::new()));
        }
        // What was held back until its shape was known.
        let rest = input.get(self.told..).unwrap_or_default();
        self.told = input.len();
        let say = |kind: &str, key: &'static str, text: &str| {
            frame(kind, data, |at, value| match at {
                "arguments" => Said::Instead(key, json(text)),
                _ => id_for_client(at, value),
            })
        };
        let mut frames = String::new();
        if !rest.is_empty() {
            frames.extend(say("response.custom_tool_call_input.delta", "delta", rest));
        }
        frames.extend(say("response.custom_tool_call_input.done", "input", &input));
        Ok(Turned::Instead(frames))
    }
}

fn framed(kind: &str, data: &str, say: impl FnMut(&str, &RawValue) -> Said) -> Turned {
    frame(kind, data, say).map_or(Turned::Same, Turned::Instead)
}

/// A frame with the host's data, said otherwise.
fn frame(kind: &str, data: &str, mut say: impl FnMut(&str, &RawValue) -> Said) -> Option<String> {
    let data = rewritten(data, |key, value| match key {
        "type" => Said::Instead("type", json(kind)),
        key => say(key, value),
    })?;
    Some(format!("event: {kind}\ndata: {data}\n\n"))
}

/// The id of a custom call begins in another way than a function's, and a host that the conversation moves to looks at
/// that: `Invalid 'input[66].id': '…'. Expected an ID that begins with 'rs'` and the like (jlcodes99/cockpit-tools issue
/// 2090, read 2026-11-21).
fn id_for_client(key: &str, value: &RawValue) -> Said {
    match (key, text(value)) {
        ("id", Some(id)) => Said::Instead("id", json(&client_id(&id))),
        ("item_id", Some(id)) => Said::Instead("item_id", json(&client_id(&id))),
        (_, _) => Said::Same,
    }
}

fn client_id(id: &str) -> String {
    format!("ctc_{}", id.strip_prefix("fc_").unwrap_or(id))
}

/// A string, or an object as it is written.
fn text(raw: &RawValue) -> Option<String> {
    match raw.get().as_bytes().first() {
        Some(b'"') => borrowed(raw.get()).map(Into::into),
        Some(b'{') => Some(raw.get().to_owned()),
        Some(_) | None => None,
    }
}

fn json(text: &str) -> String {
    // Text into memory: there is nothing to fail.
    serde_json::to_string(text).unwrap_or_default()
}
