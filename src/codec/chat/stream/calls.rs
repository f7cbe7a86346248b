//! Tool calls of an answer, put together from pieces. PURE.
//!
//! Hosts disagree on what tells one call's pieces from another's (index, id, name, or nothing), on when a name is whole,
//! and on the type of arguments. All calls stay open until the answer ends, since their pieces may interleave.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::StreamDecoder;
use crate::{
    codec::{
        DecodeError,
        answer::{room_for_a_call, unknown_tool},
        chat::{thoughts::Field, wire},
        custom::Unwrapper,
        json::{Progress, borrowed},
    },
    model::{
        event::{Event, ItemKey, ItemKind},
        request::ToolKind,
    },
};

/// Longer names of tools are none.
const NAME_BYTES_MAX: usize = 1024;

/// A call, from its first piece.
#[derive(Debug)]
pub(super) struct Call {
    index: Option<u64>,
    id: String,
    pub(super) name: String,
    extra: Option<Box<RawValue>>,
    pub(super) arguments: Arguments,
    /// Absent until the first piece of arguments shows that the name is whole.
    open: Option<OpenCall>,
}

#[derive(Debug)]
struct OpenCall {
    item: ItemKey,
    unwrapper: Option<Unwrapper>,
}

/// What has come of a call's arguments.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) so_far: Progress,
    /// Size and hash of all that came.
    bytes: usize,
    hash: u64,
}

impl Arguments {
    /// Whether the text says again what is already complete: some hosts end with the whole call once more.
    fn repeated_by(&self, text: &str) -> bool {
        self.so_far.complete && text.len() == self.bytes && mix(0, text) == self.hash
    }

    fn feed(&mut self, text: &str) {
        self.bytes += text.len();
        self.hash = mix(self.hash, text);
        self.so_far.feed(text);
    }
}

/// Goes on hashing, wherever the text was split: the step of FNV-1a.
fn mix(hash: u64, text: &str) -> u64 {
    text.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl Call {
    /// Its arguments are cut, and it would run all the same: free text need not be JSON. The client itself refuses other
    /// arguments that are cut.
    pub(super) fn would_run_cut(&self) -> bool {
        self.open.as_ref().and_then(|open| open.unwrapper.as_ref()).is_some_and(Unwrapper::is_cut)
    }
}

impl StreamDecoder {
    pub(super) fn call_delta(
        &mut self,
        index: Option<u64>,
        id: &str,
        function: Option<&wire::FunctionDelta<'_>>,
        extra: Option<&RawValue>,
        out: &mut Vec<Event>,
    ) -> Result<(), DecodeError> {
        let name = function.and_then(|f| f.name.as_deref()).unwrap_or_default();
        let arguments = function.and_then(|f| f.arguments).map(arguments_text).unwrap_or_default();
        if self.calls.is_empty() {
            // What may have been the beginning of a tag is text, now that a call follows.
            self.flush_text(out)?;
        }
        let which = match self.which_call(index, id, name, &arguments) {
            Some(which) => which,
            None if id.is_empty() && name.is_empty() && arguments.trim().is_empty() && extra.is_none() => return Ok(()),
            None => {
                // The call before it has its whole name now.
                if let Some(last) = self.calls.len().checked_sub(1) {
                    self.open_call(last, out);
                }
                room_for_a_call(self.calls.len())?;
                self.calls.push(Call {
                    index,
                    id: String::new(),
                    name: String::new(),
                    extra: None,
                    arguments: Arguments::default(),
                    open: None,
                });
                self.calls.len() - 1
            }
        };
        if let Some(call) = self.calls.get_mut(which) {
            if call.id.is_empty() && call.open.is_none() {
                call.id.push_str(id);
            }
            // The name may come whole, whole again in every chunk, or in pieces.
            if call.open.is_none() && call.name != name {
                call.name.push_str(name);
            }
            if call.name.len() > NAME_BYTES_MAX {
                return Err(DecodeError::TooLarge { what: "the name of a tool", bytes_max: NAME_BYTES_MAX });
            }
        }
        if let Some(extra) = extra {
            self.answer.keep(extra.get().len())?;
            self.extra(which, extra, out);
        }
        if arguments.is_empty() {
            return Ok(());
        }
        self.open_call(which, out);
        let Some(call) = self.calls.get_mut(which) else { return Ok(()) };
        if call.arguments.repeated_by(&arguments) {
            self.answer.skipped += 1;
            return Ok(());
        }
        call.arguments.feed(&arguments);
        self.answer.text_bytes += arguments.len() as u64;
        let Some(open) = &mut call.open else {
            return Err(DecodeError::Malformed { what: "a tool call has arguments but no name".into() });
        };
        let delta = match &mut open.unwrapper {
            Some(unwrapper) => {
                let mut input = String::new();
                unwrapper.feed(&arguments, &mut input)?;
                input
            }
            None => arguments.into_owned(),
        };
        if !delta.is_empty() {
            out.push(Event::CallArguments { item: open.item, delta });
        }
        Ok(())
    }

    /// Which call a piece belongs to; `None`: a new one.
    fn which_call(&self, index: Option<u64>, id: &str, name: &str, arguments: &str) -> Option<usize> {
        let candidate = match index {
            Some(_) => self.calls.iter().rposition(|call| call.index == index)?,
            None if !id.is_empty() => match self.calls.iter().rposition(|call| call.id == id) {
                Some(same) => same,
                None if name.is_empty() => self.calls.len().checked_sub(1)?,
                None => return self.nameless_last(),
            },
            None => self.calls.len().checked_sub(1)?,
        };
        let call = self.calls.get(candidate)?;
        if name.is_empty() {
            return Some(candidate);
        }
        let other_id = !id.is_empty() && !call.id.is_empty() && id != call.id;
        let unfinished = call.arguments.so_far.begun && !call.arguments.so_far.complete;
        // A name where a call has all it needs begins the next one: the index was used again, or there is none.
        let begins_next = if other_id {
            !unfinished
        } else if !id.is_empty() && id == call.id {
            false
        } else {
            call.arguments.so_far.complete && !arguments.trim().is_empty()
        };
        (!begins_next).then_some(candidate)
    }

    /// The last call, if it still waits for its name.
    fn nameless_last(&self) -> Option<usize> {
        let last = self.calls.len().checked_sub(1)?;
        self.calls.get(last).filter(|call| call.name.is_empty() && call.id.is_empty()).map(|_| last)
    }

    /// Opens a call, if its name is known and it is not open.
    pub(super) fn open_call(&mut self, which: usize, out: &mut Vec<Event>) {
        let Some(call) = self.calls.get(which).filter(|c| c.open.is_none() && !c.name.trim().is_empty()) else {
            return;
        };
        let tool = self.names.resolve(&call.name).unwrap_or_else(|| unknown_tool(&call.name));
        let call_id = self.call_id(which);
        let extra = self.calls.get_mut(which).and_then(|call| call.extra.take());
        self.close_message(true, out);
        self.remember_no_thoughts(out);
        if let Some(extra) = extra {
            self.open_thoughts(Field::ReasoningContent, out).extras.insert(call_id.clone(), extra);
        }
        self.close_thoughts(true, out);
        let unwrapper = (tool.kind == ToolKind::Custom).then(Unwrapper::default);
        let item = self.answer.open(ItemKind::Call { call_id: call_id.clone(), tool }, out);
        if let Some(call) = self.calls.get_mut(which) {
            call.id = call_id;
            call.open = Some(OpenCall { item, unwrapper });
        }
    }

    /// The id the host gave, or one made from the seed; never one that an earlier call has.
    fn call_id(&self, which: usize) -> String {
        let given = self.calls.get(which).map(|call| call.id.as_str()).unwrap_or_default();
        let taken = |id: &str| self.calls.iter().enumerate().any(|(i, c)| i != which && c.open.is_some() && c.id == id);
        self.answer.call_id(given, which, taken)
    }

    /// `extra_content` of a call: kept until the call opens, or stored in an item of its own if it is late.
    fn extra(&mut self, which: usize, extra: &RawValue, out: &mut Vec<Event>) {
        let Some(call) = self.calls.get_mut(which) else { return };
        if call.open.is_none() {
            call.extra = Some(extra.to_owned());
            return;
        }
        let id = call.id.clone();
        self.close_thoughts(true, out);
        self.open_thoughts(Field::ReasoningContent, out).extras.insert(id, extra.to_owned());
        self.close_thoughts(true, out);
    }

    pub(super) fn close_calls(&mut self, complete: bool, failed: bool, out: &mut Vec<Event>) {
        let mut calls = std::mem::take(&mut self.calls);
        // Stable: calls without an index stay in the order they came.
        calls.sort_by_key(|call| call.index.unwrap_or(0));
        for call in calls {
            let Some(mut open) = call.open else { continue };
            let whole = complete || (!failed && call.arguments.so_far.complete);
            let rest = match open.unwrapper.take() {
                Some(unwrapper) => {
                    let mut rest = String::new();
                    unwrapper.finish(&mut rest);
                    rest
                }
                None if whole && !call.arguments.so_far.begun => "{}".to_owned(),
                None => String::new(),
            };
            if !rest.is_empty() {
                out.push(Event::CallArguments { item: open.item, delta: rest });
            }
            out.push(Event::ItemClose { item: open.item, whole });
        }
    }
}

/// Arguments as text: the content of a string, or an object as it is written.
fn arguments_text(raw: &RawValue) -> Cow<'_, str> {
    match raw.get().as_bytes().first() {
        Some(b'"') => borrowed(raw.get()).unwrap_or_default(),
        Some(b'{' | b'[') => Cow::Borrowed(raw.get()),
        Some(_) | None => Cow::Borrowed(""),
    }
}
