//! What a host's error means: bodies of all vendors → the failure table. PURE.
//!
//! Vendors agree neither on the shape nor on the status, so wording decides where it is unmistakable (a conversation too
//! long, an empty account, a bad key) and the status decides the rest.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::model::failure::{Failure, FailureKind};

/// A provider's words are quoted up to this length, in characters.
const MESSAGE_CHARS_MAX: usize = 500;

/// Bodies are read up to this size, in bytes; an error page can be of any.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// The failure behind an HTTP answer that is not a success.
///
/// `retry_after` is the header's value: seconds, milliseconds with the suffix `ms` (for `retry-after-ms`), or an HTTP
/// date, which `now` turns into a wait. The message never holds markup, control characters or what looks like a key.
pub fn decode_error(status: u16, retry_after: Option<&str>, body: &[u8], now: SystemTime) -> Failure {
    let body = &body[..body.len().min(BODY_BYTES_MAX)];
    failure_of(status, retry_after, Said::of(&String::from_utf8_lossy(body)), Some(now), None)
}

/// The same for another protocol, which knows already what it means: only words and wait are looked for. `now` is
/// unknown inside a stream.
pub(super) fn failure_known(
    known: Option<FailureKind>,
    status: u16,
    retry_after: Option<&str>,
    text: &str,
    now: Option<SystemTime>,
) -> Failure {
    failure_of(status, retry_after, Said::of(text), now, known)
}

/// The failure behind an error object, or whatever else came where an answer was due, if the HTTP status was a success.
pub(super) fn failure_in_stream(text: &str) -> Failure {
    let said = Said::of(text);
    let status = said.code.parse().ok().filter(|code| (400..600).contains(code)).unwrap_or(0);
    failure_of(status, None, said, None, None)
}

/// Whether a body is a web page.
pub(super) fn is_html(text: &str) -> bool {
    let head: String = text.trim_start().chars().take(64).collect::<String>().to_ascii_lowercase();
    ["<!doctype html", "<html", "<head", "<body", "<!--", "<?xml"].iter().any(|opening| head.starts_with(opening))
}

/// What the body says, wherever it says it.
#[derive(Debug, Default)]
struct Said {
    message: String,
    /// `code`, as text.
    code: String,
    /// `type`, `status` and the like, joined.
    kind: String,
    wait: Option<Duration>,
    /// Unix time in milliseconds at which a limit resets.
    reset_unix_ms: Option<u64>,
    html: bool,
}

impl Said {
    fn of(text: &str) -> Self {
        let mut said = Self::default();
        let text = text.trim();
        if is_html(text) {
            said.html = true;
            said.message = html_message(text);
        } else if let Ok(value) = serde_json::from_str::<Value>(text) {
            said.read(&value, 0);
        } else {
            said.message = text.to_owned();
        }
        said
    }

    /// Collects from a value; what lies deeper is nearer to the cause and wins, except that nothing replaces something.
    fn read(&mut self, value: &Value, depth: u8) {
        /// OpenRouter quotes a provider that may quote another.
        const DEPTH_MAX: u8 = 6;
        if depth > DEPTH_MAX {
            return;
        }
        match value {
            Value::String(text) => self.say(text),
            Value::Array(items) => {
                // Google wraps its error in an array; FastAPI lists what is wrong with each field.
                for item in items.iter().take(8) {
                    self.read(item, depth + 1);
                }
            }
            Value::Object(object) => {
                for (key, value) in object {
                    self.field(key, value, depth);
                }
                // The cause last, so that it wins.
                for key in ["detail", "details", "errors", "data", "base_resp", "error", "metadata", "raw"] {
                    match (key, object.get(key)) {
                        ("raw", Some(Value::String(raw))) => match serde_json::from_str::<Value>(raw) {
                            Ok(nested) => self.read(&nested, depth + 1),
                            Err(_) => self.say(raw),
                        },
                        (_, Some(nested @ (Value::Object(_) | Value::Array(_)))) => self.read(nested, depth + 1),
                        ("detail" | "error", Some(Value::String(text))) => self.say(text),
                        (_, _) => {}
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn field(&mut self, key: &str, value: &Value, depth: u8) {
        let as_text = || match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        match key.to_ascii_lowercase().as_str() {
            "message" | "msg" | "status_msg" | "error_description" | "error_message" | "title" => match value {
                Value::Object(_) | Value::Array(_) => self.read(value, depth + 1),
                Value::String(text) => self.say(text),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            },
            "code" | "status_code" => self.code = as_text().unwrap_or_else(|| std::mem::take(&mut self.code)),
            "type" | "status" | "error_type" | "reason" | "error_code" => {
                if let Some(text) = as_text() {
                    self.kind.push(' ');
                    self.kind.push_str(&text);
                }
            }
            "retry_after" | "retryafter" | "retry_after_seconds" | "resets_in_seconds" | "retry-after" => {
                self.wait = as_text().and_then(|t| span(&t)).or(self.wait);
            }
            "retry_after_ms" | "retry-after-ms" => {
                self.wait = as_text().and_then(|t| span(&format!("{t}ms"))).or(self.wait);
            }
            // Google: RetryInfo, and Antigravity's quota errors.
            "retrydelay" | "quotaresetdelay" => self.wait = as_text().and_then(|t| span(&t)).or(self.wait),
            "headers" => {
                if let Value::Object(headers) = value {
                    for (name, value) in headers {
                        match name.to_ascii_lowercase().as_str() {
                            "retry-after" => self.field("retry_after", value, depth),
                            "x-ratelimit-reset" => {
                                self.reset_unix_ms = match value {
                                    Value::String(text) => text.parse().ok(),
                                    Value::Number(number) => number.as_u64(),
                                    Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
                                };
                            }
                            _ => {}
                        }
                    }
                }
            }
            // What else an error object holds (param, request ids, hints) says nothing that the table asks for.
            _ => {}
        }
    }

    fn say(&mut self, text: &str) {
        if !text.trim().is_empty() {
            self.message = text.to_owned();
        }
    }
}

/// `now`: unknown inside a stream; dates are then not understood.
fn failure_of(
    status: u16,
    retry_after: Option<&str>,
    said: Said,
    now: Option<SystemTime>,
    known: Option<FailureKind>,
) -> Failure {
    let words = format!("{} {} {}", said.message, said.code, said.kind).to_lowercase();
    let wait = retry_after
        .and_then(|value| span(value).or_else(|| until(httpdate::parse_http_date(value.trim()).ok()?, now)))
        .or(said.wait)
        .or_else(|| wait_in_words(&said.message.to_lowercase()))
        .or_else(|| until(SystemTime::UNIX_EPOCH + Duration::from_millis(said.reset_unix_ms?), now));
    let kind = known.unwrap_or_else(|| classify(status, &words, &said, wait.is_some()));
    told(kind, lead(kind), status, &said.message, wait)
}

/// A failure in our words and the provider's. `status` 0: none.
pub(super) fn told(kind: FailureKind, lead: &str, status: u16, words: &str, wait: Option<Duration>) -> Failure {
    let quoted = clean(words);
    let mut message = lead.to_owned();
    if status != 0 {
        message.push_str(&format!(" (HTTP {status})"));
    }
    if quoted.is_empty() {
        message.push('.');
    } else {
        message.push_str(": ");
        message.push_str(&quoted);
    }
    let failure = Failure::new(kind, message).with_retry_after(wait);
    if status == 0 { failure } else { failure.with_status(status) }
}

/// What is said of a kind before the provider's words.
pub(super) fn lead(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Credentials => "The provider refuses the API key",
        FailureKind::Budget => "The provider wants to be paid first",
        FailureKind::Upgrade => "The provider demands another version or kind of client",
        FailureKind::UnknownModel => "The provider does not know the model",
        FailureKind::Operator => "The provider's API does not answer at this address, check base_url",
        FailureKind::ContextLength => "The conversation is too long for the model",
        FailureKind::RateLimit => "The provider limits the rate of requests",
        FailureKind::Overload => "The provider is overloaded",
        FailureKind::Timeout => "The provider timed out",
        FailureKind::Caller => "The provider rejects the request",
        FailureKind::Upstream
        | FailureKind::Bug
        | FailureKind::Connection
        | FailureKind::NameResolution
        | FailureKind::Tls
        | FailureKind::Certificate
        | FailureKind::OwnLimit
        | FailureKind::Shutdown => "The provider failed",
    }
}

/// Wordings of a conversation that is too long, in lower case.
#[rustfmt::skip]
const TOO_LONG: [&str; 19] = [
    "context_length_exceeded",              // OpenAI, and many after it
    "maximum context length",               // OpenAI, DeepSeek, vLLM, OpenRouter
    "prompt is too long",                   // Anthropic
    "exceed context limit",                 // Anthropic, input and max_tokens together
    "exceed_context_size",                  // llama.cpp, its type
    "available context size",               // llama.cpp, its words
    "exceeds the maximum number of tokens", // Google
    "range of input length should be",      // DashScope
    "input is too long",                    // Bedrock and DashScope's older words
    "too large for model with",             // Mistral
    "reduce the length of the messages",    // Groq, Cerebras
    "request too large for model",          // Groq, a single request above the limit per minute
    "exceeded model token limit",           // Moonshot
    "greater than the context length",      // LM Studio
    "maximum prompt length",                // xAI
    "max_prompt_tokens_exceeded",           // GitHub
    "context window exceeds limit",         // MiniMax
    "exceeds the context window",           // OpenAI, newer words
    "model_context_window_exceeded",        // GLM
];

fn classify(status: u16, words: &str, said: &Said, wait_known: bool) -> FailureKind {
    let has = |wordings: &[&str]| wordings.iter().any(|w| words.contains(w));
    // A limit per minute that one request alone exceeds is no matter of waiting (Groq's 413), hence not only for 400.
    if !said.html && status != 401 && status != 429 && has(&TOO_LONG) {
        return FailureKind::ContextLength;
    }
    // Waiting does not end a challenge, and no other status of its page means anything.
    let challenge = ["just a moment", "attention required", "captcha", "verify you are human", "are you a robot"];
    if said.html && has(&challenge) {
        return FailureKind::Operator;
    }
    let unpaid = [
        "insufficient_quota",
        "insufficient balance",
        "insufficient_balance",
        "insufficient credit",
        "credit balance is too low",
        "account balance",
        "arrearage",
        "billing_hard_limit",
        "requires more credits",
        "organization_spend_limit_exceeded",
        "credit_balance_exhausted",
        "usage_not_included",
        "余额不足",
    ];
    // Google says "exceeded your current quota" of limits per minute too, but then with the wait.
    if status == 402 || has(&unpaid) || (has(&["exceeded your current quota"]) && !wait_known) {
        return FailureKind::Budget;
    }
    let bad_key =
        ["invalid api key", "incorrect api key", "api key not valid", "invalid_api_key", "authentication_error"];
    if status == 401 || has(&bad_key) {
        return FailureKind::Credentials;
    }
    // Not a matter of the key, whatever the status: Command Code says it with 403.
    if status == 426 || has(&["upgrade_required", "upgrade required"]) {
        return FailureKind::Upgrade;
    }
    let no_model = words.contains("model")
        && has(&[
            "not found",
            "does not exist",
            "not exist",
            "model_not_found",
            "unknown model",
            "invalid model",
            "no such model",
            "not a valid model",
            "not_found_error",
        ]);
    if matches!(status, 0 | 400 | 404 | 422) && no_model && !said.html {
        return FailureKind::UnknownModel;
    }
    match status {
        // OpenRouter's 403 is moderation, not the key.
        403 if has(&["moderation", "flagged"]) => FailureKind::Caller,
        403 if said.html => FailureKind::Operator,
        403 => FailureKind::Credentials,
        404 | 405 => FailureKind::Operator,
        429 => FailureKind::RateLimit,
        503 | 529 => FailureKind::Overload,
        408 | 504 | 524 => FailureKind::Timeout,
        _ if has(&["overloaded", "insufficient_system_resource", "no capacity"]) => FailureKind::Overload,
        500..600 => FailureKind::Upstream,
        // A page where an answer of the API was due: the address is wrong, or a login or filter stands before it.
        _ if said.html => FailureKind::Operator,
        400..500 => FailureKind::Caller,
        _ if has(&["rate limit", "rate_limit", "too many requests", "resource_exhausted", "slow_down"]) => {
            FailureKind::RateLimit
        }
        _ if has(&["timeout", "timed out"]) => FailureKind::Timeout,
        // `error.code` of the Responses API: what the request itself is refused for.
        _ if has(&["invalid_prompt", "cyber_policy", "bio_policy", "invalid_image", "invalid_encrypted_content"]) => {
            FailureKind::Caller
        }
        _ if has(&["invalid_request", "invalid_argument", "bad_request"]) => FailureKind::Caller,
        _ => FailureKind::Upstream,
    }
}

/// "try again in 1.2s", "retry in 44.1s", "try again in 1m30s", "retry after 20 seconds".
fn wait_in_words(words: &str) -> Option<Duration> {
    let openings = ["try again in ", "retry in ", "retry after ", "reset after ", "resets in "];
    let after = openings.iter().find_map(|opening| words.split_once(opening))?.1;
    let end = after.char_indices().take_while(|(_, c)| c.is_ascii_alphanumeric() || matches!(c, '.' | ' ')).count();
    span(&after[..end])
}

/// A length of time as vendors write it: `12`, `1.5`, `1500ms`, `1m30s`, `2h3m`, `20 seconds`. A number alone is seconds.
/// Units that are no units end it.
fn span(text: &str) -> Option<Duration> {
    /// Longer waits are mistakes, or as good as never.
    const SECONDS_MAX: f64 = 30.0 * 24.0 * 3600.0;
    let mut rest = text.trim();
    let mut seconds: Option<f64> = None;
    while rest.starts_with(|c: char| c.is_ascii_digit()) {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        // "… in 20s. Visit …": the point ends the sentence.
        let number: f64 = rest[..end].trim_end_matches('.').parse().ok()?;
        let after = rest[end..].trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let factor = match &after[..end] {
            "ms" | "millisecond" | "milliseconds" => 0.001,
            "" | "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86400.0,
            // A word of the sentence, or a date: not a length of time.
            _ => return seconds.and_then(whole),
        };
        seconds = Some(seconds.unwrap_or(0.0) + number * factor);
        rest = after[end..].trim_start();
    }
    fn whole(seconds: f64) -> Option<Duration> {
        Duration::try_from_secs_f64(seconds.clamp(0.0, SECONDS_MAX)).ok()
    }
    seconds.and_then(whole)
}

fn until(then: SystemTime, now: Option<SystemTime>) -> Option<Duration> {
    // A moment that has passed means: now.
    Some(then.duration_since(now?).unwrap_or_default())
}

/// A page is never quoted, only named.
fn html_message(page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|at| {
        let open = at + lower[at..].find('>')? + 1;
        let end = open + lower[open..].find("</title")?;
        Some(page[open..end].trim())
    });
    match title {
        Some(title) if !title.is_empty() => {
            format!("an HTML page, probably of a proxy or a login, titled \"{}\"", title.replace(['<', '>'], " "))
        }
        Some(_) | None => "an HTML page, probably of a proxy or a login".into(),
    }
}

/// Text that may be shown: one line, of bounded length, without anything that looks like a key.
pub(super) fn clean(text: &str) -> String {
    let mut line = String::new();
    // Half as much again leaves room for what is redacted, and bounds the work.
    for word in
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).take(MESSAGE_CHARS_MAX)
    {
        if !line.is_empty() {
            line.push(' ');
        }
        redact_word(word, line.ends_with("earer "), &mut line);
        if line.len() > 4 * MESSAGE_CHARS_MAX {
            break;
        }
    }
    match line.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn redact_word(word: &str, after_bearer: bool, out: &mut String) {
    let of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*' | '.' | '~' | '+');
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|c| !of_token(c)).unwrap_or(rest.len());
        let (token, tail) = rest.split_at(end);
        out.push_str(if after_bearer && token.len() >= 8 || looks_like_key(token) { "***" } else { token });
        let end = tail.find(of_token).unwrap_or(tail.len());
        out.push_str(&tail[..end]);
        rest = &tail[end..];
    }
}

/// Known prefixes of keys, or 20 letters and digits mixed without a break. Model names and UUIDs have breaks.
fn looks_like_key(token: &str) -> bool {
    let prefixes =
        ["sk-", "sk_", "pk-", "rk-", "gsk_", "xai-", "aiza", "nvapi-", "hf_", "ghp_", "gho_", "csk-", "eyj", "key-"];
    let lower = token.to_ascii_lowercase();
    let mixed = |run: &str| run.bytes().any(|b| b.is_ascii_digit()) && run.bytes().any(|b| b.is_ascii_alphabetic());
    (token.len() >= 8 && prefixes.iter().any(|p| lower.starts_with(p)))
        || token.contains("****")
        || token.split(|c: char| !c.is_ascii_alphanumeric()).any(|run| run.len() >= 20 && mixed(run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureKind::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn kind(status: u16, body: &str) -> FailureKind {
        decode_error(status, None, body.as_bytes(), NOW).kind
    }

    #[test]
    fn every_vendor_is_understood() {
        // Shapes and wordings after the vendors' error pages and public reports of each.
        for (status, body, expected) in [
            // OpenAI
            (
                400,
                r#"{"error":{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
                ContextLength,
            ),
            (
                429,
                r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","code":"insufficient_quota"}}"#,
                Budget,
            ),
            (
                401,
                r#"{"error":{"message":"Incorrect API key provided: sk-ab****yz.","code":"invalid_api_key"}}"#,
                Credentials,
            ),
            (
                404,
                r#"{"error":{"message":"The model `x` does not exist or you do not have access to it.","code":"model_not_found"}}"#,
                UnknownModel,
            ),
            (400, r#"{"error":{"message":"Unsupported parameter: 'x'","code":"unsupported_parameter"}}"#, Caller),
            // DeepSeek
            (
                402,
                r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","code":"invalid_request_error"}}"#,
                Budget,
            ),
            (400, r#"{"error":{"message":"Model Not Exist","type":"invalid_request_error"}}"#, UnknownModel),
            // Anthropic-like
            (529, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, Overload),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
                ContextLength,
            ),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low"}}"#,
                Budget,
            ),
            // Google
            (
                400,
                r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}]"#,
                Credentials,
            ),
            (
                400,
                r#"[{"error":{"code":400,"message":"The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}]"#,
                ContextLength,
            ),
            (503, r#"[{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}]"#, Overload),
            // vLLM, llama.cpp, Ollama, LM Studio
            (
                400,
                r#"{"object":"error","message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError","code":400}"#,
                ContextLength,
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error"}}"#,
                ContextLength,
            ),
            (
                404,
                r#"{"error":{"message":"model \"x\" not found, try pulling it first","type":"api_error"}}"#,
                UnknownModel,
            ),
            (
                400,
                r#"{"error":"Trying to keep the first 9000 tokens: greater than the context length"}"#,
                ContextLength,
            ),
            // Mistral
            (
                422,
                r#"{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body","x"],"msg":"Extra inputs are not permitted"}]},"type":"invalid_request_error"}"#,
                Caller,
            ),
            (
                400,
                r#"{"object":"error","message":"Prompt contains 65673 tokens and 0 draft tokens, too large for model with 32768 maximum context length","code":"3051"}"#,
                ContextLength,
            ),
            // Groq, Moonshot, DashScope, MiniMax
            (
                413,
                r#"{"error":{"message":"Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 9000","type":"tokens","code":"rate_limit_exceeded"}}"#,
                ContextLength,
            ),
            (
                400,
                r#"{"error":{"message":"Invalid request: Your request exceeded model token limit: 8192","type":"invalid_request_error"}}"#,
                ContextLength,
            ),
            (
                400,
                r#"{"error":{"message":"Range of input length should be [1, 98304]","code":"invalid_parameter_error"}}"#,
                ContextLength,
            ),
            (200, r#"{"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}"#, Budget),
            // Plain
            (404, "404 page not found", Operator),
            (404, "", Operator),
            (426, "", Upgrade),
            (403, r#"{"error":{"message":"Please update the CLI.","code":"upgrade_required"}}"#, Upgrade),
            // A door keeper's page, as Cloudflare's are titled; the second one is a gateway's own trouble.
            (503, "<!DOCTYPE html><html><head><title>Just a moment...</title></head></html>", Operator),
            (503, "<html><head><title>503 Service Temporarily Unavailable</title></head></html>", Overload),
            (500, "Internal Server Error", Upstream),
            (504, "upstream request timeout", Timeout),
            (502, "<html><head><title>502 Bad Gateway</title></head></html>", Upstream),
            (200, "<!DOCTYPE html><title>Sign in</title>", Operator),
            (429, "", RateLimit),
            (403, r#"{"error":{"message":"Input flagged by moderation","code":403}}"#, Caller),
        ] {
            assert_eq!(kind(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn the_cause_is_quoted_not_its_wrapping() {
        let body = r#"{"error":{"message":"Provider returned error","code":429,"metadata":{"raw":"{\"error\":{\"message\":\"Slow down, retry in 2.5s\"}}","provider_name":"P"}}}"#;
        let failure = decode_error(429, None, body.as_bytes(), NOW);
        assert_eq!(failure.message, "The provider limits the rate of requests (HTTP 429): Slow down, retry in 2.5s");
        assert_eq!(failure.retry_after, Some(Duration::from_millis(2500)));
    }

    #[test]
    fn waits_are_found_where_vendors_put_them() {
        let wait =
            |header, body: &str| decode_error(429, header, body.as_bytes(), NOW).retry_after.map(|d| d.as_millis());
        assert_eq!(wait(Some("7"), ""), Some(7000));
        assert_eq!(wait(Some("1.5"), ""), Some(1500));
        assert_eq!(wait(Some("250ms"), ""), Some(250));
        assert_eq!(wait(Some("Thu, 01 Jan 1970 00:01:00 GMT"), ""), Some(60_000));
        assert_eq!(wait(None, "Rate limit reached. Please try again in 1.2s. Visit us."), Some(1200));
        assert_eq!(wait(None, "Please try again in 1m30s"), Some(90_000));
        assert_eq!(wait(None, "try again in 20 seconds"), Some(20_000));
        assert_eq!(
            wait(
                None,
                r#"{"error":{"details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"44.5s"}]}}"#
            ),
            Some(44_500)
        );
        assert_eq!(wait(None, r#"{"error":{"details":[{"metadata":{"quotaResetDelay":"2h3m"}}]}}"#), Some(7_380_000));
        assert_eq!(
            wait(None, r#"{"error":{"message":"x","metadata":{"headers":{"X-RateLimit-Reset":"5000"}}}}"#),
            Some(5000)
        );
        assert_eq!(wait(None, "try again in a minute"), None);
        assert_eq!(wait(Some("soon"), ""), None);
        let body = r#"[{"error":{"code":429,"message":"You exceeded your current quota. Please retry in 3s.","status":"RESOURCE_EXHAUSTED"}}]"#;
        assert_eq!(kind(429, body), RateLimit);
    }

    #[test]
    fn messages_are_clean() {
        for secret in [
            "sk-proj-abcdefgh12345678",
            "Bearer abcdefgh12345678",
            "key=AIzaSyA1234567890abcdefgh",
            "a1b2c3d4e5f6a7b8c9d0e1",
        ] {
            let shown = clean(&format!("Key {secret}, is\u{1b}[31m bad\r\n"));
            assert!(shown.contains("***") && !shown.contains("12345678") && !shown.contains("a7b8"), "{shown}");
            assert!(!shown.chars().any(char::is_control));
        }
        assert_eq!(clean("deepseek-chat-v3-0324 at https://x.y/v1"), "deepseek-chat-v3-0324 at https://x.y/v1");
        assert_eq!(clean(&"é".repeat(900)).chars().count(), MESSAGE_CHARS_MAX + 1);
        let page = decode_error(200, None, b"<html><title>Sign in</title><script>alert(1)</script>", NOW).message;
        assert!(page.contains("an HTML page") && page.contains("Sign in") && !page.contains("script"), "{page}");
    }

    #[test]
    fn error_objects_in_a_stream_have_their_status_inside() {
        let failure = failure_in_stream(r#"{"code":"429","message":"slow"}"#);
        assert_eq!((failure.kind, failure.upstream_status), (RateLimit, Some(429)));
        assert_eq!(failure_in_stream(r#""overloaded""#).kind, Overload);
        assert_eq!(failure_in_stream(r#"{"message":"boom"}"#).kind, Upstream);
    }
}
