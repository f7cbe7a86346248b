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
//! - A host that knows no custom or hosted tools is told in other words of them, or not at all: `tools.rs`.
//! - A blob nobody here has seen passes: most likely the client had it from this very host before this program stood
//!   between. If not, the refusal shows it, and as thoughts it is not passed again.
//!
//! Everything else stays as it is, byte for byte, also what this program does not know.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    blob::{self, BlobId},
    tools::{self, Fate, Fit},
    wire::present,
};
use crate::{
    codec::{
        EncodeError, Encoded, NativeTools, Target, compaction,
        edits::Edits,
        error::failure_known,
        history::{Losses, path},
        names::Names,
        seal::{self, Sealer},
    },
    model::{
        failure::{Failure, FailureKind},
        request::Origin,
    },
};

/// The members of the body that may be edited. `null` is a value here: it has a place that can be written to.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
    #[serde(borrow, default)]
    input: Input<'a>,
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    tool_choice: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    max_output_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    stream: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    text: Option<&'a RawValue>,
}

/// The items of an array, found in the one pass over the body, which may be long; none of anything else.
#[derive(Default)]
struct Input<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Input<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Input<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Input(items))
            }

            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Input::default())
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Input::default())
            }
        }
        deserializer.deserialize_any(Reader)
    }
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
    edit(body, target, &Blobs { sealer, known }, false)
}

/// The same for a request for a compaction that the host cannot make itself: it is asked, as any model is
/// ([`compaction::ask`]), for the text of a summary, in a stream.
pub fn encode_summary_request(
    body: &[u8],
    target: &Target,
    sealer: &Sealer,
    known: impl Fn(BlobId) -> Option<Origin>,
) -> Result<Encoded<Names>, EncodeError> {
    edit(body, target, &Blobs { sealer, known }, true)
}

fn edit<K: Fn(BlobId) -> Option<Origin>>(
    body: &[u8],
    target: &Target,
    blobs: &Blobs<'_, K>,
    summary: bool,
) -> Result<Encoded<Names>, EncodeError> {
    let unreadable = |why: String| EncodeError::Unsupported { path: "input".into(), why };
    let text = std::str::from_utf8(body).map_err(|_| unreadable("the body is not UTF-8".into()))?;
    let mut wire: Body<'_> =
        serde_json::from_str(text).map_err(|e| unreadable(format!("the body cannot be read: {e}")))?;
    let mut edits = Edits::new(text);
    let mut losses = Losses::default();
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
    let mut kept = vec![true; wire.input.0.len()];
    for (at, (item, kept)) in wire.input.0.iter().zip(&mut kept).enumerate() {
        *kept = readable((at, item), target, blobs, &mut edits, &mut losses)?;
    }
    if summary {
        set(wire.tool_choice.take(), "tool_choice", "\"none\"", &mut edits);
    }
    let names = fit_tools(&wire, target.native_tools, &mut kept, &mut edits, &mut losses);
    if summary {
        ask_for_summary(&wire, kept.contains(&true), &mut edits);
    }
    edits.retain(&wire.input.0, &kept);
    Ok(Encoded { body: edits.apply().into_owned().into_bytes(), losses: losses.0, names })
}

/// Asks for the text of a summary, in a stream. `kept`: items stand before it.
fn ask_for_summary<'a>(wire: &Body<'a>, kept: bool, edits: &mut Edits<'a>) {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        input: &'a RawValue,
    }
    set(wire.stream, "stream", "true", edits);
    // It may demand a form that no summary has.
    if wire.text.is_some() {
        set(wire.text, "text", "null", edits);
    }
    let ask = as_message(compaction::INSTRUCTION);
    match wire.input.0.last() {
        Some(last) if is_trigger(last.get()) => edits.replace(last, ask),
        Some(last) => edits.put(edits.range(last).end, format!("{}{ask}", if kept { "," } else { "" })),
        None => {
            let Ok(Raw { input }) = serde_json::from_str(edits.text) else { return };
            let said = match input.get() {
                said if said.starts_with('"') => format!("{{\"role\":\"user\",\"content\":{said}}},"),
                _ => String::new(),
            };
            edits.replace(input, format!("[{said}{ask}]"));
        }
    }
}

fn set(value: Option<&RawValue>, key: &str, new: &str, edits: &mut Edits<'_>) {
    match value {
        Some(old) => edits.replace(old, new),
        None => edits.insert(edits.text, &format!("\"{key}\":{new}")),
    }
}

/// Has the host told only of tools that it knows.
fn fit_tools<'a>(
    wire: &Body<'a>,
    host: NativeTools,
    kept: &mut [bool],
    edits: &mut Edits<'a>,
    losses: &mut Losses,
) -> Names {
    let items = &wire.input.0;
    let mut said = Vec::new();
    let Some(mut fit) = Fit::new(host, edits, losses) else { return Names::default() };
    let found = items.iter().filter_map(|item| tools::declared_by(item));
    wire.tools.into_iter().chain(found).for_each(|tools| fit.look(tools));
    if let Some(tools) = wire.tools {
        fit.declare(tools, "tools");
    }
    if let Some(choice) = wire.tool_choice.filter(|choice| choice.get() != "null") {
        fit.choose(choice);
    }
    for (at, (item, kept)) in items.iter().zip(kept).enumerate().filter(|(_, (_, kept))| **kept) {
        match fit.item(item, &path(at)) {
            Fate::Pass => {}
            Fate::Drop => *kept = false,
            Fate::Say(new) => said.push((*item, new)),
        }
    }
    let names = fit.names();
    said.into_iter().for_each(|(item, new)| edits.replace(item, new));
    names
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

/// Whether the host says that it does not know the response that the request continues, which it was told by `id`. Seen
/// from OpenAI: 400, code `previous_response_not_found` (openai/openai-agents-js and others); from vLLM and SGLang: 404,
/// "Response with id 'resp_…' not found." (both read 2026-11-21).
pub fn forgets_response(status: u16, body: &[u8], id: &str) -> bool {
    let words = String::from_utf8_lossy(&body[..body.len().min(16 * 1024)]).to_ascii_lowercase();
    let told = words.contains("previous_response") || words.contains("previous response");
    let quoted = !id.is_empty() && words.contains(&id.to_ascii_lowercase());
    matches!(status, 400 | 404 | 422) && (told || quoted)
}

/// The failure of a request that continues a response which the host [does not know](forgets_response).
pub fn forgotten(status: u16, body: &[u8]) -> Failure {
    failure_known(Some(FailureKind::Caller), status, None, &String::from_utf8_lossy(body), None)
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

/// Whether the host can read an item, or what is put in its place: what was sealed here for any model, in clear. If not, it
/// may be left out.
fn readable<K: Fn(BlobId) -> Option<Origin>>(
    (at, item): (usize, &RawValue),
    target: &Target,
    blobs: &Blobs<'_, K>,
    edits: &mut Edits<'_>,
    losses: &mut Losses,
) -> Result<bool, EncodeError> {
    let json = item.get();
    let has = |word: &str| memchr::memmem::find(json.as_bytes(), word.as_bytes()).is_some();
    if !has("\"reasoning\"") && !has("\"compaction") {
        return Ok(true);
    }
    let Ok(said) = serde_json::from_str::<Item<'_>>(json) else { return Ok(true) };
    let blob =
        said.encrypted_content.and_then(|raw| blob::string(raw.get().as_bytes())).filter(|blob| !blob.is_empty());
    let anothers = |blob: &[u8]| (blobs.known)(BlobId::of(blob)).filter(|origin| *origin != target.origin);
    let refuse = |why: &str| {
        Err(EncodeError::Unsupported { path: format!("{}.encrypted_content", path(at)), why: why.to_owned() })
    };
    match (said.r#type.as_deref(), blob.as_deref()) {
        (Some("reasoning"), Some(blob)) if seal::is_ours(blob) || anothers(blob).is_some() => {
            losses.drop(path(at), "thoughts of another model; only their maker can read them");
            Ok(false)
        }
        (Some("reasoning"), None) if said.id.as_deref().is_some_and(is_our_id) => {
            losses.drop(path(at), "thoughts of another model, which this host would look for by their id");
            Ok(false)
        }
        // They stand for the conversation so far, so none may be left out.
        (Some("compaction" | "compaction_summary"), Some(blob)) if seal::is_ours(blob) => {
            match std::str::from_utf8(blob).ok().and_then(|text| blobs.sealer.open_summary(text).ok()) {
                Some(summary) => edits.replace(item, as_message(&compaction::words(&summary))),
                None => return refuse(compaction::NOT_OPENED),
            }
            Ok(true)
        }
        // One that is nobody's may be this host's all the same.
        (Some("compaction" | "compaction_summary"), Some(blob))
            if anothers(blob).is_some_and(|origin| !origin.is_nobody()) =>
        {
            refuse(compaction::NOT_READABLE)
        }
        (_, _) => Ok(true),
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
