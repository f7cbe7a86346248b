//! The port that `setup` tells Codex: that of the installed socket, moved out of the way of others if need be.
//!
//! The manager holds the port, so it must learn a new one before Codex does: a drop-in for the socket, a reload, a
//! restart of the socket, a look whether it listens, and only then is Codex's configuration written.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use super::units::{Evidence, Health, SERVICE, SOCKET, Units};
use super::{CtlError, manager, status};
use crate::host::portowner::{self, Holder, Listener};
use crate::host::{files, paths};

/// Ports for users whose usual one is taken begin here: far from well-known ones, below those that the kernel gives out.
const FIRST: u16 = 18_459;
/// And so many of them there are: one user, one port to begin with.
const COUNT: u16 = 10_000;

const HEALTH_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

/// What `setup` is to use, and what it should say about that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The port.
    pub port: u16,
    /// Sentences for the user.
    pub notes: Vec<String>,
}

/// The port, after what had to be done for it; in a dry run nothing is done, only told.
///
/// `named` is the user's word and always counts.
pub async fn choose(named: Option<u16>, usual: u16, dry_run: bool) -> Result<Choice, CtlError> {
    let units = manager::units().await.ok().filter(Units::are_installed);
    let (Some(units), None) = (&units, named) else {
        let port = named.unwrap_or(usual);
        let notes = units.and_then(|units| units.port()).filter(|there| *there != port).map(|there| {
            format!("{SOCKET} listens on port {there}, Codex will look for the proxy on port {port}, as you said")
        });
        return Ok(Choice { port, notes: notes.into_iter().collect() });
    };
    let port = units.port().unwrap_or(usual);
    let evidence = status::look_at(port, Ok(units.clone()), HEALTH_LIMIT).await?;
    let Some(why) = in_the_way(&evidence) else {
        let notes = (!units.socket.is_up() && evidence.holder == Holder::Nobody)
            .then(|| format!("the proxy is not started: systemctl --user enable --now {SERVICE}"));
        return Ok(Choice { port, notes: notes.into_iter().collect() });
    };
    let free = free_port(port)?;
    let file = drop_in()?;
    if dry_run {
        let note = format!("{why}; {SOCKET} would be moved to port {free} by {}", file.display());
        return Ok(Choice { port: free, notes: vec![note] });
    }
    move_socket(free, &file).await?;
    let note = format!("{why}; {SOCKET} was moved to port {free} by {}", file.display());
    Ok(Choice { port: free, notes: vec![note] })
}

/// Why the port cannot be the proxy's, if it cannot.
fn in_the_way(evidence: &Evidence) -> Option<String> {
    let port = evidence.port;
    match evidence.holder {
        Holder::Nobody => None,
        Holder::User(uid) if uid != evidence.me => Some(format!("port {port} is held by user {uid}")),
        // The manager's own.
        Holder::User(_) if evidence.units.as_ref().is_ok_and(|units| units.socket.is_up()) => None,
        // The fallback, or a proxy that was started by hand.
        Holder::User(_) if evidence.health.page().is_some() => None,
        Holder::User(_) => {
            let what = if matches!(evidence.health, Health::Fails(_)) { " and does not answer" } else { "" };
            Some(format!("port {port} is held by another program of yours{what}"))
        }
    }
}

/// A port nobody listens on, the same for the same user as long as it is free.
fn free_port(not: u16) -> Result<u16, CtlError> {
    let listeners = portowner::listeners()
        .map_err(|error| CtlError::Unforeseen(format!("cannot tell which ports are free: {error}")))?;
    candidates(nix::unistd::geteuid().as_raw(), &listeners)
        .filter(|port| *port != not)
        // The kernel knows what its tables do not show.
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| CtlError::Unforeseen("no free port was found; name one with --port".to_owned()))
}

/// The ports to try, in order.
fn candidates(uid: u32, listeners: &[Listener]) -> impl Iterator<Item = u16> {
    let begin = u16::try_from(uid % u32::from(COUNT)).unwrap_or_default();
    (0..COUNT)
        .map(move |step| FIRST + (begin + step) % COUNT)
        .filter(|port| !listeners.iter().any(|listener| listener.port == *port))
}

/// Where the socket's port is changed.
pub fn drop_in() -> Result<PathBuf, CtlError> {
    let paths = paths::Paths::from_env().map_err(|error| CtlError::Arguments(error.to_string()))?;
    // Ours lies in it, so it has a parent.
    let config_home = paths.config.parent().unwrap_or(Path::new("/"));
    Ok(config_home.join(format!("systemd/user/{SOCKET}.d/port.conf")))
}

fn drop_in_text(port: u16) -> String {
    format!(
        "# Written by `codex-proxyctl setup`, because the usual port was taken. Delete it, then run `systemctl --user\n\
         # daemon-reload`, `codex-proxyctl stop`, `codex-proxyctl start` and `codex-proxyctl setup` to go back.\n\
         [Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n"
    )
}

async fn move_socket(port: u16, file: &Path) -> Result<(), CtlError> {
    let before = std::fs::read(file).ok();
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent).map_err(|error| CtlError::io("make", parent, &error))?;
    }
    files::replace(file, drop_in_text(port).as_bytes(), 0o644).map_err(|error| CtlError::io("write", file, &error))?;
    let failed = match listen(port).await {
        Ok(()) => return Ok(()),
        Err(why) => why,
    };
    // As it was: a drop-in that does not work would only be in the way.
    let undone = match before {
        Some(before) => files::replace(file, &before, 0o644),
        None => std::fs::remove_file(file),
    };
    let _ = manager::act("daemon-reload", &[]).await;
    let left = undone.err().map(|error| format!("; {} could not be undone: {error}", file.display()));
    Err(CtlError::Unforeseen(format!(
        "{SOCKET} could not be moved to port {port}: {failed}{}; Codex's configuration was not changed",
        left.unwrap_or_default()
    )))
}

async fn listen(port: u16) -> Result<(), String> {
    manager::act("daemon-reload", &[]).await?;
    // It failed over the port that was taken, and may have used up its starts.
    let _ = manager::act("reset-failed", &[SOCKET]).await;
    // A running service would keep its socket from being started.
    manager::act("stop", &[SERVICE]).await?;
    manager::act("restart", &[SOCKET]).await?;
    let units = manager::units().await?;
    if units.port() != Some(port) {
        return Err(format!("another drop-in sets its port: systemctl --user cat {SOCKET}"));
    }
    if !units.socket.is_up() {
        return Err(format!("it is {} ({})", units.socket.active_state, units.socket.result));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use serde_json::json;

    use super::*;
    use crate::ctl::units::{Unit, Watch};

    #[test]
    fn only_what_is_not_ours_is_in_the_way() {
        let evidence = |state: &str, holder, health| Evidence {
            units: Ok(Units { socket: Unit { active_state: state.to_owned(), ..Unit::default() }, ..Units::default() }),
            port: 8459,
            holder,
            me: 7,
            health,
            watch: Watch::NotAsked,
        };
        let ours = Health::Answers(json!({"state": "ready"}));
        let theirs = Health::Answers(json!({}));
        assert_eq!(in_the_way(&evidence("inactive", Holder::Nobody, Health::NotAsked)), None);
        assert_eq!(in_the_way(&evidence("active", Holder::User(7), Health::NotAsked)), None);
        assert_eq!(in_the_way(&evidence("failed", Holder::User(7), ours)), None, "the fallback");
        assert!(in_the_way(&evidence("failed", Holder::User(7), theirs)).is_some());
        assert!(
            in_the_way(&evidence("failed", Holder::User(8), Health::NotAsked))
                .is_some_and(|why| why.contains("user 8"))
        );
        assert!(in_the_way(&evidence("active", Holder::User(8), Health::NotAsked)).is_some());
    }

    #[test]
    fn each_user_begins_elsewhere_and_none_takes_what_is_taken() {
        let taken = Listener { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: FIRST + 1000, uid: 1, inode: 1 };
        assert_eq!(candidates(1000, &[]).next(), Some(FIRST + 1000));
        assert_eq!(candidates(1000, &[taken]).next(), Some(FIRST + 1001));
        assert_eq!(candidates(19_999, &[]).take(2).collect::<Vec<_>>(), [FIRST + 9999, FIRST]);
    }

    #[test]
    fn the_drop_in_replaces_the_list() {
        assert!(drop_in_text(9000).ends_with("[Socket]\nListenStream=\nListenStream=127.0.0.1:9000\n"));
    }
}
