//! The body of `GET /v1/models`, which decides how Codex behaves with each model. PURE.
//!
//! One body serves both kinds of clients: `data` is OpenAI's list, `models` is Codex's catalogue. Field names and values
//! are those of Codex 0.169.0, which takes this body live from a provider with `auth.command` (measured).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde::Serialize;

/// Our own system prompt, for when the installed client's could not be read.
pub const BASE_INSTRUCTIONS: &str = include_str!("base_instructions.md");

pub use crate::model::listed::CONTEXT_WINDOW_UNKNOWN;

/// The priority of the first entry; the picker sorts by it and the first of all is the client's default.
///
/// The client adds what it takes live to its built-in models, whose priorities begin at 1, and accepts negative ones
/// (measured with 0.169.0): so ours come first.
const PRIORITY_FIRST: i32 = -1000;

/// What the catalogue says of one model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// The name clients use.
    pub slug: String,
    /// The name in pickers.
    pub display_name: String,
    /// One line for pickers.
    pub description: String,
    /// In tokens; `None` is unknown and given as [`CONTEXT_WINDOW_UNKNOWN`].
    pub context_window: Option<u64>,
    /// The reasoning efforts the model takes, weakest first; empty if it has no such control.
    pub efforts: Vec<String>,
    /// The effort used without a choice; one of `efforts`, else their middle is taken.
    pub default_effort: Option<String>,
    /// Whether it takes pictures.
    pub images: bool,
    /// The number of tokens at which Codex compacts, if it should be other than its share of the window.
    pub auto_compact_token_limit: Option<u64>,
}

/// The body, JSON. The same entries give the same bytes; their order is the order in the picker.
pub fn models_body(entries: &[Entry], base_instructions: &str) -> Vec<u8> {
    models_body_hiding(entries, base_instructions, &[])
}

/// [`models_body`] that also takes the client's built-in models out of its picker: it adds a live catalogue to its own,
/// but an entry of the same name replaces its own, and `hide` is obeyed (measured with 0.169.0). The proxy could only
/// answer 404 to a built-in model that is none of `entries`.
pub fn models_body_hiding(entries: &[Entry], base_instructions: &str, built_in: &[String]) -> Vec<u8> {
    let hidden: Vec<Entry> = built_in
        .iter()
        .filter(|slug| !entries.iter().any(|entry| entry.slug == **slug))
        .map(|slug| Entry { slug: slug.clone(), display_name: slug.clone(), ..Entry::default() })
        .collect();
    let models = entries
        .iter()
        .zip(PRIORITY_FIRST..)
        .map(|(entry, priority)| Model::new(entry, priority, base_instructions))
        .chain(hidden.iter().map(Model::hidden))
        .collect();
    let body = Body { object: "list", data: entries.iter().map(|entry| DataEntry::new(&entry.slug)).collect(), models };
    // Serialising strings and numbers into memory has no way to fail; an empty list is what a client survives.
    serde_json::to_vec(&body).unwrap_or_else(|_| br#"{"object":"list","data":[],"models":[]}"#.to_vec())
}

/// The strong entity tag of a body, quoted as in the header: FNV-1a with 128 bits, the same in every run and release.
///
/// Nobody gains by forging one: whoever makes the body makes the tag.
pub fn etag(body: &[u8]) -> String {
    // Offset basis and prime as the authors of FNV publish them for 128 bit.
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    for byte in body {
        hash = (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    format!("\"{hash:032x}\"")
}

#[derive(Serialize)]
struct Body<'a> {
    object: &'static str,
    data: Vec<DataEntry<'a>>,
    models: Vec<Model<'a>>,
}

#[derive(Serialize)]
struct DataEntry<'a> {
    id: &'a str,
    object: &'static str,
    /// Required by clients of OpenAI's list; zero, since we do not know when a model was made.
    created: u64,
    owned_by: &'static str,
}

impl<'a> DataEntry<'a> {
    fn new(id: &'a str) -> Self {
        Self { id, object: "model", created: 0, owned_by: "codex-proxy" }
    }
}

/// One entry under the client's field names.
#[derive(Serialize)]
struct Model<'a> {
    slug: &'a str,
    display_name: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_reasoning_level: Option<&'a str>,
    supported_reasoning_levels: Vec<ReasoningLevel<'a>>,
    shell_type: &'static str,
    visibility: &'static str,
    supported_in_api: bool,
    /// Ours go before the client's own; the picker reads the first hundred.
    priority: i32,
    base_instructions: &'a str,
    default_reasoning_summary: &'static str,
    support_verbosity: bool,
    /// Without it Codex does not offer the tool at all.
    apply_patch_tool_type: &'static str,
    web_search_tool_type: &'static str,
    truncation_policy: Truncation,
    context_window: u64,
    max_context_window: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    auto_compact_token_limit: Option<u64>,
    effective_context_window_percent: u32,
    experimental_supported_tools: [&'static str; 0],
    input_modalities: &'static [&'static str],
    supports_search_tool: bool,
    /// The lite protocol hides the tools in the input and calls them from JavaScript.
    use_responses_lite: bool,
    /// The second version sends tasks to sub-agents in a form only the vendor can read.
    multi_agent_version: &'static str,
}

#[derive(Serialize)]
struct ReasoningLevel<'a> {
    effort: &'a str,
    description: String,
}

#[derive(Serialize)]
struct Truncation {
    mode: &'static str,
    limit: u64,
}

impl<'a> Model<'a> {
    fn new(entry: &'a Entry, priority: i32, base_instructions: &'a str) -> Self {
        let context_window = entry.context_window.unwrap_or(CONTEXT_WINDOW_UNKNOWN);
        Self {
            slug: &entry.slug,
            display_name: &entry.display_name,
            description: &entry.description,
            default_reasoning_level: default_effort(entry),
            supported_reasoning_levels: entry.efforts.iter().map(|effort| reasoning_level(effort)).collect(),
            shell_type: "unified_exec",
            visibility: "list",
            supported_in_api: true,
            priority,
            base_instructions,
            default_reasoning_summary: "auto",
            support_verbosity: false,
            apply_patch_tool_type: "freeform",
            web_search_tool_type: "text",
            truncation_policy: Truncation { mode: "tokens", limit: 10_000 },
            context_window,
            max_context_window: context_window,
            auto_compact_token_limit: entry.auto_compact_token_limit,
            effective_context_window_percent: 95,
            experimental_supported_tools: [],
            input_modalities: if entry.images { &["text", "image"] } else { &["text"] },
            supports_search_tool: false,
            use_responses_lite: false,
            multi_agent_version: "v1",
        }
    }
}

impl<'a> Model<'a> {
    fn hidden(entry: &'a Entry) -> Self {
        let prompt = "This model is not served here.";
        Self { visibility: "hide", supported_in_api: false, ..Self::new(entry, i32::MAX, prompt) }
    }
}

fn default_effort(entry: &Entry) -> Option<&str> {
    let chosen = entry.default_effort.as_ref().filter(|effort| entry.efforts.contains(effort));
    chosen.or_else(|| entry.efforts.get(entry.efforts.len().saturating_sub(1) / 2)).map(String::as_str)
}

fn reasoning_level(effort: &str) -> ReasoningLevel<'_> {
    let description = match effort {
        "off" | "none" => "Answers without thinking first".to_owned(),
        "minimal" => "Hardly any thinking".to_owned(),
        "low" => "Short thinking, quick answers".to_owned(),
        "medium" => "A balance of speed and depth".to_owned(),
        "high" => "Thinks long; for hard tasks".to_owned(),
        "xhigh" | "max" => "Thinks as long as the model can".to_owned(),
        other => format!("Reasoning effort {other}"),
    };
    ReasoningLevel { effort, description }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(slug: &str) -> Entry {
        Entry { slug: slug.to_owned(), display_name: slug.to_uppercase(), ..Entry::default() }
    }

    #[test]
    fn both_kinds_of_clients_find_every_model_in_order() {
        let body = models_body(&[entry("b"), entry("a")], "Be careful.");
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["object"], "list");
        assert_eq!(body["data"][0], json!({"id": "b", "object": "model", "created": 0, "owned_by": "codex-proxy"}));
        assert_eq!(body["models"][1]["slug"], "a");
        assert_eq!((&body["models"][0]["priority"], &body["models"][1]["priority"]), (&json!(-1000), &json!(-999)));
        assert_eq!(body["models"][1]["base_instructions"], "Be careful.");
    }

    #[test]
    fn the_clients_own_models_are_hidden_unless_served() {
        let built_in = ["a".to_owned(), "vendor".to_owned()];
        let body: Value = serde_json::from_slice(&models_body_hiding(&[entry("a")], "x", &built_in)).unwrap();
        let seen: Vec<_> =
            body["models"].as_array().unwrap().iter().map(|model| (&model["slug"], &model["visibility"])).collect();
        assert_eq!(seen, [(&json!("a"), &json!("list")), (&json!("vendor"), &json!("hide"))]);
        assert_eq!(body["data"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn what_is_unknown_is_the_cautious_value() {
        let body: Value = serde_json::from_slice(&models_body(&[entry("m")], "x")).unwrap();
        let model = &body["models"][0];
        assert_eq!(model["context_window"], 128_000);
        assert_eq!(model["input_modalities"], json!(["text"]));
        assert_eq!(model["supported_reasoning_levels"], json!([]));
        assert!(model.get("default_reasoning_level").is_none());
        assert!(model.get("auto_compact_token_limit").is_none());
    }

    #[test]
    fn the_default_effort_is_one_of_the_ladder() {
        let mut model = entry("m");
        for (efforts, wish, expected) in [
            (vec!["low", "medium", "high"], Some("high"), Some("high")),
            (vec!["low", "medium", "high"], Some("max"), Some("medium")),
            (vec!["high", "max"], None, Some("high")),
            (vec![], Some("high"), None),
        ] {
            model.efforts = efforts.into_iter().map(str::to_owned).collect();
            model.default_effort = wish.map(str::to_owned);
            assert_eq!(default_effort(&model), expected);
        }
    }

    #[test]
    fn the_tag_is_quoted_and_the_same_for_ever() {
        // Test vectors of the FNV authors.
        assert_eq!(etag(b""), "\"6c62272e07bb014262b821756295c58d\"");
        assert_eq!(etag(b"a"), "\"d228cb696f1a8caf78912b704e4a8964\"");
        assert_ne!(etag(&models_body(&[entry("a")], "x")), etag(&models_body(&[entry("b")], "x")));
    }

    #[test]
    fn our_own_prompt_is_there() {
        assert!(BASE_INSTRUCTIONS.contains("*** Begin Patch"));
        assert!(BASE_INSTRUCTIONS.lines().count() >= 60);
    }
}
