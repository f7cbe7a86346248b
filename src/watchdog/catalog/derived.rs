//! What is made from the rows, each compared with its kept copy by a test: the journal's message catalogue, the table in
//! the documentation, and the list for the bus interface. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use super::{Budget, By, Cause, Evidence, Fault, Proof, Rung, Tier, When, faults};

/// A row, as the bus interface lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// `A1`.
    pub id: &'static str,
    /// What is wrong, in one line.
    pub title: &'static str,
    /// `info`, `warning` or `critical`.
    pub severity: &'static str,
}

/// The fault list of the bus interface, in the table's order.
pub fn words() -> impl Iterator<Item = Word> {
    faults().map(|fault| Word { id: fault.id, title: fault.title, severity: fault.severity.word() })
}

/// The message catalogue, in the form of <https://systemd.io/CATALOG/> (read 2026-11-21): `systemd/codex-watchdog.catalog`.
pub fn message_catalogue() -> String {
    let mut text = String::from(
        "# Explains the journal entries of codex-watchdog (`journalctl -x`). Made from src/watchdog/catalog/ by a test:\n\
         # change it there.\n",
    );
    for fault in faults() {
        for line in [
            "",
            &format!("-- {}", fault.message_id),
            &format!("Subject: {}: {}", fault.id, fault.title),
            "Defined-By: codex-proxy",
            "",
            fault.help,
        ] {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The table in the documentation, in Markdown: `src/watchdog/FAULTS.md`.
pub fn table() -> String {
    let mut text = String::from(
        "<!-- Made from src/watchdog/catalog/ by a test: change it there. -->\n\
         \n\
         | id | fault | severity | seen by | answers, in this order | verified by | can fire yet |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for fault in faults() {
        let cells = [
            fault.id.to_owned(),
            fault.title.to_owned(),
            fault.severity.word().to_owned(),
            seen_by(fault),
            answers(fault),
            verified_by(fault),
            if fault.can_fire() { "yes" } else { "no" }.to_owned(),
        ];
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    let Budget { attempts_max, per, rest } = super::BUDGET;
    text.push_str(&format!(
        "\nA row acts at most {attempts_max} times in {}, and rests {} after that; then a person is told instead.\n",
        time(per),
        rest.map(time).join(", "),
    ));
    text
}

fn seen_by(fault: &Fault) -> String {
    fault.evidence.iter().map(evidence).collect::<Vec<String>>().join("; ")
}

fn evidence(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Death(causes) => {
            let causes: Vec<&str> = causes.iter().copied().map(cause).collect();
            format!("a run that ended: {}", causes.join(", "))
        }
        Evidence::GivenUp => "the manager has given up".to_owned(),
        Evidence::PortTaken => "the socket failed, and somebody else listens".to_owned(),
        Evidence::Silence { streak } => format!("`/health` and `Ping` silent, {streak} probes in a row"),
        Evidence::Signal { name, by } => format!("signal `{name}`, {}", subject(*by)),
        Evidence::Words { signature } => format!("words in the journal, {signature}"),
        Evidence::NotYet(what) => (*what).to_owned(),
    }
}

const fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Killed => "killed",
        Cause::Crashed => "crashed",
        Cause::Panicked => "panicked",
        Cause::Exited => "exited",
        Cause::Hung => "ended by the manager's watchdog",
        Cause::OutOfMemory => "out of memory",
        Cause::TimedOut => "too late in starting or stopping",
        Cause::Refused => "not started by the manager",
    }
}

const fn subject(by: By) -> &'static str {
    match by {
        By::Proxy => "of the proxy",
        By::Route => "by route",
        By::Provider => "by provider",
        By::Account => "by account",
        By::Model => "by model",
    }
}

/// What is done, in this order, in one line.
pub fn answers(fault: &Fault) -> String {
    let rungs: Vec<String> = fault.ladder.iter().map(|rung| answer(rung, fault.window)).collect();
    let ladder = rungs.join("; ");
    match fault.start {
        Tier::Rules => ladder,
        Tier::Fixes => format!("a fix that helped before; else {ladder}"),
        Tier::Ai => format!("a diagnosis by a model; else {ladder}"),
    }
}

fn answer(rung: &Rung, window: Duration) -> String {
    let acts: Vec<String> = rung.acts.iter().map(|act| format!("`{}`", act.word())).collect();
    let acts = acts.join(", ");
    match rung.when {
        When::Always => acts,
        When::ManagerActs => format!("the manager restarts: {acts}"),
        When::GivenUp => format!("given up: {acts}"),
        When::StaleHolder => format!("a leftover of ours: {acts}"),
        When::PortFree => format!("the port is free: {acts}"),
        When::Silent => format!("active and silent: {acts}"),
        When::Repeated(times) => format!("{times} times in {}: {acts}", time(window)),
        When::NotYet(what) => format!("{what}: {acts}"),
    }
}

/// What proves that it helped, in one line; a dash where nothing is to be proven.
pub fn verified_by(fault: &Fault) -> String {
    let what = match fault.verify.proof {
        Proof::Serving => "`/health` answered",
        Proof::Prompt => "`/health` answered within a second",
        Proof::Listening => "the socket listens",
        Proof::Completed => "a request completed",
        Proof::Repaired => "looked at again, and right",
        Proof::None => return "–".to_owned(),
    };
    format!("{what}, within {}; quiet for {}", time(fault.verify.within), time(fault.verify.quiet))
}

fn time(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 3600 && seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        seconds if seconds >= 60 && seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}
