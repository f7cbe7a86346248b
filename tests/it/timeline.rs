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
    incidents::{
        history::{self, Filter, History},
        replay::{Export, Kept, recover, retell, timeline},
    },
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

/// The lines that the watchdog keeps of inputs: the state before each that opens an incident, all while one is open.
fn keep(brain: &mut Brain, inputs: &[Input]) -> Vec<Kept> {
    let mut kept = Vec::new();
    for input in inputs {
        let before = brain.clone();
        let said = brain.step(input);
        let opens = brain.open().any(|one| before.open().all(|other| other.id != one.id));
        let opens = opens || said.iter().any(|c| matches!(c, Command::Record(_)) && before.open().next().is_none());
        if opens {
            kept.push(Kept::State(Box::new(before.clone())));
        }
        if opens || before.open().next().is_some() {
            kept.push(Kept::Input(input.clone()));
        }
        kept.extend(said.into_iter().filter_map(|command| match command {
            Command::Record(entry) => Some(Kept::Told(entry)),
            _ => None,
        }));
    }
    kept
}

/// What the watchdog keeps of a case, `A1/killed`.
pub(crate) fn kept(case: &str) -> Vec<Kept> {
    let export = export(&crate::support::root().join("tests/golden/faults").join(case));
    keep(&mut (*export.state).clone(), &export.inputs)
}

/// What is taken elsewhere tells the same story there, whatever else is in the store.
#[test]
fn each_incident_of_each_case_is_exported_with_its_whole_story() {
    let mut brain = Brain::new(Numbers::default(), false);
    let mut all = Vec::new();
    let mut stories = Vec::new();
    for case in cases() {
        let export = export(&case);
        let kept = keep(&mut (*export.state).clone(), &export.inputs);
        let history = History::of(&kept);
        assert!(!history.list(&Filter::default()).is_empty(), "{}", case.display());
        for one in history.list(&Filter::default()) {
            let taken = history::export(&kept, one.id).unwrap();
            let told: Vec<_> = retell(&taken).into_iter().filter(|entry| entry.incident == one.id).collect();
            assert_eq!(told, one.story, "{} {}", case.display(), one.id);
            let whole = timeline(&export);
            for entry in &one.story {
                assert!(whole.contains(&entry.fact.to_string()), "{}: {}", case.display(), entry.fact);
            }
        }
        // The same brain through all cases, one day each: incidents overlap and numbers rise.
        let day = u64::try_from(stories.len()).unwrap() * 86_400_000_000;
        all.extend(keep(&mut brain, &later(&export.inputs, day)));
        stories.push(case);
    }
    let history = History::of(&all);
    assert!(history.list(&Filter::default()).len() >= stories.len() / 2);
    for one in history.list(&Filter::default()) {
        let told = retell(&history::export(&all, one.id).unwrap());
        let told: Vec<_> = told.into_iter().filter(|entry| entry.incident == one.id).collect();
        assert_eq!(told, one.story, "{}", one.id);
    }
}

/// The same inputs, so many microseconds later on both clocks.
fn later(inputs: &[Input], us: u64) -> Vec<Input> {
    fn shift(value: &mut serde_json::Value, us: u64) {
        match value {
            serde_json::Value::Object(members) => {
                for (name, value) in members {
                    match value.as_u64().filter(|time| name.ends_with("_us") && *time > 1_000_000_000) {
                        Some(time) => *value = (time + us).into(),
                        None => shift(value, us),
                    }
                }
            }
            serde_json::Value::Array(values) => values.iter_mut().for_each(|value| shift(value, us)),
            _ => {}
        }
    }
    let one = |input: &Input| {
        let mut value = serde_json::to_value(input).unwrap();
        shift(&mut value, us);
        serde_json::from_value(value).unwrap()
    };
    inputs.iter().map(one).collect()
}
