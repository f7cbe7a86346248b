//! D: Codex itself: its processes, its databases, its turns. PURE.
//!
//! These can be seen only where Codex runs in a unit of ours; for others they are unknown, not healthy.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use super::{Action, BUDGET, COMPLETED, Evidence, Fault, NO_PROOF, Rung, Severity, Tier, When};

pub(super) const ROWS: &[Fault] = &[
    Fault {
        id: "D1",
        title: "Codex died",
        evidence: &[Evidence::NotYet(
            "the end of a Codex unit which codex-proxyctl started, by a signal or with a failure",
        )],
        threshold: 1,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[Rung { when: When::Always, acts: &[Action::AlertUser] }],
        verify: NO_PROOF,
        budget: BUDGET,
        help: "A Codex process ended by a signal or a failure. Its thread is kept on disk and can be taken up\n\
               again.\n\
               \n\
               `codex resume` lists the threads; `codex exec resume ID` goes on with one.",
        message_id: "ebdd85e4ae7add9d2f7313e1c7768155",
        source: "measured: a killed Codex says nothing, and its thread can be resumed",
    },
    Fault {
        id: "D2",
        title: "Codex holds much memory",
        evidence: &[Evidence::NotYet("the memory of a Codex process or unit above 4 GiB")],
        threshold: 1,
        window: Duration::from_secs(3600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[Rung { when: When::Always, acts: &[Action::AlertUser] }],
        verify: NO_PROOF,
        budget: BUDGET,
        help: "A Codex process holds more than 4 GiB. Before the machine runs out of memory somebody should look;\n\
               nothing is ended.\n\
               \n\
               End that Codex when its turn is over, and take its thread up again with `codex resume`.",
        message_id: "c2d140f8ab7bcab42cfb248f51d3ee10",
        source: "proc_pid_status(5), VmRSS; 4 GiB by judgement",
    },
    Fault {
        id: "D3",
        title: "One turn of Codex is sent again and again",
        evidence: &[Evidence::NotYet(
            "requests of one turn, three times within a minute, or Codex's own words Reconnecting",
        )],
        threshold: 3,
        window: Duration::from_secs(60),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::NotYet("the failures behind it are the route's"), acts: &[Action::SwitchProvider] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: COMPLETED,
        budget: BUDGET,
        help: "Codex repeats a request because the answers break. If the place that serves the model is at fault,\n\
               another one in the model's own list is used; if it is the proxy, A1 or A4 says so.\n\
               \n\
               `codex-proxyctl logs` shows how the attempts ended.",
        message_id: "4cc8bd64b3360148fbe5cb72d33f788e",
        source: "measured: Codex repeats a broken answer five times, after 0.2 to 3.2 s",
    },
    Fault {
        id: "D4",
        title: "A database of Codex is damaged",
        evidence: &[Evidence::NotYet(
            "Codex's own words: database disk image is malformed, or: quick check detected corruption",
        )],
        threshold: 1,
        window: Duration::from_secs(3600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[Rung { when: When::Always, acts: &[Action::AlertUser] }],
        verify: NO_PROOF,
        budget: BUDGET,
        help: "Codex cannot read one of its SQLite databases; resuming a thread fails. They are Codex's files, so\n\
               nothing is done without you.\n\
               \n\
               End every Codex, then move the *.sqlite files of ~/.codex elsewhere: Codex makes them anew from\n\
               sessions/.",
        message_id: "5bc794b5d1b527c69af3b562fc6a9852",
        source: "measured: resuming works after the databases were moved away",
    },
    Fault {
        id: "D5",
        title: "A conversation does not fit the model",
        evidence: &[Evidence::NotYet("signal context.overflow, once for a model")],
        threshold: 1,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[Rung { when: When::Always, acts: &[Action::AlertUser] }],
        verify: COMPLETED,
        budget: BUDGET,
        help: "The provider says that the conversation is longer than the model's window. Codex compacts it on\n\
               its next turn.\n\
               \n\
               If this comes early, set context_window of the model to its true size.",
        message_id: "aef337962b3fc7363ef1c8ad320ccea7",
        source: "measured: Codex compacts on the turn after context_length_exceeded",
    },
    Fault {
        id: "D6",
        title: "Codex connects and sends nothing",
        evidence: &[Evidence::NotYet(
            "connections without a request, or Codex's words waiting for network, five times within a minute",
        )],
        threshold: 5,
        window: Duration::from_secs(60),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::Always, acts: &[Action::CheckProxyHealth] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: NO_PROOF,
        budget: BUDGET,
        help: "Codex tries to reach its provider without end. Most often it is set to another address or port\n\
               than the proxy has.\n\
               \n\
               `codex-proxyctl doctor` compares Codex's configuration with the proxy's; `codex-proxyctl setup`\n\
               writes it anew.",
        message_id: "ead2dffc5c5d4262828f4ffa88f79a2e",
        source: "measured: Codex tries again for ever when its provider cannot be reached; five times by judgement",
    },
];
