//! An exchange that wants a compaction of the conversation instead of an answer.
//!
//! ```text
//! host speaks Responses ─► asked as the client asked ─┬─► gave a compaction ────────────────────────► passes as it came
//!                                                     └─► cannot, or gave none ─┐
//! other hosts, the demo ────────────────────────────────────────────────────────┴─► a summary ─► condensed, sealed
//! ```
//! It is made in one place, as an answer is: what fails is tried again or elsewhere by [`super::exchange`]. Nothing of a
//! summary is forwarded before it is whole. Whether a host can compact is not remembered: it costs one refusal each time,
//! and a host that learns it is used at once.

use std::sync::Arc;

use tracing::info;

use super::{
    attempt::{self, Miss},
    line::Line,
    path::{COMPACT, normalise},
    route::{Choice, Hop},
    service::{Live, Service},
    source::Source,
    story::Story,
};
use crate::{
    codec::{
        Asked, Protocol, Task,
        compaction::{self, Form},
        responses::{echo::Echo, request::InvalidRequest},
    },
    model::{event::Event, failure::Failure, request::Request},
};

/// What a request to that path wants.
pub(super) fn task(path: &str, request: &Request<'_>) -> Task {
    if normalise(path) == COMPACT {
        Task::Compaction(Form::Object)
    } else if request.compact {
        Task::Compaction(Form::Item)
    } else {
        Task::Answer
    }
}

/// Leaves only places that may be able to read a summary that was not made here, if one stands in the conversation.
pub(super) fn readable(request: &Request<'_>, choice: &mut Choice) -> Result<(), InvalidRequest> {
    let Some(path) = compaction::unreadable(request) else { return Ok(()) };
    if let Choice::Routes(hops) = choice {
        hops.retain(|hop| hop.target.protocol == Protocol::Responses);
        if !hops.is_empty() {
            return Ok(());
        }
    }
    Err(InvalidRequest {
        param: Some(path.to_owned()),
        message: format!("`{path}` is {}.", compaction::NOT_READABLE),
        code: Some("invalid_encrypted_content"),
    })
}

/// Makes the request one for a summary, if a compaction is wanted, and gives what the answer is to repeat. `body`: the
/// client's.
pub(super) fn prepare(task: Task, request: &mut Request<'_>, body: &[u8], echo: Echo) -> Echo {
    if task == Task::Answer {
        return echo;
    }
    compaction::ask(request);
    if task != Task::Compaction(Form::Object) {
        return echo;
    }
    // There is no other form of it.
    request.stream = false;
    Echo::compacted(compaction::users(body))
}

/// The built-in model's answer, or what becomes of it.
pub(super) fn of_demo(task: Task, events: Vec<Event>) -> Result<Vec<Event>, Failure> {
    if task == Task::Answer { Ok(events) } else { compaction::condense(events, false) }
}

/// Has one place compact the conversation, or summarise it: the answer is over when this returns.
pub(super) async fn attempt(
    service: &Arc<Service>,
    live: &Arc<Live>,
    line: &mut Line,
    hop: &Hop,
    asked: Asked<'_, '_>,
    story: &mut Story,
) -> Result<Source, Miss> {
    if hop.target.protocol == Protocol::Responses {
        match attempt::attempt(service, live, line, hop, asked, story).await {
            Ok(source) if source.holds_compaction() => return Ok(source),
            // Some take the trigger for an item they need not know, and answer whatever comes to mind.
            Ok(source) => story.wasted(source.usage()),
            Err(Miss { cannot_compact: true, .. }) => {}
            Err(miss) => return Err(miss),
        }
        info!(
            codex_request_id = line.request_id(),
            codex_route = hop.label(),
            "the host does not compact conversations, asking it for a summary"
        );
    }
    let asked = Asked { task: Task::Summary, ..asked };
    let mut source = attempt::attempt(service, live, line, hop, asked, story).await?;
    let usage = source.usage();
    match source.condense(asked.request.max_output_tokens.is_some()) {
        Ok(()) => Ok(source),
        Err(failure) => {
            story.wasted(usage);
            Err(failure.into())
        }
    }
}
