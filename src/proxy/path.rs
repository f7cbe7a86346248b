//! The paths of requests. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// Where an answer is asked for, as [`normalise`] gives it.
const RESPONSES: &str = "/responses";
/// Where a `response.compaction` is asked for, likewise.
pub(super) const COMPACT: &str = "/responses/compact";

/// Whether a path, as [`normalise`] gives it, is answered by a model.
pub(super) fn is_exchange(path: &str) -> bool {
    path == RESPONSES || path == COMPACT
}

/// The path without `/v1` (pasted once, twice or not at all) and without a trailing slash.
pub(super) fn normalise(path: &str) -> &str {
    let mut path = path.trim_end_matches('/');
    while let Some(rest) = path.strip_prefix("/v1").filter(|rest| rest.starts_with('/')) {
        path = rest;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pasted_prefixes_do_not_matter() {
        for path in ["/responses", "/v1/responses", "/v1/v1/responses", "/v1/responses/"] {
            assert_eq!(normalise(path), "/responses", "{path}");
        }
        assert_eq!(normalise("/v1x/responses"), "/v1x/responses");
        assert_eq!(normalise("/v1"), "/v1");
    }
}
