//! What users are told about a wrong configuration: `tests/golden/config/<case>/*.toml` (lowest layer first, by name)
//! and the whole of the message in `expected.txt`. `UPDATE_GOLDEN=1` rewrites the latter.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its cases has failed")]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use codex_proxy::config;
use proptest::prelude::*;

fn sorted(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn message(case: &Path) -> String {
    let files = sorted(case).into_iter().filter(|path| path.extension().is_some_and(|end| end == "toml"));
    let texts: Vec<(PathBuf, String)> =
        files.map(|path| (path.file_name().unwrap().into(), fs::read_to_string(&path).unwrap())).collect();
    let texts: Vec<(&Path, &str)> = texts.iter().map(|(path, text)| (path.as_path(), text.as_str())).collect();
    match config::parse(&texts) {
        Ok(_) => "accepted\n".to_owned(),
        Err(errors) => format!("{errors}\n"),
    }
}

#[test]
fn messages_are_as_written() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let update = env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    let cases = sorted(&root);
    assert!(cases.len() >= 30, "the cases are missing");
    for case in cases {
        let found = message(&case);
        // Whatever a case uses as a secret begins so; no message may repeat it.
        assert!(!found.contains("sk-"), "{}: a secret is shown:\n{found}", case.display());
        let expected = case.join("expected.txt");
        if update {
            fs::write(&expected, found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("{}:\n{found}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "other messages than expected (UPDATE_GOLDEN=1 accepts them):\n{}", wrong.join("\n"));
}

/// Lines of a configuration, right and wrong ones, in any order.
fn line() -> impl Strategy<Value = String> {
    let table = prop::sample::select(vec![
        "[proxy]",
        "[providers.p]",
        "[providers.q]",
        "[providers.p.headers]",
        "[providers.p.key]",
        "[models.m]",
        "[[models.m.routes]]",
        "[[providers.q.accounts]]",
        "[usage]",
        "[prices]",
        "[prices.m]",
        "[watchdog]",
        "[watchdog.ai]",
        "[watchdog.faults.A1]",
    ]);
    let key = prop::sample::select(vec![
        "keepalive_s",
        "head_hold_s",
        "upstream_idle_s",
        "preset",
        "base_url",
        "protocol",
        "dialect",
        "key",
        "env",
        "file",
        "command",
        "credential",
        "accounts",
        "headers",
        "name",
        "routes",
        "provider",
        "model",
        "weight",
        "effort",
        "efforts",
        "context_window",
        "images",
        "threshold",
        "currency",
        "input",
        "output",
        "keep_days",
        "\"\"",
        "x-\u{1}",
    ]);
    let value = prop::sample::select(vec![
        "0",
        "1",
        "-1",
        "299",
        "1e400",
        "0x7fffffffffffffffffffffff",
        "true",
        "'p/m'",
        "'deepseek'",
        "''",
        "'~/k'",
        "'http://localhost/v1'",
        "'https://h//v1/v1/models'",
        "[]",
        "['p/m', 'q/m']",
        "[1, {}]",
        "{}",
        "{ env = 'K' }",
        "{ command = [''] }",
        "2026-01-01",
        "'low'",
        "'\\u0000'",
    ]);
    prop_oneof![
        table.prop_map(str::to_owned),
        (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        "\\PC{0,12}",
    ]
}

proptest! {
    #[test]
    fn any_text_is_judged(lines in prop::collection::vec(line(), 0..12), more in prop::collection::vec(line(), 0..6)) {
        let (lower, upper) = (lines.join("\n"), more.join("\n"));
        match config::parse(&[(Path::new("lower"), &lower), (Path::new("upper"), &upper)]) {
            Ok(settings) => {
                for model in settings.models.values() {
                    prop_assert!(!model.routes.is_empty());
                    prop_assert!(model.routes.iter().all(|route| settings.providers.contains_key(&route.provider)));
                }
            }
            Err(errors) => prop_assert!(errors.iter().count() > 0),
        }
    }
}
