//! A request for a host that speaks Responses: the client's own bytes, edited where they must differ.
//!
//! - `model` becomes the host's name of it; `reasoning.effort` and `max_output_tokens` change only if the configuration
//!   of the model or route demands it.
//! - A reasoning item with a blob that the host cannot read goes: other codecs' (sealed by us), other hosts', and
//!   what a host has refused before ([`refuses_blobs`]). Blanking it would not do: hosts that store nothing look such an item up
//!   by its id and refuse the request when they do not find it (`Item with id 'rs_…' not found. Items are not persisted
//!   when store is set to false`; vercel/ai issue 7543, read 2026-11-21). For the same reason an item of ours without
//!   any blob goes.
//! - A blob nobody here has seen passes: most likely the client had it from this very host before this program stood
//!   between. If not, the refusal shows it, and it is not passed again.
//!
//! - A host that knows no custom or hosted tools is told in other words of them, or not at all: `tools.rs`.
//!
//! Everything else stays as it is, byte for byte, also what this program does not know.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{
    blob::{self, BlobId},
    edits::Edits,
    tools::{self, Fate, Fit},
};
use crate::{
    codec::{
        EncodeError, Encoded, NativeTools, Target,
        history::{Losses, path},
        names::Names,
        seal,
    },
    model::request::Origin,
};

/// The members of the body that may be edited. `null` is a value here: it has a place that can be written to.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "present")]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_choice: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    max_output_tokens: Option<&'a RawValue>,
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

/// Edits `body`, a request that was found valid. `known`: who gave a blob, as far as that was seen.
pub fn encode_request(
    body: &[u8],
    target: &Target,
    known: impl Fn(BlobId) -> Option<Origin>,
) -> Result<Encoded<Names>, EncodeError> {
    let unreadable = |why: String| EncodeError::Unsupported { path: "input".into(), why };
    let text = std::str::from_utf8(body).map_err(|_| unreadable("the body is not UTF-8".into()))?;
    let wire: Body<'_> = serde_json::from_str(text).map_err(|e| unreadable(format!("the body cannot be read: {e}")))?;
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
    let items = wire.input.filter(|input| input.get().starts_with('[')).map(RawValue::get);
    let items: Vec<&RawValue> = items.and_then(|items| serde_json::from_str(items).ok()).unwrap_or_default();
    let mut kept = vec![true; items.len()];
    for (at, (item, kept)) in items.iter().zip(&mut kept).enumerate() {
        *kept = readable((at, item), target, &known, &mut losses)?;
    }
    let names = fit_tools(&wire, target.native_tools, &items, &mut kept, &mut edits, &mut losses);
    edits.retain(&items, &kept);
    Ok(Encoded { body: edits.apply().into_owned().into_bytes(), losses: losses.0, names })
}

/// Has the host told only of tools that it knows.
fn fit_tools<'a>(
    wire: &Body<'a>,
    host: NativeTools,
    items: &[&'a RawValue],
    kept: &mut [bool],
    edits: &mut Edits<'a>,
    losses: &mut Losses,
) -> Names {
    let mut said = Vec::new();
    let Some(mut fit) = Fit::new(host, edits, losses) else { return Names::default() };
    let found = items.iter().filter_map(|item| tools::declared_by(item));
    wire.tools.into_iter().chain(found).for_each(|tools| fit.look(tools));
    if let Some(tools) = wire.tools {
        fit.declare(tools, "tools");
    }
    if let Some(choice) = wire.tool_choice {
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

/// Whether the host can read an item; if not, and it may be left out.
fn readable(
    (at, item): (usize, &RawValue),
    target: &Target,
    known: impl Fn(BlobId) -> Option<Origin>,
    losses: &mut Losses,
) -> Result<bool, EncodeError> {
    let json = item.get();
    let has = |word: &str| memchr::memmem::find(json.as_bytes(), word.as_bytes()).is_some();
    if !has("\"reasoning\"") && !has("\"compaction") {
        return Ok(true);
    }
    let Ok(item) = serde_json::from_str::<Item<'_>>(json) else { return Ok(true) };
    let blob =
        item.encrypted_content.and_then(|raw| blob::string(raw.get().as_bytes())).filter(|blob| !blob.is_empty());
    let foreign =
        |blob: &[u8]| seal::is_ours(blob) || known(BlobId::of(blob)).is_some_and(|origin| origin != target.origin);
    match (item.r#type.as_deref(), blob.as_deref()) {
        (Some("reasoning"), Some(blob)) if foreign(blob) => {
            losses.drop(path(at), "thoughts of another model; only their maker can read them");
            Ok(false)
        }
        (Some("reasoning"), None) if item.id.as_deref().is_some_and(is_our_id) => {
            losses.drop(path(at), "thoughts of another model, which this host would look for by their id");
            Ok(false)
        }
        // They stand for the conversation so far, so none may be left out.
        (Some("compaction" | "compaction_summary"), Some(blob)) if foreign(blob) => Err(EncodeError::Unsupported {
            path: path(at),
            why: "a summary of the conversation that only its maker can read; go on with the model that wrote it, or \
                  start a new thread"
                .into(),
        }),
        (_, _) => Ok(true),
    }
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
