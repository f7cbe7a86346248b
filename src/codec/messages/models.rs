//! The model table: what depends on the model in this protocol. PURE.
//!
//! A model without a row is treated as the newest Claude if its name says so (what the newest refuse is not sent, what
//! they do unasked is expected), and otherwise as a host that only borrows the protocol.

/// How a model can be made to think, and not to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thinking {
    /// The model cannot.
    Never,
    /// Off unless it is given a budget of tokens (`enabled`). `disabled` is understood.
    Budget,
    /// Off unless asked for (`adaptive`); the model decides how much.
    Asked,
    /// On unless switched off.
    Unasked(Off),
}

/// How thinking that is on unasked is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Off {
    /// `disabled`. Newer ones refuse it together with an effort above `high`; none is sent with it.
    Disabled,
    /// `between_tools`: notes between calls still come as thoughts, and go back.
    BetweenTools,
    /// Not at all.
    Never,
}

/// What one model takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    /// The id behind `claude-`, up to a date or a version of the host. Empty in the two rows for what has none.
    id: &'static str,
    /// Most tokens one answer may have; also what is asked for when nobody says.
    pub max_output_tokens: u64,
    pub thinking: Thinking,
    /// Values of `output_config.effort`, weakest first; empty: never sent.
    pub efforts: &'static [&'static str],
    /// Whether it can be made to call a tool. Where it can, it must not think meanwhile.
    pub forced_tools: bool,
    /// Whether `temperature` and `top_p` may be sent.
    pub sampling: bool,
    /// Whether answers and arguments can be held to a schema.
    pub schemas: bool,
    /// Whether thoughts are refused when what stood before them has changed since, tools and system included.
    pub bound_thoughts: bool,
    /// Whether thoughts without a signature are taken back.
    pub unsigned_thoughts: bool,
    /// Where the row's facts come from, `…` for platform.claude.com/docs/en. All were read 2026-11-21.
    #[cfg_attr(not(test), expect(dead_code, reason = "for whoever changes the table; a test wants it"))]
    source: &'static str,
}

const THREE: &[&str] = &["low", "medium", "high"];
const FOUR: &[&str] = &["low", "medium", "high", "max"];
const FIVE: &[&str] = &["low", "medium", "high", "xhigh", "max"];

/// The newest generation, and what is newer than this table.
const NEWEST: Model = Model {
    id: "",
    max_output_tokens: 64_000,
    thinking: Thinking::Unasked(Off::Never),
    efforts: FIVE,
    forced_tools: false,
    sampling: false,
    schemas: true,
    bound_thoughts: true,
    unsigned_thoughts: false,
    source: "what the rows of the 5.5 generation have in common",
};

/// A host that borrows the protocol for models of its own.
const BORROWER: Model = Model {
    id: "",
    max_output_tokens: 32_000,
    thinking: Thinking::Budget,
    efforts: &[],
    forced_tools: true,
    sampling: true,
    schemas: false,
    bound_thoughts: false,
    unsigned_thoughts: true,
    source: "what the protocol had in its first version with thinking",
};

/// Claude 4 and before, from 3.7 on with thinking: a budget, older checks.
const BUDGET: Model = Model {
    max_output_tokens: 64_000,
    thinking: Thinking::Budget,
    efforts: &[],
    forced_tools: true,
    sampling: true,
    schemas: false,
    bound_thoughts: false,
    source: "platform.claude.com/docs/en/build-with-claude/extended-thinking, …/about-claude/models/overview",
    ..NEWEST
};

/// Claude 4.6 to 5.
const FIFTH: Model = Model {
    max_output_tokens: 128_000,
    forced_tools: true,
    bound_thoughts: false,
    source: "platform.claude.com/docs/en/build-with-claude/{thinking-troubleshooting,effort}, …/models/…/overview",
    ..NEWEST
};

/// By id; an id that begins with another stands before it.
const MODELS: &[Model] = &[
    Model { id: "fable-5-2", max_output_tokens: 128_000, source: "…/models/fable-5-2/whats-new-fable-5-2", ..NEWEST },
    Model {
        id: "mythos-5-2", max_output_tokens: 128_000, source: "…/models/fable-5-2/whats-new-fable-5-2", ..NEWEST
    },
    Model { id: "fable-5-1", max_output_tokens: 128_000, source: "…/models/fable-5-1/migration-guide", ..NEWEST },
    Model { id: "mythos-5-1", max_output_tokens: 128_000, source: "…/models/fable-5-1/migration-guide", ..NEWEST },
    Model {
        id: "fable-5",
        thinking: Thinking::Unasked(Off::Never),
        source: "…/models/fable-5/migration-guide",
        ..FIFTH
    },
    Model {
        id: "mythos-5",
        thinking: Thinking::Unasked(Off::Never),
        source: "…/models/fable-5/migration-guide",
        ..FIFTH
    },
    Model { id: "mythos-preview", efforts: FOUR, ..FIFTH },
    Model { id: "opus-5-5", max_output_tokens: 128_000, source: "…/models/opus-5-5/whats-new-opus-5-5", ..NEWEST },
    Model {
        id: "opus-5",
        thinking: Thinking::Unasked(Off::Disabled),
        source: "…/about-claude/models/whats-new-opus-5",
        ..FIFTH
    },
    Model {
        id: "sonnet-5-5",
        max_output_tokens: 128_000,
        thinking: Thinking::Unasked(Off::BetweenTools),
        source: "…/models/sonnet-5-5/{whats-new-sonnet-5-5,migration-guide}",
        ..NEWEST
    },
    Model {
        id: "sonnet-5",
        thinking: Thinking::Unasked(Off::Disabled),
        source: "…/models/sonnet-5/overview; promptfoo/promptfoo#10631",
        ..FIFTH
    },
    Model {
        id: "haiku-5-5",
        max_output_tokens: 128_000,
        thinking: Thinking::Unasked(Off::Disabled),
        // Its page has no word against forced tools.
        forced_tools: true,
        source: "…/models/haiku-5-5/whats-new-haiku-5-5; docs.apiyi.com/en/live/2026-11/claude-thinking-guide-refresh",
        ..NEWEST
    },
    Model { id: "opus-4-8", thinking: Thinking::Asked, ..FIFTH },
    Model { id: "opus-4-7", thinking: Thinking::Asked, ..FIFTH },
    Model { id: "opus-4-6", thinking: Thinking::Asked, efforts: FOUR, sampling: true, ..FIFTH },
    Model {
        id: "sonnet-4-6",
        max_output_tokens: 64_000,
        thinking: Thinking::Asked,
        efforts: FOUR,
        sampling: true,
        ..FIFTH
    },
    Model { id: "opus-4-5", efforts: THREE, schemas: true, ..BUDGET },
    Model { id: "sonnet-4-5", schemas: true, ..BUDGET },
    Model { id: "haiku-4-5", schemas: true, ..BUDGET },
    Model { id: "opus-4", max_output_tokens: 32_000, ..BUDGET },
    Model { id: "sonnet-4", ..BUDGET },
    Model { id: "3-7", ..BUDGET },
    Model { id: "3-5", max_output_tokens: 8192, thinking: Thinking::Never, ..BUDGET },
    Model { id: "3", max_output_tokens: 4096, thinking: Thinking::Never, ..BUDGET },
];

impl Model {
    /// The row for a model's id as hosts write it: `claude-opus-4-6`, `anthropic/claude-opus-4.6`,
    /// `us.anthropic.claude-opus-4-6-v1:0`, `claude-sonnet-4-5@20250929`.
    pub fn of(id: &str) -> &'static Self {
        let id = id.to_ascii_lowercase().replace('.', "-");
        let Some((_, rest)) = id.rsplit_once("claude-") else { return &BORROWER };
        let is = |row: &&Self| {
            rest.strip_prefix(row.id).is_some_and(|tail| tail.chars().next().is_none_or(|c| !c.is_ascii_alphanumeric()))
        };
        MODELS.iter().find(is).unwrap_or(&NEWEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_known_however_they_are_written() {
        for (id, row) in [
            ("claude-opus-5-5", "opus-5-5"),
            ("claude-opus-5", "opus-5"),
            ("anthropic/claude-opus-4.6", "opus-4-6"),
            ("us.anthropic.claude-opus-4-6-v1:0", "opus-4-6"),
            ("claude-sonnet-4-5@20250929", "sonnet-4-5"),
            ("claude-opus-4-1-20250805", "opus-4"),
            ("claude-opus-4-20250514", "opus-4"),
            ("claude-3-5-sonnet-latest", "3-5"),
            ("Claude-Haiku-4-5-20251001", "haiku-4-5"),
        ] {
            assert_eq!(Model::of(id).id, row, "{id}");
        }
        assert_eq!(Model::of("claude-opus-50").source, NEWEST.source);
        assert_eq!(Model::of("claude-opus-6").source, NEWEST.source);
        assert_eq!(Model::of("kimi-k3").source, BORROWER.source);
    }

    #[test]
    fn no_row_hides_another_and_each_names_its_source() {
        for (i, row) in MODELS.iter().enumerate() {
            let first = Model::of(&format!("claude-{}", row.id));
            assert_eq!(first.id, row.id, "row {i}");
            assert!(!row.source.is_empty() && !row.id.is_empty(), "row {i}");
            assert!(row.efforts.iter().all(|step| crate::codec::effort::rank(step).is_some()), "row {i}");
        }
    }
}
