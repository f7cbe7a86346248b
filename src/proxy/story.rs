//! What is said about a request in counters and log, whichever way it ends.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::{health::Outcome, route::Hop, service::Service};
use crate::model::{
    failure::{Failure, FailureKind, Level},
    request::{Loss, Request as ModelRequest},
    usage::Usage,
};

/// What will be said about this request in counters and log, whichever way it ends: dropped with the exchange when the
/// client goes away.
pub(super) struct Story {
    service: Arc<Service>,
    request_id: String,
    pub(super) began: Instant,
    first_event_after: Option<Duration>,
    model: String,
    route: String,
    attempts: u32,
    told: bool,
}

impl Story {
    pub(super) fn new(service: Arc<Service>, request_id: &str) -> Self {
        service.counters().began();
        Self {
            service,
            request_id: request_id.to_owned(),
            began: Instant::now(),
            first_event_after: None,
            model: String::new(),
            route: String::new(),
            attempts: 0,
            told: false,
        }
    }

    pub(super) fn asked(&mut self, request: &ModelRequest<'_>, losses: &[Loss]) {
        self.model = request.model.clone().into_owned();
        self.lost(losses);
    }

    pub(super) fn tries(&mut self, hop: &Hop) {
        self.attempts += 1;
        self.route = hop.label().to_owned();
    }

    pub(super) fn lost(&self, losses: &[Loss]) {
        self.service.counters().lost(losses.len());
        for loss in losses {
            debug!(
                codex_request_id = self.request_id,
                codex_path = loss.path,
                codex_action = ?loss.action,
                codex_why = loss.why,
                "part of the request could not pass"
            );
        }
    }

    pub(super) fn attempt_failed(&self, hop: &Hop, failure: &Failure) {
        self.service.counters().attempt_failed(failure.kind);
        debug!(
            codex_request_id = self.request_id,
            codex_route = hop.label(),
            codex_kind = failure.row().code,
            codex_status = failure.upstream_status,
            codex_elapsed_ms = ms(self.began.elapsed()),
            "an attempt failed"
        );
    }

    pub(super) fn first_event(&mut self) {
        if self.first_event_after.is_none() {
            let after = self.began.elapsed();
            self.first_event_after = Some(after);
            self.service.counters().first_event(after);
        }
    }

    pub(super) fn refused(&mut self, kind: FailureKind, param: Option<&str>) {
        self.told = true;
        self.service.counters().ended(Outcome::Failed(kind));
        info!(codex_request_id = self.request_id, codex_param = param, "request refused");
    }

    pub(super) fn failed(&mut self, failure: &Failure) {
        if self.told {
            return;
        }
        self.told = true;
        self.service.counters().ended(Outcome::Failed(failure.kind));
        // The level of an entry is part of its call site, so there is one for each.
        macro_rules! tell {
            ($level:ident) => {
                $level!(
                    codex_request_id = self.request_id,
                    codex_model = self.model,
                    codex_route = self.route,
                    codex_kind = failure.row().code,
                    codex_status = failure.upstream_status,
                    codex_attempts = self.attempts,
                    codex_elapsed_ms = ms(self.began.elapsed()),
                    "request failed"
                )
            };
        }
        match failure.row().level {
            Level::Error => tell!(error),
            Level::Warn => tell!(warn),
            Level::Info => tell!(info),
        }
    }

    pub(super) fn finished(&mut self, outcome: Outcome, usage: Option<&Usage>) {
        self.told = true;
        self.service.counters().ended(outcome);
        if let Some(usage) = usage {
            self.service.counters().used(usage);
        }
        info!(
            codex_request_id = self.request_id,
            codex_model = self.model,
            codex_route = self.route,
            codex_attempts = self.attempts,
            codex_complete = outcome == Outcome::Completed,
            codex_first_ms = self.first_event_after.map(ms),
            codex_elapsed_ms = ms(self.began.elapsed()),
            codex_input_tokens = usage.map(|u| u.input),
            codex_output_tokens = usage.map(|u| u.output),
            "request answered"
        );
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if !self.told {
            // A panic in the exchange is told by the panic hook; here it would look like a client that left.
            let outcome =
                if std::thread::panicking() { Outcome::Failed(FailureKind::Bug) } else { Outcome::ClientGone };
            self.service.counters().ended(outcome);
            info!(
                codex_request_id = self.request_id,
                codex_model = self.model,
                codex_elapsed_ms = ms(self.began.elapsed()),
                codex_panic = std::thread::panicking(),
                "the client went away"
            );
        }
    }
}

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
