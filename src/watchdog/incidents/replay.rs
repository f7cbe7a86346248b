//! What is kept of the brain's life, and what can be made of it: the brain itself after a restart, and the same story
//! once more. PURE.
//!
//! The brain is a machine: a state and the inputs after it give everything it said. So a state is kept from time to time,
//! each input that came while an incident was open, and, for those who read the file, what was told. An input is kept
//! before anything it caused is done.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde::{Deserialize, Serialize};

use super::record::{Entry, line};
use crate::watchdog::brain::{Brain, Command, Input};

/// One line of the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// The whole brain, at one moment.
    State(Box<Brain>),
    /// What it heard after that.
    Input(Input),
    /// What it told; follows from the lines before.
    Told(Entry),
}

/// A piece of the brain's life, to be looked at elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// The program that wrote it: another version may decide differently.
    pub version: String,
    /// The brain at the beginning.
    pub state: Box<Brain>,
    /// What it heard.
    pub inputs: Vec<Input>,
}

/// The brain as it was when the last line was kept; `None` if no state is among them.
pub fn recover<'a>(lines: impl IntoIterator<Item = &'a Kept>) -> Option<Brain> {
    let mut brain: Option<Brain> = None;
    for line in lines {
        match (line, &mut brain) {
            (Kept::State(state), _) => brain = Some((**state).clone()),
            // What it said then was recorded then, and sent.
            (Kept::Input(input), Some(brain)) => drop(brain.step(input)),
            (Kept::Input(_) | Kept::Told(_), _) => {}
        }
    }
    brain
}

/// What the brain of this program says to the inputs of an export.
pub fn retell(export: &Export) -> Vec<Entry> {
    let mut brain = (*export.state).clone();
    let said = export.inputs.iter().flat_map(|input| brain.step(input));
    let told = said.filter_map(|command| match command {
        Command::Record(entry) => Some(entry),
        Command::Act(_)
        | Command::Announce { .. }
        | Command::Alert { .. }
        | Command::Look(_)
        | Command::Consult { .. }
        | Command::Learn { .. } => None,
    });
    told.collect()
}

/// The story of an export, told again by the brain of this program: a line for each fact, seconds since the first input.
pub fn timeline(export: &Export) -> String {
    let begin = export.inputs.first().map(|input| input.at).unwrap_or_default();
    retell(export).iter().map(|entry| line(entry, begin) + "\n").collect()
}
