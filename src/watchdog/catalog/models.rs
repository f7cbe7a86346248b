//! C: what models write where a call of a tool was due. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use super::{Action, BUDGET, COMPLETED, Evidence, Fault, NO_PROOF, Rung, Severity, Tier, When};

pub(super) const ROWS: &[Fault] = &[
    Fault {
        id: "C1",
        title: "A model writes about tools and calls none",
        evidence: &[Evidence::NotYet("signal parse.no_call, three times for one model within ten minutes")],
        threshold: 3,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[Rung { when: When::Always, acts: &[Action::Suggest] }],
        verify: NO_PROOF,
        budget: BUDGET,
        help: "Tools were offered, and the model's text held nothing that could be taken for a call. It was asked\n\
               again, without success.\n\
               \n\
               Use a model, or a provider of the same model, that calls tools properly.",
        message_id: "4b63888cd11668a2d4401011c7bcd279",
        source: "recovery of calls from text; three times by judgement",
    },
    Fault {
        id: "C2",
        title: "A model asks for rights instead of working",
        evidence: &[Evidence::NotYet("signal parse.escalation, five times for one model within ten minutes")],
        threshold: 5,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[Rung { when: When::Always, acts: &[Action::Suggest] }],
        verify: NO_PROOF,
        budget: BUDGET,
        help: "The model's text asks to be let out of the sandbox where a call was due. Such a text never becomes\n\
               a call.\n\
               \n\
               Try the same model at another provider, or another model.",
        message_id: "4f09774a76b3273cbb22e7fb71a9a53c",
        source: "recovery of calls from text; five times by judgement",
    },
    Fault {
        id: "C3",
        title: "A model writes calls in an unknown form",
        evidence: &[Evidence::NotYet("signal parse.unknown_format, five times for one model within ten minutes")],
        threshold: 5,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Ai,
        ladder: &[Rung { when: When::Always, acts: &[Action::AlertUser] }],
        verify: COMPLETED,
        budget: BUDGET,
        help: "Something that looks like a call is written in a form which codex-proxy does not know. A sample\n\
               without its contents is kept.\n\
               \n\
               Use another model or provider for now, and report the sample, so that the form can be learnt.",
        message_id: "024409c314418791cd83949d901b9318",
        source: "recovery of calls from text; five times by judgement",
    },
    Fault {
        id: "C4",
        title: "A command is still wrapped after it was unwrapped",
        evidence: &[Evidence::NotYet(
            "signal parse.double_wrapped, once for a model: JSON is left after three layers were taken off",
        )],
        threshold: 1,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[Rung { when: When::Always, acts: &[Action::AlertUser] }],
        verify: NO_PROOF,
        budget: BUDGET,
        help: "The model wraps its command in JSON more often than is undone. The call was not passed on.\n\
               \n\
               Start a new thread: a model repeats what it sees itself do. If it stays, use another model.",
        message_id: "786d47b2771bee61855348c496df9b30",
        source: "recovery of calls from text: three layers at most",
    },
    Fault {
        id: "C5",
        title: "A model gives JSON as its command",
        evidence: &[Evidence::NotYet("signal parse.json_cmd, three times for one model within ten minutes")],
        threshold: 3,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[Rung { when: When::Always, acts: &[Action::Suggest] }],
        verify: NO_PROOF,
        budget: BUDGET,
        help: "Where a shell command was due the model writes JSON, again and again. It was told what to write.\n\
               \n\
               Use another model, or the same at another provider.",
        message_id: "f30f5e0029ddaf2cdc4321665fc291d1",
        source: "recovery of calls from text; three times by judgement",
    },
    Fault {
        id: "C6",
        title: "A model calls the shell with nothing to run",
        evidence: &[Evidence::NotYet("signal parse.empty_cmd, three times for one model within ten minutes")],
        threshold: 3,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[Rung { when: When::Always, acts: &[Action::Suggest] }],
        verify: NO_PROOF,
        budget: BUDGET,
        help: "The model calls the shell with an empty command, again and again. It was told what to write.\n\
               \n\
               Use another model, or the same at another provider.",
        message_id: "77c9c4bf1ad7b5fef8f42d3f56c9c61e",
        source: "recovery of calls from text; three times by judgement",
    },
    Fault {
        id: "C7",
        title: "A model begins a call and stops",
        evidence: &[Evidence::NotYet("signal parse.bare_brace, three times for one model within ten minutes")],
        threshold: 3,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Ai,
        ladder: &[Rung { when: When::Always, acts: &[Action::AlertUser] }],
        verify: COMPLETED,
        budget: BUDGET,
        help: "The model's text ends with the opening brace of a call. Often the provider cuts its answers short.\n\
               \n\
               Raise the model's limit for output if the configuration sets one; otherwise use another provider\n\
               of the model.",
        message_id: "0e2f64c2b15c7b5aa1ba6a57076a7142",
        source: "recovery of calls from text; three times by judgement",
    },
    Fault {
        id: "C8",
        title: "A model opens a shell block without a command",
        evidence: &[Evidence::NotYet("signal parse.no_command, three times for one model within ten minutes")],
        threshold: 3,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Ai,
        ladder: &[Rung { when: When::Always, acts: &[Action::AlertUser] }],
        verify: COMPLETED,
        budget: BUDGET,
        help: "The model writes the markup of a shell call around nothing.\n\
               \n\
               Start a new thread: a model repeats what it sees itself do. If it stays, use another model.",
        message_id: "400074c8c24820937f88ddbf2780227f",
        source: "recovery of calls from text; three times by judgement",
    },
    Fault {
        id: "C9",
        title: "DeepSeek's call markup comes in another spelling",
        evidence: &[Evidence::NotYet(
            "signal parse.dsml_drift, once for a model, or the proxy's self-test of both spellings",
        )],
        threshold: 1,
        window: Duration::from_secs(3600),
        severity: Severity::Info,
        start: Tier::Rules,
        ladder: &[Rung { when: When::Always, acts: &[Action::Suggest] }],
        verify: NO_PROOF,
        budget: BUDGET,
        help: "DSML, DeepSeek's markup for calls, exists in two spellings. Both are understood, and the calls\n\
               were passed on.\n\
               \n\
               Nothing is to be done. If calls are lost as well, report it: a third spelling may be in use.",
        message_id: "7739416dcd23547ab4e244f1baa32d04",
        source: "recovery of calls from text: both spellings of DSML",
    },
    Fault {
        id: "C10",
        title: "The same call is recovered again and again",
        evidence: &[Evidence::NotYet("signal parse.loop, five times for one thread within ten minutes")],
        threshold: 5,
        window: Duration::from_secs(600),
        severity: Severity::Warning,
        start: Tier::Rules,
        ladder: &[
            Rung { when: When::Always, acts: &[Action::SwitchProvider] },
            Rung { when: When::Always, acts: &[Action::AlertUser] },
        ],
        verify: COMPLETED,
        budget: BUDGET,
        help: "The model repeats one call, which had to be recovered from its text each time. Recovery stops for\n\
               this thread, and another place in the model's own list is used.\n\
               \n\
               Stop the turn if it is still going. Start a new thread, or use another model.",
        message_id: "7ae367bee510ac5596afc04282748261",
        source: "recovery of calls from text; five times by judgement",
    },
];
