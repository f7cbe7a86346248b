//! Token counts of one answer, in one meaning for all providers.

/// Tokens an answer cost.
///
/// `input` includes what was read from or written to a cache; `output` includes reasoning. (Some providers count
/// otherwise: their codecs convert.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// All input tokens.
    pub input: u64,
    /// Of those, read from a cache.
    pub cached: u64,
    /// Of those, written to a cache.
    pub cache_write: u64,
    /// All generated tokens.
    pub output: u64,
    /// Of those, thoughts.
    pub reasoning: u64,
    /// True if no provider counted: see [`Usage::estimate`].
    pub estimated: bool,
}

impl Usage {
    /// Input plus output.
    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            cached: self.cached.saturating_add(other.cached),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            output: self.output.saturating_add(other.output),
            reasoning: self.reasoning.saturating_add(other.reasoning),
            estimated: self.estimated || other.estimated,
        }
    }

    /// A guess from text sizes, for providers that report nothing: four bytes of UTF-8 to a token, rounded up.
    ///
    /// The client decides from `total_tokens` when to compact, so a guess serves it better than zeros; it is
    /// marked wherever the API has room for a mark.
    pub fn estimate(input_bytes: u64, output_bytes: u64, reasoning_bytes: u64) -> Self {
        let tokens = |bytes: u64| bytes.div_ceil(4);
        Self {
            input: tokens(input_bytes),
            output: tokens(output_bytes.saturating_add(reasoning_bytes)),
            reasoning: tokens(reasoning_bytes),
            estimated: true,
            ..Self::default()
        }
    }
}
