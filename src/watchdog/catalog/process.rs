//! A: the proxy's own process, its port, its memory, and the ground it stands on. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use super::{Action, BUDGET, By, COMPLETED, Cause, Evidence, Fault, Proof, Rung, Severity, Tier, Verify, When};

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
        message_id: "cd5869acd909a7400f671e0dcf8978b2",
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
        message_id: "8a3129bd161346ce99b437b9057b0037",
        source: "systemd.socket(5): a bind that fails is Result=resources; measured on systemd 252 and 257",
    },
    Fault {
        id: "A3",
        title: "The proxy's memory grows",
        evidence: &[Evidence::NotYet(
            "the proxy's memory at 80 % of its unit's MemoryHigh=, or growing so that it is there within fifteen minutes",
        )],
        threshold: 1,
        window: Duration::from_secs(3600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::Repeated(2), acts: &[Action::AlertUser] },
            Rung { when: When::NotYet("no request is under way"), acts: &[Action::RestartProxy] },
            Rung { when: When::NotYet("the memory has reached MemoryHigh="), acts: &[Action::RestartProxy] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: Verify { proof: Proof::Serving, within: Duration::from_secs(10), quiet: Duration::from_secs(600) },
        budget: BUDGET,
        help: "The proxy holds more memory than its work explains. It is restarted when no request is under way,\n\
               and at its limit at once; requests wait in the socket meanwhile.\n\
               \n\
               If it comes back within the hour: `codex-proxyctl logs`, and report it with what was being done.",
        message_id: "572bac0ea282470f41da8ae7f234d3d0",
        source: "systemd.resource-control(5), MemoryHigh=; 80 %, fifteen minutes and twice in an hour by judgement",
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
        message_id: "a61bca5cbed8f30f0c7aaba92894e62f",
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
        message_id: "424764b76534378a3be8091ba0899c68",
        source: "Rust: a panic ends the program with status 101",
    },
    Fault {
        id: "A6",
        title: "No trusted TLS session with a provider",
        evidence: &[Evidence::NotYet(
            "signal upstream.tls, once for a provider; told apart by whether other providers have it too",
        )],
        threshold: 1,
        window: Duration::from_secs(300),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::NotYet("no other provider has it"), acts: &[Action::SwitchProvider] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: COMPLETED,
        budget: BUDGET,
        help: "The certificate is not trusted, or the handshake broke. At one provider, that provider is at\n\
               fault, and others are used. At several, it is this machine or its network, and nothing is\n\
               switched.\n\
               \n\
               Check the machine's clock, its CA certificates, and whether something on the way intercepts TLS.",
        message_id: "19d1e8ceb3bbc2df3e93687eb4e9b172",
        source: "RFC 8446, section 6.2: alerts about certificates; several at once by judgement",
    },
    Fault {
        id: "A7",
        title: "A provider's name does not resolve",
        evidence: &[Evidence::NotYet(
            "signal upstream.dns, once for a provider; told apart by whether any other name resolves",
        )],
        threshold: 1,
        window: Duration::from_secs(300),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::Always, acts: &[Action::RetryWithBackoff] },
            Rung { when: When::NotYet("other providers' names resolve"), acts: &[Action::SwitchProvider] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: COMPLETED,
        budget: BUDGET,
        help: "Name resolution failed. The proxy tries again with growing pauses; while other names resolve,\n\
               other places of the model are used. If none does, the machine is offline.\n\
               \n\
               Is the network up? Is base_url spelled right? `codex-proxyctl doctor` asks every provider.",
        message_id: "ef973f4c7d22e0d8791056e9073c5b4c",
        source: "getaddrinfo(3): EAI_AGAIN, EAI_NONAME",
    },
];
