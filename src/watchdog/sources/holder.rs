//! Who holds the port: the judgement over what `/proc` showed. PURE.
//!
//! `processes.rs` looks and, if the brain decides so, acts; both ask [`judge`], so that nothing is ended which would not
//! be called stale at that moment.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::watchdog::signal::{Port, Process, Unit};

/// The watchdog's own unit: besides those of [`Unit`], what runs in it is ours too.
const WATCHDOG_UNIT: &str = "codex-watchdog.service";

/// What the judgement is measured by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The port in question, on the loopback.
    pub port: u16,
    /// The proxy's installed program, absolute, as `/proc/PID/exe` would name it: no link.
    pub exe: String,
    /// This user.
    pub uid: u32,
    /// The user's service manager, which holds the socket unit's listener; `None` if it is unknown.
    pub manager: Option<u32>,
}

/// A process that has the listening socket among its open files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its number, start time, program, socket and terminal. If the program cannot be read, it is empty.
    pub process: Process,
    /// Whether all its user ids are [`Expected::uid`].
    pub own: bool,
    /// Its line or lines in `/proc/PID/cgroup`; `None` if they cannot be read.
    pub cgroup: Option<String>,
}

/// All that was seen of the port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// User and inode of each socket that would take a connection to the port.
    pub sockets: Vec<(u32, u64)>,
    /// The processes that hold one of them, as far as this user may see.
    pub holders: Vec<Seen>,
}

/// What one holder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The manager, or in a unit of ours.
    Ours,
    /// Proven to be a leftover of ours.
    Stale,
    /// Something of this user's, not proven to be a leftover.
    Other,
    /// It cannot be told.
    Unknown,
}

/// What a holder is. Stale only if everything speaks for it.
pub fn judge(seen: &Seen, expected: &Expected) -> Standing {
    if expected.manager == Some(seen.process.pid) {
        return Standing::Ours;
    }
    let Some(cgroup) = &seen.cgroup else { return Standing::Unknown };
    if in_a_unit_of_ours(cgroup) {
        return Standing::Ours;
    }
    if seen.process.exe.is_empty() {
        return Standing::Unknown;
    }
    if seen.own && seen.process.exe == expected.exe && !seen.process.terminal {
        return Standing::Stale;
    }
    Standing::Other
}

/// Who holds the port. What weighs against acting comes first: another user, then a holder that is not ours, then one
/// that cannot be told, then ours; a leftover only if all holders are leftovers. Of several the first is named.
///
/// A socket whose holder is not among `view.holders` is held by somebody who could not be looked into.
pub fn port(view: &View, expected: &Expected) -> Port {
    if let Some((uid, _)) = view.sockets.iter().find(|(uid, _)| *uid != expected.uid) {
        return Port::User { uid: *uid };
    }
    if view.sockets.is_empty() {
        return Port::Free;
    }
    let with = |standing| view.holders.iter().find(|seen| judge(seen, expected) == standing);
    if let Some(seen) = with(Standing::Other) {
        return Port::Other(seen.process.clone());
    }
    let held = |inode: u64| view.holders.iter().any(|seen| seen.process.inode == inode);
    if with(Standing::Unknown).is_some() || !view.sockets.iter().all(|(_, inode)| held(*inode)) {
        return Port::Unknown;
    }
    if with(Standing::Ours).is_some() {
        return Port::Ours;
    }
    with(Standing::Stale).map_or(Port::Unknown, |seen| Port::Stale(seen.process.clone()))
}

/// Whether `/proc/PID/cgroup` names a unit of ours as a whole part of the path: `…/my-codex-proxy.service` is none.
pub fn in_a_unit_of_ours(cgroup: &str) -> bool {
    cgroup
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .flat_map(|path| path.split('/'))
        .any(|part| part == WATCHDOG_UNIT || Unit::ALL.iter().any(|unit| unit.name() == part))
}

/// What is read from `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Field 22: clock ticks since boot.
    pub start: u64,
    /// Field 7 is not 0.
    pub terminal: bool,
}

/// Reads `/proc/PID/stat` (proc_pid_stat(5)). The name in parentheses may hold spaces and parentheses itself, so the
/// fields are counted from the last one on.
pub fn stat(line: &str) -> Option<Stat> {
    let (_, after) = line.rsplit_once(") ")?;
    // The first of them is field 3.
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let terminal: i64 = fields.get(7 - 3)?.parse().ok()?;
    Some(Stat { start: fields.get(22 - 3)?.parse().ok()?, terminal: terminal != 0 })
}

/// The user ids of `/proc/PID/status`: real, effective, saved, of the file system.
pub fn uids(status: &str) -> Option<[u32; 4]> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let uids: Vec<u32> = line.split_ascii_whitespace().map(|uid| uid.parse().ok()).collect::<Option<_>>()?;
    uids.try_into().ok()
}

/// The program's path as `/proc/PID/exe` gives it, without the mark of a deleted file: an upgrade replaces the program
/// of a running process.
pub fn program(link: &str) -> &str {
    link.strip_suffix(" (deleted)").unwrap_or(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXE: &str = "/usr/bin/codex-proxy";

    fn expected() -> Expected {
        Expected { port: 8459, exe: EXE.into(), uid: 1000, manager: Some(900) }
    }

    fn seen(pid: u32) -> Seen {
        let process = Process { pid, start: 7, exe: EXE.into(), inode: 42, terminal: false };
        let cgroup = Some("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope\n".into());
        Seen { process, own: true, cgroup }
    }

    fn of(holders: &[Seen]) -> Port {
        port(&View { sockets: vec![(1000, 42)], holders: holders.to_vec() }, &expected())
    }

    #[test]
    fn only_what_is_proven_in_every_respect_is_stale() {
        let stale = seen(5);
        assert_eq!(of(std::slice::from_ref(&stale)), Port::Stale(stale.process.clone()));
        let with = |change: fn(&mut Seen)| {
            let mut seen = seen(5);
            change(&mut seen);
            (of(std::slice::from_ref(&seen)), seen.process)
        };
        for change in [
            (|seen| seen.process.terminal = true) as fn(&mut Seen),
            |seen| seen.process.exe = "/home/u/codex-proxy".into(),
            |seen| seen.process.exe = "/usr/bin/codex-proxy2".into(),
            |seen| seen.own = false,
        ] {
            let (port, process) = with(change);
            assert_eq!(port, Port::Other(process));
        }
        for change in [
            (|seen| seen.process.exe.clear()) as fn(&mut Seen),
            |seen| seen.cgroup = None,
            |seen| {
                seen.process.inode = 43;
            },
        ] {
            assert_eq!(with(change).0, Port::Unknown);
        }
        let unit = |seen: &mut Seen| seen.cgroup = Some("0::/user.slice/app.slice/codex-proxy.service\n".into());
        assert_eq!(with(unit).0, Port::Ours);
        assert_eq!(of(&[seen(900)]), Port::Ours, "the manager");
    }

    #[test]
    fn one_holder_that_is_not_stale_protects_the_others() {
        let (mut other, mut unknown) = (seen(6), seen(7));
        other.process.terminal = true;
        unknown.cgroup = None;
        assert_eq!(of(&[seen(5), unknown.clone(), other.clone(), seen(900)]), Port::Other(other.process));
        assert_eq!(of(&[seen(5), unknown, seen(900)]), Port::Unknown);
        assert_eq!(of(&[seen(5), seen(900)]), Port::Ours);
        assert_eq!(of(&[seen(5), seen(8)]), Port::Stale(seen(5).process));
        assert_eq!(of(&[]), Port::Unknown, "somebody has it");
    }

    #[test]
    fn another_user_comes_before_everything_and_nobody_is_free() {
        let view = View { sockets: vec![(1000, 42), (0, 43)], holders: vec![seen(5)] };
        assert_eq!(port(&view, &expected()), Port::User { uid: 0 });
        assert_eq!(port(&View::default(), &expected()), Port::Free);
        let two = View { sockets: vec![(1000, 42), (1000, 43)], holders: vec![seen(5)] };
        assert_eq!(port(&two, &expected()), Port::Unknown, "one socket's holder is not seen");
    }

    #[test]
    fn units_are_whole_parts_of_a_path() {
        for ours in ["codex-proxy.service", "codex-proxy-capped.service", "codex-watchdog.service"] {
            assert!(in_a_unit_of_ours(&format!("0::/a/{ours}\n")));
            assert!(in_a_unit_of_ours(&format!("1:name=systemd:/a/{ours}/sub\n0::/\n")));
            assert!(!in_a_unit_of_ours(&format!("0::/a/my-{ours}\n")));
            assert!(!in_a_unit_of_ours(&format!("0::/a/{ours}.d\n")));
        }
        assert!(!in_a_unit_of_ours(""));
        assert!(in_a_unit_of_ours("0::/a:b/codex-proxy.service\n"), "a path may hold colons");
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let rest = "S 1 2 3 34816 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for name in ["sleep", "a b", "x) R 1 1 1 0 (", ") ) )"] {
            assert_eq!(stat(&format!("12 ({name}) {rest}\n")), Some(Stat { start: 4711, terminal: true }));
        }
        assert_eq!(stat("12 (sleep) S 1 2"), None);
        assert_eq!(stat(""), None);
    }

    #[test]
    fn ids_and_programs_are_read() {
        assert_eq!(uids("Name:\tUid: 1\nUid:\t1\t2\t3\t4\nGid:\t5\t5\t5\t5\n"), Some([1, 2, 3, 4]));
        assert_eq!(uids("Uid:\t1\t2\n"), None);
        assert_eq!(program("/usr/bin/codex-proxy (deleted)"), EXE);
        assert_eq!(program(EXE), EXE);
    }
}
