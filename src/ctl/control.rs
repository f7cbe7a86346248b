//! `codex-proxyctl start|stop|restart|recover`: asks the service manager, then makes sure that it came about.
//!
//! That is judged by `/health`, which waits in the socket while the service starts, and not by what the manager says:
//! a start may fail and the restart after it serve.

use std::time::Duration;

use super::units::{self, FALLBACK, SERVICE, SERVING, SOCKET, State};
use super::{CtlError, Outcome, logs, manager, status, watchdog};
use crate::host::portowner::Holder;

/// How long to wait for the first answer after a start.
const SERVE_LIMIT: Duration = Duration::from_secs(15);
/// How much of the journal an error shows.
const TAIL_LINES: u32 = 15;

/// Starts socket and service.
pub async fn start() -> Result<Outcome, CtlError> {
    manager::installed_units().await?;
    serve(manager::act("start", &[SOCKET, SERVICE]).await, None).await
}

/// Restarts the service; the socket stays, so that nobody is refused.
///
/// Every start counts towards the unit's limit, and one too many would be refused *after* the working proxy was
/// stopped. So the count is cleared first, as by [`recover`]: a person asked.
pub async fn restart() -> Result<Outcome, CtlError> {
    manager::installed_units().await?;
    clear_counts().await;
    serve(manager::act("restart", &[SERVICE]).await, None).await
}

/// Clears what made the manager give up, and starts socket and service.
pub async fn recover() -> Result<Outcome, CtlError> {
    manager::installed_units().await?;
    clear_counts().await;
    serve(manager::act("start", &[SOCKET, SERVICE]).await, Some("recovered; ")).await
}

/// Stops the socket, the service, and what answers in its place. The watchdog goes on, and knows that this was meant.
pub async fn stop() -> Result<Outcome, CtlError> {
    let units = manager::installed_units().await?;
    // Before it takes this for a failure.
    watchdog::note_stop().await;
    let present: Vec<&str> = units
        .serving()
        .into_iter()
        .zip(SERVING)
        .filter(|(unit, _)| unit.is_installed())
        .map(|(_, name)| name)
        .collect();
    let done = manager::act("stop", &present).await;
    let units = manager::installed_units().await?;
    if let Some(unit) = units.serving().into_iter().find(|unit| unit.is_up()) {
        let why = done.err().map_or_else(String::new, |why| format!(": {why}"));
        return Err(CtlError::Unforeseen(format!("{} is still {}{why}", unit.name, unit.active_state)));
    }
    let mut report = vec![format!("stopped: {SOCKET}, {SERVICE}, {FALLBACK}")];
    if let Some(port) = units.port()
        && let Holder::User(uid) = status::holder(port)?
    {
        report.push(format!("note: port {port} is still held, by a program of user {uid} that is no unit of ours"));
    }
    if units.socket.file_state == "enabled" {
        report.push(format!("at the next login it starts again; to prevent that: systemctl --user disable {SERVICE}"));
    }
    Ok(Outcome::of(super::lines(&report)))
}

/// A unit that has nothing to clear is no error.
async fn clear_counts() {
    for unit in [SERVICE, SOCKET] {
        let _ = manager::act("reset-failed", &[unit]).await;
    }
}

/// Whether it serves now; if not, why, with the end of the journal.
async fn serve(done: Result<(), String>, prefix: Option<&str>) -> Result<Outcome, CtlError> {
    let evidence = status::look(None, SERVE_LIMIT).await?;
    let (state, troubles) = units::judge(&evidence);
    let mut text = prefix.filter(|_| state == State::Serving).unwrap_or_default().to_owned();
    text.push_str(&status::for_people(&evidence, state, &troubles));
    if state == State::Serving {
        return Ok(Outcome::of(text));
    }
    if let Err(why) = done {
        text.push_str(&format!("systemctl: {why}\n"));
    }
    let tail = logs::tail(TAIL_LINES).await;
    if tail.is_empty() {
        text.push_str("the journal shows nothing; `codex-proxyctl logs` says why\n");
    } else {
        text.push_str("the journal's last lines:\n");
        text.push_str(&tail);
    }
    Ok(Outcome { text, code: 1 })
}
