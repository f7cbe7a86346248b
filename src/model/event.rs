//! Facts of an answer, in the order they became known.
//!
//! Decoders report these small facts; the Responses encoder alone adds ids, indexes, sequence numbers and repeated
//! text. Which orders are lawful is said, and checked, in [`super::grammar`].

use super::{
    failure::Failure,
    request::{Opaque, ToolRef},
    usage::Usage,
};

/// Names an item within one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ItemKey(pub u32);

/// One fact.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The upstream began to answer.
    Start {
        /// The model that answers, as the upstream names it; may be empty.
        model: String,
    },
    /// An item begins. Items may interleave.
    ItemOpen {
        /// Fresh within the answer.
        item: ItemKey,
        /// What it is.
        kind: ItemKind,
    },
    /// Text of a message, or of a compaction.
    Text {
        /// An open message or compaction.
        item: ItemKey,
        /// Not empty.
        delta: String,
    },
    /// The model declines, in a message.
    Refusal {
        /// An open message.
        item: ItemKey,
        /// Not empty.
        delta: String,
    },
    /// Thoughts, to be shown as a reasoning summary.
    Reasoning {
        /// An open reasoning item.
        item: ItemKey,
        /// Not empty.
        delta: String,
    },
    /// Input of a call: JSON text for functions, free text for custom tools. It comes in pieces and may be invalid.
    CallArguments {
        /// An open call.
        item: ItemKey,
        /// Not empty.
        delta: String,
    },
    /// What the origin wants back in later requests. At most one per reasoning item; sealed by the encoder.
    Opaque {
        /// An open reasoning item.
        item: ItemKey,
        /// Read only by the codec it came from.
        value: Opaque,
    },
    /// An item ends.
    ItemClose {
        /// An open item.
        item: ItemKey,
        /// False if the answer was cut inside it. A call that is not whole is never given to the client as done.
        whole: bool,
    },
    /// Token counts; the last one stands.
    Usage(Usage),
    /// The end, last and once.
    End(End),
}

/// What an item is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemKind {
    /// Something said to the user.
    Message {
        /// `commentary` or `final_answer`, if the upstream marks it.
        phase: Option<&'static str>,
    },
    /// Thoughts.
    Reasoning,
    /// A tool call.
    Call {
        /// Never empty; unique within the answer.
        call_id: String,
        /// As the client declared it.
        tool: ToolRef<'static>,
    },
    /// A summary that stands for the conversation so far. Its text is sealed by the encoder and shown to nobody.
    Compaction,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// The model said all it wanted to say.
    Complete,
    /// The model made a pause: asked again, it goes on from what it said.
    Paused,
    /// The model was stopped.
    Incomplete(IncompleteReason),
    /// Something broke.
    Failed(Failure),
}

/// What stopped the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncompleteReason {
    /// The limit of generated tokens.
    MaxOutputTokens,
    /// The provider's filter.
    ContentFilter,
}

impl IncompleteReason {
    /// As the Responses API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxOutputTokens => "max_output_tokens",
            Self::ContentFilter => "content_filter",
        }
    }
}
