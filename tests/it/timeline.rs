//! Every row of the fault table that can fire, as a story: the kept inputs of `tests/golden/faults/ROW/CASE/inputs.jsonl`
//! go through the brain, and what it says is compared with `timeline.txt` beside them.

use std::{fs, path::PathBuf};

use codex_proxy::watchdog::{
    brain::{Brain, Command, Input},
    catalog::faults,
    classify::Numbers,
    incidents::record::line,
};

use crate::support::{golden, root};

fn cases() -> Vec<PathBuf> {
    let mut cases = Vec::new();
    for row in fs::read_dir(root().join("tests/golden/faults")).unwrap() {
        cases.extend(fs::read_dir(row.unwrap().path()).unwrap().map(|case| case.unwrap().path()));
    }
    cases.sort();
    cases
}

fn timeline(inputs: &str) -> String {
    let mut brain = Brain::new(Numbers::default(), false);
    let mut text = String::new();
    let mut begin = None;
    for input in inputs.lines() {
        let input: Input = serde_json::from_str(input).unwrap_or_else(|error| panic!("{error}: {input}"));
        let begin = *begin.get_or_insert(input.at);
        for command in brain.step(&input) {
            if let Command::Record(entry) = command {
                text.push_str(&line(&entry, begin));
                text.push('\n');
            }
        }
    }
    text
}

#[test]
fn each_case_is_told_as_it_is_kept() {
    let cases = cases();
    assert!(cases.len() > 8, "the cases are not where they are looked for");
    let mut differences = golden::Differences::default();
    for case in cases {
        let inputs = fs::read_to_string(case.join("inputs.jsonl")).unwrap();
        differences.compare(&case.join("timeline.txt"), &timeline(&inputs));
    }
    differences.none();
}

#[test]
fn each_row_that_can_fire_has_a_case_and_fires_in_it() {
    for row in faults().filter(|row| row.can_fire()) {
        let stories: Vec<String> = cases()
            .iter()
            .filter(|case| case.parent().is_some_and(|parent| parent.ends_with(row.id)))
            .map(|case| fs::read_to_string(case.join("timeline.txt")).unwrap())
            .collect();
        assert!(stories.iter().any(|story| story.contains(row.title)), "{} has no case", row.id);
    }
}
