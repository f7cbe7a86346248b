//! What an error of this protocol means: its types and codes → the failure table. PURE.
//!
//! Types and statuses are those of <https://platform.claude.com/docs/en/api/errors> (read 2026-11-21), codes those of the
//! package `anthropic` 2.12.0. What is not listed here, and the errors of gateways, is told by status and wording like
//! every other vendor's; so are words and waits.

use std::time::SystemTime;

use super::wire;
use crate::{
    codec::error::{BODY_BYTES_MAX, failure_known},
    model::failure::{Failure, FailureKind},
};

/// The failure behind an HTTP answer that is not a success.
///
/// `retry_after` is the header's value: seconds, milliseconds with the suffix `ms`, or an HTTP date, which `now` turns
/// into a wait. The message never holds markup, control characters or what looks like a key.
pub fn decode_error(status: u16, retry_after: Option<&str>, body: &[u8], now: SystemTime) -> Failure {
    let body = &body[..body.len().min(BODY_BYTES_MAX)];
    let text = String::from_utf8_lossy(body);
    failure_known(kind_of(status, &text), status, retry_after, &text, Some(now))
}

/// The failure behind an `error` event, or whatever else came where an answer was due.
pub(super) fn failure_in_stream(text: &str) -> Failure {
    failure_known(kind_of(0, text), 0, None, text, None)
}

/// What it is, if type, code or status say so beyond doubt.
fn kind_of(status: u16, text: &str) -> Option<FailureKind> {
    // From the service's doorkeeper, as a page. Most of such a request are pictures: the client drops what is old.
    if status == 413 {
        return Some(FailureKind::ContextLength);
    }
    let wire::ErrorBody { error } = serde_json::from_str(text.trim()).ok()?;
    match error.details.and_then(|details| details.error_code).as_deref() {
        // Waiting does not help, though some come as 429.
        Some(
            "enforced_spend_limit_reached"
            | "contract_spend_limit_reached"
            | "linked_organization_spend_limit_reached"
            | "linked_organization_billing_unavailable",
        ) => return Some(FailureKind::Budget),
        Some("organization_on_hold") => return Some(FailureKind::Credentials),
        Some(_) | None => {}
    }
    let message = error.message.to_ascii_lowercase();
    match &*error.kind {
        // A limit that the account's owner has set.
        "invalid_request_error" if message.contains("api usage limits") => Some(FailureKind::Budget),
        "authentication_error" | "permission_error" => Some(FailureKind::Credentials),
        "billing_error" => Some(FailureKind::Budget),
        "not_found_error" if message.contains("model") => Some(FailureKind::UnknownModel),
        "not_found_error" => Some(FailureKind::Operator),
        "request_too_large" => Some(FailureKind::ContextLength),
        "rate_limit_error" => Some(FailureKind::RateLimit),
        "timeout_error" => Some(FailureKind::Timeout),
        "overloaded_error" => Some(FailureKind::Overload),
        // `invalid_request_error` has many meanings, `api_error` none; wording and status tell.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use FailureKind::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn body(kind: &str, message: &str) -> String {
        format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}},"request_id":"req_1"}}"#)
    }

    #[test]
    fn every_documented_error_is_understood_before_the_answer_and_within_it() {
        for (status, kind, message, expected) in [
            (400, "invalid_request_error", "messages: roles must alternate", Caller),
            (400, "invalid_request_error", "prompt is too long: 214343 tokens > 200000 maximum", ContextLength),
            (
                400,
                "invalid_request_error",
                "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000",
                ContextLength,
            ),
            (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API.", Budget),
            (
                400,
                "invalid_request_error",
                "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.",
                Budget,
            ),
            (401, "authentication_error", "invalid x-api-key", Credentials),
            (402, "billing_error", "There is an issue with your payment information.", Budget),
            (
                403,
                "permission_error",
                "Your API key does not have permission to use the specified resource.",
                Credentials,
            ),
            (404, "not_found_error", "model: claude-nonesuch", UnknownModel),
            (404, "not_found_error", "Not found", Operator),
            (413, "request_too_large", "Request exceeds the maximum size", ContextLength),
            (429, "rate_limit_error", "This request would exceed your rate limit.", RateLimit),
            (500, "api_error", "Internal server error", Upstream),
            (504, "timeout_error", "The request timed out while processing.", Timeout),
            (529, "overloaded_error", "Overloaded", Overload),
        ] {
            let body = body(kind, message);
            let failure = decode_error(status, None, body.as_bytes(), NOW);
            assert_eq!(failure.kind, expected, "{status} {body}");
            assert!(failure.message.contains(message), "{}", failure.message);
            assert_eq!(failure.upstream_status, Some(status));
            assert_eq!(failure_in_stream(&body).kind, expected, "in a stream: {body}");
        }
    }

    #[test]
    fn codes_tell_what_waiting_does_not_mend() {
        let of = |code: &str| {
            let body = format!(
                r#"{{"type":"error","error":{{"type":"rate_limit_error","message":"Limit.","details":{{"error_code":"{code}"}}}}}}"#
            );
            decode_error(429, Some("7"), body.as_bytes(), NOW)
        };
        assert_eq!(of("enforced_spend_limit_reached").kind, Budget);
        assert_eq!(of("contract_spend_limit_reached").kind, Budget);
        let ramp = of("ramp_limit_exceeded");
        assert_eq!((ramp.kind, ramp.retry_after), (RateLimit, Some(Duration::from_secs(7))));
    }

    #[test]
    fn what_is_not_of_this_protocol_is_told_by_status_and_wording() {
        let kind = |status, body: &str| decode_error(status, None, body.as_bytes(), NOW).kind;
        assert_eq!(kind(413, "<html><title>413 Request Entity Too Large</title></html>"), ContextLength);
        assert_eq!(kind(200, "<!DOCTYPE html><title>Sign in</title>"), Operator);
        assert_eq!(kind(502, "bad gateway"), Upstream);
        assert_eq!(kind(401, r#"{"error":{"message":"no key"}}"#), Credentials);
        assert_eq!(kind(404, ""), Operator);
        assert_eq!(kind(400, r#"{"message":"Insufficient balance"}"#), Budget);
    }
}
