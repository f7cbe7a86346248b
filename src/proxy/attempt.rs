//! One place is asked: from the encoded request to the beginning of its answer.
//!
//! Whatever fails here may be tried again or elsewhere, since nothing has been forwarded. Who decides that is
//! [`super::exchange`].

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use bytes::Bytes;
use http::header;

use super::{
    continuation::{Asks, Continuation},
    line::Line,
    previous::asked_of,
    route::Hop,
    service::{Live, Service},
    source::{Begun, Secrets, Source, named},
    story::Story,
};
use crate::{
    codec::{
        self, Asked, Protocol, Reader, Task,
        compaction::Form,
        refusal::{self, Amends},
        relay,
    },
    config::endpoint,
    model::failure::{Failure, FailureKind},
};

/// Why an attempt came to nothing.
pub(super) struct Miss {
    pub(super) failure: Failure,
    /// The host was asked for a compaction and does not know what that is.
    pub(super) cannot_compact: bool,
}

impl From<Failure> for Miss {
    fn from(failure: Failure) -> Self {
        Self { failure, cannot_compact: false }
    }
}

/// Sends the request to one place and reads until the answer has begun: its first item for a stream; its end for a client
/// that wants one object, and for a compaction.
pub(super) async fn attempt(
    service: &Arc<Service>,
    live: &Arc<Live>,
    line: &mut Line,
    hop: &Hop,
    asked: Asked<'_, '_>,
    story: &mut Story,
) -> Result<Source, Miss> {
    let headers = line.during(live.provider_headers(hop)).await??;
    let url = match asked.task {
        Task::Compaction(Form::Object) => endpoint::compaction(&hop.url),
        Task::Answer | Task::Compaction(Form::Item) | Task::Summary => hop.url.clone(),
    };
    let secrets = Secrets::of(&headers);
    let whole = asked;
    let mut asked = asked_of(whole, hop);
    // What the host's refusal asked for: once is enough, whatever it was.
    let mut amends = None;
    let without_thoughts = OnceLock::new();
    let (answer, names, sent, head_time_max) = loop {
        let known = |blob| service.origins().origin_of(blob);
        let encoded = codec::encode_request(asked, &hop.target, known).map_err(|error| {
            Failure::new(FailureKind::Caller, format!("{} cannot be asked this: {error}.", hop.label()))
        })?;
        story.lost(&encoded.losses);
        service.counters().attempt();
        let body = Bytes::from(encoded.body);
        let sent = Sent::of(&body, hop.target.protocol);
        let (items, tools) = (asked.request.input.len(), !asked.request.tools.is_empty());
        let head_time_max = live.head_time_max(items, tools).mul_f64(hop.patience);
        story.sent();
        let sending = live.upstreams.send(&url, headers.clone(), body, head_time_max);
        let mut answer = line.during(sending).await?.map_err(|failure| named(failure, hop.label()))?;
        story.answered(&answer.headers);
        if answer.status.is_redirection() {
            let to = answer.headers.get(header::LOCATION).and_then(|v| v.to_str().ok()).unwrap_or("elsewhere");
            let to: String = to.chars().take(200).collect();
            let message = format!("The provider's address has moved to {to:?}; set base_url to where it is now.");
            let failure = Failure::new(FailureKind::Operator, message).with_status(answer.status.as_u16());
            return Err(named(secrets.hide(failure), hop.label()).into());
        }
        if answer.status.is_success() {
            break (answer, encoded.names, sent, head_time_max);
        }
        let status = answer.status.as_u16();
        let retry_after = answer.headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let error = line.during(answer.error_body()).await?;
        if amends.is_none() {
            amends = Amends::of(hop.target.protocol, status, &error);
            match amends {
                Some(Amends::WithoutBlobs) => {
                    // The host does not say which, and without them it answers.
                    story.amends("without blobs that may be another host's");
                    service.origins().refuse(&relay::blobs_in(&sent.again));
                    continue;
                }
                Some(Amends::WithoutThoughts) if asked.request.has_opaque() => {
                    story.amends("without the thoughts of earlier answers");
                    story.lost(&refusal::lost_thoughts(asked.request));
                    asked.request = without_thoughts.get_or_init(|| asked.request.without_opaque());
                    continue;
                }
                Some(Amends::WithoutThoughts) | None => {}
            }
        }
        if whole.expanded && !asked.expanded && relay::forgets_response(status, &error) {
            // It had it once.
            asked = whole;
            continue;
        }
        let failure =
            codec::decode_error(hop.target.protocol, status, retry_after.as_deref(), &error, SystemTime::now());
        let cannot_compact = match asked.task {
            Task::Compaction(form) => relay::cannot_compact(status, &error, form == Form::Object),
            Task::Answer | Task::Summary => false,
        };
        return Err(Miss { failure: named(secrets.hide(failure), hop.label()), cannot_compact });
    };
    let asks = || Asks {
        service: Arc::clone(service),
        live: Arc::clone(live),
        url,
        headers,
        head_time_max,
        target: hop.target.clone(),
        body: sent.again.clone(),
        names: names.clone(),
        seed: line.identity.stem.clone(),
        request_id: line.request_id().to_owned(),
        label: hop.label().to_owned(),
    };
    let continuation = Continuation::of(asked.request, live, hop, &sent.again, asks);
    let streaming = line.streaming || asked.task == Task::Summary;
    let mut reader = Reader::new(&hop.target, names, &line.identity, streaming, sent.bytes);
    if let Reader::Relay(relay) = &mut reader
        && asked.request.store
    {
        relay.keep_items();
    }
    let mut source = Source::new(answer, reader, continuation, &hop.target.origin, hop.idle, hop.label(), secrets);
    loop {
        source.read(line).await;
        match source.begun(line.streaming && asked.task == Task::Answer) {
            Begun::No => {}
            Begun::Yes => return Ok(source),
            Begun::Failed(failure) => return Err(failure.into()),
        }
    }
}

/// What is remembered of a body once it is on its way.
struct Sent {
    bytes: u64,
    /// The body itself, where it may be asked again with or looked into; else empty, so that it is freed once it is sent.
    again: Bytes,
}

impl Sent {
    fn of(body: &Bytes, protocol: Protocol) -> Self {
        let again = match protocol {
            Protocol::Responses | Protocol::Gemini => body.clone(),
            Protocol::Chat | Protocol::Messages => Bytes::new(),
        };
        Self { bytes: body.len() as u64, again }
    }
}
