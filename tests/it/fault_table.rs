//! What is made from the fault table, compared with the kept copies, and whether the configuration knows the same rows.
//! `UPDATE_GOLDEN=1` rewrites the copies.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use codex_proxy::{config, watchdog::catalog};

use crate::support::{golden::Differences, root};

#[test]
fn what_is_made_from_the_fault_table_is_as_kept() {
    let mut words = String::new();
    for word in catalog::words() {
        writeln!(words, "{} {} {}", word.id, word.severity, word.title).unwrap();
    }
    let mut differences = Differences::default();
    differences.compare(&root().join("systemd/codex-watchdog.catalog"), &catalog::message_catalogue());
    differences.compare(&root().join("src/watchdog/FAULTS.md"), &catalog::table());
    differences.compare(&root().join("tests/golden/fault_words.txt"), &words);
    differences.none();
}

#[test]
fn the_table_in_the_documentation_has_a_line_of_seven_cells_for_each_row() {
    let table = catalog::table();
    let lines: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).collect();
    assert_eq!(lines.len(), catalog::faults().count() + 2);
    for line in lines {
        assert_eq!(line.matches('|').count(), 8, "{line}");
        assert!(!line.contains(['<', '[']), "Markdown takes it for something else: {line}");
    }
}

#[test]
fn the_configuration_knows_the_rows_and_no_others() {
    let mut all = String::new();
    let mut counts: BTreeMap<char, u32> = BTreeMap::new();
    for fault in catalog::faults() {
        write!(all, "[watchdog.faults.{}]\nthreshold = 7\n", fault.id).unwrap();
        *counts.entry(fault.id.chars().next().unwrap()).or_default() += 1;
    }
    let settings = config::parse(&[(Path::new("config.toml"), &all)]).unwrap();
    assert!(settings.watchdog.faults.keys().map(String::as_str).eq(sorted_ids()));
    // What exists is said from the same constant as what is accepted.
    let ranges: Vec<String> =
        counts.into_iter().map(|(letter, count)| format!("{letter}1 to {letter}{count}")).collect();
    let wrong = "[watchdog.faults.Z1]\nthreshold = 7\n";
    let error = config::parse(&[(Path::new("config.toml"), wrong)]).unwrap_err().to_string();
    assert!(error.contains(&format!("no such fault; they are {}", ranges.join(", "))), "{error}");
}

fn sorted_ids() -> Vec<&'static str> {
    let mut ids: Vec<&str> = catalog::faults().map(|fault| fault.id).collect();
    ids.sort_unstable();
    ids
}
