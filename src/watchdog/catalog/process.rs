//! A: the proxy's own process, its port, its memory, and the ground it stands on. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use super::{Action, BUDGET, By, Cause, Evidence, Fault, Proof, Rung, Severity, Tier, Verify, When};

pub(super) const ROWS: &[Fault] = &[
    Fault {
        id: "A1",
        title: "The proxy died",
        evidence: &[
            Evidence::Death(&[Cause::Killed, Cause::Exited, Cause::OutOfMemory, Cause::TimedOut, Cause::Refused]),
            Evidence::GivenUp,
        ],
        threshold: 1,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::ManagerActs, acts: &[Action::CheckProxyHealth] },
            Rung { when: When::GivenUp, acts: &[Action::AlertUser] },
            Rung { when: When::GivenUp, acts: &[Action::StartProxy] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: Verify { proof: Proof::Serving, within: Duration::from_secs(10), quiet: Duration::from_secs(10) },
        budget: BUDGET,
        help: "The manager starts the proxy again within a fraction of a second; requests wait in the socket meanwhile. After six\n\
               starts in ten minutes it gives up, and codex-proxy-capped.service answers until the interval is over; then one\n\
               start is tried.\n\
               \n\
               `codex-proxyctl logs` shows why it died, `codex-proxyctl recover` starts it at once.",
        message_id: "0c1b7f1dd2a14c4e9f5c3f6d3d2f8a01",
        source: "systemd.unit(5), StartLimitIntervalSec=; measured on systemd 252 and 257",
    },
    Fault {
        id: "A2",
        title: "The proxy's port is taken",
        evidence: &[Evidence::PortTaken],
        threshold: 1,
        window: Duration::from_secs(600),
        severity: Severity::Critical,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::StaleHolder, acts: &[Action::KillStaleProcesses, Action::StartProxy] },
            Rung { when: When::PortFree, acts: &[Action::StartProxy] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: Verify { proof: Proof::Listening, within: Duration::from_secs(10), quiet: Duration::from_secs(10) },
        budget: BUDGET,
        help: "Another process listens where the proxy should. A leftover of codex-proxy itself is ended; anything else is left\n\
               alone and named.\n\
               \n\
               End the process that is named, or move the proxy: `codex-proxyctl setup --port N`.",
        message_id: "4f0f0c0a6f5b4d5f8a3b0a7c1c9e2b02",
        source: "systemd.socket(5): a bind that fails is Result=resources; measured on systemd 252 and 257",
    },
    Fault {
        id: "A4",
        title: "The proxy hangs",
        evidence: &[Evidence::Death(&[Cause::Hung]), Evidence::Silence { streak: 3 }],
        threshold: 1,
        window: Duration::from_secs(600),
        severity: Severity::Critical,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::ManagerActs, acts: &[Action::CheckProxyHealth] },
            Rung { when: When::Silent, acts: &[Action::RestartProxy] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: Verify { proof: Proof::Prompt, within: Duration::from_secs(10), quiet: Duration::from_secs(10) },
        budget: BUDGET,
        help: "The proxy's serving loop stood still. The manager ends such a process after ten seconds and starts a new one; if\n\
               it does not, the watchdog asks for a restart.\n\
               \n\
               If it comes back: `codex-proxyctl logs`, and report it.",
        message_id: "7d1a7d6a35f94f0b8a5e0e2b6f6a4c04",
        source: "systemd.service(5), WatchdogSec=; measured on systemd 252 and 257",
    },
    Fault {
        id: "A5",
        title: "The proxy ran into a defect of its own",
        evidence: &[
            Evidence::Death(&[Cause::Crashed, Cause::Panicked]),
            Evidence::Signal { name: "panic", by: By::Proxy },
        ],
        threshold: 1,
        window: Duration::from_secs(300),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[
            // The third time within the window the rules have nothing to say.
            Rung { when: When::Repeated(3), acts: &[Action::AlertUser] },
            Rung { when: When::ManagerActs, acts: &[Action::CheckProxyHealth] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: Verify { proof: Proof::Serving, within: Duration::from_secs(10), quiet: Duration::from_secs(300) },
        budget: BUDGET,
        help: "A panic within one request costs that request; one outside, or a crash, costs the process, which the manager\n\
               starts again. A request that kills the process twice is refused for ten minutes.\n\
               \n\
               Please report it with the journal entry.",
        message_id: "b2b8c5d06a0e4b57a1b9d7f6e0c1aa05",
        source: "Rust: a panic ends the program with status 101",
    },
];
