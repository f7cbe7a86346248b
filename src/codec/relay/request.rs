//! A request for a host that speaks Responses: the client's own bytes, edited where they must differ.
//!
//! - `model` becomes the host's name of it; `reasoning.effort` and `max_output_tokens` change only if the configuration
//!   of the model or route demands it.
//! - A reasoning item with a blob that the host cannot read goes: other codecs' (sealed by us), other hosts', and
//!   what a host has refused before ([`refuses_blobs`]). Blanking it would not do: hosts that store nothing look such an item up
//!   by its id and refuse the request when they do not find it (`Item with id 'rs_…' not found. Items are not persisted
//!   when store is set to false`; vercel/ai issue 7543, read 2026-11-21). For the same reason an item of ours without
//!   any blob goes.
//! - A compaction item that was sealed here becomes the message that any model is told, see
//!   [`compaction`]. The host's own passes; another's is refused, since it stands for the
//!   conversation.
//! - A blob nobody here has seen passes: most likely the client had it from this very host before this program stood
//!   between. If not, the refusal shows it, and it is not passed again.
//!
//! Everything else stays as it is, byte for byte, also what this program does not know.

use std::{borrow::Cow, ops::Range};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::blob::{self, BlobId};
use crate::{
    codec::{
        EncodeError, Encoded, Target, compaction,
        edits::Edits,
        names::Names,
        seal::{self, Sealer},
    },
    model::request::{Loss, LossAction, Origin},
};

/// The members of the body that may be edited. `null` is a value here: it has a place that can be written to.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "present")]
    input: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    max_output_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    stream: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    text: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    tool_choice: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Reasoning<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    effort: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, default)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    encrypted_content: Option<&'a RawValue>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// What an edit needs to know of blobs.
struct Blobs<'s, K> {
    sealer: &'s Sealer,
    /// Who gave one, as far as that was seen.
    known: K,
}

/// Edits `body`, a request that was found valid. `known`: who gave a blob, as far as that was seen. `sealer`: opens what
/// was sealed here.
pub fn encode_request(
    body: &[u8],
    target: &Target,
    sealer: &Sealer,
    known: impl Fn(BlobId) -> Option<Origin>,
) -> Result<Encoded<Names>, EncodeError> {
    edit(body, target, &Blobs { sealer, known }, |_, _, _| {})
}

/// The same for a request for a compaction that the host cannot make itself: it is asked, as any model is
/// ([`compaction::ask`]), for the text of a summary, in a stream.
pub fn encode_summary_request(
    body: &[u8],
    target: &Target,
    sealer: &Sealer,
    known: impl Fn(BlobId) -> Option<Origin>,
) -> Result<Encoded<Names>, EncodeError> {
    edit(body, target, &Blobs { sealer, known }, |wire, kept, edits| {
        let mut set = |value: Option<&RawValue>, key: &str, new: &str| match value {
            Some(old) => edits.replace(old, new),
            None => edits.insert(edits.text, &format!("\"{key}\":{new}")),
        };
        set(wire.stream, "stream", "true");
        set(wire.tool_choice, "tool_choice", "\"none\"");
        // It may demand a form that no summary has.
        if wire.text.is_some() {
            set(wire.text, "text", "null");
        }
        let ask = as_message(compaction::INSTRUCTION);
        let Some(input) = wire.input else { return };
        if input.get().starts_with('"') {
            return edits.replace(input, format!("[{{\"role\":\"user\",\"content\":{}}},{ask}]", input.get()));
        }
        let items: Vec<&RawValue> = serde_json::from_str(input.get()).unwrap_or_default();
        match items.last() {
            Some(last) if is_trigger(last.get()) => edits.replace(last, ask),
            Some(_) | None => {
                let end = edits.range(input).end - 1;
                edits.put(end, format!("{}{ask}", if kept > 0 { "," } else { "" }));
            }
        }
    })
}

/// Edits what must be edited, and then whatever `more` does; it is given how many items are left.
fn edit<'a, K: Fn(BlobId) -> Option<Origin>>(
    body: &'a [u8],
    target: &Target,
    blobs: &Blobs<'_, K>,
    more: impl FnOnce(&Body<'a>, usize, &mut Edits<'a>),
) -> Result<Encoded<Names>, EncodeError> {
    let unreadable = |why: String| EncodeError::Unsupported { path: "input".into(), why };
    let text = std::str::from_utf8(body).map_err(|_| unreadable("the body is not UTF-8".into()))?;
    let wire: Body<'_> = serde_json::from_str(text).map_err(|e| unreadable(format!("the body cannot be read: {e}")))?;
    let mut edits = Edits::new(text);
    let mut losses = Vec::new();
    edits.replace(wire.model, json(&target.model));
    if let Some(effort) = &target.effort {
        let effort = json(if effort == "off" { "none" } else { effort });
        set_effort(text, wire.reasoning, &effort, &mut edits);
    }
    if let (Some(wanted), Some(max)) = (wire.max_output_tokens, target.max_output_tokens)
        && wanted.get().parse::<u64>().is_ok_and(|wanted| wanted > max)
    {
        edits.replace(wanted, max.to_string());
    }
    let mut kept = 0;
    if let Some(input) = wire.input.filter(|input| input.get().starts_with('[')) {
        kept = replace_unreadable(input, target, blobs, &mut edits, &mut losses)?;
    }
    more(&wire, kept, &mut edits);
    Ok(Encoded { body: edits.apply().into_owned().into_bytes(), losses, names: Names::default() })
}

/// Whether the host has refused the request because of a blob. Seen from OpenAI: 400, code `invalid_encrypted_content`,
/// "The encrypted content … could not be verified." (openai/codex issue 8145, read 2026-11-21).
pub fn refuses_blobs(status: u16, body: &[u8]) -> bool {
    let words = String::from_utf8_lossy(&body[..body.len().min(16 * 1024)]).to_ascii_lowercase();
    let named = words.contains("invalid_encrypted_content");
    let told = words.contains("encrypted content") && (words.contains("verified") || words.contains("decrypted"));
    matches!(status, 400 | 422) && (named || told)
}

/// Whether the host refuses to compact because it does not know how. `object`: it was asked at `/responses/compact`, a
/// path of its own; else by a `compaction_trigger` among the items. What is not said clearly is taken for a no: another
/// request then shows what is wrong.
pub fn cannot_compact(status: u16, body: &[u8], object: bool) -> bool {
    let words = String::from_utf8_lossy(&body[..body.len().min(16 * 1024)]).to_ascii_lowercase();
    let named = words.contains("compact") || (words.contains("type") && words.contains("input["));
    match status {
        404 | 405 => object,
        501 => true,
        400 | 422 => named,
        _ => false,
    }
}

/// Whether the host says that it does not know the response that the request continues. Seen from OpenAI: 400, code
/// `previous_response_not_found` (openai/openai-agents-js and others, read 2026-11-21).
pub fn forgets_response(status: u16, body: &[u8]) -> bool {
    let words = String::from_utf8_lossy(&body[..body.len().min(16 * 1024)]).to_ascii_lowercase();
    matches!(status, 400 | 404 | 422) && (words.contains("previous_response") || words.contains("previous response"))
}

fn set_effort(text: &str, reasoning: Option<&RawValue>, effort: &str, edits: &mut Edits<'_>) {
    let Some(reasoning) = reasoning else {
        return edits.insert(text, &format!("\"reasoning\":{{\"effort\":{effort}}}"));
    };
    match serde_json::from_str::<Reasoning<'_>>(reasoning.get()) {
        Ok(Reasoning { effort: Some(old) }) => edits.replace(old, effort),
        Ok(Reasoning { effort: None }) => edits.insert(reasoning.get(), &format!("\"effort\":{effort}")),
        // `null`, which is as good as absent.
        Err(_) => edits.replace(reasoning, format!("{{\"effort\":{effort}}}")),
    }
}

/// Takes out of `input` what the host cannot read, and puts in clear what was sealed here for any model. Gives how many
/// items are left.
fn replace_unreadable<K: Fn(BlobId) -> Option<Origin>>(
    input: &RawValue,
    target: &Target,
    blobs: &Blobs<'_, K>,
    edits: &mut Edits<'_>,
    losses: &mut Vec<Loss>,
) -> Result<usize, EncodeError> {
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(input.get()) else { return Ok(0) };
    let mut kept = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let fate = fate(item.get(), target, blobs);
        kept.push(!matches!(fate, Fate::Drop(_)));
        match fate {
            Fate::Pass => {}
            Fate::Tell(message) => edits.replace(item, message),
            Fate::Drop(why) => {
                losses.push(Loss { path: format!("input[{at}]"), action: LossAction::Drop, why });
            }
            Fate::Refuse(why) => {
                let path = format!("input[{at}].encrypted_content");
                return Err(EncodeError::Unsupported { path, why: why.into() });
            }
        }
    }
    let left = kept.iter().filter(|kept| **kept).count();
    let ranges: Vec<Range<usize>> = items.iter().map(|item| edits.range(item)).collect();
    let last_kept = kept.iter().rposition(|kept| *kept);
    for (at, range) in ranges.iter().enumerate() {
        // With what follows, up to the next item: its comma.
        if !kept[at] && last_kept.is_some_and(|last| at < last) {
            edits.remove(range.start..ranges[at + 1].start);
        }
    }
    let Some(end) = ranges.last().map(|range| range.end) else { return Ok(0) };
    // Those at the end go with the comma before them.
    match last_kept {
        Some(last) if ranges[last].end < end => edits.remove(ranges[last].end..end),
        Some(_) => {}
        None => edits.remove(ranges[0].start..end),
    }
    Ok(left)
}

/// What becomes of an item.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Pass,
    /// This stands in its place.
    Tell(String),
    Drop(&'static str),
    Refuse(&'static str),
}

fn fate<K: Fn(BlobId) -> Option<Origin>>(json: &str, target: &Target, blobs: &Blobs<'_, K>) -> Fate {
    let has = |word: &str| memchr::memmem::find(json.as_bytes(), word.as_bytes()).is_some();
    if !has("\"reasoning\"") && !has("\"compaction") {
        return Fate::Pass;
    }
    let Ok(item) = serde_json::from_str::<Item<'_>>(json) else { return Fate::Pass };
    let blob =
        item.encrypted_content.and_then(|raw| blob::string(raw.get().as_bytes())).filter(|blob| !blob.is_empty());
    let foreign = |blob: &[u8]| {
        seal::is_ours(blob) || (blobs.known)(BlobId::of(blob)).is_some_and(|origin| origin != target.origin)
    };
    match (item.r#type.as_deref(), blob.as_deref()) {
        (Some("reasoning"), Some(blob)) if foreign(blob) => {
            Fate::Drop("thoughts of another model; only their maker can read them")
        }
        (Some("reasoning"), None) if item.id.as_deref().is_some_and(is_our_id) => {
            Fate::Drop("thoughts of another model, which this host would look for by their id")
        }
        // They stand for the conversation so far, so none may be left out.
        (Some("compaction" | "compaction_summary"), Some(blob)) if seal::is_ours(blob) => {
            match std::str::from_utf8(blob).ok().and_then(|text| blobs.sealer.open_summary(text).ok()) {
                Some(summary) => Fate::Tell(as_message(&compaction::words(&summary))),
                None => Fate::Refuse(compaction::NOT_OPENED),
            }
        }
        (Some("compaction" | "compaction_summary"), Some(blob)) if foreign(blob) => {
            Fate::Refuse(compaction::NOT_READABLE)
        }
        (_, _) => Fate::Pass,
    }
}

/// A message of the user, as JSON.
fn as_message(text: &str) -> String {
    let content = format!("[{{\"type\":\"input_text\",\"text\":{}}}]", json(text));
    format!("{{\"type\":\"message\",\"role\":\"user\",\"content\":{content}}}")
}

fn is_trigger(item: &str) -> bool {
    serde_json::from_str::<Item<'_>>(item).is_ok_and(|item| item.r#type.as_deref() == Some("compaction_trigger"))
}

/// Whether `StreamEncoder` of `codec::responses` made this id of a reasoning item.
fn is_our_id(id: &str) -> bool {
    let Some((stem, index)) = id.strip_prefix("rs_").and_then(|rest| rest.split_once('_')) else { return false };
    let is_stem = stem.len() == 32 && stem.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
    is_stem && !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit())
}

fn json(text: &str) -> String {
    // A string into memory: there is nothing to fail.
    serde_json::to_string(text).unwrap_or_default()
}
