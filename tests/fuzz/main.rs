//! Every decoder on inputs that are nearly right: no panic, and the laws that hold for whatever a host sends.
//!
//! `cargo test --test fuzz` tries the same few hundred inputs for each every time; with `FUZZ_SECONDS=450` each goes on for
//! so long, with others every time (`tests/fuzz.sh` does that with a build for release). What failed is made as small as
//! it gets and written to `target/fuzz/`. Findings are kept in `tests/fuzz/found/TARGET/` and tried first.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops aloud at the first surprise"
)]

mod mutate;
mod targets;

use std::{
    cell::Cell,
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use proptest::{
    sample::Index,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

use mutate::{Corpus, pieces, plan};

/// Inputs of each target where no time is given.
const CASES: u32 = 400;
/// Inputs between two looks at the clock.
const CASES_OF_ROUND: u32 = 2000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of that name in the directories below `tests/golden/…`.
fn kept(kind: &str, named: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = fs::read_dir(root().join("tests/golden").join(kind))
        .unwrap()
        .filter_map(|case| fs::read_dir(case.unwrap().path()).ok())
        .flatten()
        .map(|file| file.unwrap().path())
        .filter(|file| named(&file.file_name().unwrap().to_string_lossy()))
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Findings of earlier runs.
fn found(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(files) = fs::read_dir(root().join("tests/fuzz/found").join(target)) else { return Vec::new() };
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

/// Tries `check` on what becomes of `inputs`, whole and in pieces.
fn fuzz(target: &str, inputs: Vec<Vec<u8>>, check: impl Fn(&[&[u8]]) -> Result<(), TestCaseError>) {
    for (file, bytes) in found(target) {
        for pieces in [vec![&bytes[..]], bytes.chunks(7).collect()] {
            check(&pieces).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }
    let corpus = Corpus::new(inputs);
    let time = env::var("FUZZ_SECONDS").ok().map(|seconds| Duration::from_secs(seconds.parse().expect("FUZZ_SECONDS")));
    let config = Config {
        cases: if time.is_some() { CASES_OF_ROUND } else { CASES },
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Config::default()
    };
    let begun = Instant::now();
    let tried = Cell::new(0_u64);
    loop {
        // One counts its inputs over all its runs.
        let mut runner = match time {
            Some(_) => TestRunner::new(config.clone()),
            None => TestRunner::new_with_rng(config.clone(), TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
        };
        let result = runner.run(&plan(), |plan| {
            tried.set(tried.get() + 1);
            let bytes = plan.bytes(&corpus);
            check(&pieces(&bytes, &plan.cuts))
        });
        match result {
            Ok(()) => {}
            Err(TestError::Fail(why, plan)) => {
                panic!("{}", report(target, &why.to_string(), &plan.bytes(&corpus), &plan.cuts))
            }
            Err(TestError::Abort(why)) => panic!("{target}: {why}"),
        }
        if time.is_none_or(|time| begun.elapsed() >= time) {
            break;
        }
    }
    eprintln!("{target}: {} inputs, nothing found", tried.get());
}

fn report(target: &str, why: &str, bytes: &[u8], cuts: &[Index]) -> String {
    let directory = root().join("target/fuzz");
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join(format!("{target}-{}", bytes.len()));
    fs::write(&file, bytes).unwrap();
    let at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    format!("{target}: {why}\nthe input, split at {at:?}, is in {}:\n{}", file.display(), bytes.escape_ascii())
}
