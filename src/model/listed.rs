//! What a provider says of the models it has.
//!
//! `codec/listing.rs` reads it from the provider's words, `proxy/known.rs` keeps it in files (which is why these types
//! can be written as JSON), and the catalogue and the routes use it wherever the configuration says nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The window assumed for a model whose window nobody knows: small enough to compact too early rather than too late.
pub const CONTEXT_WINDOW_UNKNOWN: u64 = 128_000;

/// What is known of one model; what is missing is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Tokens it can hold as it is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_window: Option<u64>,
    /// Tokens it could hold at most; a local server is usually set to less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_window_max: Option<u64>,
    /// Tokens it generates in one answer at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens_max: Option<u64>,
    /// Whether it calls tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<bool>,
    /// Whether it takes pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<bool>,
}

impl Facts {
    /// The window to reckon with; where only its upper bound is known, that bound or [`CONTEXT_WINDOW_UNKNOWN`],
    /// whichever is less.
    pub fn window(&self) -> Option<u64> {
        self.context_window.or(self.context_window_max.map(|max| max.min(CONTEXT_WINDOW_UNKNOWN)))
    }

    /// These, and from `other` what is missing here.
    pub fn or(self, other: Self) -> Self {
        Self {
            context_window: self.context_window.or(other.context_window),
            context_window_max: self.context_window_max.or(other.context_window_max),
            output_tokens_max: self.output_tokens_max.or(other.output_tokens_max),
            tools: self.tools.or(other.tools),
            images: self.images.or(other.images),
        }
    }
}

/// One model of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// What requests call it.
    pub id: String,
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What else is said of it.
    #[serde(flatten)]
    pub facts: Facts,
}

/// What one provider answered, as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The base URL that was asked: another one's answer says nothing.
    pub address: String,
    /// When, in seconds since 1970.
    pub asked_s: u64,
    /// In the provider's order.
    pub models: Vec<Listed>,
}

/// Facts by provider and model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known(BTreeMap<String, BTreeMap<String, Facts>>);

impl Known {
    /// Adds a list; a model that is known already stays as it is.
    pub fn add(&mut self, provider: &str, models: &[Listed]) {
        let known = self.0.entry(provider.to_owned()).or_default();
        for model in models {
            known.entry(model.id.clone()).or_insert(model.facts);
        }
    }

    /// What is known of that model there.
    pub fn facts(&self, provider: &str, model: &str) -> Facts {
        self.0.get(provider).and_then(|models| models.get(model)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_who_knows_is_believed() {
        let model = |window, tools| Listed {
            id: "m".to_owned(),
            title: None,
            facts: Facts { context_window: window, tools, ..Facts::default() },
        };
        let mut known = Known::default();
        known.add("p", &[model(Some(1), None)]);
        known.add("p", &[model(Some(2), Some(true))]);
        let facts = known.facts("p", "m");
        assert_eq!((facts.context_window, facts.tools), (Some(1), None));
        assert_eq!(known.facts("p", "other"), Facts::default());
    }

    #[test]
    fn an_upper_bound_is_no_window() {
        let window = |set, max| Facts { context_window: set, context_window_max: max, ..Facts::default() }.window();
        assert_eq!(window(Some(200_000), Some(1_000_000)), Some(200_000));
        assert_eq!(window(None, Some(1_000_000)), Some(CONTEXT_WINDOW_UNKNOWN));
        assert_eq!(window(None, Some(8192)), Some(8192));
        assert_eq!(window(None, None), None);
    }
}
