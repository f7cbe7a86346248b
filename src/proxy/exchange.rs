//! ONE request from first byte to last: start reading here.
//!
//! ```text
//!  read body ► decode_request ► route::choose ─┬► demo ──────────────────────────────────► events ┐
//!                                              └► encode_request ► send ► frames ► decoder ► events ┼► encoder ► reply
//!                                                   ▲   nothing forwarded yet: retry, next place   │
//!                                                   └──────────────────────────────────────────────┘
//! ```
//! The head of the answer is held until the first item opens, or for `head_hold_s`, so that a true status, a retry
//! and another place stay possible. After the first forwarded item nothing is tried again: what breaks then is told in
//! the stream. Whatever happens, the client gets exactly one end.

use std::{
    mem,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use http::Request;
use hyper::body::Incoming;
use tokio::time::sleep;

use super::{
    attempt::{Miss, attempt},
    body, compaction,
    line::Line,
    previous::{self, Keeping, Previous},
    quarantine::Fingerprint,
    reply::Reply,
    retry::{self, Next, Progress},
    route::{self, Choice, Hop},
    service::{Live, Service},
    source::Source,
    story::Story,
};
use crate::{
    codec::{
        Asked, Protocol, Task, demo,
        responses::request::{InvalidRequest, decode_request},
    },
    model::failure::{Failure, FailureKind},
};

/// Serves `POST /v1/responses`, and `POST /v1/responses/compact`.
pub async fn exchange(service: Arc<Service>, request: Request<Incoming>, request_id: String, reply: Reply) {
    let live = service.live();
    let (parts, incoming) = request.into_parts();
    let mut story = Story::new(Arc::clone(&service), &request_id, &parts.headers);
    let mut line = Line::new(&service, &live, reply, request_id, story.cancelled());

    let limits = live.body_limits();
    let whole = match line.during(body::read(&parts.headers, incoming, &limits)).await {
        Ok(Ok(whole)) => whole,
        Ok(Err(error)) => return line.refuse_body(&error, &mut story),
        Err(failure) => return line.fail(failure, &mut story),
    };
    // Recorded before anything looks at the body: whatever it does to this process, the next one knows.
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let entering = service.quarantine().enter(Fingerprint::of(&whole.bytes), now_s);
    let _presence = match line.during(entering).await {
        Ok(Some(presence)) => presence,
        Ok(None) => return line.refuse(&quarantined(line.request_id()), &mut story),
        Err(failure) => return line.fail(failure, &mut story),
    };
    #[cfg(feature = "test-faults")]
    super::testfault::in_exchange(&parts.headers);
    let previous = match line.during(Previous::of(&service, &live, &whole.bytes)).await {
        Ok(Ok(previous)) => previous,
        Ok(Err(failure)) | Err(failure) => return line.fail(failure, &mut story),
    };
    let body = previous.body(&whole.bytes);
    let decoded = match decode_request(body, service.sealer()) {
        Ok(decoded) => decoded,
        Err(invalid) => {
            let invalid = previous::retold(&previous, &whole.bytes, service.sealer(), invalid);
            return line.refuse(&invalid, &mut story);
        }
    };
    let mut request = decoded.request;
    story.asked(&request, &[]);
    let task = compaction::task(parts.uri.path(), &request);
    let mut choice = match route::choose(&live.settings, &service.overrides(), &request.model) {
        Ok(choice) => choice,
        Err(error) => return line.fail(Failure::new(FailureKind::UnknownModel, error.to_string()), &mut story),
    };
    if let Err(invalid) = compaction::readable(&request, &mut choice) {
        return line.refuse(&invalid, &mut story);
    }
    if let Some(invalid) = previous.refusal(&choice) {
        return line.refuse(&invalid, &mut story);
    }
    // A host that speaks the client's protocol is given what the client said; nothing of that is lost.
    let passes = |hop: &Hop| hop.target.protocol == Protocol::Responses;
    if !matches!(&choice, Choice::Routes(hops) if hops.iter().all(passes)) {
        story.lost(&decoded.losses);
    }
    let keeps = Keeping::is_due(task, &request, body, &previous);
    let echo = compaction::prepare(task, &mut request, body, decoded.echo);
    line.begin(&request, echo, service.sealer());

    let hops = match choice {
        Choice::Demo => {
            story.demo();
            match compaction::of_demo(task, demo::answer(&request)) {
                Ok(events) => line.forward(events, &mut story),
                Err(failure) => return line.fail(failure, &mut story),
            }
            drop(request);
            let keeping = keeps.then(|| Keeping::of(task, whole, previous));
            Keeping::put(keeping, &service, &line, &story);
            return line.finish(&mut story);
        }
        Choice::Routes(hops) => hops,
    };
    let asked = Asked {
        request: &request,
        body,
        expanded: previous.is_known(),
        host: previous.host().map(|host| (host, &*whole.bytes)),
        sealer: service.sealer(),
        task,
    };
    let mut source = match begin(&service, &live, &mut line, &hops, asked, &mut story).await {
        Ok(source) => source,
        Err(failure) => return line.fail(failure, &mut story),
    };
    story.answers();
    // From here on nothing is tried again, so the request itself is needed only if it is to be stored.
    drop(request);
    let keeping = if keeps {
        Some(Keeping::of(task, whole, previous))
    } else {
        drop((previous, whole));
        None
    };

    loop {
        source.forward(&mut line, &mut story, &service);
        if line.ended() {
            Keeping::put(keeping, &service, &line, &story);
            break;
        }
        match line.room().await {
            Ok(()) => source.read(&mut line).await,
            Err(failure) => source.cut(failure),
        }
    }
    line.finish(&mut story);
    service.counters().skipped(source.skipped());
    source.drain().await;
}

/// The answer to a request that has killed the process twice.
fn quarantined(request_id: &str) -> InvalidRequest {
    InvalidRequest {
        param: None,
        message: format!(
            "codex-proxy died twice while it served this request and nothing else, so it is refused for ten minutes. \
             Start a new thread or change the request, and please report it with {request_id}."
        ),
        code: Some("request_quarantined"),
    }
}

/// Sends the request to one place after another until an answer has begun, waiting between rounds.
async fn begin(
    service: &Arc<Service>,
    live: &Arc<Live>,
    line: &mut Line,
    hops: &[Hop],
    asked: Asked<'_, '_>,
    story: &mut Story,
) -> Result<Source, Failure> {
    let mut rounds = 1;
    let mut round: Vec<&Hop> = hops.iter().collect();
    let mut at = 0;
    let mut keys_read_anew = 0;
    // Of this round: places that may do better later, and the last failure of one of them.
    let mut again = Vec::new();
    let mut hopeful = None;
    loop {
        let hop = round[at];
        story.tries(hop);
        let tried = match asked.task {
            Task::Answer => attempt(service, live, line, hop, asked, story).await,
            Task::Compaction(_) | Task::Summary => compaction::attempt(service, live, line, hop, asked, story).await,
        };
        let Miss { failure, only_here, .. } = match tried {
            Ok(source) => return Ok(source),
            Err(miss) => miss,
        };
        story.attempt_failed(&failure);
        if failure.kind == FailureKind::Credentials && keys_read_anew < hops.len() {
            keys_read_anew += 1;
            if line.during(live.key_changed(hop)).await? {
                continue;
            }
        }
        let elsewhere = at + 1 < round.len();
        let failure = if failure.row().attempts_max > 1 {
            again.push(hop);
            sooner(hopeful.take(), failure)
        } else if elsewhere {
            failure
        } else {
            // A place that cannot do better does not end the wait for one that can.
            hopeful.take().unwrap_or(failure)
        };
        let progress = Progress {
            rounds,
            elsewhere,
            only_here,
            elapsed: story.began.elapsed(),
            deadline: live.settings.proxy.retry_deadline,
            jitter: service.random_fraction(),
        };
        match retry::next(&failure, progress) {
            Next::Elsewhere => {
                hopeful = hopeful.or_else(|| (failure.row().attempts_max > 1).then_some(failure));
                at += 1;
            }
            Next::Again(pause) => {
                line.during(sleep(pause)).await?;
                rounds += 1;
                round = mem::take(&mut again);
                at = 0;
            }
            Next::GiveUp => return Err(failure),
        }
    }
}

/// Of two failures that waiting can mend, the one that is over first.
fn sooner(before: Option<Failure>, now: Failure) -> Failure {
    match before {
        Some(before) if before.retry_after.is_some() && before.retry_after < now.retry_after => before,
        Some(_) | None => now,
    }
}
