//! How fast the proxy is beside a proxy that translates nothing and beside no proxy at all: `tests/bench.sh`.
//!
//! ```text
//! client (one thread) ─► direct ───────────────────────────► upstream (a process, one thread)
//!                      ├► haproxy ── Responses, passed on ──►
//!                      └► codex-proxy ── Chat Completions ──►
//! ```
//! The targets take turns, and each round another begins. Every piece of an answer carries the moment it was written. It
//! reports and judges nothing but correctness: it fails if an answer was wrong, lost or failed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a benchmark stops aloud at the first surprise"
)]

mod answer;
mod client;
mod measures;
mod process;
mod protocols;
mod request;
mod results;
mod script;
mod targets;
mod upstream;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use clap::Parser;

use measures::Bench;
use results::Results;
use targets::{Bus, Lane, Upstream};

/// Measures codex-proxy.
#[derive(Debug, Parser)]
struct Options {
    /// How often every target has its turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Two rounds of fewer requests: a minute in all, for a first look.
    #[arg(long)]
    quick: bool,
    /// Only this measure; can be repeated.
    #[arg(long, value_name = "MEASURE", value_parser = measures::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>())]
    only: Vec<String>,
    /// Instead of the build at hand: another program. Several are compared with the first.
    #[arg(long, value_name = "[LABEL=]PATH")]
    target_binary: Vec<String>,
    /// Where all figures go as JSON. Default: target/bench/latest.json.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// `cargo bench` says this.
    #[arg(long, hide = true)]
    bench: bool,
    /// To be the scripted upstream.
    #[arg(long, hide = true)]
    upstream: bool,
}

#[expect(clippy::print_stdout, reason = "the table")]
fn main() -> ExitCode {
    let options = Options::parse();
    if options.upstream {
        upstream::serve();
        return ExitCode::SUCCESS;
    }
    let home = tempfile::Builder::new().prefix("codex-proxy-bench.").tempdir().unwrap();
    let mut bench = prepare(&options, home.path());
    let rounds = if options.quick { 2 } else { options.rounds.max(1) };
    let chosen = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    for round in 0..rounds {
        bench.round = round;
        for (name, measure) in measures::ALL.iter().filter(|(name, _)| chosen(name)) {
            let begun = Instant::now();
            for turn in 0..bench.lanes.len() {
                let lane = (turn + round) % bench.lanes.len();
                measure(&mut bench, lane);
            }
            eprintln!("round {} of {rounds}: {name}, {:.1} s", round + 1, begun.elapsed().as_secs_f64());
        }
    }
    let lanes: Vec<(&str, bool)> = bench.lanes.iter().map(|lane| (lane.name.as_str(), lane.is_proxy())).collect();
    println!("{}", bench.results.table(&lanes));
    let file = options.json.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/latest.json"));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, format!("{:#}\n", bench.results.json(&lanes, rounds))).unwrap();
    println!("all figures: {}", file.display());
    ExitCode::from(u8::from(!bench.results.errors.is_empty()))
}

fn prepare(options: &Options, home: &Path) -> Bench {
    let upstream = Upstream::start();
    let mut lanes = vec![Lane::direct(home, upstream.address)];
    match Lane::haproxy(home, upstream.address) {
        Some(lane) => lanes.push(lane),
        None => eprintln!("SKIPPED: haproxy is missing, so there are no ratios to it"),
    }
    let mut builds: Vec<(String, PathBuf)> = options.target_binary.iter().map(|given| build(given)).collect();
    if builds.is_empty() {
        builds.push(("codex-proxy".to_owned(), env!("CARGO_BIN_EXE_codex-proxy").into()));
    }
    let scripts = measures::scripts();
    for (label, binary) in &builds {
        for protocol in protocols::UPSTREAM {
            // As long as there is one protocol, it goes without saying.
            let name = if protocols::UPSTREAM.len() > 1 { format!("{label} {}", protocol.name) } else { label.clone() };
            lanes.push(Lane::proxy(&name, binary, protocol, &scripts, home, upstream.address));
        }
    }
    let bus = Bus::start(home);
    if bus.is_none() {
        eprintln!("SKIPPED: dbus-daemon is missing, so memory with the bus is not measured");
    }
    let running = lanes.iter().map(|lane| lane.start(None)).collect();
    Bench { lanes, running, upstream, bus, results: Results::default(), round: 0, quick: options.quick }
}

/// `LABEL=PATH`, or a path that is its own label.
fn build(given: &str) -> (String, PathBuf) {
    let (label, path) = given.split_once('=').unwrap_or((given, given));
    assert!(Path::new(path).is_file(), "there is no program {path}");
    (label.to_owned(), PathBuf::from(path))
}
