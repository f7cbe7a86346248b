//! What vendors say of failures, as they document it, and the signal that comes of it: before the answer by status and
//! body, within it by an event. One table a protocol. What transport and client make of it is in `bus.rs` and `tls.rs`.

use std::time::SystemTime;

use codex_proxy::{
    codec::{self, DecodeError, Protocol, Reader, names::Names, responses::stream::Identity, sse::Framer},
    model::{
        event::{End, Event},
        failure::{Failure, FailureKind},
        signal::Signal,
    },
};

use crate::support::streams;

/// Status, body, signal; `""`: none.
type Row = (u16, &'static str, &'static str);

/// Wherever they stand, these mean the same.
const EVERYWHERE: [Row; 12] = [
    (401, "", "upstream.auth"),
    (402, "", "upstream.budget"),
    (403, "<html><title>Just a moment...</title></html>", "upstream.bot_wall"),
    (503, "<!doctype html><title>Just a moment...</title>", "upstream.bot_wall"),
    (404, "", ""),
    (408, "", "upstream.timeout"),
    (426, "", "upstream.upgrade_required"),
    (429, "", "upstream.rate_limited"),
    (500, "", "upstream.server_error"),
    (502, "<html><title>502 Bad Gateway</title></html>", "upstream.server_error"),
    (503, "", "upstream.overloaded"),
    (504, "upstream request timeout", "upstream.timeout"),
];

/// <https://platform.openai.com/docs/guides/error-codes> and the pages of the hosts named, all read 2026-11-21.
const CHAT: [Row; 13] = [
    (
        400,
        r#"{"error":{"message":"This model's maximum context length is 8192 tokens.","code":"context_length_exceeded"}}"#,
        "context.overflow",
    ),
    (
        400,
        r#"{"error":{"message":"Invalid type for 'messages'.","type":"invalid_request_error"}}"#,
        "upstream.bad_request",
    ),
    (401, r#"{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}"#, "upstream.auth"),
    (
        403,
        r#"{"error":{"message":"Country, region, or territory not supported","type":"request_forbidden"}}"#,
        "upstream.auth",
    ),
    (404, r#"{"error":{"message":"The model `x` does not exist","code":"model_not_found"}}"#, ""),
    (
        429,
        r#"{"error":{"message":"Rate limit reached for requests","code":"rate_limit_exceeded"}}"#,
        "upstream.rate_limited",
    ),
    (429, r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#, "upstream.budget"),
    (500, r#"{"error":{"message":"The server had an error while processing your request"}}"#, "upstream.server_error"),
    (
        503,
        r#"{"error":{"message":"The engine is currently overloaded, please try again later"}}"#,
        "upstream.overloaded",
    ),
    // DeepSeek; OpenRouter, quoting its provider; Groq; Command Code.
    (402, r#"{"error":{"message":"Insufficient Balance"}}"#, "upstream.budget"),
    (
        502,
        r#"{"error":{"code":502,"message":"Provider returned error","metadata":{"raw":"{\"error\":\"overloaded\"}"}}}"#,
        "upstream.overloaded",
    ),
    (413, r#"{"error":{"message":"Request too large for model `x` on tokens per minute"}}"#, "context.overflow"),
    (403, r#"{"error":{"code":"upgrade_required","message":"Please update"}}"#, "upstream.upgrade_required"),
];

/// <https://platform.openai.com/docs/api-reference/responses-streaming> (read 2026-11-21).
const RESPONSES: [Row; 6] = [
    (400, r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#, "context.overflow"),
    (400, r#"{"error":{"message":"Unknown parameter: 'x'.","code":"unknown_parameter"}}"#, "upstream.bad_request"),
    (401, r#"{"error":{"message":"no","code":"invalid_api_key"}}"#, "upstream.auth"),
    (429, r#"{"error":{"message":"slow","code":"rate_limit_exceeded"}}"#, "upstream.rate_limited"),
    (429, r#"{"error":{"message":"quota","code":"insufficient_quota"}}"#, "upstream.budget"),
    (500, r#"{"error":{"message":"no","code":"server_error"}}"#, "upstream.server_error"),
];

/// <https://platform.claude.com/docs/en/api/errors> (read 2026-11-21).
const MESSAGES: [Row; 11] = [
    (
        400,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"roles must alternate"}}"#,
        "upstream.bad_request",
    ),
    (
        400,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 > 8"}}"#,
        "context.overflow",
    ),
    (401, r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#, "upstream.auth"),
    (402, r#"{"type":"error","error":{"type":"billing_error","message":"pay"}}"#, "upstream.budget"),
    (403, r#"{"type":"error","error":{"type":"permission_error","message":"no"}}"#, "upstream.auth"),
    (404, r#"{"type":"error","error":{"type":"not_found_error","message":"model: x"}}"#, ""),
    (
        413,
        r#"{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}"#,
        "context.overflow",
    ),
    (429, r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow"}}"#, "upstream.rate_limited"),
    (500, r#"{"type":"error","error":{"type":"api_error","message":"oops"}}"#, "upstream.server_error"),
    (504, r#"{"type":"error","error":{"type":"timeout_error","message":"late"}}"#, "upstream.timeout"),
    (529, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, "upstream.overloaded"),
];

/// <https://ai.google.dev/gemini-api/docs/troubleshooting> (read 2026-11-21).
const GEMINI: [Row; 11] = [
    (
        400,
        r#"{"error":{"code":400,"message":"Invalid value at 'contents'","status":"INVALID_ARGUMENT"}}"#,
        "upstream.bad_request",
    ),
    (
        400,
        r#"{"error":{"code":400,"message":"The input token count (9) exceeds the maximum number of tokens allowed (8).","status":"INVALID_ARGUMENT"}}"#,
        "context.overflow",
    ),
    (
        400,
        r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}"#,
        "upstream.auth",
    ),
    (
        400,
        r#"{"error":{"code":400,"message":"User location is not supported for the API use.","status":"FAILED_PRECONDITION"}}"#,
        "",
    ),
    (403, r#"{"error":{"code":403,"message":"no","status":"PERMISSION_DENIED"}}"#, "upstream.auth"),
    (404, r#"{"error":{"code":404,"message":"models/x is not found","status":"NOT_FOUND"}}"#, ""),
    (
        429,
        r#"{"error":{"code":429,"message":"Please retry in 3s.","status":"RESOURCE_EXHAUSTED"}}"#,
        "upstream.rate_limited",
    ),
    (
        429,
        r#"{"error":{"code":429,"message":"x","status":"RESOURCE_EXHAUSTED","details":[{"violations":[{"quotaId":"RequestsPerDay"}]}]}}"#,
        "upstream.budget",
    ),
    (500, r#"{"error":{"code":500,"message":"oops","status":"INTERNAL"}}"#, "upstream.server_error"),
    (
        503,
        r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#,
        "upstream.overloaded",
    ),
    (504, r#"{"error":{"code":504,"message":"late","status":"DEADLINE_EXCEEDED"}}"#, "upstream.timeout"),
];

/// Frames, and the signal of the failure that they end the answer with.
const WITHIN: [(Protocol, &str, &str); 17] = [
    (Protocol::Chat, r#"{"error":{"code":429,"message":"slow"}}"#, "upstream.rate_limited"),
    (Protocol::Chat, r#"{"error":{"code":502,"message":"Provider disconnected"}}"#, "upstream.server_error"),
    (Protocol::Chat, r#"{"error":{"message":"Overloaded","type":"overloaded_error"}}"#, "upstream.overloaded"),
    (Protocol::Chat, r#"{"error":{"message":"prompt is too long: 9 > 8"}}"#, "context.overflow"),
    (
        Protocol::Responses,
        r#"{"type":"response.failed","response":{"id":"r","error":{"code":"rate_limit_exceeded","message":"slow"}}}"#,
        "upstream.rate_limited",
    ),
    (
        Protocol::Responses,
        r#"{"type":"response.failed","response":{"id":"r","error":{"code":"server_error","message":"no"}}}"#,
        "upstream.server_error",
    ),
    (
        Protocol::Responses,
        r#"{"type":"response.failed","response":{"id":"r","error":{"code":"context_length_exceeded","message":"no"}}}"#,
        "context.overflow",
    ),
    (Protocol::Responses, r#"{"type":"error","code":"invalid_prompt","message":"no"}"#, "upstream.bad_request"),
    (
        Protocol::Responses,
        r#"{"type":"response.failed","response":{"id":"r","error":{"code":"server_is_overloaded","message":"no"}}}"#,
        "upstream.overloaded",
    ),
    (
        Protocol::Messages,
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
        "upstream.overloaded",
    ),
    (
        Protocol::Messages,
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow"}}"#,
        "upstream.rate_limited",
    ),
    (Protocol::Messages, r#"{"type":"error","error":{"type":"api_error","message":"oops"}}"#, "upstream.server_error"),
    (Protocol::Messages, r#"{"type":"error","error":{"type":"timeout_error","message":"late"}}"#, "upstream.timeout"),
    (
        Protocol::Gemini,
        r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#,
        "upstream.overloaded",
    ),
    (
        Protocol::Gemini,
        r#"{"error":{"code":429,"message":"Please retry in 3s.","status":"RESOURCE_EXHAUSTED"}}"#,
        "upstream.rate_limited",
    ),
    (Protocol::Gemini, r#"{"error":{"code":500,"message":"oops","status":"INTERNAL"}}"#, "upstream.server_error"),
    (Protocol::Gemini, r#"{"error":{"code":504,"message":"late","status":"DEADLINE_EXCEEDED"}}"#, "upstream.timeout"),
];

fn name(failure: &Failure, page: bool) -> &'static str {
    Signal::of_failure(failure, page).map_or("", |signal| signal.row().name)
}

#[test]
fn every_documented_error_has_its_signal() {
    let tables: [(Protocol, &[Row]); 4] = [
        (Protocol::Chat, &CHAT),
        (Protocol::Responses, &RESPONSES),
        (Protocol::Messages, &MESSAGES),
        (Protocol::Gemini, &GEMINI),
    ];
    for (protocol, table) in tables {
        for (status, body, expected) in table.iter().chain(&EVERYWHERE) {
            let failure = codec::decode_error(protocol, *status, None, body.as_bytes(), SystemTime::UNIX_EPOCH);
            let page = body.starts_with('<');
            assert_eq!(name(&failure, page), *expected, "{protocol:?} {status} {body}: {:?}", failure.kind);
            assert_eq!(failure.upstream_status, Some(*status), "the status goes into the signal");
        }
    }
}

/// The failure that these bytes end an answer with.
fn within(protocol: Protocol, bytes: &[u8]) -> Failure {
    let identity = Identity { stem: "0".to_owned(), nonce: [0; 16], created_at: 0, model: "m".to_owned() };
    let failed = |result: Result<(), DecodeError>| match result {
        Err(DecodeError::Upstream(failure)) => Some(failure),
        Err(error) => Some(Failure::new(FailureKind::Upstream, error.to_string())),
        Ok(()) => None,
    };
    match Reader::new(&streams::target("up", "m", protocol), Names::default(), &identity, true, 0) {
        Reader::Relay(mut relay) => failed(relay.feed(bytes, &mut Vec::new())).unwrap_or_else(|| relay.cut_off()),
        Reader::Translate(mut decoder) => {
            let (mut framer, mut events) = (Framer::default(), Vec::new());
            let fed = framer.feed(bytes, |frame| decoder.feed(&frame, &mut events));
            decoder.finish(failed(fed), &mut events);
            match events.pop() {
                Some(Event::End(End::Failed(failure))) => failure,
                other => panic!("{protocol:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn an_error_within_an_answer_has_the_same_signal() {
    for (protocol, data, expected) in WITHIN {
        let kind = if data.starts_with(r#"{"type":"error""#) { "event: error\n" } else { "" };
        let failure = within(protocol, format!("{kind}data: {data}\n\n").as_bytes());
        assert_eq!(name(&failure, false), expected, "{protocol:?} {data}: {:?}", failure.kind);
    }
    for protocol in Protocol::BUILT {
        assert_eq!(name(&within(*protocol, b""), false), "upstream.server_error", "{protocol:?}: nothing came");
    }
}

#[test]
fn what_breaks_on_the_way_has_a_signal_and_what_is_ours_has_none() {
    for (kind, expected) in [
        (FailureKind::Connection, "upstream.reset"),
        (FailureKind::NameResolution, "upstream.dns"),
        (FailureKind::Tls, "upstream.tls"),
        (FailureKind::Certificate, "upstream.tls"),
        (FailureKind::Timeout, "upstream.timeout"),
        (FailureKind::Operator, ""),
        (FailureKind::UnknownModel, ""),
        (FailureKind::Bug, ""),
        (FailureKind::OwnLimit, ""),
        (FailureKind::Shutdown, ""),
    ] {
        assert_eq!(name(&Failure::new(kind, "x"), false), expected, "{kind:?}");
    }
}
