//! Goes on with an answer of Gemini's that a limit of tokens stopped: asks the same place once more, as
//! [`codec::gemini::continuation`](crate::codec::gemini::continuation) says.
//!
//! The source gives it what the decoder said; when it [`is_due`](Continuation::is_due), the source asks it for the next
//! stream in place of reading on. What fails on the way is no failure of the answer: the client gets what there is, as
//! an answer that met a limit.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::HeaderMap;
use tracing::{debug, info};
use url::Url;

use super::{
    route::Hop,
    service::{Live, Service},
    upstream::Answer,
};
use crate::{
    codec::{
        Protocol, StreamDecoder, Target,
        gemini::{
            self, Stopped,
            continuation::{GoOn, Joiner, continue_request},
        },
        names::Names,
    },
    model::{
        event::Event,
        failure::{Failure, FailureKind},
        request::Request,
    },
};

/// The request's body is kept until the answer's end if it is no larger, in bytes: it no longer counts among those in
/// flight.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One answer's.
pub(super) struct Continuation {
    joiner: Joiner,
    asks: Asks,
    /// How to go on, once the stream has stopped.
    due: Option<GoOn>,
    rounds: u32,
    /// Empty; its memory is used again for each piece of the answer.
    decoded: Vec<Event>,
}

/// What it takes to ask the same place again.
pub(super) struct Asks {
    pub service: Arc<Service>,
    pub live: Arc<Live>,
    pub url: Url,
    pub headers: HeaderMap,
    pub head_time_max: Duration,
    pub target: Target,
    /// The first request's.
    pub body: Bytes,
    pub names: Names,
    /// The first stream's.
    pub seed: String,
    pub request_id: String,
    pub label: String,
}

impl Continuation {
    /// For the answer to `request`, if it may be gone on with.
    pub(super) fn of(
        request: &Request<'_>,
        live: &Live,
        hop: &Hop,
        body: &Bytes,
        asks: impl FnOnce() -> Asks,
    ) -> Option<Self> {
        let often = live.settings.providers.get(&hop.provider).map_or(0, |provider| provider.continue_max);
        let may = hop.target.protocol == Protocol::Gemini && often > 0 && body.len() <= BODY_BYTES_MAX;
        may.then(|| Self {
            joiner: Joiner::new(request, often),
            asks: asks(),
            due: None,
            rounds: 0,
            decoded: Vec::new(),
        })
    }

    /// Replaces what the decoder appended behind the first `from` events by what the client gets of it.
    pub(super) fn join(&mut self, events: &mut Vec<Event>, from: usize) {
        self.decoded.extend(events.drain(from..));
        for event in self.decoded.drain(..) {
            self.joiner.push(event, events);
        }
    }

    /// Takes the end of a stream. Unless it is then due, the answer's one end has been appended.
    pub(super) fn end(&mut self, tail: Vec<Event>, stopped: Option<Stopped>, events: &mut Vec<Event>) {
        self.due = self.joiner.end(tail, stopped, events);
    }

    /// Whether the next stream is to be asked for.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_some()
    }

    /// Says why there will be none.
    pub(super) fn tell(&self, failure: &Failure) {
        info!(
            codex_request_id = self.asks.request_id,
            codex_route = self.asks.label,
            codex_error = failure.message,
            "the rest of an answer cannot be had, giving what there is"
        );
    }

    /// Asks for the next stream. Whatever comes of it, it is no longer due.
    pub(super) async fn ask(&mut self) -> Result<(Answer, StreamDecoder), Failure> {
        self.rounds += 1;
        let Asks { service, live, url, headers, head_time_max, target, body, names, seed, request_id, label } =
            &self.asks;
        debug!(
            codex_request_id = request_id,
            codex_route = label,
            codex_round = self.rounds,
            "the answer met a limit, going on"
        );
        let Some(next) = self.due.take().and_then(|go_on| continue_request(body, &go_on)) else {
            return Err(Failure::new(FailureKind::Bug, "The request cannot be gone on with."));
        };
        let next = Bytes::from(next);
        let input_bytes = next.len() as u64;
        service.counters().attempt();
        let mut answer = live.upstreams.send(url, headers.clone(), next, *head_time_max).await?;
        if !answer.status.is_success() {
            let (status, error) = (answer.status.as_u16(), answer.error_body().await);
            return Err(gemini::decode_error(status, None, &error, SystemTime::now()));
        }
        let seed = format!("{seed}{}", self.rounds);
        Ok((answer, StreamDecoder::Gemini(gemini::StreamDecoder::new(target, names.clone(), &seed, input_bytes))))
    }
}
