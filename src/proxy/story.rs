//! What is said about a request in counters, log, failure signals and the record of usage, whichever way it ends.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, header};
use tokio::{sync::watch, time::Instant};
use tracing::{debug, error, info, warn};

use super::{
    health::Outcome,
    ledger::store::{End, Place, Row},
    registry::Ticket,
    reports::{Phase, Report},
    route::Hop,
    service::{Live, Service},
};
use crate::{
    codec::stored::Host,
    model::{
        demo,
        failure::{Failure, FailureKind, Level},
        request::{Loss, Request as ModelRequest},
        signal::Signal,
        usage::Usage,
    },
};

/// Logs an event under its `MESSAGE_ID` and reports it under the same id. The level of an entry is part of its call site,
/// hence a macro.
macro_rules! tell {
    ($level:ident, $story:expr, $signal:expr, $failure:expr, $message:literal) => {{
        let signal: Signal = $signal;
        let failure: Option<&Failure> = $failure;
        let status = failure.and_then(|failure| failure.upstream_status);
        let event_id = $story.report(signal, status);
        $level!(
            MESSAGE_ID = signal.row().message_id,
            codex_event_id = event_id,
            codex_signal = signal.row().name,
            codex_request_id = $story.request_id,
            codex_thread_id = known(&$story.thread),
            codex_model = known(&$story.model),
            codex_route = known(&$story.route),
            codex_provider = known(&$story.provider),
            codex_account = known(&$story.account),
            codex_status = status,
            codex_kind = failure.map(|failure| failure.row().code),
            codex_phase = $story.phase.word(),
            codex_attempts = $story.attempts,
            codex_elapsed_ms = ms($story.began.elapsed()),
            $message
        )
    }};
}

/// What will be said about this request in counters and log, whichever way it ends: dropped with the exchange when the
/// client goes away.
pub(super) struct Story {
    service: Arc<Service>,
    request_id: String,
    came: SystemTime,
    pub(super) began: Instant,
    first_event_after: Option<Duration>,
    thread: String,
    model: String,
    provider: String,
    account: String,
    route: String,
    place: Option<Place>,
    /// What the provider says it cost, as far as it has said so.
    usage: Option<Usage>,
    /// What answers cost that were not passed on, and where.
    wasted: Vec<(Option<Place>, Usage)>,
    attempts: u32,
    phase: Phase,
    /// The provider answered with a web page.
    page: bool,
    ticket: Ticket,
    told: bool,
}

/// Clients name threads by UUIDs; more is not kept.
const THREAD_CHARS_MAX: usize = 64;

impl Story {
    pub(super) fn new(service: Arc<Service>, request_id: &str, headers: &HeaderMap) -> Self {
        service.counters().began();
        let named = ["thread-id", "session-id"].into_iter().find_map(|name| headers.get(name)?.to_str().ok());
        let thread: String = named.unwrap_or_default().chars().take(THREAD_CHARS_MAX).collect();
        let came = SystemTime::now();
        let ticket = service.registry().enter(request_id, &thread, came);
        Self {
            service,
            request_id: request_id.to_owned(),
            came,
            began: Instant::now(),
            first_event_after: None,
            thread,
            model: String::new(),
            provider: String::new(),
            account: String::new(),
            route: String::new(),
            place: None,
            usage: None,
            wasted: Vec::new(),
            attempts: 0,
            phase: Phase::Request,
            page: false,
            ticket,
            told: false,
        }
    }

    pub(super) fn asked(&mut self, request: &ModelRequest<'_>, losses: &[Loss]) {
        self.model = request.model.clone().into_owned();
        self.ticket.note(|facts| facts.model.clone_from(&self.model));
        self.lost(losses);
    }

    pub(super) fn tries(&mut self, hop: &Hop) {
        self.attempts += 1;
        self.route = hop.label().to_owned();
        self.provider.clone_from(&hop.provider);
        self.account = hop.account_name.clone().unwrap_or_default();
        let live = self.service.live();
        let protocol = live.settings.providers.get(&hop.provider).map_or("", |provider| provider.protocol.name());
        self.place = Some(Place { provider: hop.provider.clone(), model: hop.target.model.clone(), protocol });
        self.phase = Phase::Request;
        self.page = false;
        self.ticket.note(|facts| {
            facts.attempts = self.attempts;
            facts.route.clone_from(&self.route);
        });
    }

    /// Who was asked last.
    pub(super) fn host(&self) -> Host {
        Host { provider: self.provider.clone(), account: known(&self.account).map(str::to_owned) }
    }

    /// The built-in model answers.
    pub(super) fn demo(&mut self) {
        let name = || demo::MODEL.to_owned();
        self.place = Some(Place { provider: name(), model: name(), protocol: demo::MODEL });
    }

    /// The provider has said what the answer costs.
    pub(super) fn costs(&mut self, usage: &Usage) {
        self.usage = Some(*usage);
    }

    /// An answer is not passed on, and something else will be tried; it cost this all the same.
    pub(super) fn wasted(&mut self, usage: Option<Usage>) {
        if let Some(usage) = usage {
            self.service.counters().used(&usage);
            self.wasted.push((self.place.clone(), usage));
        }
    }

    /// The request goes to the provider.
    pub(super) fn sent(&mut self) {
        self.phase = Phase::Waiting;
    }

    /// The provider began to answer.
    pub(super) fn answered(&mut self, headers: &HeaderMap) {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        self.page = kind.trim_start().to_ascii_lowercase().starts_with("text/html");
    }

    /// What the provider answers is passed on.
    pub(super) fn answers(&mut self) {
        self.phase = Phase::Streaming;
    }

    /// Becomes true when somebody wants this request to end.
    pub(super) fn cancelled(&self) -> watch::Receiver<bool> {
        self.ticket.cancelled()
    }

    /// The signal for a failure, if a provider was asked and it is not our doing.
    fn signal_of(&self, failure: &Failure) -> Option<Signal> {
        if self.phase == Phase::Request || self.ticket.is_cancelled() {
            return None;
        }
        Signal::of_failure(failure, self.page)
    }

    /// Puts an event on its way to the bus; its id belongs into the log, too.
    fn report(&self, signal: Signal, status: Option<u16>) -> String {
        let id = self.service.new_id("evt_");
        self.service.reports().send(Report {
            id: id.clone(),
            signal,
            request_id: self.request_id.clone(),
            thread_id: self.thread.clone(),
            model: self.model.clone(),
            route: self.route.clone(),
            provider: self.provider.clone(),
            account: self.account.clone(),
            status,
            phase: self.phase,
            elapsed: self.began.elapsed(),
        });
        id
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

    /// The provider refused the form of the request and is asked again in another, as it wants.
    pub(super) fn amends(&self, how: &'static str) {
        debug!(
            codex_request_id = self.request_id,
            codex_route = self.route,
            codex_how = how,
            "the provider refuses part of the request, asking again"
        );
    }

    /// An attempt failed before anything was passed on; others may follow, hence no more than INFO.
    pub(super) fn attempt_failed(&self, failure: &Failure) {
        self.service.counters().attempt_failed(failure.kind);
        let Some(signal) = self.signal_of(failure) else {
            debug!(
                codex_request_id = self.request_id,
                codex_route = self.route,
                codex_kind = failure.row().code,
                codex_status = failure.upstream_status,
                codex_elapsed_ms = ms(self.began.elapsed()),
                "an attempt failed"
            );
            return;
        };
        tell!(info, self, signal, Some(failure), "an attempt failed");
    }

    pub(super) fn first_event(&mut self) {
        if self.first_event_after.is_none() {
            let after = self.began.elapsed();
            self.first_event_after = Some(after);
            self.ticket.note(|facts| facts.streaming = true);
            self.service.counters().first_event(after);
        }
    }

    /// Counts and records the end.
    fn ended(&mut self, outcome: Outcome) {
        self.told = true;
        self.service.counters().ended(outcome);
        if let Some(usage) = &self.usage {
            self.service.counters().used(usage);
        }
        let live = self.service.live();
        if live.settings.usage.enabled {
            self.service.ledger().record(|| self.row(outcome, &live));
        }
    }

    fn row(&self, outcome: Outcome, live: &Live) -> Row {
        let priced = |place: Option<&Place>, usage: &Usage| {
            let place = place?;
            // Nobody is paid for the demo, whatever a price for all names says.
            let price = live.settings.prices.find(&place.provider, &place.model, &self.model);
            let price = price.filter(|_| place.provider != demo::MODEL)?;
            Some(price.cost(usage))
        };
        let answers = || {
            let wasted = self.wasted.iter().map(|(place, usage)| (place.as_ref(), usage));
            wasted.chain(self.usage.iter().map(|usage| (self.place.as_ref(), usage)))
        };
        // Known only if all of it is.
        let cost = answers().map(|(place, usage)| priced(place, usage)).reduce(|a, b| Some(a?.saturating_add(b?)));
        Row {
            at_s: self.came.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            request_id: self.request_id.clone(),
            model: self.model.clone(),
            place: self.place.clone(),
            usage: answers().map(|(_, usage)| *usage).reduce(Usage::plus),
            first_after: self.first_event_after,
            duration: self.began.elapsed(),
            attempts: self.attempts,
            end: match outcome {
                Outcome::Completed => End::Completed,
                Outcome::Incomplete => End::Incomplete,
                Outcome::Failed(FailureKind::Caller) if self.ticket.is_cancelled() => End::Cancelled,
                Outcome::Failed(kind) => End::Failed(kind),
                Outcome::ClientGone => End::ClientGone,
            },
            cost: cost.flatten().map(|micro| (micro, live.settings.prices.currency.clone())),
        }
    }

    pub(super) fn refused(&mut self, kind: FailureKind, param: Option<&str>) {
        self.ended(Outcome::Failed(kind));
        info!(codex_request_id = self.request_id, codex_param = param, "request refused");
    }

    pub(super) fn failed(&mut self, failure: &Failure) {
        if self.told {
            return;
        }
        self.ended(Outcome::Failed(failure.kind));
        let signal = match self.phase {
            Phase::Streaming => self.signal_of(failure),
            // What each place said was told before.
            Phase::Waiting | Phase::Request if self.attempts > 0 && !self.ticket.is_cancelled() => {
                exhausted(failure.kind).then_some(Signal::AllDown)
            }
            Phase::Waiting | Phase::Request => None,
        };
        if let Some(signal) = signal {
            match failure.row().level {
                Level::Error => tell!(error, self, signal, Some(failure), "request failed"),
                Level::Warn => tell!(warn, self, signal, Some(failure), "request failed"),
                Level::Info => tell!(info, self, signal, Some(failure), "request failed"),
            }
            return;
        }
        macro_rules! plain {
            ($level:ident) => {
                $level!(
                    codex_request_id = self.request_id,
                    codex_thread_id = known(&self.thread),
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
            Level::Error => plain!(error),
            Level::Warn => plain!(warn),
            Level::Info => plain!(info),
        }
    }

    pub(super) fn finished(&mut self, outcome: Outcome, usage: Option<&Usage>) {
        self.usage = usage.copied();
        self.ended(outcome);
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
            // A panic unwinds through here; without a look it would pass for a client that left.
            if std::thread::panicking() {
                self.ended(Outcome::Failed(FailureKind::Bug));
                tell!(error, self, Signal::Panic, None, "a defect ended a request");
            } else {
                self.ended(Outcome::ClientGone);
                tell!(info, self, Signal::ClientGone, None, "the client went away");
            }
        }
    }
}

/// Whether a request that ends so has found no place that works: not if its own words are at fault.
fn exhausted(kind: FailureKind) -> bool {
    let row = kind.row();
    row.counts_against_upstream
        || matches!(
            kind,
            FailureKind::Credentials | FailureKind::Budget | FailureKind::Upgrade | FailureKind::RateLimit
        )
}

/// Fields of what is not known are left out.
fn known(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{
        codec::seal::Sealer,
        config::settings::Settings,
        proxy::{ledger, service::Prompt},
    };

    fn service() -> Arc<Service> {
        let prompt = Prompt { base_instructions: String::new(), hidden_models: Vec::new() };
        Arc::new(Service::new(Settings::default(), None, Sealer::new(&[0; 32]), &prompt))
    }

    #[test]
    fn a_defect_and_a_client_that_leaves_are_told_apart() {
        let service = service();
        let mut reports = service.reports().take_receiver().unwrap();
        let told = catch_unwind(AssertUnwindSafe(|| {
            let _story = Story::new(Arc::clone(&service), "req_1", &HeaderMap::new());
            panic!("on purpose");
        }));
        assert!(told.is_err());
        drop(Story::new(Arc::clone(&service), "req_2", &HeaderMap::new()));
        let found = [reports.try_recv().unwrap(), reports.try_recv().unwrap()].map(|r| (r.request_id, r.signal));
        let expected = [("req_1", Signal::Panic), ("req_2", Signal::ClientGone)].map(|(id, s)| (id.to_owned(), s));
        assert_eq!(found, expected);
        assert!(service.registry().list(9).is_empty());
    }

    #[test]
    fn every_end_is_one_row() {
        let service = service();
        let dir = tempfile::tempdir().unwrap();
        let keeping = ledger::keep(Arc::clone(&service), dir.path()).unwrap();
        let story = |id: &str| Story::new(Arc::clone(&service), id, &HeaderMap::new());
        let defect = catch_unwind(AssertUnwindSafe(|| {
            let _story = story("defect");
            panic!("on purpose");
        }));
        assert!(defect.is_err());
        drop(story("left"));
        let mut cancelled = story("cancelled");
        assert!(service.registry().cancel("cancelled"));
        cancelled.failed(&Failure::new(FailureKind::Caller, ""));
        cancelled.failed(&Failure::new(FailureKind::Bug, "told already"));
        drop(cancelled);
        story("refused").refused(FailureKind::Caller, None);
        story("finished").finished(Outcome::Completed, Some(&Usage::default()));
        service.ledger().close();
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(keeping);
        let file = rusqlite::Connection::open(dir.path().join(ledger::FILE)).unwrap();
        let mut select = file.prepare("SELECT request_id || ': ' || outcome FROM requests ORDER BY id").unwrap();
        let rows: Vec<String> = select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let expected =
            ["defect: failed", "left: client_gone", "cancelled: cancelled", "refused: failed", "finished: completed"];
        assert_eq!(rows, expected);
    }

    #[test]
    fn reports_that_nobody_takes_are_dropped_and_counted() {
        let service = service();
        for _ in 0..300 {
            drop(Story::new(Arc::clone(&service), "req_1", &HeaderMap::new()));
        }
        assert_eq!(service.reports().dropped(), 300 - 256);
    }
}
