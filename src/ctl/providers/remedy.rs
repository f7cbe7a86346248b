//! What to do about a provider that does not serve, by the class of its failure: for `providers test` and `doctor`, which
//! ask by the same code and so see the same. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::config::credentials::{KeyError, KeySource};
use crate::config::endpoint;
use crate::config::settings::{Protocol, Provider};
use crate::model::failure::FailureKind;

/// For a failure of that kind; `by_host`: the host answered, so there is something at the address. Empty if the failure's
/// own words say all.
pub fn of(kind: FailureKind, by_host: bool, provider: &Provider) -> String {
    match kind {
        FailureKind::Credentials => key(provider),
        FailureKind::Budget => "top up the account".to_owned(),
        FailureKind::Upgrade => "update codex-proxy, or give the headers that the provider wants (headers)".to_owned(),
        FailureKind::RateLimit | FailureKind::Overload => "wait, and try again".to_owned(),
        FailureKind::Connection if provider.is_loopback() => {
            "start the server, or check the port in base_url".to_owned()
        }
        FailureKind::NameResolution | FailureKind::Connection | FailureKind::Timeout => {
            "check the network, base_url, and the proxy variables".to_owned()
        }
        FailureKind::UnknownModel => {
            "name another model with --model; `codex-proxyctl models list` shows some".to_owned()
        }
        FailureKind::Operator if by_host => address(provider),
        FailureKind::Upstream if by_host => "wait and try again, or add a route elsewhere".to_owned(),
        FailureKind::Upstream => address(provider),
        FailureKind::Caller => format!("check {}, or try another model with --model", manner(provider)),
        FailureKind::ContextLength => "try a model with a larger window".to_owned(),
        FailureKind::Tls
        | FailureKind::Certificate
        | FailureKind::Operator
        | FailureKind::Bug
        | FailureKind::OwnLimit
        | FailureKind::Shutdown => String::new(),
    }
}

/// The address with the path that its protocol usually has, if it has none at all.
pub fn longer_address(provider: &Provider) -> Option<String> {
    let path = match provider.protocol {
        Protocol::Chat => "/v1",
        Protocol::Responses | Protocol::Messages | Protocol::Gemini => endpoint::bare_path(provider.protocol)?,
    };
    let host = provider.base_url.as_str().trim_end_matches('/');
    (provider.base_url.path().trim_end_matches('/').is_empty()).then(|| format!("{host}{path}"))
}

/// What keeps a key from being had.
pub fn of_key(error: &KeyError) -> &'static str {
    match error {
        // Its own words say it.
        KeyError::Exposed(..) => "",
        KeyError::NotSet(_) => {
            "set it where codex-proxy is started, or keep the key in a file: providers add --key-stdin"
        }
        KeyError::Unreadable(KeySource::Command { .. }, _) => "check the program's name, and that you may run it",
        KeyError::NoDirectory(..) | KeyError::Unreadable(..) => "put the key there",
        KeyError::Empty(_) | KeyError::TooLarge(_) | KeyError::Malformed(_) => "put the key there, and nothing else",
        KeyError::CommandFailed(..) | KeyError::CommandSlow(_) => {
            "run it by hand, without a terminal: it has to print the key"
        }
    }
}

fn key(provider: &Provider) -> String {
    let sources: Vec<String> =
        provider.accounts.iter().filter(|account| account.enabled).map(|account| account.key.to_string()).collect();
    let (header, _) = endpoint::key_header(provider.protocol);
    if sources.is_empty() {
        return format!("say where its key is: codex-proxyctl providers add {} --replace --key-stdin …", provider.name);
    }
    let wrong = format!("it went out as {header}, as the protocol {:?} has it", provider.protocol.name());
    format!("put a valid key there ({}); if it is one: {wrong}", sources.join(", "))
}

fn address(provider: &Provider) -> String {
    match longer_address(provider) {
        Some(longer) => format!("base_url has no path; try {longer:?}"),
        None => format!("check base_url and {}", manner(provider)),
    }
}

fn manner(provider: &Provider) -> String {
    let protocol = provider.protocol.name();
    match provider.protocol {
        Protocol::Chat => format!("protocol (now {protocol:?}, dialect {:?})", provider.dialect.name),
        Protocol::Responses | Protocol::Messages | Protocol::Gemini => format!("protocol (now {protocol:?})"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn provider(text: &str) -> Provider {
        let mut settings = crate::config::parse(&[(Path::new("c"), &format!("[providers.p]\n{text}\n"))]).unwrap();
        settings.providers.remove("p").unwrap()
    }

    #[test]
    fn the_remedy_follows_the_class() {
        let keyed = provider("base_url = 'https://h.example/v1'\nkey = { env = 'K' }");
        assert!(of(FailureKind::Credentials, true, &keyed).contains("environment variable K"));
        assert!(of(FailureKind::Credentials, true, &keyed).contains("authorization"));
        let local = provider("base_url = 'http://127.0.0.1:1/v1'");
        assert!(of(FailureKind::Credentials, true, &local).contains("--key-stdin"));
        assert!(of(FailureKind::UnknownModel, true, &local).contains("--model"));
        let elsewhere = [FailureKind::Credentials, FailureKind::Operator, FailureKind::Budget, FailureKind::RateLimit];
        assert!(elsewhere.iter().all(|kind| !of(*kind, true, &keyed).contains("--model")));
    }

    #[test]
    fn an_address_without_a_path_gets_one_proposed() {
        let bare = provider("base_url = 'http://127.0.0.1:1'");
        assert_eq!(longer_address(&bare).as_deref(), Some("http://127.0.0.1:1/v1"));
        assert!(of(FailureKind::Operator, true, &bare).contains("http://127.0.0.1:1/v1"));
        let whole = provider("base_url = 'http://127.0.0.1:1/v1'\nprotocol = 'messages'");
        assert_eq!(longer_address(&whole), None);
        assert!(of(FailureKind::Operator, true, &whole).contains("\"messages\""));
    }
}
