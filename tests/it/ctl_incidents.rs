//! `codex-proxyctl incidents`, with files that the real store wrote and no watchdog.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which the lints do not know as such")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use codex_proxy::watchdog::incidents::replay::{Export, Kept, recover, timeline};
use codex_proxy::watchdog::incidents::store::Store;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::ctl::{Done, Home};
use crate::support::events::DEADLINE;
use crate::support::root;
use crate::timeline::kept;

const STATE: &str = "state/codex-proxy";

/// A home with the store of a case.
fn home_with(kept: &[Kept]) -> (Home, Store<Kept>) {
    let home = Home::new();
    let (mut store, _) = Store::open(&home.path(STATE)).unwrap();
    store.append(kept, true).unwrap();
    (home, store)
}

fn good(done: Done) -> Done {
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.stderr, "", "{done:?}");
    done
}

#[test]
fn without_incidents_every_command_is_friendly() {
    let home = Home::new();
    assert!(good(home.ctl(&["incidents", "list"])).stdout.starts_with("no incidents"));
    assert_eq!(good(home.ctl(&["incidents", "list", "--json"])).stdout, "{\n  \"incidents\": []\n}\n");
    for command in ["show", "explain", "export"] {
        let done = home.ctl(&["incidents", command, "i1"]);
        assert_eq!((done.code, done.stderr.contains("none is kept")), (Some(1), true), "{done:?}");
    }
    assert!(!home.path(STATE).exists(), "looking makes nothing");
}

#[test]
fn incidents_are_listed_and_told() {
    let (home, _store) = home_with(&kept("A1/killed"));
    let list = good(home.ctl(&["incidents", "list"])).stdout;
    let line = "i1    2026-11-21 05:46:47Z  healed    A1  The proxy died: proxy: ended by signal 9\n";
    assert_eq!(list, line);
    for none in [["--open"].as_slice(), &["--fault", "A2"], &["--since", "2026-11-21 06:00"]] {
        let done = good(home.ctl(&[&["incidents", "list"], none].concat()));
        assert!(done.stdout.contains("no incident is like that"), "{done:?}");
    }
    assert_eq!(good(home.ctl(&["incidents", "list", "--fault", "a1", "--since", "2026-11-21"])).stdout, line);
    let done = good(home.ctl(&["incidents", "list", "-n", "0"]));
    assert_eq!(done.stdout, "and 1 older ones: -n 1\n");

    let report: Value = serde_json::from_str(&good(home.ctl(&["incidents", "list", "--json"])).stdout).unwrap();
    let expected = json!({
        "id": "i1", "fault": "A1", "title": "The proxy died", "severity": "warning", "subject": "proxy",
        "evidence": "ended by signal 9", "occurrences": 1, "opened_usec": 1_795_240_007_000_000_u64,
        "closed_usec": 1_795_240_018_000_000_u64, "end": "healed", "why": "seen to be well, and it stayed away",
    });
    assert_eq!(report["incidents"], json!([expected]), "the names that it has on the bus");
    let contract = fs::read_to_string(root().join("dbus/org.codexproxy.Watchdog1.xml")).unwrap();
    for key in expected.as_object().unwrap().keys() {
        assert!(contract.contains(key), "{key}");
    }

    for id in ["i1", "1"] {
        let story = good(home.ctl(&["incidents", "show", id])).stdout;
        let last = "2026-11-21 05:46:58.000Z  i1  healed: seen to be well, and it stayed away";
        assert_eq!((story.lines().count(), story.lines().last()), (5, Some(last)), "{story}");
    }
    let whole: Value = serde_json::from_str(&good(home.ctl(&["incidents", "show", "1", "--json"])).stdout).unwrap();
    assert_eq!(whole["story"][3]["fact"]["closed"]["end"], "healed");
    assert_eq!((&whole["id"], &whole["whole"]), (&json!("i1"), &json!(true)));
}

#[test]
fn a_wrong_name_is_told_from_an_unknown_one() {
    let (home, _store) = home_with(&kept("A1/killed"));
    let done = home.ctl(&["incidents", "show", "i9"]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(1), "codex-proxyctl: there is no incident i9; there are i1\n"));
    for wrong in [["show", "x"].as_slice(), &["explain", "F1"], &["list", "--fault", "Z"], &["list", "--since", "soon"]]
    {
        let done = home.ctl(&[&["incidents"], wrong].concat());
        assert_eq!(done.code, Some(2), "{done:?}");
    }
}

#[test]
fn what_is_open_and_what_was_done_is_explained() {
    let mut lines = kept("A1/capped");
    let (home, _store) = home_with(&lines);
    let text = good(home.ctl(&["incidents", "explain", "i1"])).stdout;
    for words in [
        "i1: A1 The proxy died (warning), proxy",
        "ended:  2026-11-21 05:56:54Z (after 612 s), healed: seen to be well",
        "`codex-proxyctl logs` shows why it died",
        "told you: The proxy died",
        "did not yet start the proxy: one start more would exceed the manager's limit",
        "set out to start the proxy",
        "that was carried out",
        "seen to help after 599.300 s: it serves",
        "(healed is: `/health` answered, within 10 s; quiet for 10 s)",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let text = good(home.ctl(&["incidents", "explain", "a1"])).stdout;
    for words in ["A1 The proxy died (warning)", "What the watchdog does", "It happened: i1;"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let text = good(home.ctl(&["incidents", "explain", "A3"])).stdout;
    assert!(text.contains("does not see it"), "{text}");

    lines.truncate(4);
    let (home, _store) = home_with(&lines);
    assert!(good(home.ctl(&["incidents", "list", "--open"])).stdout.contains("  open  "));
    assert!(good(home.ctl(&["incidents", "explain", "1"])).stdout.contains("ended:  not yet"));
}

#[test]
fn an_export_tells_the_same_story() {
    let (home, _store) = home_with(&kept("A2/leftover-of-ours"));
    let printed = good(home.ctl(&["incidents", "export", "i1"])).stdout;
    assert_eq!(printed.lines().count(), 1);
    let export: Export = serde_json::from_str(&printed).unwrap();
    assert!(timeline(&export).contains("A2 The proxy's port is taken"), "{}", timeline(&export));

    let file = home.path("i1.json");
    let done = good(home.ctl(&["incidents", "export", "1", "--output", file.to_str().unwrap()]));
    assert!(done.stdout.contains("codex-watchdog replay"), "{done:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), printed);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn what_is_lost_is_said() {
    let mut lines = kept("A1/killed");
    let begin: Vec<Kept> = lines.drain(..4).collect();
    lines.insert(0, Kept::State(Box::new(recover(&begin).unwrap())));
    let (home, store) = home_with(&lines);
    let done = home.ctl(&["incidents", "export", "i1"]);
    assert_eq!((done.code, done.stderr.contains("the beginning of i1 is not kept")), (Some(1), true), "{done:?}");
    assert!(good(home.ctl(&["incidents", "show", "i1"])).stdout.contains("not kept any more"));

    drop(store);
    let journal = home.path(STATE).join("incidents.jsonl");
    let before = fs::read_to_string(&journal).unwrap() + "torn\n";
    fs::write(&journal, &before).unwrap();
    let done = home.ctl(&["incidents", "list"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stderr.contains("damaged lines") && done.stderr.contains("codex_lines=1"), "{done:?}");
    assert!(done.stdout.starts_with("i1 "), "{done:?}");
    assert_eq!(fs::read_to_string(&journal).unwrap(), before, "looking mends nothing");
}

/// A `follow` that runs, and the lines it prints.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    /// One that misses nothing any more.
    fn start(home: &Home, arguments: &[&str]) -> Self {
        // A shell that starts the tests in the background has them, and so their children, ignore Ctrl-C.
        let mut command = Command::new("/usr/bin/env");
        command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_codex-proxyctl")]);
        home.isolate(&mut command);
        command.args(["incidents", "follow"]).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let ready = lines_of(child.stderr.take().unwrap());
        assert!(ready.recv_timeout(DEADLINE).unwrap().contains("from now on"));
        let lines = lines_of(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).unwrap()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn lines_of(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[test]
fn what_is_told_later_is_followed_through_rotations() {
    let all = kept("A1/killed");
    let told: Vec<Kept> = all.iter().filter(|line| matches!(line, Kept::Told(_))).cloned().collect();
    let (home, mut store) = home_with(&told[..1]);
    let mut follower = Follower::start(&home, &[]);
    store.append(&told[1..2], false).unwrap();
    assert!(follower.line().contains("i1  decided by rules"), "and nothing of before");
    // Written, and moved away before it is read.
    store.append(&told[2..3], false).unwrap();
    store.rotate(&all[..1]).unwrap();
    assert!(follower.line().contains("i1  seen to help"));
    store.append(&told[3..4], false).unwrap();
    assert!(follower.line().ends_with("i1  healed: seen to be well, and it stayed away"));

    // Ctrl-C.
    kill(Pid::from_raw(i32::try_from(follower.child.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(follower.child.wait().unwrap().signal(), Some(Signal::SIGINT as i32));
    assert!(follower.lines.recv().is_err(), "nothing else was printed");
}

#[test]
fn a_first_watchdog_is_followed_as_json() {
    let home = Home::new();
    let follower = Follower::start(&home, &["--json"]);
    let (mut store, _) = Store::open(&home.path(STATE)).unwrap();
    store.append(&kept("A1/killed"), true).unwrap();
    let first: Value = serde_json::from_str(&follower.line()).unwrap();
    assert_eq!((&first["incident"], &first["at_usec"]), (&json!("i1"), &json!(1_795_240_007_000_000_u64)));
    assert_eq!(first["fact"]["opened"]["fault"], "A1");
    assert!(first["text"].as_str().unwrap().starts_with("A1 The proxy died"));
}
