//! An answer of a host that speaks Responses → the same answer, with an end that the client understands.
//!
//! ```text
//! bytes ─► whole frames ─┬─► as they came, in order, of any type; comments too
//!                        └─► the end: response.completed, .incomplete ─► as it came, its usage completed if need be
//!                                     response.failed, error          ─► response.failed by the failure table
//! end of input before the end ────────────────────────────────────────► response.failed
//! ```
//! A frame is passed on when its blank line has come, so something of ours can stand between any two. Of a frame that
//! passes only the type is looked at, at the place where hosts put it. What is said here about frames is that of
//! [`sse`](crate::codec::sse); the bytes pass, so nothing is put together.
//!
//! The answer keeps the identity that the host gave it, and its sequence numbers: what is said in its place goes on from
//! the last number; a keep-alive repeats the last number, so that the host's next one follows.
//!
//! The calls of a host that was given custom tools as functions are turned back on the way: `calls.rs`.

use std::{borrow::Cow, mem, ops::Range};

use memchr::{memchr, memchr2, memmem};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{
    blob::BlobId,
    calls::{Calls, Part, Turned},
    voice::Voice,
    wire::{Counts, Details, Event, Response, is_object, number, said_bytes, string, told_bytes, worth_keeping},
};
use crate::{
    codec::{
        DecodeError,
        edits::Edits,
        error::{failure_in_stream, is_html},
        names::Names,
        responses::stream::{Ended, Identity, begin_event, write_usage},
        sse::FRAME_BYTES_MAX,
        stored::KEPT_BYTES_MAX,
        write::{one_line, write_json, write_member},
    },
    model::{
        event::IncompleteReason,
        failure::{Failure, FailureKind},
        usage::Usage,
    },
};

/// An answer that has said so much before its first item, in bytes, has begun all the same: what is held back for another
/// try must not grow without end. The largest opening repeats the client's instructions and tools, some 100 KiB.
pub const HELD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Passes one answer on.
#[derive(Debug)]
pub struct Relay {
    voice: Voice,
    /// The host has said its id of the answer.
    named: bool,
    streaming: bool,
    /// Something came that the client can show or act on.
    begun: bool,
    /// Bytes that passed before.
    held: usize,
    /// The frame that is not yet complete.
    partial: Vec<u8>,
    /// Where its last line begins.
    line: usize,
    /// What its lines were so far.
    marks: Marks,
    /// A CR ended the last line, so a following LF belongs to it.
    after_cr: bool,
    frames: u64,
    blobs: Vec<BlobId>,
    /// Of the request, for a guess of what it cost.
    input_bytes: u64,
    /// Of what items say that were told as done.
    item_bytes: u64,
    usage: Option<Usage>,
    ended: Option<Ended>,
    /// Its end said that the host keeps it.
    stored: bool,
    /// The answer as one object, for a client that does not stream.
    whole: Vec<u8>,
    /// Custom tools that the host was given as functions. `None`: everything passes as it is.
    calls: Option<Box<Calls>>,
    /// Its items, JSON, if they are wanted and not too long.
    items: Option<Vec<String>>,
}

/// Where in a frame its lines stand.
#[derive(Debug, Default)]
struct Marks {
    /// The value of the last `event` line.
    event: Option<Range<usize>>,
    /// The value of the first `data` line.
    data: Option<Range<usize>>,
    /// Of `data`.
    lines: u32,
}

impl Marks {
    /// Takes a line that begins at `at` within the frame.
    fn take(&mut self, line: &[u8], at: usize) {
        let line_start = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let value = |field: &[u8]| {
            let value = line_start.strip_prefix(field)?;
            let value = value.strip_prefix(b" ").unwrap_or(value);
            let end = at + line.len();
            Some(end - value.len()..end)
        };
        if let Some(data) = value(b"data:") {
            self.lines += 1;
            self.data.get_or_insert(data);
        } else if let Some(event) = value(b"event:") {
            self.event = Some(event);
        }
    }
}

/// How a frame ends the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Terminal {
    Completed,
    Incomplete,
    Failed,
    /// `error`, with or without a type.
    Error,
}

/// What is to be done with a frame.
enum Seen {
    Pass,
    End(Terminal),
    Call(Part),
}

/// What a frame is to us.
enum Kind {
    /// It ends the answer.
    End(Terminal),
    /// It tells the answer's identity, before the first item.
    Opening,
    /// A part of the answer that a call can have to do with.
    Call(Part),
    /// Another part of the answer.
    Part,
    /// Nothing of the answer: a type we do not know, no JSON.
    Other,
}

impl Relay {
    /// For one answer. `identity` is ours: what the answer is called until the host has named it. `streaming` false:
    /// nothing passes but the one object, see [`Self::take_whole`]. `names`: what
    /// [`encode_request`](super::encode_request) gave.
    pub fn new(identity: &Identity, names: Names, streaming: bool) -> Self {
        let voice = Voice {
            id: format!("resp_{}", identity.stem),
            created_at: identity.created_at,
            model: identity.model.clone(),
            next: 0,
        };
        Self {
            voice,
            named: false,
            streaming,
            begun: false,
            held: 0,
            partial: Vec::new(),
            line: 0,
            marks: Marks::default(),
            after_cr: false,
            frames: 0,
            blobs: Vec::new(),
            input_bytes: 0,
            item_bytes: 0,
            usage: None,
            ended: None,
            stored: false,
            whole: Vec::new(),
            calls: Calls::of(names).map(Box::new),
            items: None,
        }
    }

    fn keep<'i>(&mut self, more: impl IntoIterator<Item = &'i RawValue>) {
        if let Some(items) = &mut self.items {
            items.extend(more.into_iter().filter_map(worth_keeping));
            if items.iter().map(String::len).sum::<usize>() > KEPT_BYTES_MAX {
                self.items = None;
            }
        }
    }

    /// Keeps the items of a final object, as the client has them.
    fn keep_output(&mut self, output: &RawValue) -> Result<(), DecodeError> {
        for item in serde_json::from_str::<Vec<&RawValue>>(output.get()).unwrap_or_default() {
            let turned = self.calls.as_ref().map_or(Ok(Turned::Same), |calls| calls.turn(item, false))?;
            match turned {
                Turned::Same => self.keep([item]),
                Turned::Instead(new) => self.keep(serde_json::from_str::<&RawValue>(&new).ok()),
                Turned::Cut => {}
            }
        }
        Ok(())
    }

    /// Takes the size of the request's body, from which its cost is guessed if the host does not tell it.
    pub fn set_input_bytes(&mut self, bytes: u64) {
        self.input_bytes = bytes;
    }

    /// Keeps the answer's items, for [`Self::take_items`].
    pub fn keep_items(&mut self) {
        self.items = Some(Vec::new());
    }

    /// The whole items of the answer, JSON, if they are kept and no more than [`KEPT_BYTES_MAX`]. Thoughts without a blob,
    /// which only the host can look up, are not among them.
    pub fn take_items(&mut self) -> Option<Vec<String>> {
        self.items.take()
    }

    /// True once something came that the client can show or act on.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// How the answer ended, once it did.
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Token counts: the host's, or a guess if it ended well and told none.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Whether the host has said that it keeps the answer, so that a request can name it there. Some take such a request and
    /// pass over the name, so that all before it would be lost: "accepts
    /// `previous_response_id`, returns `200`, and then ignores the field" (Blaizzy/mlx-vlm issue 1046); Ollama supports
    /// "stateless Responses requests" (<https://docs.ollama.com/api/openai-compatibility>; both read 2026-11-21).
    pub fn is_stored(&self) -> bool {
        self.stored
    }

    /// How many frames with data have come.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Who the answer is, and its next number.
    pub fn voice(&self) -> &Voice {
        &self.voice
    }

    /// The names of what was opaque in the frames since the last call.
    pub fn take_blobs(&mut self) -> Vec<BlobId> {
        mem::take(&mut self.blobs)
    }

    /// The final object, for a client that does not stream, as far as it is here.
    pub fn whole(&self) -> &[u8] {
        &self.whole
    }

    /// The final object, for a client that does not stream. Call it after the end.
    pub fn take_whole(&mut self) -> Vec<u8> {
        mem::take(&mut self.whole)
    }

    /// Takes the next bytes and appends the frames that are whole to `out`. After an error, call [`Self::fail`]. Bytes
    /// after the end are ignored.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        if self.ended.is_some() {
            return Ok(());
        }
        if self.partial.is_empty() {
            let done = self.scan(bytes, 0, out)?;
            self.partial.extend_from_slice(&bytes[done..]);
        } else {
            let from = self.partial.len();
            let mut all = mem::take(&mut self.partial);
            all.extend_from_slice(bytes);
            let done = self.scan(&all, from, out)?;
            all.drain(..done);
            self.partial = all;
        }
        if self.partial.len() > FRAME_BYTES_MAX {
            return Err(DecodeError::TooLarge { what: "an event of the stream", bytes_max: FRAME_BYTES_MAX });
        }
        Ok(())
    }

    /// Looks for line ends from `from` on, passes the frames that are whole, and gives where the rest begins.
    fn scan(&mut self, bytes: &[u8], from: usize, out: &mut Vec<u8>) -> Result<usize, DecodeError> {
        let (mut frame, mut line, mut at) = (0, self.line, from);
        // What stands before has passed.
        let mut passed = 0;
        if self.after_cr && from < bytes.len() {
            self.after_cr = false;
            if bytes[from] == b'\n' {
                at += 1;
                line = at;
                // It ended a blank line, and with it the frame before.
                frame = if from == 0 { at } else { frame };
            }
        }
        while let Some(length) = memchr2(b'\n', b'\r', &bytes[at..]) {
            let end = at + length;
            at = end + 1;
            if bytes[end] == b'\r' {
                match bytes.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            if end > line {
                self.marks.take(&bytes[line..end], line - frame);
            } else {
                let marks = mem::take(&mut self.marks);
                match self.look(&bytes[frame..at], &marks) {
                    Seen::Pass => {}
                    Seen::End(terminal) => {
                        self.pass(&bytes[passed..frame], out);
                        self.end(terminal, &bytes[frame..at], &marks, out)?;
                        return Ok(bytes.len());
                    }
                    Seen::Call(part) => match self.turn(part, &bytes[frame..at], &marks) {
                        Ok(None) => {}
                        Ok(Some(new)) => {
                            self.pass(&bytes[passed..frame], out);
                            self.pass(new.as_bytes(), out);
                            passed = at;
                        }
                        Err(error) => {
                            // What came before it is well.
                            self.pass(&bytes[passed..frame], out);
                            return Err(error);
                        }
                    },
                }
                frame = at;
            }
            line = at;
        }
        self.pass(&bytes[passed..frame], out);
        self.line = line - frame;
        Ok(frame)
    }

    fn pass(&mut self, frames: &[u8], out: &mut Vec<u8>) {
        if !frames.is_empty() {
            self.voice.count(frames);
            if !self.begun {
                self.held += frames.len();
                self.begun = self.held > HELD_BYTES_MAX;
            }
            if self.streaming {
                out.extend_from_slice(frames);
            }
        }
    }

    fn look(&mut self, frame: &[u8], marks: &Marks) -> Seen {
        let Some(data) = marks.data.clone() else { return Seen::Pass };
        let data = &frame[data];
        self.frames += 1;
        match kind(frame, data, marks) {
            Kind::End(terminal) => return Seen::End(terminal),
            Kind::Opening if !self.named => self.named = self.voice.name(&joined(frame, marks)),
            Kind::Opening | Kind::Other => {}
            Kind::Call(part) => {
                self.begun = true;
                if part == Part::Done {
                    self.item_bytes += told_bytes(data);
                    if memmem::find(data, b"encrypted_content").is_some() {
                        self.note_blobs(data);
                    }
                }
                return Seen::Call(part);
            }
            Kind::Part => self.begun = true,
        }
        Seen::Pass
    }

    fn note_blobs(&mut self, json: &[u8]) {
        let mut found = Vec::new();
        BlobId::all_in(json, &mut found);
        found.retain(|blob| !self.blobs.contains(blob));
        self.blobs.append(&mut found);
    }

    /// The frames that stand in the place of one; `None`: the frame itself.
    fn turn(&mut self, part: Part, frame: &[u8], marks: &Marks) -> Result<Option<String>, DecodeError> {
        let keeps = part == Part::Done && self.items.is_some();
        if self.calls.is_none() && !keeps {
            return Ok(None);
        }
        let data = joined(frame, marks);
        let turned = match &mut self.calls {
            Some(calls) => calls.event(part, &data)?,
            None => Turned::Same,
        };
        let new = match turned {
            Turned::Instead(new) => Some(new),
            Turned::Same | Turned::Cut => None,
        };
        if keeps {
            // As the client has it.
            let told =
                new.as_deref().map_or(Some(&*data), |new| new.lines().find_map(|line| line.strip_prefix("data: ")));
            let event = told.and_then(|data| serde_json::from_str::<Event<'_>>(data).ok());
            self.keep(event.and_then(|event| event.item));
        }
        Ok(new)
    }

    /// The end of the input, if it came in order: what has no blank line yet is taken as whole, if it is.
    pub fn end_of_input(&mut self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let rest = mem::take(&mut self.partial);
        if self.ended.is_some() || rest.is_empty() {
            return Ok(());
        }
        if rest.len() > self.line {
            self.marks.take(&rest[self.line..], self.line);
        }
        let whole = serde_json::from_str::<IgnoredAny>(&joined(&rest, &self.marks)).is_ok();
        if self.marks.data.is_none() || !whole {
            return Ok(());
        }
        let marks = mem::take(&mut self.marks);
        let ends: &[u8] = if rest.len() > self.line { b"\n\n" } else { b"\n" };
        let all = [rest.as_slice(), ends].concat();
        let new = match self.look(&all, &marks) {
            Seen::End(terminal) => return self.end(terminal, &all, &marks, out),
            Seen::Call(part) => self.turn(part, &all, &marks)?,
            Seen::Pass => None,
        };
        self.pass(new.as_deref().map_or(&all, str::as_bytes), out);
        Ok(())
    }

    /// Takes a body that came whole: a response object, an error object, a web page.
    pub fn feed_whole(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let text = std::str::from_utf8(body).map_err(|_| malformed("the answer is not UTF-8"))?;
        let text = text.trim_start_matches('\u{feff}').trim();
        if is_html(text) || !text.starts_with('{') {
            return Err(DecodeError::Upstream(failure_in_stream(text)));
        }
        let response: Response<'_> = serde_json::from_str(text).map_err(|_| malformed("the answer is not JSON"))?;
        let status = response.status.and_then(string);
        let is_response = response.output.is_some() || response.object.and_then(string).as_deref() == Some("response");
        if !is_response || matches!(status.as_deref(), Some("failed" | "cancelled")) {
            let error = response.error.map_or(text, RawValue::get);
            return Err(DecodeError::Upstream(failure_in_stream(error)));
        }
        BlobId::all_in(text.as_bytes(), &mut self.blobs);
        self.voice.take_name(&response);
        let mut edits = Edits::new(text);
        let ended = self.complete(text, &response, status.as_deref() == Some("incomplete"), &mut edits)?;
        let object = edits.apply();
        if self.streaming {
            self.tell_whole(&object, &ended, out);
        } else {
            self.whole = object.into_owned().into_bytes();
        }
        self.ended = Some(ended);
        Ok(())
    }

    /// Why an answer failed whose input is over and whose end was not told.
    pub fn cut_off(&self) -> Failure {
        let message = if self.begun { "The provider's answer was cut off." } else { "The provider sent no answer." };
        Failure::new(FailureKind::Upstream, message)
    }

    /// Ends an answer that has not ended.
    pub fn fail(&mut self, failure: Failure, out: &mut Vec<u8>) {
        if self.ended.is_some() {
            return;
        }
        if self.streaming {
            self.voice.failed(&failure, out);
            self.voice.next += 1;
        }
        self.ended = Some(Ended::Failed(failure));
    }

    fn end(&mut self, terminal: Terminal, frame: &[u8], marks: &Marks, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let data = joined(frame, marks);
        // Derived readers would take an array of the fields, too.
        let event: Option<Event<'_>> =
            Some(&data).filter(|data| is_object(data)).and_then(|data| serde_json::from_str(data).ok());
        let event = event.ok_or_else(|| malformed("the last event is not what it should be"))?;
        if let Some(number) = number(event.sequence_number) {
            self.voice.next = number;
        }
        let response = event.response.filter(|raw| is_object(raw.get()));
        let response: Option<Response<'_>> = response.and_then(|raw| serde_json::from_str(raw.get()).ok());
        if let Some(response) = &response {
            self.voice.take_name(response);
            self.usage = response.usage.and_then(|raw| Counts::read(raw.get())).map(|counts| counts.usage);
        }
        let (raw, response) = match (terminal, event.response, response) {
            (Terminal::Completed | Terminal::Incomplete, Some(raw), Some(response)) => (raw, response),
            (Terminal::Completed | Terminal::Incomplete, _, _) => {
                return Err(malformed("the last event has no response"));
            }
            (Terminal::Failed | Terminal::Error, _, response) => {
                let error = response.and_then(|response| response.error).or(event.error);
                let failure = error.map_or_else(|| failure_in_stream(&data), |error| failure_in_stream(error.get()));
                return Err(DecodeError::Upstream(failure));
            }
        };
        let incomplete = terminal == Terminal::Incomplete;
        let ended = if self.streaming {
            let kind = if incomplete { "response.incomplete" } else { "response.completed" };
            let mut edits = Edits::new(&data);
            match event.r#type {
                Some(name) if string(name).as_deref() == Some(kind) => {}
                // Named in the `event` line only.
                Some(other) => edits.replace(other, format!("\"{kind}\"")),
                None => edits.insert(&data, &format!("\"type\":\"{kind}\"")),
            }
            if let Some(odd) = event.sequence_number.filter(|raw| number(Some(raw)).is_none()) {
                edits.replace(odd, self.voice.next.to_string());
            }
            let ended = self.complete(raw.get(), &response, incomplete, &mut edits)?;
            match edits.apply() {
                Cow::Borrowed(_) => {
                    out.extend_from_slice(frame);
                    // Nothing follows that would show whether the CR was all of the line's end.
                    out.extend(frame.ends_with(b"\r").then_some(b'\n'));
                }
                Cow::Owned(data) => match &marks.data {
                    Some(old) if marks.lines == 1 => {
                        out.extend_from_slice(&frame[..old.start]);
                        out.extend_from_slice(data.as_bytes());
                        out.extend_from_slice(&frame[old.end..]);
                        out.extend(frame.ends_with(b"\r").then_some(b'\n'));
                    }
                    Some(_) | None => {
                        out.extend_from_slice(format!("event: {kind}\ndata: ").as_bytes());
                        out.extend(data.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')));
                        out.extend_from_slice(b"\n\n");
                    }
                },
            }
            ended
        } else {
            let mut edits = Edits::new(raw.get());
            let ended = self.complete(raw.get(), &response, incomplete, &mut edits)?;
            self.whole = edits.apply().into_owned().into_bytes();
            ended
        };
        // Some tell their items here only.
        self.note_blobs(raw.get().as_bytes());
        self.voice.next += 1;
        self.begun = true;
        self.ended = Some(ended);
        Ok(())
    }

    /// Puts into a response object all that clients' parsers insist on, and says how it ended. Observed of Codex: `id` must
    /// be there; usage must be absent or complete, or the whole turn is asked for again, five times; without usage it does
    /// not know when to compact. The official openai package wants the details in it.
    fn complete(
        &mut self,
        object: &str,
        response: &Response<'_>,
        incomplete: bool,
        edits: &mut Edits<'_>,
    ) -> Result<Ended, DecodeError> {
        if let Some(calls) = &self.calls {
            calls.output(response.output, !incomplete, edits)?;
        }
        self.stored = response.store.is_some_and(|raw| raw.get() == "true");
        let counts = response.usage.and_then(|raw| Some((raw, Counts::read(raw.get())?)));
        let usage = counts.as_ref().map_or_else(|| self.guess(response), |(_, counts)| counts.usage);
        self.usage = Some(usage);
        if let Some(output) = response.output.filter(|_| self.items.as_ref().is_some_and(Vec::is_empty)) {
            self.keep_output(output)?;
        }
        let mut missing = Vec::new();
        match response.id {
            Some(id) if string(id).is_some() => {}
            Some(id) => edits.replace(id, written(|out| write_json(out, self.voice.id.as_str()))),
            None => missing.push(written(|out| write_member(out, "id", self.voice.id.as_str()))),
        }
        let told = || written(|out| write_usage(out, &usage));
        match (counts, response.usage) {
            (Some((raw, counts)), _) if counts.complete => counts.add_details(raw.get(), edits),
            (_, Some(raw)) => edits.replace(raw, told()),
            (_, None) => missing.push(format!("\"usage\":{}", told())),
        }
        if !missing.is_empty() {
            edits.insert(object, &missing.join(","));
        }
        Ok(if incomplete {
            let reason = response.incomplete_details.and_then(|raw| {
                let details: Details<'_> = serde_json::from_str(raw.get()).ok()?;
                details.reason.and_then(string).map(Cow::into_owned)
            });
            Ended::Incomplete(match reason.as_deref() {
                Some("max_output_tokens" | "max_tokens" | "length") => IncompleteReason::MaxOutputTokens,
                Some(_) | None => IncompleteReason::ContentFilter,
            })
        } else {
            Ended::Completed
        })
    }

    /// What the answer may have cost.
    fn guess(&self, response: &Response<'_>) -> Usage {
        let (said, thought) = response.output.map(said_bytes).unwrap_or_default();
        // Some leave the items out that they have told.
        let said = if said + thought == 0 { self.item_bytes } else { said };
        Usage::estimate(self.input_bytes, said, thought)
    }

    /// A stream for what came in one piece.
    fn tell_whole(&mut self, object: &str, ended: &Ended, out: &mut Vec<u8>) {
        self.voice.created(out);
        let response: Option<Response<'_>> = serde_json::from_str(object).ok();
        let items: Vec<&RawValue> =
            response.and_then(|all| serde_json::from_str(all.output?.get()).ok()).unwrap_or_default();
        for (index, item) in items.into_iter().enumerate() {
            begin_event(out, "response.output_item.done", self.voice.next);
            self.voice.next += 1;
            write_member(out, "output_index", &index);
            out.extend_from_slice(b",\"item\":");
            out.extend_from_slice(one_line(item).as_bytes());
            out.extend_from_slice(b"}\n\n");
        }
        let name = if *ended == Ended::Completed { "response.completed" } else { "response.incomplete" };
        begin_event(out, name, self.voice.next);
        self.voice.next += 1;
        out.extend_from_slice(b"\"response\":");
        out.extend(object.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')));
        out.extend_from_slice(b"}\n\n");
        self.begun = true;
    }
}

/// What a frame is, by the type in its data; hosts put it first, or name it in the `event` line as well.
fn kind(frame: &[u8], data: &[u8], marks: &Marks) -> Kind {
    let data = data.trim_ascii_start();
    if let Some(name) = leading_type(data) {
        return kind_of(name);
    }
    if let Some(event) = &marks.event {
        let name = &frame[event.clone()];
        if name.starts_with(b"response.") || name == b"error" {
            return kind_of(name);
        }
    }
    if !data.starts_with(b"{") {
        return Kind::Other;
    }
    let data = joined(frame, marks);
    let Ok(event) = serde_json::from_str::<Event<'_>>(&data) else { return Kind::Other };
    match event.r#type.and_then(string) {
        Some(name) => kind_of(name.as_bytes()),
        // An error object as Chat Completions has it.
        None if event.error.is_some() => Kind::End(Terminal::Error),
        None => Kind::Other,
    }
}

fn kind_of(name: &[u8]) -> Kind {
    match name {
        b"response.completed" => Kind::End(Terminal::Completed),
        b"response.incomplete" => Kind::End(Terminal::Incomplete),
        b"response.failed" => Kind::End(Terminal::Failed),
        b"error" => Kind::End(Terminal::Error),
        b"response.created" | b"response.queued" | b"response.in_progress" => Kind::Opening,
        b"response.output_item.added" => Kind::Call(Part::Added),
        b"response.function_call_arguments.delta" => Kind::Call(Part::Delta),
        b"response.function_call_arguments.done" => Kind::Call(Part::Arguments),
        b"response.output_item.done" => Kind::Call(Part::Done),
        name if name.starts_with(b"response.") => Kind::Part,
        _ => Kind::Other,
    }
}

/// The value of `type`, if it is the first member and has no escapes.
fn leading_type(data: &[u8]) -> Option<&[u8]> {
    let rest = data.strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"type\"")?.trim_ascii_start();
    let rest = rest.strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    let name = &rest[..memchr(b'"', rest)?];
    (!name.contains(&b'\\')).then_some(name)
}

/// The data of a frame; its lines joined with LF if there are several.
fn joined<'f>(frame: &'f [u8], marks: &Marks) -> Cow<'f, str> {
    match &marks.data {
        Some(data) if marks.lines == 1 => String::from_utf8_lossy(&frame[data.clone()]),
        Some(_) => {
            let mut all = Vec::new();
            for line in frame.split(|byte| matches!(byte, b'\n' | b'\r')) {
                if let Some(value) = line.strip_prefix(b"data:") {
                    if !all.is_empty() {
                        all.push(b'\n');
                    }
                    all.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
                }
            }
            Cow::Owned(String::from_utf8_lossy(&all).into_owned())
        }
        None => Cow::Borrowed(""),
    }
}

/// What `write` writes: JSON, and so text.
fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap_or_default()
}

fn malformed(what: &str) -> DecodeError {
    DecodeError::Malformed { what: what.to_owned() }
}
