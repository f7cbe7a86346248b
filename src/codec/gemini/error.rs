//! What the service's errors mean: `google.rpc.Status` → the failure table. PURE.
//!
//! The service answers a bad key with 400, a place it does not serve with 400, and a used up day's quota with the same
//! 429 and the same sentence as a minute's; so `details` decide before the status does. What is no `Status` (a gateway's
//! own error, a web page) is read as any host's: [`crate::codec::error`].
//!
//! Sources: <https://ai.google.dev/gemini-api/docs/troubleshooting>,
//! <https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto> and `google/api/error_reason.proto`
//! there (read 2026-11-21), and public reports of the sentences.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::wire;
use crate::{
    codec::error,
    model::failure::{Failure, FailureKind},
};

/// Bodies are read up to this size, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Longer waits are as good as never.
const WAIT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// The failure behind an HTTP answer that is not a success.
///
/// `retry_after` is the header's value, seconds or an HTTP date, which `now` turns into a wait. The message never holds
/// markup, control characters or what looks like a key.
pub fn decode_error(status: u16, retry_after: Option<&str>, body: &[u8], now: SystemTime) -> Failure {
    let body = &body[..body.len().min(BODY_BYTES_MAX)];
    match status_in(&String::from_utf8_lossy(body)) {
        Some(said) => {
            let wait = retry_after.and_then(|value| wait_of(value, now));
            failure_of(if status == 0 { said.code.unwrap_or(0) } else { status }, wait, &said)
        }
        None => error::decode_error(status, retry_after, body, now),
    }
}

/// The failure behind an error object, or whatever else came where an answer was due, if the HTTP status was a success.
pub(super) fn failure_in_stream(text: &str) -> Failure {
    match status_in(text) {
        Some(said) => failure_of(said.code.unwrap_or(0), None, &said),
        // No date can stand in a stream, so no clock is needed.
        None => error::decode_error(0, None, text.as_bytes(), SystemTime::UNIX_EPOCH),
    }
}

/// The `Status` in a body: in `error`, perhaps in an array, or bare.
fn status_in(text: &str) -> Option<wire::Status> {
    let value: Value = serde_json::from_str(text.trim()).ok()?;
    let value = if let Value::Array(items) = value {
        items.into_iter().find(|item| item.get("error").is_some())?
    } else {
        value
    };
    let Value::Object(mut object) = value else { return None };
    let status = object.remove("error").unwrap_or(Value::Object(object));
    let status: wire::Status = serde_json::from_value(status).ok()?;
    (!status.message.is_empty() || !status.status.is_empty()).then_some(status)
}

/// What `details` say.
#[derive(Debug, Default)]
struct Details {
    reasons: Vec<String>,
    wait: Option<Duration>,
    /// A quota of a day or longer is used up.
    long_quota: bool,
    /// A quota of nothing: the model is not part of the plan.
    no_quota: bool,
}

impl Details {
    fn of(details: &[Value]) -> Self {
        let mut said = Self::default();
        for detail in details {
            let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
            if let Some(reason) = text(detail, "reason") {
                said.reasons.push(reason);
            }
            if let Some(delay) = text(detail, "retryDelay") {
                said.wait = delay.strip_suffix('s').and_then(seconds).or(said.wait);
            }
            for violation in detail.get("violations").and_then(Value::as_array).into_iter().flatten() {
                let id = text(violation, "quotaId").unwrap_or_default();
                said.long_quota |= ["PerDay", "PerMonth", "PerWeek"].iter().any(|span| id.contains(span));
                said.no_quota |= text(violation, "quotaValue").is_some_and(|value| value == "0");
            }
        }
        said
    }
}

fn failure_of(status: u16, header_wait: Option<Duration>, said: &wire::Status) -> Failure {
    let details = Details::of(&said.details);
    let words = said.message.to_lowercase();
    let wait = header_wait.or(details.wait).or_else(|| wait_in_words(&words));
    let kind = classify(status, &words, said, &details, wait.is_some());
    // It says more of these two than others do.
    let lead = if kind == FailureKind::Budget {
        "The provider's quota of this account is used up"
    } else if kind == FailureKind::Operator {
        "The provider does not serve this installation"
    } else {
        error::lead(kind)
    };
    error::told(kind, lead, status, &said.message, wait)
}

fn classify(status: u16, words: &str, said: &wire::Status, details: &Details, wait_known: bool) -> FailureKind {
    let has = |wordings: &[&str]| wordings.iter().any(|w| words.contains(w));
    let reason = |beginnings: &[&str]| details.reasons.iter().any(|r| beginnings.iter().any(|b| r.starts_with(b)));
    // "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576)."; a body too large in
    // bytes is mended by the same means.
    if has(&["exceeds the maximum number of tokens", "payload size exceeds the limit"]) {
        return FailureKind::ContextLength;
    }
    if reason(&["BILLING_DISABLED"])
        || has(&["billing account", "prepayment credits", "spending cap", "enable billing"])
    {
        return FailureKind::Budget;
    }
    let bad_key = [
        "api key not valid",
        "api key expired",
        "api_key_invalid",
        "reported as leaked",
        "unregistered callers",
        "missing a valid api key",
    ];
    let key_reasons = ["API_KEY_", "CREDENTIALS_MISSING", "ACCESS_TOKEN_", "ACCOUNT_STATE_INVALID", "CONSUMER_"];
    if status == 401 || said.status == "UNAUTHENTICATED" || reason(&key_reasons) || has(&bad_key) {
        return FailureKind::Credentials;
    }
    // "User location is not supported for the API use.": another network or another provider helps, nothing else does.
    if has(&["location is not supported"]) {
        return FailureKind::Operator;
    }
    match (said.status.as_str(), status) {
        ("RESOURCE_EXHAUSTED", _) | (_, 429) => {
            // Of a day's quota the service also says "retry in 40s", which is not so; of a minute's it says nothing
            // else. Without any detail the sentence about plan and billing decides, if no wait comes with it.
            let unpaid = details.long_quota
                || details.no_quota
                || (details.reasons.is_empty() && !wait_known && has(&["check your plan and billing"]));
            if unpaid { FailureKind::Budget } else { FailureKind::RateLimit }
        }
        ("PERMISSION_DENIED", _) | (_, 403) => FailureKind::Credentials,
        (_, 426) => FailureKind::Upgrade,
        ("NOT_FOUND", _) | (_, 404) if has(&["model"]) => FailureKind::UnknownModel,
        ("NOT_FOUND", _) | (_, 404 | 405) => FailureKind::Operator,
        ("UNAVAILABLE", _) | (_, 503 | 529) => FailureKind::Overload,
        ("DEADLINE_EXCEEDED", _) | (_, 408 | 504) => FailureKind::Timeout,
        _ if has(&["overloaded"]) => FailureKind::Overload,
        ("INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE" | "UNIMPLEMENTED", _) => FailureKind::Caller,
        (_, 400..500) if !matches!(said.status.as_str(), "CANCELLED" | "ABORTED" | "INTERNAL" | "UNKNOWN") => {
            FailureKind::Caller
        }
        (_, _) => FailureKind::Upstream,
    }
}

/// A `Retry-After` header's value.
fn wait_of(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    seconds(value).or_else(|| {
        let then = httpdate::parse_http_date(value).ok()?;
        // A moment that has passed means: now.
        Some(then.duration_since(now).unwrap_or_default().min(WAIT_MAX))
    })
}

/// "Please retry in 34.074824224s."
fn wait_in_words(words: &str) -> Option<Duration> {
    let after = words.split_once("retry in ")?.1;
    let end = after.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(after.len());
    let (number, unit) = after.split_at(end);
    let number = number.trim_end_matches('.');
    match unit {
        unit if unit.starts_with("ms") => seconds(number).map(|wait| wait / 1000),
        unit if unit.starts_with('s') => seconds(number),
        _ => None,
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let number: f64 = text.parse().ok()?;
    Duration::try_from_secs_f64(number).ok().map(|wait| wait.min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use FailureKind::*;
    use serde_json::json;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn of(status: u16, body: &Value) -> Failure {
        decode_error(status, None, body.to_string().as_bytes(), NOW)
    }

    fn said(code: u16, status: &str, message: &str, details: Value) -> Value {
        json!({"error": {"code": code, "message": message, "status": status, "details": details}})
    }

    fn quota(id: &str, value: &str, delay: &str) -> Value {
        json!([
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [
                {"quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
                 "quotaId": id, "quotaDimensions": {"model": "gemini-3.8-flash"}, "quotaValue": value}]},
            {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
        ])
    }

    fn info(reason: &str) -> Value {
        json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}])
    }

    #[test]
    fn every_error_finds_its_row() {
        let quota_words = "You exceeded your current quota, please check your plan and billing details.";
        for (code, status, message, details, expected) in [
            (
                400,
                "INVALID_ARGUMENT",
                "API key not valid. Please pass a valid API key.",
                info("API_KEY_INVALID"),
                Credentials,
            ),
            (
                400,
                "INVALID_ARGUMENT",
                "API key expired. Please renew the API key.",
                info("API_KEY_INVALID"),
                Credentials,
            ),
            (
                403,
                "PERMISSION_DENIED",
                "Method doesn't allow unregistered callers (callers without established identity).",
                json!([]),
                Credentials,
            ),
            (
                403,
                "PERMISSION_DENIED",
                "Your API key was reported as leaked. Please use another API key.",
                json!([]),
                Credentials,
            ),
            (
                403,
                "PERMISSION_DENIED",
                "Generative Language API has not been used in project 1 before",
                info("SERVICE_DISABLED"),
                Credentials,
            ),
            (400, "FAILED_PRECONDITION", "User location is not supported for the API use.", json!([]), Operator),
            (
                400,
                "FAILED_PRECONDITION",
                "The free tier is not available in your country. Please enable billing.",
                json!([]),
                Budget,
            ),
            (
                404,
                "NOT_FOUND",
                "models/gemini-9 is not found for API version v1beta, or is not supported for generateContent.",
                json!([]),
                UnknownModel,
            ),
            (404, "NOT_FOUND", "Requested entity was not found.", json!([]), Operator),
            (
                400,
                "INVALID_ARGUMENT",
                "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).",
                json!([]),
                ContextLength,
            ),
            (
                400,
                "INVALID_ARGUMENT",
                "Request payload size exceeds the limit: 20971520 bytes.",
                json!([]),
                ContextLength,
            ),
            (
                400,
                "INVALID_ARGUMENT",
                "Unable to submit request because it has an empty text parameter.",
                json!([]),
                Caller,
            ),
            (
                400,
                "INVALID_ARGUMENT",
                "Function call is missing a thought_signature in functionCall parts.",
                json!([]),
                Caller,
            ),
            (
                429,
                "RESOURCE_EXHAUSTED",
                quota_words,
                quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "10", "34.07s"),
                RateLimit,
            ),
            (
                429,
                "RESOURCE_EXHAUSTED",
                quota_words,
                quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "250", "34s"),
                Budget,
            ),
            (
                429,
                "RESOURCE_EXHAUSTED",
                quota_words,
                quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "0", "34s"),
                Budget,
            ),
            (429, "RESOURCE_EXHAUSTED", quota_words, json!([]), Budget),
            (429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).", json!([]), RateLimit),
            (429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.", json!([]), Budget),
            (503, "UNAVAILABLE", "The model is overloaded. Please try again later.", json!([]), Overload),
            (500, "INTERNAL", "An internal error has occurred.", json!([]), Upstream),
            (504, "DEADLINE_EXCEEDED", "The request timed out. Please try again.", json!([]), Timeout),
            (499, "CANCELLED", "The operation was cancelled.", json!([]), Upstream),
            (418, "SOMETHING_NEW", "A teapot.", json!([]), Caller),
        ] {
            assert_eq!(of(code, &said(code, status, message, details)).kind, expected, "{message}");
        }
    }

    #[test]
    fn waits_are_found() {
        let minute = quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "10", "34.5s");
        let wait = |header, message: &str, details: Value| {
            let body = said(429, "RESOURCE_EXHAUSTED", message, details).to_string();
            decode_error(429, header, body.as_bytes(), NOW).retry_after.map(|wait| wait.as_millis())
        };
        assert_eq!(wait(None, "x", minute.clone()), Some(34_500));
        assert_eq!(wait(Some("7"), "x", minute), Some(7000));
        assert_eq!(wait(Some("Thu, 01 Jan 1970 00:01:00 GMT"), "x", json!([])), Some(60_000));
        assert_eq!(wait(None, "Please retry in 12.25s.", json!([])), Some(12_250));
        assert_eq!(wait(None, "Please retry in 800ms.", json!([])), Some(800));
        assert_eq!(wait(None, "Please retry later.", json!([])), None);
    }

    #[test]
    fn arrays_pages_and_others_words_are_read_too() {
        let array = format!("[{}]", said(503, "UNAVAILABLE", "The model is overloaded.", json!([])));
        let failure = decode_error(503, None, array.as_bytes(), NOW);
        assert_eq!((failure.kind, failure.upstream_status), (Overload, Some(503)));
        assert_eq!(failure.message, "The provider is overloaded (HTTP 503): The model is overloaded.");
        assert_eq!(decode_error(502, None, b"<html><title>Bad</title>", NOW).kind, Upstream);
        assert_eq!(decode_error(401, None, br#"{"error":"unauthorized"}"#, NOW).kind, Credentials);
        assert_eq!(decode_error(404, None, b"", NOW).kind, Operator);
        let inside = failure_in_stream(&said(429, "RESOURCE_EXHAUSTED", "slow", json!([])).to_string());
        assert_eq!((inside.kind, inside.upstream_status), (RateLimit, Some(429)));
    }

    #[test]
    fn keys_are_not_quoted() {
        let body =
            said(400, "INVALID_ARGUMENT", "API key not valid: AIzaSyA1234567890abcdefgh", info("API_KEY_INVALID"));
        let message = of(400, &body).message;
        assert!(message.contains("***") && !message.contains("1234567890"), "{message}");
    }
}
