//! `codex-proxyctl token --port N`: the bearer token, if the port is ours.
//!
//! Codex runs it as `auth.command` at each start. Were the token printed while a stranger holds the port, Codex would
//! send them token and prompts. A failure does not prevent that: Codex 0.169.0 then sends the whole request without a
//! token (measured). So Codex is held back instead ([`Stranger::Hold`]): it sends nothing while the command runs, and
//! `setup` gives the command a long time limit.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::CtlError;
use crate::host::portowner::{self, Holder};
use crate::host::secretfile::{self, Secret32};

/// How long to wait for somebody to listen: a service that starts needs less than a second. Codex ends its
/// `auth.command` after 5 s (measured with 0.169.0) and would then not show what we say.
pub const LISTENER_WAIT: Duration = Duration::from_secs(4);
/// The kernel's tables announce no change, so they are read again and again.
const STEP: Duration = Duration::from_millis(50);

/// What to do while another user holds the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// Fail at once: for people.
    Refuse,
    /// Say it and wait until they are gone, or whoever asked is: for Codex.
    Hold,
}

/// The token, once a listener of ours is on the port. Nobody there for as long as `wait` is an error.
pub fn for_port(port: u16, state_dir: &Path, wait: Duration, stranger: Stranger) -> Result<Secret32, CtlError> {
    let me = nix::unistd::geteuid().as_raw();
    own_listener(port, me, wait, stranger, || Ok(portowner::holder(&portowner::listeners()?, port, me)))?;
    secretfile::load_or_create(state_dir, secretfile::TOKEN)
        .map_err(|error| CtlError::io("use the token in", state_dir, &error))
}

/// Waits for a listener on `127.0.0.1:port`, as `look` tells, and makes sure that it is the user `me`.
fn own_listener(
    port: u16,
    me: u32,
    wait: Duration,
    stranger: Stranger,
    mut look: impl FnMut() -> io::Result<Holder>,
) -> Result<(), CtlError> {
    let asker = nix::unistd::getppid();
    let mut deadline = Instant::now() + wait;
    let mut said = false;
    loop {
        let holder =
            look().map_err(|error| CtlError::Unforeseen(format!("cannot tell who listens on port {port}: {error}")))?;
        match holder {
            Holder::User(uid) if uid == me => return Ok(()),
            Holder::User(uid) => {
                let text = format!("port {port} is held by user {uid}, not by you ({me}): the token is not given out");
                if stranger == Stranger::Refuse || nix::unistd::getppid() != asker {
                    return Err(CtlError::Unforeseen(text));
                }
                if !said {
                    tracing::warn!(
                        codex_port = port,
                        codex_uid = uid,
                        "another user holds the port; no token until they are gone"
                    );
                    tell_terminal(&text);
                    said = true;
                }
                deadline = Instant::now() + wait;
            }
            Holder::Nobody if Instant::now() >= deadline => {
                return Err(CtlError::Unforeseen(format!(
                    "nobody listens on 127.0.0.1:{port}; start the proxy with `systemctl --user start codex-proxy.socket`, \
                     or by hand with `codex-proxy --listen 127.0.0.1:{port}`"
                )));
            }
            Holder::Nobody => {}
        }
        std::thread::sleep(STEP);
    }
}

/// Codex shows what its command says only after its end, which is not in sight here; the terminal shows it now.
fn tell_terminal(text: &str) {
    if let Ok(mut terminal) = OpenOptions::new().write(true).open("/dev/tty") {
        // Without a terminal nobody is looking.
        let _ = write!(terminal, "\r\ncodex-proxyctl: {text}; Codex waits until it is yours (Ctrl-C ends it)\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u32 = 1000;

    fn ask(stranger: Stranger, holders: &[Holder]) -> Result<(), String> {
        let mut holders = holders.iter();
        let look = || holders.next().copied().ok_or_else(|| io::Error::other("asked too often"));
        own_listener(8459, ME, Duration::ZERO, stranger, look).map_err(|error| error.to_string())
    }

    #[test]
    fn a_stranger_gets_nothing() {
        let error = ask(Stranger::Refuse, &[Holder::User(1001)]).unwrap_err();
        assert!(error.contains("held by user 1001"), "{error}");
        assert_eq!(ask(Stranger::Refuse, &[Holder::User(ME)]), Ok(()));
    }

    #[test]
    fn codex_is_held_back_until_the_stranger_is_gone() {
        assert_eq!(ask(Stranger::Hold, &[Holder::User(1001), Holder::User(1001), Holder::User(ME)]), Ok(()));
    }

    #[test]
    fn nobody_there_is_told_with_what_to_do() {
        let error = ask(Stranger::Hold, &[Holder::Nobody]).unwrap_err();
        assert!(error.contains("systemctl --user start codex-proxy.socket"), "{error}");
    }
}
