//! Looks into `/proc` for who holds the proxy's port, and ends a proven leftover.
//!
//! [`port`] gathers and `holder.rs` judges. [`end`] is the one place that signals a process: it takes hold of it first
//! and looks again then, so that neither a reused number nor a change since the look can misdirect the signal.
//! Neither is asynchronous; call them where blocking is allowed.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use thiserror::Error;

use super::holder::{self, Expected, Seen, Standing, View};
use crate::host::portowner::{self, Listener};
use crate::watchdog::signal::{Port, Process};

/// How long a process may take to end after SIGTERM, and again after SIGKILL.
pub const END_LIMIT: Duration = Duration::from_secs(5);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was gone already.
    Gone,
    /// By SIGTERM.
    Terminated,
    /// By SIGKILL, after SIGTERM did not help within the limit.
    Killed,
}

/// Why a process was not ended.
#[derive(Debug, Error)]
pub enum ActError {
    /// It is not, or no longer, what it was taken for. Nothing was sent.
    #[error("process {pid} is not the one that was meant, or not a leftover: {differs}")]
    NotTheSame {
        /// Its number.
        pid: u32,
        /// What differs: `start time`, `program`, `socket`, `standing`.
        differs: &'static str,
    },
    /// What it is cannot be read. Nothing was sent.
    #[error("cannot look into process {pid}")]
    Look {
        /// Its number.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// No descriptor of it (Linux before 5.3, or a filter). Nothing was sent.
    #[error("cannot take hold of process {pid}")]
    Hold {
        /// Its number.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// The signal was refused, or its end cannot be waited for.
    #[error("cannot end process {pid}")]
    Signal {
        /// Its number.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// It lives after SIGKILL: it hangs in the kernel.
    #[error("process {pid} outlived SIGKILL")]
    Survived {
        /// Its number.
        pid: u32,
    },
}

/// Who holds the port. What cannot be read makes it [`Port::Unknown`], never a leftover.
pub fn port(expected: &Expected) -> Port {
    let Ok(listeners) = portowner::listeners() else { return Port::Unknown };
    let sockets = sockets(&listeners, expected.port);
    // Sockets of others, and none: no need to look into processes, which the judgement would not ask for.
    if sockets.iter().any(|(uid, _)| *uid != expected.uid) || sockets.is_empty() {
        return holder::port(&View { sockets, holders: Vec::new() }, expected);
    }
    let Ok(pids) = pids() else { return Port::Unknown };
    let mut holders = Vec::new();
    for pid in pids {
        for (_, inode) in &sockets {
            // A process that ends meanwhile or cannot be looked into holds nothing, as far as is known; a socket without
            // a holder is unknown then.
            if let Ok(Some(seen)) = look(pid, *inode, expected.uid) {
                holders.push(seen);
            }
        }
    }
    holder::port(&View { sockets, holders }, expected)
}

/// Ends a leftover: takes hold of it, makes sure that it still is `process` and a leftover, sends SIGTERM, waits up to
/// [`END_LIMIT`], sends SIGKILL and waits again. Blocks as long; any other process, above all another user's, is left
/// alone.
///
/// # Errors
/// [`ActError`]; only `Signal` and `Survived` can come after a signal was sent.
pub fn end(process: &Process, expected: &Expected) -> Result<Ended, ActError> {
    end_within(process, expected, END_LIMIT)
}

fn end_within(process: &Process, expected: &Expected, limit: Duration) -> Result<Ended, ActError> {
    let pid = process.pid;
    // 0 and negative numbers mean groups of processes elsewhere; here there is no such process.
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(Ended::Gone) };
    let handle = match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(Ended::Gone),
        Err(errno) => return Err(ActError::Hold { pid, source: errno.into() }),
    };
    let signal_error = |source| ActError::Signal { pid, source };
    let looked = verify(process, expected);
    // The number belongs to the process behind the handle as long as that lives: what was read is about it.
    if ended(handle.as_fd(), Duration::ZERO).map_err(signal_error)? {
        return Ok(Ended::Gone);
    }
    looked?;
    for (signal, outcome) in [(Signal::TERM, Ended::Terminated), (Signal::KILL, Ended::Killed)] {
        match rustix::process::pidfd_send_signal(&handle, signal) {
            // It ended just now; the wait finds that at once.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(signal_error(errno.into())),
        }
        if ended(handle.as_fd(), limit).map_err(signal_error)? {
            return Ok(outcome);
        }
    }
    Err(ActError::Survived { pid })
}

/// Whether the number now stands for `process`, and that for a leftover.
fn verify(process: &Process, expected: &Expected) -> Result<(), ActError> {
    let pid = process.pid;
    let differs = |differs| Err(ActError::NotTheSame { pid, differs });
    let seen = look(pid, process.inode, expected.uid).map_err(|source| ActError::Look { pid, source })?;
    let Some(seen) = seen else { return differs("socket") };
    if seen.process.start != process.start {
        return differs("start time");
    }
    if seen.process.exe != process.exe {
        return differs("program");
    }
    if holder::judge(&seen, expected) != Standing::Stale {
        return differs("standing");
    }
    Ok(())
}

/// Waits until the process behind the handle has ended; false if it has not within `limit`.
fn ended(handle: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(handle, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// User and inode of the sockets that would take a connection to the port.
fn sockets(listeners: &[Listener], port: u16) -> Vec<(u32, u64)> {
    portowner::taking(listeners, port).into_iter().map(|one| (one.uid, one.inode)).collect()
}

fn pids() -> io::Result<Vec<u32>> {
    let names = fs::read_dir("/proc")?.flatten().map(|entry| entry.file_name());
    let mut pids: Vec<u32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// One process, if it holds the socket; `None` if it does not, or none of its user ids is `uid`.
fn look(pid: u32, inode: u64, uid: u32) -> io::Result<Option<Seen>> {
    let of = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
    let odd = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let uids = holder::uids(&fs::read_to_string(of("status"))?).ok_or_else(|| odd("no user ids in status"))?;
    if !uids.contains(&uid) || !holds(pid, inode)? {
        return Ok(None);
    }
    let stat = || {
        // A process chooses its own name, which need not be text.
        let line = fs::read(of("stat"))?;
        holder::stat(&String::from_utf8_lossy(&line)).ok_or_else(|| odd("unknown form of stat"))
    };
    let before = stat()?;
    let exe = fs::read_link(of("exe")).ok();
    let exe = exe.as_ref().and_then(|link| link.to_str()).map(|link| holder::program(link).to_owned());
    let cgroup = fs::read_to_string(of("cgroup")).ok();
    // The number was not given to another process while this was read.
    if !holds(pid, inode)? || stat()?.start != before.start {
        return Ok(None);
    }
    let exe = exe.unwrap_or_default();
    let process = Process { pid, start: before.start, exe, inode, terminal: before.terminal };
    Ok(Some(Seen { process, own: uids == [uid; 4], cgroup }))
}

fn holds(pid: u32, inode: u64) -> io::Result<bool> {
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    let mut files = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    Ok(files.any(|file| fs::read_link(file.path()).is_ok_and(|link| link == socket)))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    use super::*;

    const LISTEN: &str = "CODEX_TEST_LISTEN";

    /// The other half of the tests below: this program under another name, which listens until it is ended.
    #[test]
    fn in_a_process_that_listens() {
        if std::env::var_os(LISTEN).is_none() {
            return;
        }
        // Without a terminal, as a leftover is.
        nix::unistd::setsid().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        eprintln!("port={}", listener.local_addr().unwrap().port());
        // Not for ever, should the test that started it die.
        std::thread::sleep(Duration::from_secs(60));
    }

    struct Leftover {
        child: Child,
        exe: PathBuf,
        port: u16,
        _dir: tempfile::TempDir,
    }

    impl Drop for Leftover {
        fn drop(&mut self) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }

    impl Leftover {
        fn start(deaf: bool) -> Self {
            let this = std::env::current_exe().unwrap();
            // Beside this program, on the same file system, so that it can be linked there.
            let dir = tempfile::tempdir_in(this.parent().unwrap()).unwrap();
            let exe = dir.path().canonicalize().unwrap().join("codex-proxy");
            fs::hard_link(&this, &exe).unwrap();
            let trap = if deaf { "trap '' TERM; " } else { "" };
            let mut child = Command::new("sh")
                .args(["-c", &format!("{trap}exec \"$0\" \"$@\"")])
                .arg(&exe)
                .args(["--exact", "watchdog::sources::processes::tests::in_a_process_that_listens", "--nocapture"])
                .env(LISTEN, "1")
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stderr.take().unwrap()).lines();
            let port = lines.map(Result::unwrap).find_map(|line| line.strip_prefix("port=")?.parse().ok()).unwrap();
            Self { child, exe, port, _dir: dir }
        }

        fn expected(&self) -> Expected {
            let exe = self.exe.to_str().unwrap().to_owned();
            Expected { port: self.port, exe, uid: nix::unistd::getuid().as_raw(), manager: None }
        }

        fn stale(&self) -> Process {
            match port(&self.expected()) {
                Port::Stale(process) => process,
                port => panic!("{port:?}"),
            }
        }

        fn lives(&mut self) -> bool {
            self.child.try_wait().unwrap().is_none()
        }
    }

    #[test]
    fn a_leftover_is_recognised_and_ended() {
        let mut leftover = Leftover::start(false);
        let process = leftover.stale();
        assert_eq!((process.pid, Path::new(&process.exe)), (leftover.child.id(), leftover.exe.as_path()));
        assert_eq!(end(&process, &leftover.expected()).unwrap(), Ended::Terminated);
        assert!(!leftover.lives());
        assert_eq!(port(&leftover.expected()), Port::Free);
        assert_eq!(end(&process, &leftover.expected()).unwrap(), Ended::Gone);
    }

    #[test]
    fn a_leftover_of_a_replaced_program_is_recognised() {
        let mut leftover = Leftover::start(false);
        fs::remove_file(&leftover.exe).unwrap();
        let process = leftover.stale();
        assert_eq!(Path::new(&process.exe), leftover.exe);
        assert_eq!(end(&process, &leftover.expected()).unwrap(), Ended::Terminated);
        assert!(!leftover.lives());
    }

    #[test]
    fn one_that_ignores_the_request_is_killed() {
        let mut leftover = Leftover::start(true);
        let ended = end_within(&leftover.stale(), &leftover.expected(), Duration::from_millis(300)).unwrap();
        assert_eq!(ended, Ended::Killed);
        assert!(!leftover.lives());
    }

    #[test]
    fn whatever_differs_nothing_is_ended() {
        let mut leftover = Leftover::start(false);
        let expected = leftover.expected();
        let process = leftover.stale();
        let refused = |process: &Process, expected: &Expected| match end(process, expected) {
            Err(ActError::NotTheSame { differs, .. }) => differs,
            other => panic!("{other:?}"),
        };
        let start = Process { start: process.start + 1, ..process.clone() };
        assert_eq!(refused(&start, &expected), "start time");
        let exe = Process { exe: "/usr/bin/codex-proxy".into(), ..process.clone() };
        assert_eq!(refused(&exe, &expected), "program");
        let socket = Process { inode: process.inode + 1_000_000, ..process.clone() };
        assert_eq!(refused(&socket, &expected), "socket");
        let ours = Expected { manager: Some(process.pid), ..expected.clone() };
        assert_eq!(refused(&process, &ours), "standing");
        assert_eq!(port(&ours), Port::Ours);
        let elsewhere = Expected { exe: "/usr/bin/codex-proxy".into(), ..expected.clone() };
        assert_eq!(refused(&process, &elsewhere), "standing");
        assert_eq!(port(&elsewhere), Port::Other(process.clone()));
        let user = Expected { uid: expected.uid + 1, ..expected };
        assert_eq!(refused(&process, &user), "socket");
        assert!(matches!(port(&user), Port::User { .. }));
        assert!(leftover.lives());
    }

    #[test]
    fn a_socket_bound_to_the_address_itself_comes_first() {
        let listener = |address: &str, inode| Listener { address: address.parse().unwrap(), port: 1, uid: 5, inode };
        let all = [listener("0.0.0.0", 1), listener("::", 2), listener("192.0.2.1", 3)];
        assert_eq!(sockets(&all, 1), [(5, 1), (5, 2)]);
        assert_eq!(sockets(&[&all[..], &[listener("127.0.0.1", 4)]].concat(), 1), [(5, 4)]);
        assert_eq!(sockets(&all, 2), []);
    }
}
