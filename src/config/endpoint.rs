//! How each protocol is reached below a base URL: the path, and the headers that carry the key. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use http::{HeaderName, header};
use url::Url;

use super::base_url;
use crate::codec::{Protocol, messages};

/// Where a request for `model` goes.
pub fn url(base: &Url, protocol: Protocol, model: &str) -> Url {
    match protocol {
        Protocol::Chat => base_url::under(base, "/chat/completions"),
        Protocol::Responses => base_url::under(base, "/responses"),
        Protocol::Messages => base_url::under(base, "/messages"),
        Protocol::Gemini => {
            let mut url = base.clone();
            // Fails for addresses without a host only, and a base URL has one. A `/` of the name must not become one of
            // the path.
            if let Ok(mut path) = url.path_segments_mut() {
                let name = model.strip_prefix("models/").unwrap_or(model);
                path.pop_if_empty().push("models").push(&format!("{name}:streamGenerateContent"));
            }
            url.set_query(Some("alt=sse"));
            url
        }
    }
}

/// Where a host that speaks Responses is asked for a `response.compaction`: below `responses`, what [`url()`] gave.
pub fn compaction(responses: &Url) -> Url {
    base_url::under(responses, "/compact")
}

/// The path that a host without any gets. `None`: that is a matter of the dialect.
pub fn bare_path(protocol: Protocol) -> Option<&'static str> {
    match protocol {
        Protocol::Chat => None,
        Protocol::Responses | Protocol::Messages => Some("/v1"),
        Protocol::Gemini => Some("/v1beta"),
    }
}

/// The header that carries a key, and what stands before the key in it.
pub fn key_header(protocol: Protocol) -> (HeaderName, &'static str) {
    match protocol {
        Protocol::Chat | Protocol::Responses => (header::AUTHORIZATION, "Bearer "),
        Protocol::Messages => (HeaderName::from_static("x-api-key"), ""),
        Protocol::Gemini => (HeaderName::from_static("x-goog-api-key"), ""),
    }
}

/// Headers that every request needs; the configuration may give others of these names.
pub fn fixed_headers(protocol: Protocol) -> &'static [(&'static str, &'static str)] {
    match protocol {
        Protocol::Chat | Protocol::Responses | Protocol::Gemini => &[],
        Protocol::Messages => &[("anthropic-version", messages::API_VERSION)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_has_its_address() {
        let at = |base: &str, protocol, model: &str| {
            url(&base_url::normalise(base, "/v1").unwrap(), protocol, model).to_string()
        };
        for (base, protocol, model, expected) in [
            ("https://h", Protocol::Chat, "m", "https://h/v1/chat/completions"),
            ("https://h/v1", Protocol::Responses, "m", "https://h/v1/responses"),
            ("https://h/v1/", Protocol::Messages, "m", "https://h/v1/messages"),
            ("https://h/v1beta", Protocol::Gemini, "g-3", "https://h/v1beta/models/g-3:streamGenerateContent?alt=sse"),
            (
                "https://h/v1beta",
                Protocol::Gemini,
                "models/g",
                "https://h/v1beta/models/g:streamGenerateContent?alt=sse",
            ),
            ("https://h/p", Protocol::Gemini, "a/b ?", "https://h/p/models/a%2Fb%20%3F:streamGenerateContent?alt=sse"),
        ] {
            assert_eq!(at(base, protocol, model), expected);
        }
        let responses = url(&base_url::normalise("https://h", "/v1").unwrap(), Protocol::Responses, "m");
        assert_eq!(compaction(&responses).as_str(), "https://h/v1/responses/compact");
    }
}
