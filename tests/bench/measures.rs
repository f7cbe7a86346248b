//! What is measured, one function each. All of them count an answer only after it was checked.

use std::{cell::Cell, thread::sleep, time::Duration};

use super::{
    client::{self, Question, Tally},
    request::USUAL_BYTES,
    results::{Results, median, quantile},
    script::{Kind, Script},
    targets::{Bus, Lane, Running, Upstream},
};

/// One lane's turn in one round of a measure.
type Measure = fn(&mut Bench, lane: usize);

/// All measures, in the order of the table.
pub const ALL: &[(&str, Measure)] = &[
    ("one-stream", one_stream),
    ("32-streams", many_streams),
    ("load", load),
    ("events", events),
    ("bodies", bodies),
    ("memory", memory),
    ("open-streams", open_streams),
    ("start", start),
];

const STREAM: Script = Script::text(200, 16, 2);
const SHORT: Script = Script::text(5, 16, 0);
const HELD_OPEN: Script = Script::text(45, 16, 100);
/// More than the kernel buffers for a connection, so that the rest has to wait further up.
const SLOWLY_READ: Script = Script::text(6000, 2048, 0);
const EVENTS: [usize; 3] = [50, 500, 5000];
const BODIES: [(usize, &str); 4] = [(10_000, "10 KB"), (100_000, "100 KB"), (1_000_000, "1 MB"), (8_000_000, "8 MB")];
const STREAMS: usize = 500;
const SLOW: usize = 50;
/// How long open streams are watched.
const WATCH: Duration = Duration::from_secs(2);

/// Every script, so that a proxy can be told of the models.
pub fn scripts() -> Vec<Script> {
    let kinds = Kind::ALL.map(|(kind, _)| Script { kind, deltas: 50, bytes: 16, pause_ms: 0 });
    let counts = EVENTS.map(|deltas| Script::text(deltas, 16, 0));
    let mut all = vec![STREAM, SHORT, HELD_OPEN, SLOWLY_READ];
    all.extend(kinds);
    all.extend(counts.into_iter().filter(|script| !kinds.contains(script)));
    all
}

/// Everything a measure needs.
pub struct Bench {
    /// All targets.
    pub lanes: Vec<Lane>,
    /// The one that serves during the whole run, of each lane.
    pub running: Vec<Running>,
    /// Behind all of them.
    pub upstream: Upstream,
    /// For the figure of memory as installed.
    pub bus: Option<Bus>,
    /// What came of it.
    pub results: Results,
    /// The present round.
    pub round: usize,
    /// Less of everything.
    pub quick: bool,
}

impl Bench {
    fn few(&self, usual: usize) -> usize {
        if self.quick { usual.div_ceil(4) } else { usual }
    }

    fn question(&self, lane: usize, script: Script, bytes: usize) -> Question {
        Question::new(script, bytes, &self.lanes[lane].token)
    }

    fn put(&mut self, measure: &'static str, figure: &str, unit: &'static str, lane: usize, value: f64) {
        self.results.put(measure, figure, unit, lane, self.round, value);
    }

    /// Asks, and looks whether everything came whole, here and at the upstream. Gives the processor time of it, too.
    fn ask(&mut self, lane: usize, on: &Running, question: &Question, at_once: usize, total: usize) -> (Tally, f64) {
        // The first requests after a rest find connections closed and caches cold.
        let warm = client::closed_loop(on.address, question, at_once, at_once.min(total));
        self.judge(lane, &warm);
        let before = client::received(self.upstream.address);
        let cpu = on.process().map_or(0, |process| process.cpu_ns());
        let tally = client::closed_loop(on.address, question, at_once, total);
        let cpu = on.process().map_or(0, |process| process.cpu_ns()) - cpu;
        let after = client::received(self.upstream.address);
        self.judge(lane, &tally);
        let requests = usize::try_from(after.requests - before.requests).unwrap();
        self.results.held("one request to the upstream for each of the client's", lane, requests == total);
        self.results.held("the upstream gets the whole history", lane, after.tags == question.tags);
        if requests != total || after.tags != question.tags {
            let name = &self.lanes[lane].name;
            let what = format!("{requests} of {total} requests, {} of {} outputs", after.tags, question.tags);
            self.results.errors.push(format!("{name}: at the upstream: {what}"));
        }
        (tally, cpu as f64 / total as f64 / 1000.0)
    }

    fn judge(&mut self, lane: usize, tally: &Tally) {
        let name = &self.lanes[lane].name;
        self.results.errors.extend(tally.bad.iter().map(|what| format!("{name}: {what}")));
    }

    /// On the instance that serves during the whole run.
    fn ask_running(&mut self, lane: usize, question: &Question, at_once: usize, total: usize) -> (Tally, f64) {
        let running = self.running.remove(lane);
        let result = self.ask(lane, &running, question, at_once, total);
        self.running.insert(lane, running);
        result
    }
}

fn ms(nanoseconds: &[u64]) -> Vec<f64> {
    nanoseconds.iter().map(|time| *time as f64 / 1e6).collect()
}

/// How late each piece was.
fn lateness(tally: &Tally) -> Vec<f64> {
    tally.pieces.iter().map(|(_, late)| *late as f64 / 1e6).collect()
}

fn delays(bench: &mut Bench, measure: &'static str, lane: usize, at_once: usize, total: usize) -> Tally {
    let question = bench.question(lane, STREAM, USUAL_BYTES);
    let (tally, cpu) = bench.ask_running(lane, &question, at_once, total);
    let (first, delays) = (ms(&tally.first_text), lateness(&tally));
    bench.put(measure, "first text p50", "ms", lane, median(&first));
    bench.put(measure, "event p50", "ms", lane, median(&delays));
    bench.put(measure, "event p99", "ms", lane, quantile(&delays, 0.99));
    if bench.running[lane].process().is_some() {
        // Here each comes alone; under load, many in one read, as the processors happen to be shared.
        bench.put(measure, "CPU per event, request included", "µs", lane, cpu / STREAM.deltas as f64);
    }
    tally
}

/// One stream of 200 pieces of 16 bytes, one each 2 ms; a body of 30 KB.
fn one_stream(bench: &mut Bench, lane: usize) {
    let total = bench.few(6);
    let tally = delays(bench, "one-stream", lane, 1, total);
    bench.results.held("streams: the first piece is there before the second is sent", lane, tally.streamed);
}

/// The same 32 times at once.
fn many_streams(bench: &mut Bench, lane: usize) {
    let total = bench.few(64).max(32);
    delays(bench, "32-streams", lane, 32, total);
}

/// 64 at once, 30 KB, 50 events without a pause: of text, of thoughts, of a call.
fn load(bench: &mut Bench, lane: usize) {
    for (kind, word) in Kind::ALL {
        let question = bench.question(lane, Script { kind, deltas: 50, bytes: 16, pause_ms: 0 }, USUAL_BYTES);
        let total = bench.few(if kind == Kind::Text { 3000 } else { 1500 });
        let (tally, cpu) = bench.ask_running(lane, &question, 64, total);
        bench.put("load", &format!("{word}: requests"), "1/s", lane, tally.good as f64 / tally.elapsed.as_secs_f64());
        if bench.running[lane].process().is_some() {
            bench.put("load", &format!("{word}: CPU per request"), "µs", lane, cpu);
            bench.put("load", &format!("{word}: CPU per event, request included"), "µs", lane, cpu / 50.0);
        }
    }
}

/// How the cost grows with the events of an answer.
fn events(bench: &mut Bench, lane: usize) {
    let mut last: Option<(usize, f64)> = None;
    for (deltas, total) in EVENTS.into_iter().zip([800, 120, 16]) {
        let question = bench.question(lane, Script::text(deltas, 16, 0), USUAL_BYTES);
        let total = bench.few(total);
        let (_, cpu) = bench.ask_running(lane, &question, 8, total);
        if bench.running[lane].process().is_none() {
            continue;
        }
        bench.put("events", &format!("{deltas}: CPU per request"), "µs", lane, cpu);
        if let Some((fewer, less)) = last {
            let each = (cpu - less) / (deltas - fewer) as f64;
            bench.put("events", &format!("{fewer} to {deltas}: CPU for each more"), "µs", lane, each);
        }
        last = Some((deltas, cpu));
    }
}

/// How time and cost grow with the body.
fn bodies(bench: &mut Bench, lane: usize) {
    let mut last: Option<(usize, f64)> = None;
    for ((bytes, word), total) in BODIES.into_iter().zip([200, 100, 24, 6]) {
        let question = bench.question(lane, SHORT, bytes);
        let total = bench.few(total);
        let (tally, cpu) = bench.ask_running(lane, &question, 1, total);
        bench.put("bodies", &format!("{word}: first text p50"), "ms", lane, median(&ms(&tally.first_text)));
        if bench.running[lane].process().is_none() {
            continue;
        }
        bench.put("bodies", &format!("{word}: CPU per request"), "µs", lane, cpu);
        if let Some((fewer, less)) = last {
            let each = (cpu - less) / (question.body - fewer) as f64 * 1000.0;
            bench.put("bodies", &format!("up to {word}: CPU for each KB more"), "µs", lane, each);
        }
        last = Some((question.body, cpu));
    }
}

/// A fresh process: at rest, with the message bus, and at its peak for one large body.
fn memory(bench: &mut Bench, lane: usize) {
    const REST: Duration = Duration::from_millis(300);
    let fresh = bench.lanes[lane].start(None);
    let Some(process) = fresh.process() else { return };
    sleep(REST);
    let idle = process.rss_kib();
    bench.put("memory", "idle", "MiB", lane, idle / 1024.0);
    process.forget_peak();
    let question = bench.question(lane, SHORT, 8_000_000);
    let tally = client::closed_loop(fresh.address, &question, 1, 1);
    bench.judge(lane, &tally);
    let peak = process.peak_kib();
    bench.put("memory", "8 MB body: peak", "MiB", lane, peak / 1024.0);
    bench.put(
        "memory",
        "8 MB body: more than idle, in bodies",
        "×",
        lane,
        (peak - idle) * 1024.0 / question.body as f64,
    );
    sleep(REST);
    bench.put("memory", "8 MB body: after it", "MiB", lane, process.rss_kib() / 1024.0);
    drop(fresh);
    if bench.lanes[lane].is_proxy() && bench.bus.is_some() {
        let fresh = bench.lanes[lane].start(bench.bus.as_ref());
        sleep(REST);
        let rss = fresh.process().map_or(0.0, |process| process.rss_kib());
        bench.put("memory", "idle, with the bus", "MiB", lane, rss / 1024.0);
    }
}

/// 500 streams with a piece each 100 ms, then the same while 50 others are read slowly.
fn open_streams(bench: &mut Bench, lane: usize) {
    // The longest of all, and the steadiest.
    if bench.round >= if bench.quick { 1 } else { 2 } {
        return;
    }
    let fast = bench.question(lane, HELD_OPEN, USUAL_BYTES);
    let slow = bench.question(lane, SLOWLY_READ, USUAL_BYTES);
    for (count, name) in [(0, "500 streams"), (SLOW, "450 streams and 50 read slowly")] {
        let fresh = bench.lanes[lane].start(None);
        sleep(Duration::from_millis(300));
        let process = fresh.process();
        let rss = || process.map_or(0.0, |process| process.rss_kib());
        let idle = rss();
        let open = Cell::new(0.0);
        let (fast, slow) =
            client::open_streams(fresh.address, (&fast, STREAMS - count), (&slow, count), WATCH, || open.set(rss()));
        bench.judge(lane, &fast);
        bench.judge(lane, &slow);
        let delays = lateness(&fast);
        bench.put("open-streams", &format!("{name}: event p50"), "ms", lane, median(&delays));
        bench.put("open-streams", &format!("{name}: event p99"), "ms", lane, quantile(&delays, 0.99));
        if process.is_some() {
            bench.put("open-streams", &format!("{name}: memory"), "MiB", lane, open.get() / 1024.0);
            let each = (open.get() - idle) / STREAMS as f64;
            bench.put("open-streams", &format!("{name}: memory for each"), "KiB", lane, each);
            sleep(Duration::from_secs(1));
            bench.put("open-streams", &format!("{name}: memory a second after"), "MiB", lane, rss() / 1024.0);
        }
    }
}

/// From the start of the program to the end of its first answer.
fn start(bench: &mut Bench, lane: usize) {
    let question = bench.question(lane, SHORT, USUAL_BYTES);
    let mut times = Vec::new();
    for _ in 0..bench.few(8) {
        let begun = std::time::Instant::now();
        let fresh = bench.lanes[lane].spawn(None);
        if fresh.process().is_none() {
            return;
        }
        match client::first_answer(fresh.address, &question, Duration::from_secs(20)) {
            Ok(()) => times.push(begun.elapsed().as_secs_f64() * 1000.0),
            Err(what) => bench.results.errors.push(format!("{}: at its start: {what}", bench.lanes[lane].name)),
        }
    }
    bench.put("start", "to the first answer", "ms", lane, median(&times));
}
