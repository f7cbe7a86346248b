//! The form that an answer is to have, in words, for hosts that know no setting for it. PURE.

use super::history::Losses;
use crate::model::request::Format;

/// What the model is told; `None` if it may answer as it likes.
pub(super) fn words(format: &Format<'_>) -> Option<String> {
    match format {
        Format::Text => None,
        Format::JsonObject => Some("Give your final answer as one JSON object and nothing else.".to_owned()),
        Format::JsonSchema { name, description, schema, .. } => {
            let described = description.as_deref().map(|d| format!(" ({d})")).unwrap_or_default();
            Some(format!(
                "Give your final answer as one JSON value `{name}`{described}, without fences or other text, that \
                 satisfies this JSON Schema:\n{schema}"
            ))
        }
    }
}

/// The same where words are all there is, which is written down.
pub(super) fn words_only(format: &Format<'_>, losses: &mut Losses) -> Option<String> {
    match format {
        Format::Text => {}
        Format::JsonObject => losses.approximate("text.format", "the form is asked for in words"),
        Format::JsonSchema { .. } => losses.approximate("text.format", "the schema is asked for in words"),
    }
    words(format)
}
