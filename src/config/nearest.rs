//! Which of the names that exist was nearly written. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// What other programs call things, and what we call them.
const SYNONYMS: &[(&str, &str)] = &[
    ("api_key", "key"),
    ("apikey", "key"),
    ("token", "key"),
    ("keys", "accounts"),
    ("url", "base_url"),
    ("endpoint", "base_url"),
    ("api_base", "base_url"),
    ("type", "protocol"),
    ("backend_type", "protocol"),
    ("wire_api", "protocol"),
    ("http_headers", "headers"),
    ("extra_headers", "headers"),
    ("model", "routes"),
    ("context_size", "context_window"),
    ("context_length", "context_window"),
    ("model_context_window", "context_window"),
    ("auto_compact_token_limit", "compact_limit"),
    ("model_auto_compact_token_limit", "compact_limit"),
    ("max_tokens", "max_output_tokens"),
    ("reasoning_effort", "effort"),
    ("model_reasoning_effort", "effort"),
    ("vision", "images"),
    ("none", "off"),
    ("disabled", "off"),
    ("maximum", "max"),
    ("stream_idle_timeout", "upstream_idle_s"),
    ("openai-responses", "openai"),
    ("anthropic", "messages"),
    ("claude", "messages"),
    ("google", "gemini"),
    ("completions", "chat"),
    ("chat-completions", "chat"),
    ("provider", "providers"),
    ("model_providers", "providers"),
];

/// The candidate that `written` was probably meant to be; the first of equals.
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    let meant = SYNONYMS.iter().find(|(theirs, _)| *theirs == written).map(|(_, ours)| *ours);
    // A third of the letters may be wrong: more, and the suggestion is a guess.
    let distance_max = (written.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|name| (if meant == Some(name) { 0 } else { distance(&written, &name.to_lowercase()) }, name))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many letters to insert, delete, replace or swap with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// ` did you mean "x"?` or ` known here: …`, for the end of a message.
pub fn hint<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(name) = nearest(written, candidates.clone()) {
        return format!("did you mean \"{name}\"?");
    }
    let mut names: Vec<&str> = candidates.into_iter().collect();
    names.sort_unstable();
    if names.is_empty() { "none exists".to_owned() } else { format!("known here: {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_find_their_name() {
        let names = ["keepalive_s", "head_hold_s", "drain_s"];
        assert_eq!(nearest("keepalive", names), Some("keepalive_s"));
        assert_eq!(nearest("keep_alive_s", names), Some("keepalive_s"));
        assert_eq!(nearest("KEEPALIVE_S", names), Some("keepalive_s"));
        assert_eq!(nearest("darin_s", names), Some("drain_s"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(nearest("api_key", ["accounts", "key"]), Some("key"));
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
