//! What is said in the name of a host: keep-alives, and an end when it gives none.

use memchr::memmem;

use super::wire::{Event, Response, string};
use crate::{
    codec::{
        responses::stream::begin_event,
        write::{write_member, write_next},
    },
    model::failure::Failure,
};

/// Who an answer is: what it takes to speak in its name.
#[derive(Debug, Clone)]
pub struct Voice {
    pub(super) id: String,
    pub(super) created_at: u64,
    pub(super) model: String,
    /// Sequence number of the next event.
    pub(super) next: u64,
}

impl Voice {
    /// The answer's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Sequence number of the next event.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The same answer, so much further on.
    pub fn at(&self, next: u64) -> Self {
        Self { next, ..self.clone() }
    }

    /// Takes the number of the next event over from the same answer.
    pub fn follow(&mut self, other: &Self) {
        self.next = other.next;
    }

    /// Writes an event that changes nothing, to show that the answer is alive; see
    /// [`StreamEncoder::keepalive`](crate::codec::responses::stream::StreamEncoder::keepalive).
    pub fn keepalive(&self, out: &mut Vec<u8>) {
        self.event(out, "response.in_progress", self.next.saturating_sub(1), "in_progress", None);
    }

    /// Writes the end of an answer that failed.
    pub fn failed(&self, failure: &Failure, out: &mut Vec<u8>) {
        self.event(out, "response.failed", self.next, "failed", Some(failure));
    }

    pub(super) fn created(&mut self, out: &mut Vec<u8>) {
        self.event(out, "response.created", self.next, "in_progress", None);
        self.next += 1;
    }

    fn event(&self, out: &mut Vec<u8>, name: &str, number: u64, status: &str, failure: Option<&Failure>) {
        begin_event(out, name, number);
        out.extend_from_slice(b"\"response\":{");
        write_member(out, "id", self.id.as_str());
        out.extend_from_slice(b",\"object\":\"response\"");
        write_next(out, "created_at", &self.created_at);
        write_next(out, "status", status);
        out.extend_from_slice(b",\"error\":");
        match failure {
            Some(failure) => {
                out.push(b'{');
                write_member(out, "code", failure.row().code_in_stream);
                write_next(out, "message", failure.message_in_stream().as_str());
                out.push(b'}');
            }
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"incomplete_details\":null");
        write_next(out, "model", self.model.as_str());
        // What the official openai package wants in every response.
        out.extend_from_slice(
            b",\"instructions\":null,\"parallel_tool_calls\":true,\"tool_choice\":\"auto\",\"tools\":[],\"temperature\":1.0,\
              \"top_p\":1.0,\"metadata\":{},\"output\":[],\"usage\":null}}\n\n",
        );
    }

    /// Takes the answer's identity out of a frame; false if it tells none.
    pub(super) fn name(&mut self, data: &str) -> bool {
        let event: Option<Event<'_>> = serde_json::from_str(data).ok();
        let response = event.and_then(|event| event.response);
        response.and_then(|raw| serde_json::from_str(raw.get()).ok()).is_some_and(|response| self.take_name(&response))
    }

    pub(super) fn take_name(&mut self, response: &Response<'_>) -> bool {
        let Some(id) = response.id.and_then(string) else { return false };
        self.id = id.into_owned();
        if let Some(at) = response.created_at.and_then(|raw| raw.get().parse::<f64>().ok()).filter(|at| *at >= 0.0) {
            self.created_at = at as u64;
        }
        if let Some(model) = response.model.and_then(string) {
            self.model = model.into_owned();
        }
        true
    }

    /// Takes over the last sequence number in what has passed. Without any, frames are not numbered, and ours neither.
    pub(super) fn count(&mut self, frames: &[u8]) {
        const KEY: &[u8] = b"\"sequence_number\"";
        // Most often this finds it in the last frame at once. Within a string the quotes would be escaped.
        let mut before = frames;
        while let Some(at) = memmem::rfind(before, KEY) {
            let value = before[at + KEY.len()..].trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start);
            let digits = value.map_or(&[][..], |v| &v[..v.iter().take_while(|b| b.is_ascii_digit()).count()]);
            if let Some(number) = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok()) {
                self.next = number.saturating_add(1);
                return;
            }
            before = &before[..at];
        }
    }
}
