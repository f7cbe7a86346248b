//! Ways to misbehave on purpose, for the tests of what must survive them. Not part of any ordinary build: the feature
//! `test-faults` is off, and a test looks for the words below in the package.
//!
//! ```text
//!  x-test-fault: abort   the process dies of SIGABRT
//!                panic   the exchange panics
//!                wedge   every worker thread blocks for good
//!                leak    memory is taken and touched in the background, without end; the request itself is served
//!  CODEX_PROXY_TEST_FAULT=panic-start   the process panics before it is ready
//! ```

use std::{
    env, mem, process,
    thread::{park, sleep, spawn},
    time::Duration,
};

use http::HeaderMap;
use tokio::runtime::Handle;
use tracing::warn;

/// Names the fault that a request asks for.
const HEADER: &str = "x-test-fault";
/// Names the fault of a start.
const VARIABLE: &str = "CODEX_PROXY_TEST_FAULT";
/// What a leak takes at a time, and how often: 50 MB a second.
const LEAK_BYTES: usize = 5_000_000;
const LEAK_PAUSE: Duration = Duration::from_millis(100);

/// Panics if the environment asks for it.
///
/// # Panics
/// That is what it is for.
pub fn at_start() {
    if env::var_os(VARIABLE).is_some_and(|kind| kind == "panic-start") {
        misbehave("panic-start");
    }
}

/// Does what a request's header asks for.
///
/// # Panics
/// If that is `panic`.
pub fn in_exchange(headers: &HeaderMap) {
    if let Some(kind) = headers.get(HEADER).and_then(|value| value.to_str().ok()) {
        misbehave(kind);
    }
}

#[expect(clippy::panic, reason = "asked for")]
fn misbehave(kind: &str) {
    warn!(codex_fault = kind, "misbehaving because a test asks for it");
    match kind {
        "abort" => process::abort(),
        "panic" | "panic-start" => panic!("a test asks for this panic"),
        "wedge" => {
            let runtime = Handle::current();
            // More than there are workers: the last one made here cannot be taken over by another worker.
            for _ in 0..=runtime.metrics().num_workers() {
                drop(runtime.spawn(async { block() }));
            }
            block();
        }
        "leak" => drop(spawn(|| {
            loop {
                mem::forget(vec![1_u8; LEAK_BYTES]);
                sleep(LEAK_PAUSE);
            }
        })),
        _ => panic!("no such fault: {kind:?}"),
    }
}

fn block() -> ! {
    loop {
        park();
    }
}
