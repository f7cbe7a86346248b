//! B: what providers do: limits, errors, refusals, silence, and connections that break. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use super::{Action, BUDGET, COMPLETED, Evidence, Fault, NO_PROOF, Rung, Severity, Tier, When};

pub(super) const ROWS: &[Fault] = &[
    Fault {
        id: "B1",
        title: "A provider limits the rate of requests",
        evidence: &[Evidence::NotYet(
            "signal upstream.rate_limited, once for an account; told to a person after five times on it within ten minutes",
        )],
        threshold: 1,
        window: Duration::from_secs(600),
        severity: Severity::Info,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::Repeated(5), acts: &[Action::AlertUser] },
            Rung { when: When::Always, acts: &[Action::WaitRetryAfter] },
            Rung { when: When::Always, acts: &[Action::Ignore] },
        ],
        verify: COMPLETED,
        budget: BUDGET,
        help: "Too many requests or tokens were sent. The proxy waits as long as it was told to, or uses another\n\
               account or place of the model.\n\
               \n\
               If this stays: spread the work over more accounts or routes, or ask the provider for a higher\n\
               limit.",
        message_id: "54b9ba7e2246ca795006b49f5d3b1846",
        source: "RFC 6585, section 4: status 429; RFC 9110, section 10.2.3: Retry-After; five times by judgement",
    },
    Fault {
        id: "B2",
        title: "A provider keeps failing",
        evidence: &[Evidence::NotYet("signal upstream.server_error, three times on one route within two minutes")],
        threshold: 3,
        window: Duration::from_secs(120),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::Always, acts: &[Action::SwitchProvider] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: COMPLETED,
        budget: BUDGET,
        help: "The provider answers with errors of its own. Another place in the model's own list is used while\n\
               there is one.\n\
               \n\
               If this stays: look at the provider's status page, or add another route to the model.",
        message_id: "7318b8df4be72692dc991d981972fdc4",
        source: "RFC 9110, section 15.6: server errors; three times by judgement",
    },
    Fault {
        id: "B3",
        title: "A provider refuses a key",
        evidence: &[Evidence::NotYet("signal upstream.auth, once for an account")],
        threshold: 1,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[Rung { when: When::Always, acts: &[Action::AlertUser] }],
        verify: NO_PROOF,
        budget: BUDGET,
        help: "The key of the named account is not accepted, not even after it was read anew. The account's turn\n\
               goes to the next one.\n\
               \n\
               Put a valid key where the configuration says (`codex-proxy --check` names the files), or switch\n\
               the account off.",
        message_id: "4ca8c465bce80a73fd54e69c64ac0ea6",
        source: "RFC 9110, sections 15.5.2 and 15.5.4: statuses 401 and 403",
    },
    Fault {
        id: "B4",
        title: "A provider demands a newer client",
        evidence: &[Evidence::NotYet("signal upstream.upgrade_required, once for a provider")],
        threshold: 1,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[Rung { when: When::Always, acts: &[Action::AlertUser] }],
        verify: COMPLETED,
        budget: BUDGET,
        help: "The provider does not serve this kind of client or this version of it. codex-proxy does not pass\n\
               itself off as another program.\n\
               \n\
               Update codex-proxy, or use another of the provider's interfaces. If the provider asks for a header\n\
               with a version, set it in the provider's headers.",
        message_id: "eae8f709c238994798f7a120fb9f4f4e",
        source: "RFC 9110, section 15.5.22: status 426",
    },
    Fault {
        id: "B5",
        title: "A provider is silent for too long, again and again",
        evidence: &[Evidence::NotYet("signal upstream.timeout, three times on one route within two minutes")],
        threshold: 3,
        window: Duration::from_secs(120),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::Always, acts: &[Action::IncreaseTimeout] },
            Rung { when: When::Always, acts: &[Action::SwitchProvider] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: COMPLETED,
        budget: BUDGET,
        help: "Connections, heads or bytes do not come within the time set. First the time is raised, within\n\
               bounds; then another place in the model's own list is used.\n\
               \n\
               If the model thinks for long, give it a longer upstream_idle_s; otherwise look at the provider's\n\
               status page.",
        message_id: "9200da75c5dc7992fde2ab5618d7e603",
        source: "codex-proxy's own limits upstream_head_s, upstream_idle_s and connect_timeout_s; three times by judgement",
    },
    Fault {
        id: "B6",
        title: "A provider breaks off its answers",
        evidence: &[Evidence::NotYet("signal upstream.reset, five times on one route within five minutes")],
        threshold: 5,
        window: Duration::from_secs(300),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::Always, acts: &[Action::SwitchProvider] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: COMPLETED,
        budget: BUDGET,
        help: "Connections to the provider break in the middle of an answer. Another place in the model's own\n\
               list is used. The proxy is not restarted for it: that would cut every other session.\n\
               \n\
               For a local server: is it running, has it memory enough? For a remote one: look at the network and\n\
               the provider's status page.",
        message_id: "90fccc427220e0296ea1e2e894da2d7a",
        source: "tcp(7): ECONNRESET; five times by judgement",
    },
    Fault {
        id: "B7",
        title: "The client went away",
        evidence: &[Evidence::NotYet("signal client.gone, once")],
        threshold: 1,
        window: Duration::from_secs(60),
        severity: Severity::Info,
        start: Tier::Rules,
        ladder: &[Rung { when: When::Always, acts: &[Action::Ignore] }],
        verify: NO_PROOF,
        budget: BUDGET,
        help: "The client closed the connection before the answer was over, as it does when somebody presses\n\
               Escape; the provider's connection was closed too.\n\
               \n\
               Nothing is to be done.",
        message_id: "c4c3fdf5f93ba2f4c32f1b7bccaaf6da",
        source: "measured: what Codex does when a turn is interrupted",
    },
    Fault {
        id: "B8",
        title: "A provider rejects the form of a request",
        evidence: &[Evidence::NotYet(
            "signal upstream.bad_request, once for a route; or a learnt setting in provider-caps.json which the provider then rejects",
        )],
        threshold: 1,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[
            Rung {
                when: When::NotYet("a learnt setting is what the provider rejects"),
                acts: &[Action::ClearSchemaCache],
            },
            Rung { when: When::Repeated(3), acts: &[Action::AlertUser] },
            Rung { when: When::Always, acts: &[Action::Ignore] },
        ],
        verify: COMPLETED,
        budget: BUDGET,
        help: "The provider says that the request is wrong, and its words were given to the client. Where it\n\
               names a field, the proxy learns to leave that out; if what was learnt is itself rejected, it is\n\
               forgotten.\n\
               \n\
               If all requests of a model are rejected, check the provider's dialect in the configuration.",
        message_id: "568ba285beb74339e2524b3825015b9a",
        source: "RFC 9110, section 15.5.1: status 400; three times by judgement",
    },
    Fault {
        id: "B9",
        title: "A provider has no capacity",
        evidence: &[Evidence::NotYet("signal upstream.overloaded, once for a route after the proxy's own retries")],
        threshold: 1,
        window: Duration::from_secs(300),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::Always, acts: &[Action::SwitchProvider] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: COMPLETED,
        budget: BUDGET,
        help: "The provider is overloaded, also after the proxy waited and tried again. Another place in the\n\
               model's own list is used, and this one rests.\n\
               \n\
               If this stays, add another route to the model.",
        message_id: "efad68185a1ab8603b534aeb43c06a9e",
        source: "RFC 9110, section 15.6.4: status 503; providers' pages on status 529",
    },
    Fault {
        id: "B10",
        title: "A provider's door keeper answers instead of the provider",
        evidence: &[Evidence::NotYet("signal upstream.bot_wall, once for a provider")],
        threshold: 1,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[Rung { when: When::Always, acts: &[Action::AlertUser] }],
        verify: NO_PROOF,
        budget: BUDGET,
        help: "A web page came where an answer of the interface was due: a captcha, a login or an error page of a\n\
               gateway. codex-proxy does not try to look like a browser.\n\
               \n\
               Check base_url, and whether the provider allows programs from this network.",
        message_id: "f4a9bff2495828d2beac6b7cf9de2774",
        source: "an answer of the type text/html from an interface that is documented to give JSON",
    },
];
