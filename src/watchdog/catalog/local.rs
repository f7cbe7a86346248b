//! E: files and records on this machine, and the state of all routes together. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use super::{Action, BUDGET, COMPLETED, Evidence, Fault, REPAIRED, Rung, Severity, Tier, When};

pub(super) const ROWS: &[Fault] = &[
    Fault {
        id: "E1",
        title: "What was learnt about providers cannot be read",
        evidence: &[Evidence::NotYet("provider-caps.json is no valid file of its version")],
        threshold: 1,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::Always, acts: &[Action::ClearSchemaCache] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: REPAIRED,
        budget: BUDGET,
        help: "The file in which the proxy keeps what it learnt about providers is damaged. It is moved aside,\n\
               and what it held is learnt again.\n\
               \n\
               Nothing is to be done. If it comes back, look at the disk.",
        message_id: "384328a95c2b314761e37b8e767e150b",
        source: "the version and the closed set of values of provider-caps.json",
    },
    Fault {
        id: "E2",
        title: "Records of processes are out of date",
        evidence: &[Evidence::NotYet(
            "a record names a process that is gone, or whose start time and program are not the recorded ones",
        )],
        threshold: 1,
        window: Duration::from_secs(600),
        severity: Severity::Info,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::Always, acts: &[Action::CleanupPids] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: REPAIRED,
        budget: BUDGET,
        help: "Notes about running processes name some that are gone. They are removed, so that no other process\n\
               is taken for one of them.\n\
               \n\
               Nothing is to be done.",
        message_id: "1029870bc22186bc5975fe9d8924c6c3",
        source: "proc_pid_stat(5), starttime: a number is used again, number and start time together are not",
    },
    Fault {
        id: "E3",
        title: "Codex is set to another port than the proxy's",
        evidence: &[Evidence::NotYet(
            "the address in our keys of Codex's config.toml is not the one of codex-proxy.socket",
        )],
        threshold: 1,
        window: Duration::from_secs(600),
        severity: Severity::Critical,
        start: Tier::Rules,
        ladder: &[
            Rung {
                when: When::NotYet("the keys of ours in the file still have the values that were written"),
                acts: &[Action::RegenerateConfig],
            },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: REPAIRED,
        budget: BUDGET,
        help: "Codex's config.toml leads to a port at which the proxy does not listen. If the keys of ours are as\n\
               they were left, they are corrected; if somebody changed them, they stay.\n\
               \n\
               `codex-proxyctl setup` writes them anew.",
        message_id: "b69119a6f02714bf3efdacc0ac7f32b5",
        source: "`codex-proxyctl setup`: the keys that it writes and marks",
    },
    Fault {
        id: "E4",
        title: "A login at a provider has expired",
        evidence: &[Evidence::NotYet("an OAuth token past its time, or refused at its refresh")],
        threshold: 1,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::Always, acts: &[Action::RefreshToken] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: REPAIRED,
        budget: BUDGET,
        help: "The token of the named account is no longer valid. It is refreshed where the provider allows that;\n\
               otherwise a new login is needed.\n\
               \n\
               Log in again with the program that the token is from.",
        message_id: "91c615070e1b3f4cd90d9c94208c61ed",
        source: "RFC 6749, sections 5.1 and 6: expires_in and refresh",
    },
    Fault {
        id: "E5",
        title: "Every place that serves a model failed",
        evidence: &[Evidence::NotYet("signal route.all_down, once for a model")],
        threshold: 1,
        window: Duration::from_secs(300),
        severity: Severity::Critical,
        start: Tier::Rules,
        ladder: &[Rung { when: When::Always, acts: &[Action::AlertUser] }],
        verify: COMPLETED,
        budget: BUDGET,
        help: "All routes and accounts of the model were tried and none gave an answer. The proxy goes on trying\n\
               them with single requests and uses the first that answers.\n\
               \n\
               The entries before this one say why each of them failed: `codex-proxyctl logs`.",
        message_id: "f8a01b3f7b37b05da310ec75c77aee7e",
        source: "codex-proxy's own record of its routes",
    },
];
