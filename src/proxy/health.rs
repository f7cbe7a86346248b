//! Counters of what happened, and the two pages that show them: `/health` for probes, `/metrics` for Prometheus.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::model::{failure::FailureKind, usage::Usage};

/// How one request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// `response.completed`.
    Completed,
    /// `response.incomplete`.
    Incomplete,
    /// An error, by its kind.
    Failed(FailureKind),
    /// The client went away first.
    ClientGone,
}

/// Upper bounds of the first-event histogram, in milliseconds.
const FIRST_EVENT_MS: [u64; 8] = [50, 100, 250, 500, 1_000, 2_500, 10_000, 60_000];

/// All counters. They only grow, but for `active`.
#[derive(Debug, Default)]
pub struct Counters {
    active: AtomicU64,
    completed: AtomicU64,
    incomplete: AtomicU64,
    client_gone: AtomicU64,
    failed: [AtomicU64; FailureKind::ALL.len()],
    attempts: AtomicU64,
    attempts_failed: [AtomicU64; FailureKind::ALL.len()],
    losses: AtomicU64,
    skipped_frames: AtomicU64,
    input_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    output_tokens: AtomicU64,
    first_event: [AtomicU64; FIRST_EVENT_MS.len() + 1],
    first_event_ms: AtomicU64,
}

/// What became of what exchanges leave behind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Queues {
    /// Failure signals that nobody heard.
    pub signals_dropped: u64,
    /// Rows of the usage ledger on disk.
    pub usage_written: u64,
    /// Rows that did not get there.
    pub usage_dropped: u64,
}

impl Counters {
    /// A request arrived.
    pub fn began(&self) {
        self.active.fetch_add(1, Relaxed);
    }

    /// It ended.
    pub fn ended(&self, outcome: Outcome) {
        self.active.fetch_sub(1, Relaxed);
        let counter = match outcome {
            Outcome::Completed => &self.completed,
            Outcome::Incomplete => &self.incomplete,
            Outcome::ClientGone => &self.client_gone,
            Outcome::Failed(kind) => &self.failed[kind as usize],
        };
        counter.fetch_add(1, Relaxed);
    }

    /// A request was sent to a provider.
    pub fn attempt(&self) {
        self.attempts.fetch_add(1, Relaxed);
    }

    /// And failed before anything was forwarded.
    pub fn attempt_failed(&self, kind: FailureKind) {
        self.attempts_failed[kind as usize].fetch_add(1, Relaxed);
    }

    /// Something asked for could not pass.
    pub fn lost(&self, count: usize) {
        self.losses.fetch_add(count as u64, Relaxed);
    }

    /// Frames of an unknown form were skipped.
    pub fn skipped(&self, count: u64) {
        self.skipped_frames.fetch_add(count, Relaxed);
    }

    /// The first item of an answer began.
    pub fn first_event(&self, after: Duration) {
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let bucket = FIRST_EVENT_MS.iter().position(|max| ms <= *max).unwrap_or(FIRST_EVENT_MS.len());
        self.first_event[bucket].fetch_add(1, Relaxed);
        self.first_event_ms.fetch_add(ms, Relaxed);
    }

    /// Tokens were spent.
    pub fn used(&self, usage: &Usage) {
        self.input_tokens.fetch_add(usage.input, Relaxed);
        self.cached_tokens.fetch_add(usage.cached, Relaxed);
        self.output_tokens.fetch_add(usage.output, Relaxed);
    }

    /// Requests under way.
    pub fn active(&self) -> u64 {
        self.active.load(Relaxed)
    }

    /// Requests that ended in any way.
    pub fn total(&self) -> u64 {
        let failed: u64 = self.failed.iter().map(|c| c.load(Relaxed)).sum();
        failed + self.completed.load(Relaxed) + self.incomplete.load(Relaxed) + self.client_gone.load(Relaxed)
    }

    /// Requests that ended in a failure of any kind.
    pub fn failed(&self) -> u64 {
        self.failed.iter().map(|c| c.load(Relaxed)).sum()
    }

    /// The page for Prometheus, text format 0.0.4
    /// (<https://prometheus.io/docs/instrumenting/exposition_formats/>, read 2026-11-21).
    pub fn metrics(&self, uptime: Duration, memory_bytes: Option<u64>, queues: &Queues) -> String {
        let mut page = String::with_capacity(4096);
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, String)]| {
            // Writing into a String does not fail.
            let _ = writeln!(page, "# HELP codex_proxy_{name} {help}\n# TYPE codex_proxy_{name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(page, "codex_proxy_{name}{labels} {value}");
            }
        };
        let one = |counter: &AtomicU64| vec![(String::new(), counter.load(Relaxed).to_string())];
        let mut outcomes = vec![
            (r#"{outcome="completed"}"#.to_owned(), self.completed.load(Relaxed).to_string()),
            (r#"{outcome="incomplete"}"#.to_owned(), self.incomplete.load(Relaxed).to_string()),
            (r#"{outcome="client_gone"}"#.to_owned(), self.client_gone.load(Relaxed).to_string()),
        ];
        outcomes.extend(by_kind("outcome", &self.failed));
        family("requests_total", "counter", "Requests by how they ended.", &outcomes);
        family("active_streams", "gauge", "Requests under way.", &one(&self.active));
        family("upstream_requests_total", "counter", "Requests sent to providers.", &one(&self.attempts));
        family(
            "upstream_failures_total",
            "counter",
            "Requests to providers that failed before anything was forwarded.",
            &by_kind("kind", &self.attempts_failed),
        );
        family("losses_total", "counter", "Parts of requests that a provider could not be told.", &one(&self.losses));
        family("skipped_frames_total", "counter", "Upstream frames of unknown form.", &one(&self.skipped_frames));
        family("input_tokens_total", "counter", "Input tokens.", &one(&self.input_tokens));
        family("cached_tokens_total", "counter", "Input tokens read from caches.", &one(&self.cached_tokens));
        family("output_tokens_total", "counter", "Generated tokens.", &one(&self.output_tokens));
        let plain = |number: u64| [(String::new(), number.to_string())];
        let Queues { signals_dropped, usage_written, usage_dropped } = *queues;
        family("signals_dropped_total", "counter", "Failure signals that no bus carried.", &plain(signals_dropped));
        family("usage_rows_total", "counter", "Requests in the record of usage.", &plain(usage_written));
        family(
            "usage_rows_dropped_total",
            "counter",
            "Requests that could not be put into the record of usage.",
            &plain(usage_dropped),
        );
        let uptime = (String::new(), format!("{:.3}", uptime.as_secs_f64()));
        family("uptime_seconds", "gauge", "Time since start.", &[uptime]);
        if let Some(bytes) = memory_bytes {
            family("memory_bytes", "gauge", "Resident memory.", &[(String::new(), bytes.to_string())]);
        }
        let mut below = 0;
        let mut samples = Vec::new();
        for (at, counter) in self.first_event.iter().enumerate() {
            below += counter.load(Relaxed);
            let le = FIRST_EVENT_MS.get(at).map_or("+Inf".to_owned(), |ms| seconds(*ms));
            samples.push((format!("_bucket{{le=\"{le}\"}}"), below.to_string()));
        }
        samples.push(("_sum".to_owned(), seconds(self.first_event_ms.load(Relaxed))));
        samples.push(("_count".to_owned(), below.to_string()));
        family("first_event_seconds", "histogram", "From a request's arrival to its first item.", &samples);
        page
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn by_kind(label: &str, counters: &[AtomicU64]) -> Vec<(String, String)> {
    FailureKind::ALL
        .iter()
        .zip(counters)
        .map(|(kind, counter)| (format!("{{{label}=\"{}\"}}", kind.row().code), counter.load(Relaxed).to_string()))
        .collect()
}

/// Resident memory of this process, from `/proc/self/statm` (proc(5)); `None` where that cannot be read.
pub fn memory_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * u64::try_from(page_bytes).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ended_request_is_counted_once_and_shown() {
        let counters = Counters::default();
        let outcomes = [Outcome::Completed, Outcome::Incomplete, Outcome::ClientGone]
            .into_iter()
            .chain(FailureKind::ALL.map(Outcome::Failed));
        let mut count = 0;
        for outcome in outcomes {
            counters.began();
            counters.ended(outcome);
            count += 1;
        }
        counters.first_event(Duration::from_millis(99));
        counters.first_event(Duration::from_secs(3600));
        assert_eq!((counters.total(), counters.active()), (count, 0));
        let page = counters.metrics(Duration::from_millis(1500), memory_bytes(), &Queues::default());
        for line in [
            "codex_proxy_requests_total{outcome=\"upstream_timeout\"} 1",
            "codex_proxy_first_event_seconds_bucket{le=\"0.050\"} 0",
            "codex_proxy_first_event_seconds_bucket{le=\"0.100\"} 1",
            "codex_proxy_first_event_seconds_bucket{le=\"+Inf\"} 2",
            "codex_proxy_uptime_seconds 1.500",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
        assert!(page.contains("codex_proxy_memory_bytes "));
    }
}
