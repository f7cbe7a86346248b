//! `codex-proxyctl incidents`: what the watchdog found and did, read from the store in the state directory. It works
//! while the watchdog is down, and changes nothing.
//!
//! What the words are is said in `incidents/telling.rs`; `incidents/follow.rs` waits for new ones.

mod follow;
mod telling;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

pub use self::follow::follow;
use super::{CtlError, Outcome, json_line, times};
use crate::host::{files, log::chain};
use crate::watchdog::catalog::FaultId;
use crate::watchdog::incidents::history::{self, Filter, History, Summary};
use crate::watchdog::incidents::record::IncidentId;
use crate::watchdog::incidents::replay::{Kept, retell};
use crate::watchdog::incidents::store::{self, Contents, Numbered, StoreError};

/// As many are listed as the bus lists, unless a number is given.
const LIST_MAX: usize = 20;
/// So many names are told to one who asked for another.
const NAMES_MAX: usize = 10;

/// Which incidents, and how.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Only those open.
    pub open: bool,
    /// Only of this fault.
    pub fault: Option<String>,
    /// Opened not before, as [`times::moment`] reads it.
    pub since: Option<String>,
    /// At most so many.
    pub max: Option<usize>,
    /// For programs.
    pub json: bool,
}

/// The incidents, newest first.
pub fn list(state: &Path, options: &ListOptions) -> Result<Outcome, CtlError> {
    let filter = Filter {
        open: options.open.then_some(true),
        fault: options.fault.as_deref().map(parse_fault).transpose()?,
        since_wall_us: options
            .since
            .as_deref()
            .map(|text| times::moment(text, now_us()))
            .transpose()
            .map_err(CtlError::Arguments)?,
        max: None,
    };
    let history = History::of(&read(state)?);
    let mut found = history.list(&filter);
    let older = found.len().saturating_sub(options.max.unwrap_or(LIST_MAX));
    found.truncate(found.len() - older);
    if options.json {
        return json_line(&telling::list_json(&found)).map(Outcome::of);
    }
    if found.is_empty() && older == 0 {
        let all = history.list(&Filter::default()).len();
        let text = if all == 0 {
            "no incidents: the watchdog has seen nothing go wrong, as far as its records go"
        } else {
            "no incident is like that; `codex-proxyctl incidents list` shows all"
        };
        return Ok(Outcome::of(format!("{text}\n")));
    }
    let mut lines: Vec<String> = found.iter().map(|one| telling::list_line(one)).collect();
    if older > 0 {
        lines.push(format!("and {older} older ones: -n {}", found.len() + older));
    }
    Ok(Outcome::of(super::lines(&lines)))
}

/// One incident's story.
pub fn show(state: &Path, id: &str, json: bool) -> Result<Outcome, CtlError> {
    let id = parse_id(id)?;
    let history = History::of(&read(state)?);
    let one = known(&history, id)?;
    if json { json_line(&telling::json(one)).map(Outcome::of) } else { Ok(Outcome::of(telling::story(one))) }
}

/// What a fault means and what to do about it; of an incident, also what was done.
pub fn explain(state: &Path, what: &str) -> Result<Outcome, CtlError> {
    if let Ok(fault) = parse_fault(what) {
        let history = History::of(&read(state)?);
        let of_it = history.list(&Filter { fault: Some(fault), ..Filter::default() });
        let names = of_it.iter().take(NAMES_MAX).map(|one| one.id.to_string()).collect::<Vec<_>>();
        return Ok(Outcome::of(telling::explain_fault(fault.row(), &names, of_it.len())));
    }
    let id = parse_id(what).map_err(|_| {
        CtlError::Arguments(format!("{what:?} is neither an incident (i12 or 12) nor a fault (A1 to E5)"))
    })?;
    let history = History::of(&read(state)?);
    Ok(Outcome::of(telling::explain_incident(known(&history, id)?)))
}

/// One incident for `codex-watchdog replay`, in a file of its owner's alone, or to be printed.
pub fn export(state: &Path, id: &str, output: Option<&Path>) -> Result<Outcome, CtlError> {
    let id = parse_id(id)?;
    let kept = read(state)?;
    let history = History::of(&kept);
    let one = known(&history, id)?;
    let export = history::export(&kept, id).map_err(|error| CtlError::Unforeseen(error.to_string()))?;
    let told: Vec<_> = retell(&export).into_iter().filter(|entry| entry.incident == id).collect();
    if told != one.story {
        tracing::warn!(codex_incident = %id, "told again by this program the story differs from the one kept: another version wrote it, or lines are lost");
    }
    let text =
        serde_json::to_string(&export).map_err(|error| CtlError::Unforeseen(format!("no JSON: {error}")))? + "\n";
    let Some(output) = output else { return Ok(Outcome::of(text)) };
    files::replace(output, text.as_bytes(), 0o600).map_err(|error| CtlError::io("write", output, &error))?;
    Ok(Outcome::of(format!("{id} is in {}; to tell it again: codex-watchdog replay {0}\n", output.display())))
}

/// `i12` or `12`.
pub(super) fn parse_id(text: &str) -> Result<IncidentId, CtlError> {
    let digits = text.strip_prefix('i').unwrap_or(text);
    let number = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = number.and_then(|digits| digits.parse().ok()).map(IncidentId);
    number.ok_or_else(|| CtlError::Arguments(format!("{text:?} names no incident: write i12 or 12")))
}

fn parse_fault(text: &str) -> Result<FaultId, CtlError> {
    FaultId::parse(&text.to_ascii_uppercase())
        .ok_or_else(|| CtlError::Arguments(format!("{text:?} is no fault: they are named A1 to E5")))
}

fn known(history: &History, id: IncidentId) -> Result<&Summary, CtlError> {
    history.get(id).ok_or_else(|| {
        let all = history.list(&Filter::default());
        let names: Vec<String> = all.iter().take(NAMES_MAX).map(|one| one.id.to_string()).collect();
        let more = if all.len() > names.len() { " and older ones" } else { "" };
        CtlError::Unforeseen(if names.is_empty() {
            format!("there is no incident {id}: none is kept")
        } else {
            format!("there is no incident {id}; there are {}{more}", names.join(", "))
        })
    })
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// All lines of the store; tells of those that cannot be read.
fn read(state: &Path) -> Result<Vec<Kept>, CtlError> {
    Ok(read_numbered(state)?.into_iter().map(|one| one.entry).collect())
}

fn read_numbered(state: &Path) -> Result<Vec<Numbered<Kept>>, CtlError> {
    let contents = contents(state)?;
    for damage in &contents.damage {
        tracing::warn!(
            codex_path = %damage.file.display(),
            codex_lines = damage.lines,
            "damaged lines, or lines of another version, are left out"
        );
    }
    Ok(contents.entries)
}

fn contents(state: &Path) -> Result<Contents<Kept>, CtlError> {
    let read = || {
        store::read(state).map_err(|error| {
            let text = chain(&error);
            match error {
                StoreError::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                    CtlError::Privileges(text)
                }
                _ => CtlError::Unforeseen(text),
            }
        })
    };
    let contents = read()?;
    // The last line may have been in the writing.
    if contents.damage.is_empty() { Ok(contents) } else { read() }
}
