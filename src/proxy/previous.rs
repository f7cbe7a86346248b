//! The stored response that a request continues (`previous_response_id`), and what is stored of the answer to a request.
//!
//! ```text
//! body ── Previous::of ──► named and found ──► the body with the whole conversation in it ──► decode_request …
//!                      └─► named, not found ─► hosts that speak Responses may know it, else a refusal
//! … the answer's end is forwarded ── Keeping::put ──► stored.rs
//! ```

use std::time::SystemTime;

use tracing::debug;

use super::{
    line::Line,
    route::{Choice, Hop},
    service::Service,
    stored::LIMITS,
    story::Story,
};
use crate::{
    codec::{
        Asked, Protocol, Task,
        compaction::Form,
        responses::request::{InvalidRequest, decode_request},
        seal::Sealer,
        stored::{self, Host, KEPT_BYTES_MAX, Kept},
    },
    model::{failure::Failure, request::Request},
};

/// What a request continues.
pub(super) enum Previous {
    /// Nothing.
    Nothing,
    /// A response that is not stored here.
    Unknown(String),
    /// One that is.
    Known {
        /// The host that has it, too.
        host: Option<Host>,
        /// The request's body with all that was said before in it.
        body: Vec<u8>,
    },
}

impl Previous {
    /// Looks for what the body names.
    pub(super) async fn of(service: &Service, body: &[u8]) -> Result<Self, Failure> {
        let Some(id) = stored::previous(body) else { return Ok(Self::Nothing) };
        let Some(kept) = service.responses().find(service, &id, SystemTime::now()).await? else {
            return Ok(Self::Unknown(id));
        };
        Ok(match stored::expand(body, &kept.items) {
            Some(body) => Self::Known { host: kept.host, body },
            // Whoever reads it will say what is wrong with it.
            None => Self::Nothing,
        })
    }

    /// The whole request, as far as it is known here. `came`: the body as it came.
    pub(super) fn body<'b>(&'b self, came: &'b [u8]) -> &'b [u8] {
        match self {
            Self::Known { body, .. } => body,
            Self::Nothing | Self::Unknown(_) => came,
        }
    }

    /// The refusal of a request that continues what nobody knows who will be asked.
    pub(super) fn refusal(&self, choice: &Choice) -> Option<InvalidRequest> {
        let Self::Unknown(id) = self else { return None };
        let may_know = |hop: &Hop| hop.target.protocol == Protocol::Responses;
        if matches!(choice, Choice::Routes(hops) if hops.iter().all(may_know)) {
            return None;
        }
        let id: String = id.chars().take(200).collect();
        Some(InvalidRequest {
            param: Some("previous_response_id".to_owned()),
            message: format!(
                "The response {id:?} is not stored here: responses are kept for {} s, the newest ones, and those asked for \
                 with `store` false not at all. Send the whole history in `input`.",
                LIMITS.keep.as_secs()
            ),
            code: Some("previous_response_not_found"),
        })
    }

    /// Whether the body has become another one than came.
    pub(super) fn is_known(&self) -> bool {
        matches!(self, Self::Known { .. })
    }

    /// The host that has the response, too.
    pub(super) fn host(&self) -> Option<&Host> {
        match self {
            Self::Known { host, .. } => host.as_ref(),
            Self::Nothing | Self::Unknown(_) => None,
        }
    }
}

/// What is wrong with a request, in the words that fit what the client sent: places in `input` are counted otherwise once
/// it is expanded.
pub(super) fn retold(previous: &Previous, came: &[u8], sealer: &Sealer, invalid: InvalidRequest) -> InvalidRequest {
    if !previous.is_known() {
        return invalid;
    }
    decode_request(came, sealer).err().unwrap_or(invalid)
}

/// The request as it came, for the host that knows the response it names; as it is now, for all others.
pub(super) fn asked_of<'r, 'a>(asked: Asked<'r, 'a>, hop: &Hop) -> Asked<'r, 'a> {
    match asked.host {
        Some((host, came)) if hop.provider == host.provider && hop.account_name == host.account => {
            Asked { body: came, expanded: false, host: None, ..asked }
        }
        Some(_) | None => asked,
    }
}

/// What is to be stored of an exchange, before its answer is there.
pub(super) struct Keeping {
    /// The conversation up to the answer.
    input: String,
}

impl Keeping {
    /// `None`: nothing, because the client does not want it, or what came before is not known here, or it is too long.
    /// `body`: the whole request.
    pub(super) fn of(task: Task, request: &Request<'_>, body: &[u8], previous: &Previous) -> Option<Self> {
        if !request.store || matches!(previous, Previous::Unknown(_)) {
            return None;
        }
        let input = match task {
            Task::Answer => stored::elements(body)?,
            // It takes the place of all that was said.
            Task::Compaction(Form::Item) => String::new(),
            // It has no id to be continued by.
            Task::Compaction(Form::Object) | Task::Summary => return None,
        };
        (input.len() <= KEPT_BYTES_MAX).then_some(Self { input })
    }

    /// Stores the answer that `line` has forwarded, if it is one, and if that is wanted. Call it before anything is waited
    /// for: then the client has not seen its end.
    pub(super) fn put(keeping: Option<Self>, service: &Service, line: &Line, story: &Story) {
        let (Some(keeping), Some(answer)) = (keeping, line.answer()) else { return };
        let host = answer.stored_there.then(|| story.host());
        let items = stored::join([keeping.input.as_str()].into_iter().chain(answer.items.iter().map(|item| &**item)));
        debug!(codex_request_id = line.request_id(), codex_bytes = items.len(), "the response can be continued");
        service.responses().put(service, &answer.id, &Kept { items, host }, SystemTime::now());
    }
}
