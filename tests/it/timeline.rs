//! Every row of the fault table that can fire, as a story: the kept inputs of `tests/golden/faults/ROW/CASE/inputs.jsonl`
//! go through the brain, and what it says is compared with `timeline.txt` beside them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use codex_proxy::watchdog::{
    brain::{Brain, Command, Input},
    catalog::faults,
    classify::Numbers,
    incidents::replay::{Export, Kept, recover, timeline},
};

use crate::support::golden::{self, Differences};

fn cases() -> Vec<PathBuf> {
    let rows = golden::cases("faults");
    let cases: Vec<PathBuf> = rows
        .iter()
        .filter_map(|row| row.file_name())
        .flat_map(|row| golden::cases(&format!("faults/{}", row.to_string_lossy())))
        .collect();
    assert!(cases.len() > 8, "the cases are not where they are looked for");
    cases
}

fn export(case: &Path) -> Export {
    let text = fs::read_to_string(case.join("inputs.jsonl")).unwrap();
    let input = |line: &str| -> Input { serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")) };
    let state = Box::new(Brain::new(Numbers::default(), false));
    Export { version: "test".to_owned(), state, inputs: text.lines().map(input).collect() }
}

#[test]
fn each_case_is_told_as_it_is_kept() {
    let mut differences = Differences::default();
    for case in cases() {
        let export = export(&case);
        differences.compare(&case.join("timeline.txt"), &timeline(&export));
        // On its way through a file nothing of it changes.
        let written = serde_json::to_string(&export).unwrap();
        let read: Export = serde_json::from_str(&written).unwrap();
        assert_eq!(read, export);
        assert_eq!(serde_json::to_string(&read).unwrap(), written);
    }
    differences.none();
}

#[test]
fn each_row_that_can_fire_has_a_case_and_fires_in_it() {
    for row in faults().filter(|row| row.can_fire()) {
        let of_row = cases().into_iter().filter(|case| case.parent().is_some_and(|parent| parent.ends_with(row.id)));
        let fires = of_row.into_iter().any(|case| timeline(&export(&case)).contains(row.title));
        assert!(fires, "{} has no case", row.id);
    }
}

/// Wherever the watchdog is killed, the brain is found as it was, knowing every command that may have been sent.
#[test]
fn the_brain_is_recovered_from_what_was_kept_at_any_moment() {
    for case in cases() {
        let export = export(&case);
        let mut brain = *export.state;
        let mut kept = vec![Kept::State(Box::new(brain.clone()))];
        for (at, input) in export.inputs.into_iter().enumerate() {
            let said = brain.step(&input);
            kept.push(Kept::Input(input));
            let told = said.into_iter().filter_map(|command| match command {
                Command::Record(entry) => Some(Kept::Told(entry)),
                _ => None,
            });
            kept.extend(told);
            if at % 5 == 4 {
                kept.push(Kept::State(Box::new(brain.clone())));
            }
            assert_eq!(recover(&kept).as_ref(), Some(&brain), "{} after {at}", case.display());
        }
    }
    assert_eq!(recover(&[]), None);
}
