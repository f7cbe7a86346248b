//! What the proxy reports about failures: the signal table. PURE.
//!
//! A signal says what was seen; naming the fault behind it is the watchdog's. Each has one `MESSAGE_ID`, so that the
//! journal can be searched and explained by it; the message catalogue is made from this table by a test.

use super::failure::{Failure, FailureKind};

/// Something worth a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// A provider limits the rate of requests.
    RateLimited,
    /// A provider failed.
    ServerError,
    /// A provider refuses a key.
    Auth,
    /// A provider wants to be paid first.
    Budget,
    /// A provider demands a newer client.
    UpgradeRequired,
    /// A provider was silent for too long.
    Timeout,
    /// A connection to a provider failed.
    Reset,
    /// A provider rejects a request.
    BadRequest,
    /// A provider has no capacity.
    Overloaded,
    /// A provider's door keeper answered instead of the provider.
    BotWall,
    /// No trusted TLS session with a provider.
    Tls,
    /// A provider's name does not resolve.
    Dns,
    /// The client went away.
    ClientGone,
    /// A conversation does not fit the model.
    ContextOverflow,
    /// Every place that serves a model failed.
    AllDown,
    /// A request ran into a defect of codex-proxy.
    Panic,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// On the bus and in `CODEX_SIGNAL`.
    pub name: &'static str,
    /// 128 bits in hexadecimal; never changes.
    pub message_id: &'static str,
    /// One line for the catalogue.
    pub title: &'static str,
    /// What it means and what to do.
    pub help: &'static str,
}

impl Signal {
    /// Every signal, in the table's order.
    pub const ALL: [Self; 16] = [
        Self::RateLimited,
        Self::ServerError,
        Self::Auth,
        Self::Budget,
        Self::UpgradeRequired,
        Self::Timeout,
        Self::Reset,
        Self::BadRequest,
        Self::Overloaded,
        Self::BotWall,
        Self::Tls,
        Self::Dns,
        Self::ClientGone,
        Self::ContextOverflow,
        Self::AllDown,
        Self::Panic,
    ];

    /// The signal's row.
    pub const fn row(self) -> Row {
        match self {
            Self::RateLimited => Row {
                name: "upstream.rate_limited",
                message_id: "1fa0cc1f1b854404a07c4b8ee1df7bd2",
                title: "A provider limits the rate of requests",
                help: "The provider answered that too many requests or tokens were sent. The proxy waits as long as it was told to, tries\n\
             other accounts and places of the model, and passes the wait on to the client if that is not enough.\n\
             \n\
             If this stays: spread the work over more accounts or routes, or ask the provider for a higher limit.",
            },
            Self::ServerError => Row {
                name: "upstream.server_error",
                message_id: "f9fb47a910a74b3ea69459fa20a5f3dd",
                title: "A provider failed",
                help: "The provider answered with an error of its own, or with something that is no answer. The proxy has tried again where\n\
             nothing had been passed on yet.\n\
             \n\
             If this stays: look at the provider's status page, or add another route to the model.",
            },
            Self::Auth => Row {
                name: "upstream.auth",
                message_id: "feffc8194f0045adaefa93d50e49acb1",
                title: "A provider refuses a key",
                help: "The key of the named account is not accepted. It was read anew from where it is kept, in case it had been replaced.\n\
             \n\
             Put a valid key where the configuration says (`codex-proxy --check` names the files), or switch the account off.",
            },
            Self::Budget => Row {
                name: "upstream.budget",
                message_id: "825ed3355c7d47e0a4794255b0e58c1b",
                title: "A provider wants to be paid first",
                help: "The account's balance or quota is used up. Waiting does not help.\n\
             \n\
             Top the account up, or switch it off so that others are used.",
            },
            Self::UpgradeRequired => Row {
                name: "upstream.upgrade_required",
                message_id: "9274367785cd43faa02935352131728a",
                title: "A provider demands a newer client",
                help: "The provider does not serve this kind of client or this version of it.\n\
             \n\
             Update codex-proxy, or use another of the provider's interfaces.",
            },
            Self::Timeout => Row {
                name: "upstream.timeout",
                message_id: "ba625efae8784655acc1ac4f130a0891",
                title: "A provider was silent for too long",
                help: "No connection, no head or no byte came within the time set. See upstream_idle_s, upstream_head_s and connect_timeout_s.\n\
             \n\
             If the model thinks for long, give it a longer upstream_idle_s; otherwise look at the provider's status page.",
            },
            Self::Reset => Row {
                name: "upstream.reset",
                message_id: "9e11d34b4e2e4a62afa33b7f5584cc05",
                title: "A connection to a provider failed",
                help: "The connection was refused or broke. Nothing that was passed on is sent again.\n\
             \n\
             For a local server: is it running? For a remote one: look at the network.",
            },
            Self::BadRequest => Row {
                name: "upstream.bad_request",
                message_id: "3113a8b8f682478da04274de7be48b64",
                title: "A provider rejects a request",
                help: "The provider says that the request is wrong. Its words were given to the client.\n\
             \n\
             If all requests of a model are rejected, check the provider's dialect in the configuration.",
            },
            Self::Overloaded => Row {
                name: "upstream.overloaded",
                message_id: "9542f9b030c94c36a0cc9560f0a7631a",
                title: "A provider has no capacity",
                help: "The provider is overloaded. The proxy waits and tries again, then tells the client.\n\
             \n\
             If this stays, add another route to the model.",
            },
            Self::BotWall => Row {
                name: "upstream.bot_wall",
                message_id: "af2bf48e7e7b48a8ae05228d2ca44513",
                title: "A provider's door keeper answered instead of the provider",
                help: "A web page came where an answer of the interface was due: a captcha, a login, or another server's.\n\
             \n\
             Check base_url, and whether the provider allows programs from this network.",
            },
            Self::Tls => Row {
                name: "upstream.tls",
                message_id: "ee3106a26e044314aa7ead49f4a31dd6",
                title: "No trusted TLS session with a provider",
                help: "The certificate is not trusted, or the handshake broke.\n\
             \n\
             Check the machine's clock, its CA certificates, and whether something on the way intercepts TLS.",
            },
            Self::Dns => Row {
                name: "upstream.dns",
                message_id: "4ac37e2aa416405da3ec4c22053006b6",
                title: "A provider's name does not resolve",
                help: "Name resolution failed.\n\
             \n\
             Is the machine offline? Is base_url spelled right?",
            },
            Self::ClientGone => Row {
                name: "client.gone",
                message_id: "c302203854804dd8a725863610252e1b",
                title: "The client went away",
                help: "The client closed the connection before the answer was over; the provider's connection was closed too. Nothing is wrong.",
            },
            Self::ContextOverflow => Row {
                name: "context.overflow",
                message_id: "99a2bd0a0161460faa8566801d14518d",
                title: "A conversation does not fit the model",
                help: "The provider says that the conversation is longer than the model's window. Codex compacts it on its next turn.\n\
             \n\
             If this comes early, set context_window of the model to its true size.",
            },
            Self::AllDown => Row {
                name: "route.all_down",
                message_id: "9b9a34a2d8494c70a86fdcd8d560850d",
                title: "Every place that serves a model failed",
                help: "All routes and accounts of the model were tried for one request and none gave an answer.\n\
             \n\
             The entries before this one, with the same CODEX_REQUEST_ID, say why each of them failed.",
            },
            Self::Panic => Row {
                name: "panic",
                message_id: "7392541743364ecfad2721d7294b6e1e",
                title: "A request ran into a defect of codex-proxy",
                help: "The request was ended with an error; other requests are not touched.\n\
             \n\
             Please report it with the text of the entry.",
            },
        }
    }

    /// The signal for a failure at a provider; `None` for what is no provider's doing. `page`: it answered with a web page.
    pub fn of_failure(failure: &Failure, page: bool) -> Option<Self> {
        // A gateway's page about trouble of its own has a kind that says so.
        let wall = page && failure.kind == FailureKind::Operator;
        if wall { Some(Self::BotWall) } else { Self::of_upstream(failure.kind) }
    }

    /// The same, by its kind alone. A connection that is refused counts as reset: TCP refuses by a reset, no other word
    /// says less of a provider that said nothing, and the phase tells the two apart.
    pub const fn of_upstream(kind: FailureKind) -> Option<Self> {
        match kind {
            FailureKind::Caller => Some(Self::BadRequest),
            FailureKind::Credentials => Some(Self::Auth),
            FailureKind::Budget => Some(Self::Budget),
            FailureKind::Upgrade => Some(Self::UpgradeRequired),
            FailureKind::ContextLength => Some(Self::ContextOverflow),
            FailureKind::RateLimit => Some(Self::RateLimited),
            FailureKind::Overload => Some(Self::Overloaded),
            FailureKind::Upstream => Some(Self::ServerError),
            FailureKind::Connection => Some(Self::Reset),
            FailureKind::NameResolution => Some(Self::Dns),
            FailureKind::Tls | FailureKind::Certificate => Some(Self::Tls),
            FailureKind::Timeout => Some(Self::Timeout),
            FailureKind::Operator
            | FailureKind::UnknownModel
            | FailureKind::Bug
            | FailureKind::OwnLimit
            | FailureKind::Shutdown => None,
        }
    }
}

/// The message catalogue, in the form of <https://systemd.io/CATALOG/> (read 2026-11-21).
pub fn catalogue() -> String {
    let mut text = String::from(
        "# Explains the journal entries of codex-proxy (`journalctl -x`). Made from src/model/signal.rs by a test:\n\
         # change it there.\n",
    );
    for signal in Signal::ALL {
        let row = signal.row();
        for line in [
            "",
            &format!("-- {}", row.message_id),
            &format!("Subject: {}", row.title),
            "Defined-By: codex-proxy",
            "",
            row.help,
        ] {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_message_ids_are_unique_and_well_formed() {
        let names: BTreeSet<&str> = Signal::ALL.iter().map(|s| s.row().name).collect();
        let ids: BTreeSet<&str> = Signal::ALL.iter().map(|s| s.row().message_id).collect();
        assert_eq!((names.len(), ids.len()), (Signal::ALL.len(), Signal::ALL.len()));
        for id in ids {
            assert!(id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{id}");
        }
    }
}
