//! Makes one address out of the many ways in which people paste it. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// What people leave at the end when they copy an address from an example.
const PASTED: &[&[&str]] = &[
    &["chat", "completions"],
    &["completions"],
    &["responses"],
    &["responses", "compact"],
    &["messages"],
    &["models"],
];

/// The normal form of a base URL: no trailing slash, no `/chat/completions` or the like, no doubled `/v1`.
///
/// `bare_path` is what a host without any path gets, `""` for nothing; no path is invented otherwise.
///
/// # Errors
/// What would be right, as the rest of a sentence that begins with "must". The text itself may hold a password and is
/// not repeated.
pub fn normalise(text: &str, bare_path: &str) -> Result<Url, &'static str> {
    let mut url = Url::parse(text.trim()).map_err(|_| "must be a URL such as \"https://api.example.com/v1\"")?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("must begin with https:// or http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or password; keys are given by `key`");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end before `?` and `#`; keys are given by `key` or `headers`");
    }
    let mut segments: Vec<&str> = url.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let path = if segments.is_empty() {
        bare_path.to_owned()
    } else {
        while let Some(pasted) = PASTED.iter().find(|pasted| segments.ends_with(pasted)) {
            segments.truncate(segments.len() - pasted.len());
        }
        // Gemini's has the model in it: `models/NAME:streamGenerateContent`.
        if let [.., "models", method] = segments.as_slice()
            && method.contains(':')
        {
            segments.truncate(segments.len() - 2);
        }
        segments.dedup_by(|a, b| a == b && matches!(*a, "v1" | "v1beta"));
        segments.iter().map(|segment| format!("/{segment}")).collect()
    };
    url.set_path(&path);
    Ok(url)
}

/// The compatible face beside a server's own interface, where that was pasted: `url` with `/v1` for one of `own` at the
/// end of its path.
pub fn compatible(mut url: Url, own: &[&str]) -> Url {
    let path = url.path().to_owned();
    if let Some(before) = own.iter().find_map(|own| path.strip_suffix(own)) {
        url.set_path(&format!("{before}/v1"));
    }
    url
}

/// `base` with `suffix` (`/chat/completions`) behind its path.
pub fn under(base: &Url, suffix: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{suffix}", base.path().trim_end_matches('/')));
    url
}

/// `base` without the `/v1` at its end, if it has one, and with `suffix` (`/api/tags`): what a server has beside its
/// compatible face.
pub fn beside(base: &Url, suffix: &str) -> Url {
    let path = base.path().trim_end_matches('/');
    let mut url = base.clone();
    url.set_path(&format!("{}{suffix}", path.strip_suffix("/v1").unwrap_or(path)));
    url
}

/// Whether the address is on this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
        }
        None => false,
    }
}

/// Whether the address is on this machine or in its own network, where servers usually ask for no key.
pub fn is_local(url: &Url) -> bool {
    is_loopback(url)
        || match url.host() {
            Some(Host::Domain(name)) => {
                !name.contains('.')
                    || [".local", ".lan", ".internal", ".home.arpa"].iter().any(|end| name.ends_with(end))
            }
            Some(Host::Ipv4(address)) => is_private(address),
            Some(Host::Ipv6(address)) => is_private_v6(address),
            None => false,
        }
}

fn is_private(address: Ipv4Addr) -> bool {
    // 100.64.0.0/10 is what overlay networks use (RFC 6598).
    let [first, second, ..] = address.octets();
    address.is_private() || address.is_link_local() || (first == 100 && (64..128).contains(&second))
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    address.is_unique_local() || address.is_unicast_link_local() || address.to_ipv4_mapped().is_some_and(is_private)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pasted_addresses_become_one() {
        for written in [
            "https://h.example/v1",
            " https://h.example/v1/ ",
            "https://h.example/v1//",
            "https://h.example/v1/v1",
            "https://h.example//v1/v1/v1/",
            "https://h.example/v1/chat/completions",
            "https://h.example/v1/v1/chat/completions/",
            "https://h.example/v1/responses",
            "https://h.example/v1/models/",
            "https://h.example/v1/messages",
            "https://h.example/v1/models/gemini-3-pro:generateContent",
            "https://H.example:443/v1",
        ] {
            assert_eq!(normalise(written, "").unwrap().as_str(), "https://h.example/v1", "{written}");
        }
    }

    #[test]
    fn no_path_is_invented_but_for_a_bare_host() {
        assert_eq!(normalise("http://h.example:1", "/v1").unwrap().as_str(), "http://h.example:1/v1");
        assert_eq!(normalise("http://h.example:1/", "").unwrap().as_str(), "http://h.example:1/");
        assert_eq!(normalise("http://h.example/api", "/v1").unwrap().as_str(), "http://h.example/api");
        assert_eq!(normalise("http://h.example/chat/completions", "/v1").unwrap().as_str(), "http://h.example/");
    }

    #[test]
    fn a_servers_own_interface_stands_for_the_compatible_one() {
        let url = |text| compatible(normalise(text, "/v1").unwrap(), &["/api"]).to_string();
        assert_eq!(url("http://h:1/api/"), "http://h:1/v1");
        assert_eq!(url("http://h:1/box/api"), "http://h:1/box/v1");
        assert_eq!(url("http://h:1/v1"), "http://h:1/v1");
        assert_eq!(url("http://h:1/api/v1"), "http://h:1/api/v1");
    }

    #[test]
    fn normalising_twice_changes_nothing() {
        for written in ["http://h/", "http://h/models/models", "http://h/v1/v1/x/v1", "http://h/a%2Fb/v1/completions"] {
            let once = normalise(written, "").unwrap();
            assert_eq!(normalise(once.as_str(), "").unwrap(), once);
        }
    }

    #[test]
    fn secrets_and_other_schemes_are_refused() {
        for written in ["h.example/v1", "ftp://h/v1", "https://u:p@h/v1", "https://h/v1?key=k", "https://h/v1#x", ""] {
            assert!(normalise(written, "").is_err(), "{written}");
        }
    }

    #[test]
    fn paths_are_appended() {
        let url = |text| under(&normalise(text, "").unwrap(), "/chat/completions").to_string();
        assert_eq!(url("https://h.example"), "https://h.example/chat/completions");
        assert_eq!(url("https://h.example/v1"), "https://h.example/v1/chat/completions");
        let url = |text| beside(&normalise(text, "").unwrap(), "/api/tags").to_string();
        assert_eq!(url("http://h:1/v1"), "http://h:1/api/tags");
        assert_eq!(url("http://h:1"), "http://h:1/api/tags");
        assert_eq!(url("http://h:1/box/v1"), "http://h:1/box/api/tags");
    }

    #[test]
    fn near_and_far() {
        let near = |text| (is_loopback(&Url::parse(text).unwrap()), is_local(&Url::parse(text).unwrap()));
        for text in [
            "http://localhost:1",
            "http://127.9.9.9",
            "http://[::1]:1",
            "http://a.localhost",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert_eq!(near(text), (true, true), "{text}");
        }
        for text in ["http://10.0.0.1", "http://box:1", "http://box.local", "http://100.100.1.1", "http://[fd00::1]"] {
            assert_eq!(near(text), (false, true), "{text}");
        }
        for text in
            ["http://8.8.8.8", "https://localhost.example.com", "https://api.example.com", "http://[2001:db8::1]"]
        {
            assert_eq!(near(text), (false, false), "{text}");
        }
    }
}
