//! Refusals that another form of the same request can mend. PURE.
//!
//! A closed list: whatever else a host refuses is told.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Protocol,
    edits::Edits,
    history::{part_path, path},
    relay,
};
use crate::model::{
    request::{Item, Loss, LossAction, Part, Request},
    text::LazyText,
};

/// What a refusal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amends {
    /// The request without the blobs that may be another host's: this one cannot read them.
    WithoutBlobs,
    /// The request without signed thoughts of earlier answers: the host does not take them back.
    WithoutThoughts,
    /// The request without its pictures: the host cannot take one of them, and does not say which in the client's terms.
    WithoutPictures,
}

impl Amends {
    /// What the host's answer asks for; `None`: to be told.
    pub fn of(protocol: Protocol, status: u16, body: &[u8]) -> Option<Self> {
        match protocol {
            Protocol::Responses if relay::refuses_blobs(status, body) => Some(Self::WithoutBlobs),
            // Gateways pass the words of the two vendors on in Chat Completions, too.
            Protocol::Chat | Protocol::Messages | Protocol::Gemini if refuses_thoughts(status, body) => {
                Some(Self::WithoutThoughts)
            }
            Protocol::Chat | Protocol::Messages | Protocol::Gemini | Protocol::Responses => {
                refuses_pictures(status, body).then_some(Self::WithoutPictures)
            }
        }
    }
}

/// What a request lacks that is sent [`without thoughts`](Amends::WithoutThoughts).
pub fn lost_thoughts(request: &Request<'_>) -> Vec<Loss> {
    const WHY: &str = "the provider refuses its signature";
    let signed = request.input.iter().enumerate();
    let signed = signed.filter(|(_, item)| matches!(item, Item::Reasoning { opaque: Some(_), .. }));
    signed.map(|(i, _)| Loss { path: path(i), action: LossAction::Drop, why: WHY }).collect()
}

/// The request that is sent [without pictures](Amends::WithoutPictures).
pub fn without_pictures<'a>(request: &Request<'a>) -> Request<'a> {
    request.without_pictures(|url| stood_here(&url.read()))
}

/// What it lacks.
pub fn lost_pictures(request: &Request<'_>) -> Vec<Loss> {
    const WHY: &str = "the provider refuses the pictures";
    let mut lost = Vec::new();
    for (i, item) in request.input.iter().enumerate() {
        let key = if matches!(item, Item::Output { .. }) { "output" } else { "content" };
        let pictures = item.parts().iter().enumerate().filter(|(_, part)| matches!(part, Part::Image { .. }));
        lost.extend(pictures.map(|(n, _)| Loss { path: part_path(i, key, n), action: LossAction::Drop, why: WHY }));
    }
    lost
}

/// The same for a body as the client sends it. `None`: it cannot be read.
pub fn body_without_pictures(body: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        input: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Parts<'a> {
        #[serde(borrow, default)]
        content: Option<&'a RawValue>,
        #[serde(borrow, default)]
        output: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, default)]
        r#type: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        image_url: Option<&'a RawValue>,
    }
    let text = std::str::from_utf8(body).ok()?;
    let items = serde_json::from_str::<Body<'_>>(text).ok()?.input;
    let mut edits = Edits::new(text);
    for item in items {
        let Ok(Parts { content, output }) = serde_json::from_str(item.get()) else { continue };
        let parts = [content, output].into_iter().flatten();
        let parts = parts.filter_map(|parts| serde_json::from_str::<Vec<&RawValue>>(parts.get()).ok()).flatten();
        for part in parts {
            let Ok(kind) = serde_json::from_str::<Kind<'_>>(part.get()) else { continue };
            if kind.r#type.as_deref() == Some("input_image") {
                let url = kind.image_url.and_then(LazyText::of_json);
                let words = serde_json::to_string(&stood_here(&url.as_ref().map(LazyText::read).unwrap_or_default()));
                edits.replace(part, format!(r#"{{"type":"input_text","text":{}}}"#, words.ok()?));
            }
        }
    }
    Some(edits.apply().into_owned().into_bytes())
}

/// Names the picture of a URL that a provider has refused. The same URL, the same words.
fn stood_here(url: &str) -> String {
    const URL_CHARS_MAX: usize = 200;
    let what = match url.strip_prefix("data:").and_then(|rest| rest.split_once(',')) {
        Some((head, data)) => {
            let kind: String = head.split(';').next().unwrap_or_default().chars().take(40).collect();
            format!("{kind}, {} KiB", (data.len() / 4 * 3).div_ceil(1024))
        }
        None => url.chars().take(URL_CHARS_MAX).collect(),
    };
    format!("[a picture stood here ({what}): the provider refuses the pictures of this conversation]")
}

/// Whether the host has refused the request because of a picture that it cannot read, or that is too large. Words of
/// vendors, as reported (all read 2026-11-21):
///
/// - Anthropic: "Could not process image" (anthropics/claude-code issue 25592), "image exceeds 5 MB maximum: …" (issue
///   19631), "At least one of the image dimensions exceed max allowed size: 8000 pixels" (issue 4778), "… for
///   many-image requests: 2000 pixels" (issue 49537), "The image was specified using the image/png media type, but the
///   image appears to be a image/jpeg image" (issue 12009);
/// - Google: "Unable to process input image." (google-gemini/gemini-cli issue 5064), "Provided image is not valid."
///   (issue 27244);
/// - OpenAI: "You uploaded an unsupported image. Please make sure your image has of one the following formats" (the
///   words of code `invalid_image_format`, which many projects quote), "The image data you provided does not represent
///   a valid image." (acoyfellow/my-ax issue 68);
/// - Ollama: "invalid image input" (ollama/ollama issue 7247).
fn refuses_pictures(status: u16, body: &[u8]) -> bool {
    let words = String::from_utf8_lossy(&body[..body.len().min(16 * 1024)]).to_ascii_lowercase();
    let told = [
        "could not process image",
        "image dimensions exceed max allowed size",
        "but the image appears to be a",
        "unable to process input image",
        "provided image is not valid",
        "you uploaded an unsupported image",
        "does not represent a valid image",
        "invalid image input",
    ];
    let too_large = words.contains("image exceeds ") && words.contains(" maximum");
    matches!(status, 400 | 413 | 422) && (too_large || told.iter().any(|wording| words.contains(wording)))
}

/// Whether the host has refused the request because of signed thoughts in it. Words of vendors, as reported (all read
/// 2026-11-21):
///
/// - Anthropic: "messages.1.content.0: Invalid `signature` in `thinking` block", when a block is not just as it was given
///   or stands in another conversation (anthropics/anthropic-sdk-python issue 1598; anomalyco/opencode issue 48637), and
///   "`thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified";
/// - Google: "Thought signature is not valid" (decolua/9router issue 301), "Corrupted thought signature."
///   (google-gemini/gemini-cli issue 13467), "Invalid thought signature." (lbjlaq/Antigravity-Manager pull request 3342).
fn refuses_thoughts(status: u16, body: &[u8]) -> bool {
    let words = String::from_utf8_lossy(&body[..body.len().min(16 * 1024)]).to_ascii_lowercase();
    let words = words.replace('`', "").replace("thoughtsignature", "thought signature").replace('_', " ");
    let has = |wordings: &[&str]| wordings.iter().any(|wording| words.contains(wording));
    let anthropic = words.contains("thinking")
        && has(&[
            "invalid signature in",
            "invalid data in redacted",
            "blocks in the latest assistant message cannot be modified",
        ]);
    let google = has(&[
        "thought signature is not valid",
        "thought signature is invalid",
        "invalid thought signature",
        "corrupted thought signature",
    ]);
    matches!(status, 400 | 422) && (anthropic || google)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::ToolKind;

    #[test]
    fn refused_pictures_are_told_from_everything_else() {
        for words in [
            "Could not process image",
            "messages.2.content.0.image.source.base64: image exceeds 5 MB maximum: 8259148 bytes > 5242880 bytes",
            "messages.7.content.2.image.source.base64.data: At least one of the image dimensions exceed max allowed size: 8000 pixels",
            "messages.19.content.27.image.source.base64.data: At least one of the image dimensions exceed max allowed size for many-image requests: 2000 pixels",
            "The image was specified using the image/png media type, but the image appears to be a image/jpeg image",
            "Unable to process input image. Please retry or report in https://developers.generativeai.google/guide/troubleshooting",
            "Provided image is not valid.",
            "You uploaded an unsupported image. Please make sure your image has of one the following formats: ['png', 'jpeg', 'gif', 'webp'].",
            "The image data you provided does not represent a valid image. Please check your input and try again.",
            "invalid image input",
        ] {
            let body = format!(r#"{{"error":{{"message":"{words}"}}}}"#);
            for protocol in Protocol::BUILT {
                assert_eq!(Amends::of(*protocol, 400, body.as_bytes()), Some(Amends::WithoutPictures), "{words}");
                assert_eq!(Amends::of(*protocol, 500, body.as_bytes()), None, "{words}");
            }
        }
        for words in [
            "prompt is too long: 214343 tokens > 200000 maximum",
            "image_generation is not enabled",
            "invalid image_url field",
        ] {
            assert_eq!(Amends::of(Protocol::Messages, 400, words.as_bytes()), None, "{words}");
        }
    }

    #[test]
    fn words_stand_where_a_picture_stood_and_all_else_stays() {
        let data = format!("data:image/png;base64,{}", "A".repeat(4096));
        let body = format!(
            r#"{{"model":"m" ,"input":[{{"role":"user","content":[{{"type":"input_text","text":"see"}},{{"type":"input_image","image_url":"{data}","detail":"high"}}]}},
            {{"type":"message","role":"user","content":"input_image"}},
            {{"type":"function_call_output","call_id":"c","output":[{{"image_url":"https:\/\/example.invalid/a.png","type":"input_image"}}]}}]}}"#
        );
        let without = String::from_utf8(body_without_pictures(body.as_bytes()).unwrap()).unwrap();
        assert_eq!(
            without,
            r#"{"model":"m" ,"input":[{"role":"user","content":[{"type":"input_text","text":"see"},{"type":"input_text","text":"[a picture stood here (image/png, 3 KiB): the provider refuses the pictures of this conversation]"}]},
            {"type":"message","role":"user","content":"input_image"},
            {"type":"function_call_output","call_id":"c","output":[{"type":"input_text","text":"[a picture stood here (https://example.invalid/a.png): the provider refuses the pictures of this conversation]"}]}]}"#
        );
        assert_eq!(body_without_pictures(b"{\"input\":\"x\"}"), None);
        let image = |url: &'static str| Part::Image { url: url.into(), detail: None };
        let output = |parts| Item::Output { call_id: "c".into(), kind: ToolKind::Function, parts };
        let input = vec![output(vec![Part::Text("a".into()), image("https://example.invalid/a.png")])];
        let request = Request { input, ..Request::default() };
        let mended = without_pictures(&request);
        let [Part::Text(_), Part::Text(words)] = mended.input[0].parts() else { panic!("{mended:?}") };
        assert!(words.read().starts_with("[a picture stood here (https://example.invalid/a.png)"));
        let paths: Vec<String> = lost_pictures(&request).into_iter().map(|loss| loss.path).collect();
        assert_eq!(
            (paths, request.has_pictures(), mended.has_pictures()),
            (vec!["input[0].output[1]".to_owned()], true, false)
        );
    }

    #[test]
    fn refused_thoughts_are_told_from_everything_else() {
        let of = |protocol, status, words: &str| Amends::of(protocol, status, words.as_bytes());
        for words in [
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages.1.content.0: Invalid `signature` in `thinking` block"}}"#,
            "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a different conversation.",
            "messages.3.content.0: Invalid `data` in `redacted_thinking` block",
            "messages.5.content.2: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified.",
            r#"{"error":{"code":400,"message":"Corrupted thought signature.","status":"INVALID_ARGUMENT"}}"#,
            "Unable to submit request because Thought signature is not valid.. Learn more: https://cloud.google.com/",
            "Invalid thought signature.",
            "invalid thought_signature",
        ] {
            for protocol in [Protocol::Messages, Protocol::Gemini, Protocol::Chat] {
                assert_eq!(of(protocol, 400, words), Some(Amends::WithoutThoughts), "{words}");
                assert_eq!(of(protocol, 500, words), None, "{words}");
            }
            assert_eq!(of(Protocol::Responses, 400, words), None, "{words}");
        }
        for words in [
            "",
            "messages: roles must alternate",
            "messages.129.content.0.type: Expected `thinking` or `redacted_thinking`, but found `text`.",
            r#"{"error":{"message":"Function call is missing a thought_signature in functionCall parts.","status":"INVALID_ARGUMENT"}}"#,
            "thinking.type: Invalid value",
        ] {
            assert_eq!(of(Protocol::Messages, 400, words), None, "{words}");
        }
        let blobs = "The encrypted content gAAA...DQ== could not be verified.";
        assert_eq!(of(Protocol::Responses, 400, blobs), Some(Amends::WithoutBlobs));
        assert_eq!(of(Protocol::Messages, 400, blobs), None);
    }
}
