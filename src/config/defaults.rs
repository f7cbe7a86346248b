//! What holds when nobody says anything, how far it may be moved, and why. PURE.
//!
//! `config.toml` beside this file tells users the same; a test keeps the two equal.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::codec::gemini;

/// A whole number that can be configured.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// What holds by default; without meaning where absence has a meaning of its own.
    pub default: u64,
    /// Least value.
    pub min: u64,
    /// Greatest value.
    pub max: u64,
    /// Why these bounds, for the error message; may be empty.
    pub why: &'static str,
}

impl Range {
    /// `1 to 299 (why)`.
    pub fn words(&self) -> String {
        let Self { min, max, why, .. } = self;
        if why.is_empty() { format!("{min} to {max}") } else { format!("{min} to {max} ({why})") }
    }
}

/// `proxy.body_bytes_max`: one request body after decompression. A conversation with pictures reaches tens of
/// megabytes; 64 MiB is beyond what any model's context can hold.
pub const BODY_BYTES_MAX: Range =
    Range { default: 64 << 20, min: 64 << 10, max: 1 << 30, why: "bytes; a first request alone needs some 30 KB" };

/// `proxy.bodies_in_flight_bytes_max`: all request bodies held at once. Two of the largest; with the service's
/// `MemoryHigh=` of 768 MiB it leaves room for decoding and encoding them.
pub const BODIES_IN_FLIGHT_BYTES_MAX: Range = Range { default: 128 << 20, min: 64 << 10, max: 16 << 30, why: "bytes" };

/// `proxy.retry_deadline_s`: how long a request may be retried and failed over before its first event. A minute rides
/// out a provider's restart; beyond that an honest error serves the user better.
pub const RETRY_DEADLINE_S: Range = Range { default: 60, min: 0, max: 600, why: "seconds; 0 tries once" };

/// `proxy.head_hold_s`: how long the answer's head is held back so that the true status can still be given.
pub const HEAD_HOLD_S: Range = Range { default: 20, min: 0, max: 280, why: "seconds; 0 sends the head at once" };

/// `proxy.keepalive_s`: between two keep-alive events. Middleboxes and other clients drop silent streams from some
/// 30 s on.
pub const KEEPALIVE_S: Range =
    Range { default: 15, min: 1, max: 299, why: "seconds; the client gives up after 300 without an event" };

/// `continue_max`: how often an answer of Gemini's that met a limit of tokens is gone on with. Five requests more give
/// some 300000 tokens, beyond which it is a runaway; each is paid for.
pub const CONTINUE_MAX: Range = Range {
    default: gemini::continuation::CONTINUATIONS_MAX as u64,
    min: 0,
    max: gemini::continuation::CONTINUATIONS_MAX as u64,
    why: "0 switches it off",
};

/// `upstream_idle_s`: silence of a provider after which its stream counts as dead. As long as possible, since large
/// models think for minutes, but with time left to report it before the client gives up.
pub const UPSTREAM_IDLE_S: Range =
    Range { default: 240, min: 1, max: 299, why: "seconds; the client gives up after 300" };

/// `proxy.upstream_head_s`: how long a provider may take to begin its answer. 0: 60 s, and more for long conversations
/// and for tools, at most 300 s, since reading a prompt takes time before the first byte.
pub const UPSTREAM_HEAD_S: Range =
    Range { default: 0, min: 0, max: 300, why: "seconds; 0 lets it grow with the conversation" };

/// `proxy.connect_timeout_s`: name resolution, TCP and TLS together. Three lost SYNs take 7 s.
pub const CONNECT_TIMEOUT_S: Range = Range { default: 10, min: 1, max: 120, why: "seconds" };

/// `proxy.body_stall_s`: a request body that brings no byte for so long is answered 408, since it holds memory.
pub const BODY_STALL_S: Range = Range { default: 30, min: 1, max: 300, why: "seconds" };

/// `proxy.drain_s`: how long running answers may go on when the service stops. Short: the client resumes by itself,
/// and the socket holds new connections meanwhile.
pub const DRAIN_S: Range = Range { default: 5, min: 0, max: 60, why: "seconds" };

/// `models.NAME.context_window`. Below the minimum the client's own instructions do not fit.
pub const CONTEXT_WINDOW: Range = Range {
    default: 0,
    min: 4096,
    max: 100_000_000,
    why: "tokens; the client's instructions alone need some thousands",
};

/// `models.NAME.compact_limit`.
pub const COMPACT_LIMIT: Range = Range { default: 0, min: 2048, max: 100_000_000, why: "tokens" };

/// `models.NAME.max_output_tokens`.
pub const MAX_OUTPUT_TOKENS: Range = Range { default: 0, min: 1, max: 100_000_000, why: "tokens" };

/// `weight` of a route: its share beside the other routes of the model.
pub const WEIGHT: Range = Range { default: 1, min: 1, max: 1000, why: "to switch a route off, remove it" };

/// `usage.keep_days`: a year can be compared with the one before, month by month.
pub const KEEP_DAYS: Range = Range { default: 400, min: 1, max: 3650, why: "days" };

/// `usage.rows_max`: some 170 bytes each. A busy year; 85 MB at most.
pub const ROWS_MAX: Range = Range { default: 500_000, min: 1000, max: 10_000_000, why: "rows of some 170 bytes" };

/// `prices."NAME".*`: of a million tokens, in the currency. Leaves room for currencies of small units, and keeps whole
/// millionths exact in a floating-point number.
pub const PRICE_MAX: f64 = 100_000_000.0;

/// `watchdog.max_memory_mb`: 0 means 80 % of the unit's `MemoryHigh=`.
pub const MAX_MEMORY_MB: Range = Range { default: 0, min: 0, max: 1 << 20, why: "MiB; 0: 80 % of MemoryHigh" };

/// `watchdog.ai.budget_usd_month`: far above what a handful of short reports a day costs with a cheap model.
pub const BUDGET_USD_MONTH: f64 = 2.0;

/// `watchdog.faults.ID.threshold`.
pub const FAULT_THRESHOLD: Range = Range { default: 0, min: 1, max: 1000, why: "occurrences" };

/// `watchdog.faults.ID.window_s`.
pub const FAULT_WINDOW_S: Range = Range { default: 0, min: 1, max: 86_400, why: "seconds" };

/// `watchdog.faults.ID.cooldown_s`.
pub const FAULT_COOLDOWN_S: Range = Range { default: 0, min: 0, max: 86_400, why: "seconds" };
