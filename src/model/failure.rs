//! The failure table: from what went wrong to everything that is seen outside.
//!
//! The two columns of codes differ because the client treats an HTTP status before the stream and a code inside it
//! differently: before the head, 400 is the one status it never retries; inside the stream, `invalid_prompt` is the one
//! code that shows our own words and ends the turn. Observed with Codex CLI 0.169.0.

use std::time::Duration;

/// Who must act for the request to succeed, and what broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// The request is wrong as it stands.
    Caller,
    /// This program's configuration is wrong or lacks something.
    Operator,
    /// The provider refuses the key.
    Credentials,
    /// The provider wants money first.
    Budget,
    /// The provider demands another version or kind of client.
    Upgrade,
    /// A defect of this program.
    Bug,
    /// No such model, here or at the provider.
    UnknownModel,
    /// The conversation does not fit the model's window.
    ContextLength,
    /// Too many requests or tokens per time.
    RateLimit,
    /// The provider has no capacity now.
    Overload,
    /// The provider answers, but with an error of its own or with something that is no answer.
    Upstream,
    /// No connection, or it broke.
    Connection,
    /// The provider's name does not resolve.
    NameResolution,
    /// No trusted TLS session, for a reason that may pass.
    Tls,
    /// The host shows a certificate that is not trusted, or none, since it speaks no TLS.
    Certificate,
    /// Nothing came for too long.
    Timeout,
    /// One of this program's own limits.
    OwnLimit,
    /// This program is stopping.
    Shutdown,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// HTTP status while the head is still ours to choose.
    pub status: u16,
    /// `error.type` of the body.
    pub error_type: &'static str,
    /// `error.code` of the body.
    pub code: &'static str,
    /// `response.error.code` once the head is out.
    pub code_in_stream: &'static str,
    /// How often one request may be sent in all, before its first forwarded event, if this keeps happening.
    /// 1: never again. Bounded by `retry_deadline_s` besides.
    pub attempts_max: u32,
    /// Whether it says something about the provider's health.
    pub counts_against_upstream: bool,
    /// How loud it is in the log.
    pub level: Level,
}

/// How loud a failure is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Somebody must come.
    Error,
    /// Unusual, still working.
    Warn,
    /// Part of the story.
    Info,
}

impl FailureKind {
    /// Every kind, in the table's order.
    pub const ALL: [Self; 18] = [
        Self::Caller,
        Self::Operator,
        Self::Credentials,
        Self::Budget,
        Self::Upgrade,
        Self::Bug,
        Self::UnknownModel,
        Self::ContextLength,
        Self::RateLimit,
        Self::Overload,
        Self::Upstream,
        Self::Connection,
        Self::NameResolution,
        Self::Tls,
        Self::Certificate,
        Self::Timeout,
        Self::OwnLimit,
        Self::Shutdown,
    ];

    /// The kind's row.
    pub const fn row(self) -> Row {
        /// Enough to outlast a provider's restart with doubling pauses, few enough to be told within seconds.
        const FEW: u32 = 4;
        /// Until the deadline: waiting is the right thing.
        const MANY: u32 = u32::MAX;
        const fn final_answer(code: &'static str, level: Level) -> Row {
            Row {
                status: 400,
                error_type: "invalid_request_error",
                code,
                code_in_stream: "invalid_prompt",
                attempts_max: 1,
                counts_against_upstream: false,
                level,
            }
        }
        const fn broken(status: u16, code: &'static str, attempts_max: u32) -> Row {
            Row {
                status,
                error_type: "server_error",
                code,
                code_in_stream: "server_error",
                attempts_max,
                counts_against_upstream: true,
                level: Level::Warn,
            }
        }
        match self {
            Self::Caller => final_answer("invalid_request", Level::Info),
            Self::Operator => final_answer("configuration_error", Level::Error),
            Self::Credentials => final_answer("upstream_credentials", Level::Error),
            Self::Budget => final_answer("upstream_budget", Level::Error),
            Self::Upgrade => final_answer("upstream_upgrade_required", Level::Error),
            Self::Bug => final_answer("internal_error", Level::Error),
            Self::UnknownModel => Row { status: 404, ..final_answer("model_not_found", Level::Warn) },
            Self::ContextLength => Row {
                code_in_stream: "context_length_exceeded",
                ..final_answer("context_length_exceeded", Level::Info)
            },
            Self::RateLimit => Row {
                error_type: "rate_limit_error",
                code_in_stream: "rate_limit_exceeded",
                counts_against_upstream: false,
                ..broken(429, "rate_limit_exceeded", MANY)
            },
            Self::Overload => broken(503, "upstream_overloaded", MANY),
            Self::Upstream => broken(502, "upstream_error", FEW),
            Self::Connection => broken(502, "upstream_unreachable", FEW),
            Self::NameResolution => broken(502, "upstream_name_resolution", FEW),
            Self::Tls => broken(502, "upstream_tls", 2),
            // It does not mend itself; somebody has to.
            Self::Certificate => {
                Row { counts_against_upstream: true, ..final_answer("upstream_certificate", Level::Error) }
            }
            Self::Timeout => broken(504, "upstream_timeout", 2),
            Self::OwnLimit => Row { counts_against_upstream: false, ..broken(503, "proxy_busy", 1) },
            Self::Shutdown => {
                Row { counts_against_upstream: false, level: Level::Info, ..broken(503, "proxy_shutting_down", 1) }
            }
        }
    }
}

/// Something that went wrong with one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// Which row of the table.
    pub kind: FailureKind,
    /// For the person at the client: what happened and what to do. Holds no credentials and no prompt text of ours.
    pub message: String,
    /// How long the provider asks to wait.
    pub retry_after: Option<Duration>,
    /// The provider's HTTP status, if it gave one.
    pub upstream_status: Option<u16>,
}

impl Failure {
    /// A failure without a wait or an upstream status.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, upstream_status: None }
    }

    /// The same, with the provider's status.
    pub fn with_status(self, status: u16) -> Self {
        Self { upstream_status: Some(status), ..self }
    }

    /// The same, with the wait the provider asked for.
    pub fn with_retry_after(self, wait: Option<Duration>) -> Self {
        Self { retry_after: wait, ..self }
    }

    /// The table's row.
    pub fn row(&self) -> Row {
        self.kind.row()
    }

    /// `Retry-After` in whole seconds, rounded up, at least 1; present for every kind that waiting can mend and whose
    /// wait is known, and always for a rate limit: without the header the client gives a 429 up at once.
    pub fn retry_after_s(&self) -> Option<u64> {
        let known = self.retry_after.map(whole_seconds);
        match self.kind {
            FailureKind::RateLimit => Some(known.unwrap_or(5)),
            FailureKind::OwnLimit | FailureKind::Shutdown => Some(known.unwrap_or(1)),
            FailureKind::Overload
            | FailureKind::Upstream
            | FailureKind::Connection
            | FailureKind::NameResolution
            | FailureKind::Tls
            | FailureKind::Timeout => known,
            FailureKind::Caller
            | FailureKind::Operator
            | FailureKind::Credentials
            | FailureKind::Budget
            | FailureKind::Upgrade
            | FailureKind::Bug
            | FailureKind::UnknownModel
            | FailureKind::Certificate
            | FailureKind::ContextLength => None,
        }
    }

    /// The text for `response.failed`. The client reads a rate limit's wait out of it ("try again in 6s").
    pub fn message_in_stream(&self) -> String {
        match (self.kind, self.retry_after_s()) {
            (FailureKind::RateLimit, Some(seconds)) => {
                format!("{} Please try again in {seconds}s.", self.message)
            }
            (_, _) => self.message.clone(),
        }
    }
}

/// Rounds up to whole seconds, at least 1.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_the_client_retries_never_stands_for_what_retrying_cannot_mend() {
        for kind in FailureKind::ALL {
            let row = kind.row();
            let client_retries = !matches!(row.status, 400) && row.code != "model_not_found";
            assert_eq!(client_retries, row.code_in_stream == "server_error" || row.status == 429, "{kind:?}");
        }
    }

    #[test]
    fn texts_that_the_client_replaces_are_not_used() {
        for kind in FailureKind::ALL {
            for code in [kind.row().code, kind.row().code_in_stream] {
                assert!(!matches!(code, "insufficient_quota" | "server_is_overloaded" | "slow_down"), "{kind:?}");
            }
        }
    }

    #[test]
    fn waits_are_whole_seconds_rounded_up() {
        let at = |ms| {
            let wait = Some(Duration::from_millis(ms));
            Failure::new(FailureKind::RateLimit, "x").with_retry_after(wait).retry_after_s()
        };
        assert_eq!([at(0), at(1), at(1000), at(1001)], [Some(1), Some(1), Some(1), Some(2)]);
        assert_eq!(Failure::new(FailureKind::Caller, "x").retry_after_s(), None);
    }

    #[test]
    fn a_rate_limit_in_the_stream_names_its_wait_the_way_the_client_reads_it() {
        let failure =
            Failure::new(FailureKind::RateLimit, "Slow down.").with_retry_after(Some(Duration::from_millis(5500)));
        assert_eq!(failure.message_in_stream(), "Slow down. Please try again in 6s.");
    }
}
