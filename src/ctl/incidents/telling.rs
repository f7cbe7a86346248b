//! Incidents in words, and as JSON. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde::Serialize;

use crate::ctl::{lines, times};
use crate::watchdog::catalog::{Action, Fault, answers, verified_by};
use crate::watchdog::incidents::history::Summary;
use crate::watchdog::incidents::record::{Entry, Fact, Outcome};

/// What `list --json` prints; keys are only ever added.
#[derive(Serialize)]
pub(super) struct List<'a> {
    incidents: Vec<Facts<'a>>,
}

/// One incident under the names that it has on the bus (`dbus/org.codexproxy.Watchdog1.xml`).
#[derive(Serialize)]
struct Facts<'a> {
    id: String,
    fault: &'static str,
    title: &'static str,
    severity: &'static str,
    subject: String,
    evidence: &'a str,
    occurrences: u32,
    opened_usec: u64,
    closed_usec: Option<u64>,
    end: Option<&'static str>,
    why: Option<&'a str>,
}

/// What `show --json` prints.
#[derive(Serialize)]
pub(super) struct Whole<'a> {
    #[serde(flatten)]
    facts: Facts<'a>,
    /// Whether the story has its beginning.
    whole: bool,
    story: Vec<Told<'a>>,
}

/// One fact, also what `follow --json` prints.
#[derive(Serialize)]
pub(super) struct Told<'a> {
    incident: String,
    at_usec: u64,
    text: String,
    fact: &'a Fact,
}

fn facts(one: &Summary) -> Facts<'_> {
    let row = one.row();
    Facts {
        id: one.id.to_string(),
        fault: row.id,
        title: row.title,
        severity: row.severity.word(),
        subject: one.subject.to_string(),
        evidence: &one.evidence,
        occurrences: one.occurrences,
        opened_usec: one.opened.wall_us,
        closed_usec: one.closed.map(|closed| closed.wall_us),
        end: one.end.map(|end| end.word()),
        why: one.end.map(|_| one.why.as_str()),
    }
}

pub(super) fn list_json<'a>(incidents: &[&'a Summary]) -> List<'a> {
    List { incidents: incidents.iter().map(|one| facts(one)).collect() }
}

pub(super) fn json(one: &Summary) -> Whole<'_> {
    Whole { facts: facts(one), whole: one.whole, story: one.story.iter().map(told).collect() }
}

pub(super) fn told(entry: &Entry) -> Told<'_> {
    Told {
        incident: entry.incident.to_string(),
        at_usec: entry.at.wall_us,
        text: entry.fact.to_string(),
        fact: &entry.fact,
    }
}

/// How it stands with it, in a word.
fn end(one: &Summary) -> &'static str {
    match (one.closed, one.end) {
        (None, _) => "open",
        (Some(_), Some(end)) => end.word(),
        (Some(_), None) => "ended",
    }
}

fn times_seen(one: &Summary) -> String {
    if one.occurrences > 1 { format!(", {} times", one.occurrences) } else { String::new() }
}

pub(super) fn list_line(one: &Summary) -> String {
    let row = one.row();
    format!(
        "{:<5} {}  {:<8}  {}  {}: {}: {}{}",
        one.id.to_string(),
        times::utc(one.opened.wall_us),
        end(one),
        row.id,
        row.title,
        one.subject,
        one.evidence,
        times_seen(one)
    )
}

/// One line a fact.
pub(super) fn entry_line(entry: &Entry) -> String {
    format!("{}  {}  {}", times::utc_precise(entry.at.wall_us), entry.incident, entry.fact)
}

fn beginning_lost(one: &Summary) -> Option<String> {
    (!one.whole).then(|| format!("(what was told of {} before is not kept any more)", one.id))
}

pub(super) fn story(one: &Summary) -> String {
    let mut report = vec![head(one)];
    report.extend(beginning_lost(one));
    report.extend(one.story.iter().map(entry_line));
    if one.is_open() {
        report.push("it is open".to_owned());
    }
    lines(&report)
}

fn head(one: &Summary) -> String {
    let row = one.row();
    format!("{}: {} {} ({}), {}", one.id, row.id, row.title, row.severity.word(), one.subject)
}

fn indented(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().map(|line| if line.is_empty() { String::new() } else { format!("  {line}") })
}

pub(super) fn explain_fault(row: &Fault, names: &[String], count: usize) -> String {
    let mut report = vec![format!("{} {} ({})", row.id, row.title, row.severity.word()), String::new()];
    report.extend(meaning(row));
    report.push("What the watchdog does, in this order".to_owned());
    report.push(format!("  {}", answers(row)));
    report.extend(rule(row));
    if !row.can_fire() {
        report.push(String::new());
        report.push("Nothing tells the watchdog of this fault yet, so it does not see it.".to_owned());
    }
    if !names.is_empty() {
        let more = if count > names.len() { " and older ones" } else { "" };
        report.push(String::new());
        report.push(format!(
            "It happened: {}{more}; `codex-proxyctl incidents explain {}`",
            names.join(", "),
            names[0]
        ));
    }
    lines(&report)
}

pub(super) fn explain_incident(one: &Summary) -> String {
    let row = one.row();
    let mut report = vec![head(one)];
    report.push(format!("  seen:   {}{}", one.evidence, times_seen(one)));
    report.push(format!("  opened: {}", times::utc(one.opened.wall_us)));
    report.push(match one.closed {
        None => "  ended:  not yet".to_owned(),
        Some(closed) => {
            let after = closed.since_us(one.opened) / 1_000_000;
            let why = if one.end.is_some() { format!(": {}", one.why) } else { ", how is not kept".to_owned() };
            format!("  ended:  {} (after {after} s), {}{why}", times::utc(closed.wall_us), end(one))
        }
    });
    report.push(String::new());
    report.extend(meaning(row));
    report.push("What was done".to_owned());
    let before = report.len();
    report.extend(beginning_lost(one).map(|note| format!("  {note}")));
    report.extend(one.story.iter().filter_map(|entry| Some(timed(entry, &done(&entry.fact)?))));
    if report.len() == before {
        report.push("  nothing yet".to_owned());
    }
    report.push(String::new());
    report.push("How it was verified".to_owned());
    let before = report.len();
    report.extend(one.story.iter().filter_map(|entry| Some(timed(entry, &verified(&entry.fact)?))));
    if report.len() == before {
        report.push("  it was not".to_owned());
    }
    report.extend(rule(row));
    lines(&report)
}

fn timed(entry: &Entry, text: &str) -> String {
    format!("  {}  {text}", times::utc(entry.at.wall_us))
}

fn meaning(row: &Fault) -> Vec<String> {
    let mut text = vec!["What it means, and what to do".to_owned()];
    text.extend(indented(row.help));
    text.push(String::new());
    text
}

/// What counts as healed, where anything does.
fn rule(row: &Fault) -> Option<String> {
    let words = verified_by(row);
    (words != "–").then(|| format!("  (healed is: {words})"))
}

/// What a fact says of what was done; the others tell of what was seen.
fn done(fact: &Fact) -> Option<String> {
    match fact {
        Fact::Decided { action: Action::AlertUser, .. } => None,
        // What changes something is told when it is sent.
        Fact::Decided { action, .. } if action.changes() => None,
        Fact::Decided { action, why, .. } => Some(format!("decided to {}: {why}", action.words())),
        Fact::Restrained { action, guard, until } => {
            let yet = if until.is_some() { "did not yet" } else { "did not" };
            Some(format!("{yet} {}: {}", action.words(), guard.words()))
        }
        Fact::Announced { action, until, .. } => {
            Some(format!("said that it would {} at {} unless cancelled", action.words(), times::utc(until.wall_us)))
        }
        Fact::Commanded { action, .. } => Some(format!("set out to {}", action.words())),
        Fact::Finished { outcome, .. } => Some(match outcome {
            Outcome::Done => "that was carried out".to_owned(),
            Outcome::Failed { why } => format!("that could not be done: {why}"),
            Outcome::Unknown { why } => format!("whether that was done is not known: {why}"),
        }),
        Fact::Suggested { action, why, .. } => Some(format!("suggests to {}: {why}", action.words())),
        Fact::Alerted { text } => Some(format!("told you: {text}")),
        Fact::Opened { .. }
        | Fact::Again { .. }
        | Fact::NoAdvice { .. }
        | Fact::Proven { .. }
        | Fact::Disproven { .. }
        | Fact::Closed { .. } => None,
    }
}

fn verified(fact: &Fact) -> Option<String> {
    match fact {
        Fact::Proven { .. } | Fact::Disproven { .. } | Fact::Closed { .. } => Some(fact.to_string()),
        Fact::Opened { .. }
        | Fact::Again { .. }
        | Fact::Decided { .. }
        | Fact::NoAdvice { .. }
        | Fact::Suggested { .. }
        | Fact::Restrained { .. }
        | Fact::Announced { .. }
        | Fact::Commanded { .. }
        | Fact::Finished { .. }
        | Fact::Alerted { .. } => None,
    }
}
