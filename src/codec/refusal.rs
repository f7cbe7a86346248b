//! Refusals that another form of the same request can mend. PURE.
//!
//! A closed list: whatever else a host refuses is told.

use super::{Protocol, history::path, relay};
use crate::model::request::{Item, Loss, LossAction, Request};

/// What a refusal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amends {
    /// The request without the blobs that may be another host's: this one cannot read them.
    WithoutBlobs,
    /// The request without signed thoughts of earlier answers: the host does not take them back.
    WithoutThoughts,
}

impl Amends {
    /// What the host's answer asks for; `None`: to be told.
    pub fn of(protocol: Protocol, status: u16, body: &[u8]) -> Option<Self> {
        match protocol {
            Protocol::Responses => relay::refuses_blobs(status, body).then_some(Self::WithoutBlobs),
            // Gateways pass the words of the two vendors on in Chat Completions, too.
            Protocol::Chat | Protocol::Messages | Protocol::Gemini => {
                refuses_thoughts(status, body).then_some(Self::WithoutThoughts)
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
