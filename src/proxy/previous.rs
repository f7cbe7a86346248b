//! The stored response that a request continues (`previous_response_id`), and what is stored of the answer to a request.
//!
//! ```text
//! body ── Previous::of ──► named and found ──► the body with the whole conversation in it ──► decode_request …
//!                      └─► named, not found ─► hosts that speak Responses may know it, else a refusal
//! … the answer's end is forwarded ── Keeping::put ──► stored.rs
//! ```
//! What a stored response adds to a body has its share of the memory set aside for bodies, too.

use std::{sync::Arc, time::SystemTime};

use tokio::sync::OwnedSemaphorePermit;
use tracing::debug;

use super::{
    body::Whole,
    line::Line,
    route::{Choice, Hop},
    service::{Live, Service},
    stored::LIMITS,
    story::Story,
};
use crate::{
    codec::{
        Asked, Protocol, Task,
        compaction::Form,
        responses::request::{InvalidRequest, decode_request},
        seal::Sealer,
        stored::{self, Host, Kept},
    },
    model::{
        failure::{Failure, FailureKind},
        request::Request,
    },
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
        /// Its share of memory.
        _share: OwnedSemaphorePermit,
    },
}

impl Previous {
    /// Looks for what the body names.
    pub(super) async fn of(service: &Service, live: &Live, came: &[u8]) -> Result<Self, Failure> {
        let Some(id) = stored::previous(came) else { return Ok(Self::Nothing) };
        let Some(kept) = service.responses().find(service, &id, SystemTime::now()).await? else {
            return Ok(Self::Unknown(id));
        };
        let share = share(live, came.len(), came.len() + kept.items.len())?;
        Ok(match stored::expand(came, &kept.items) {
            Some(body) => Self::Known { host: kept.host, body, _share: share },
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

/// A share of the memory set aside for bodies, for one who holds `held` bytes of it: who held some and waited for more could
/// wait for another who does so, too.
fn share(live: &Live, held: usize, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
    let bytes_max = live.settings.proxy.bodies_in_flight_bytes_max;
    if held + bytes > bytes_max {
        let message = format!(
            "With the response that it continues, the request is larger than {bytes_max} bytes \
             (`proxy.bodies_in_flight_bytes_max`). Start a new thread, or raise the limit."
        );
        return Err(Failure::new(FailureKind::Caller, message));
    }
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    Arc::clone(&live.body_limits().in_flight).try_acquire_many_owned(permits).map_err(|_| {
        let message = "The requests under way take all of the memory set aside for them; try again.";
        Failure::new(FailureKind::OwnLimit, message)
    })
}

/// What is to be stored of an exchange, before its answer is there.
pub(super) struct Keeping {
    /// What was said before the answer: the request, and what it continues, with their shares of memory. `None`: the
    /// answer takes the place of all of it.
    before: Option<(Whole, Previous)>,
}

impl Keeping {
    /// False: nothing is, because the client does not want it, or what came before is not known here, or it is too long.
    /// `body`: the whole request.
    pub(super) fn is_due(task: Task, request: &Request<'_>, body: &[u8], previous: &Previous) -> bool {
        if !request.store || matches!(previous, Previous::Unknown(_)) {
            return false;
        }
        match task {
            // The one thing here that takes its time with long bodies.
            Task::Answer => stored::fits(body),
            Task::Compaction(Form::Item) => true,
            // It has no id to be continued by.
            Task::Compaction(Form::Object) | Task::Summary => false,
        }
    }

    /// Keeps what was said before the answer.
    pub(super) fn of(task: Task, whole: Whole, previous: Previous) -> Self {
        Self { before: (task == Task::Answer).then_some((whole, previous)) }
    }

    /// Stores the answer that `line` has forwarded, if it is one, and if that is wanted. Call it before anything is waited
    /// for: then the client has not seen its end.
    pub(super) fn put(keeping: Option<Self>, service: &Service, line: &Line, story: &Story) {
        let (Some(keeping), Some(answer)) = (keeping, line.answer()) else { return };
        let host = answer.stored_there.then(|| story.host());
        let before = keeping.before.as_ref();
        let input = before.and_then(|(whole, previous)| stored::elements(previous.body(&whole.bytes)));
        let input = input.unwrap_or_default();
        let items = stored::join([input.as_str()].into_iter().chain(answer.items.iter().map(|item| &**item)));
        debug!(codex_request_id = line.request_id(), codex_bytes = items.len(), "the response can be continued");
        service.responses().put(service, &answer.id, &Kept { items, host }, SystemTime::now());
    }
}
