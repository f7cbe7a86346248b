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
        compaction::{self, Form},
        refusal::{self, Amends},
        relay::{self, BlobId},
        stored,
    },
    config::endpoint,
    model::{
        failure::{Failure, FailureKind},
        request::Origin,
    },
};

/// Why an attempt came to nothing.
pub(super) struct Miss {
    pub(super) failure: Failure,
    /// The host was asked for a compaction and does not know what that is.
    pub(super) cannot_compact: bool,
    /// It says nothing of other places, whatever its kind.
    pub(super) only_here: bool,
}

impl From<Failure> for Miss {
    fn from(failure: Failure) -> Self {
        Self { failure, cannot_compact: false, only_here: false }
    }
}

/// Which blobs a host is given. It refuses a request for one that it cannot read, and does not say for which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    /// Those that it gave, and those nobody here has seen.
    Likely,
    /// Those that it gave.
    Own,
    /// No thoughts: what one account of a host was given another may not be able to read.
    Nothing,
}

impl Given {
    /// What is less, most first.
    fn less(self) -> &'static [Self] {
        match self {
            Self::Likely => &[Self::Own, Self::Nothing],
            Self::Own => &[Self::Nothing],
            Self::Nothing => &[],
        }
    }

    /// Whose a blob is held to be.
    fn origin(self, known: Option<Origin>) -> Option<Origin> {
        match (self, known) {
            (Self::Likely, known) | (Self::Own, known @ Some(_)) => known,
            (Self::Own, None) | (Self::Nothing, _) => Some(Origin::nobody()),
        }
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
    // What the host's refusals ask for: once is enough of each.
    let (without_thoughts, without_pictures, body_without_pictures) =
        (OnceLock::new(), OnceLock::new(), OnceLock::new());
    let (mut given, mut doubtful) = (Given::Likely, Vec::new());
    let encode = |asked: Asked<'_, '_>, given: Given| {
        codec::encode_request(asked, &hop.target, |blob| given.origin(service.origins().origin_of(blob)))
    };
    let (answer, names, sent, head_time_max) = loop {
        let encoded = encode(asked, given).map_err(|error| {
            let message = format!("{} cannot be asked this: {error}.", hop.label());
            Miss { only_here: true, ..Miss::from(Failure::new(FailureKind::Caller, message)) }
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
            if given == Given::Own {
                service.note_refused(&doubtful);
            }
            break (answer, encoded.names, sent, head_time_max);
        }
        let status = answer.status.as_u16();
        let retry_after = answer.headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let error = line.during(answer.error_body()).await?;
        let amends = Amends::of(hop.target.protocol, status, &error);
        match amends {
            Some(Amends::WithoutBlobs) => {
                let leaves_out = |given: &&Given| encode(asked, **given).is_ok_and(|less| less.body != sent.again);
                if let Some(less) = given.less().iter().find(leaves_out) {
                    story.amends("without blobs that may be another's");
                    if *less == Given::Own {
                        let unknown = |blob: &BlobId| service.origins().origin_of(*blob).is_none();
                        doubtful = relay::blobs_in(&sent.again).into_iter().filter(unknown).collect();
                    }
                    given = *less;
                    continue;
                }
            }
            Some(Amends::WithoutThoughts) if without_thoughts.get().is_none() && asked.request.has_opaque() => {
                story.amends("without the thoughts of earlier answers");
                story.lost(&refusal::lost_thoughts(asked.request));
                asked.request = without_thoughts.get_or_init(|| asked.request.without_opaque());
                continue;
            }
            Some(Amends::WithoutPictures) if without_pictures.get().is_none() && asked.request.has_pictures() => {
                story.amends("without the pictures");
                story.lost(&refusal::lost_pictures(asked.request));
                asked.request = without_pictures.get_or_init(|| refusal::without_pictures(asked.request));
                if hop.target.protocol == Protocol::Responses {
                    let body = || refusal::body_without_pictures(asked.body).unwrap_or_else(|| asked.body.to_vec());
                    asked.body = body_without_pictures.get_or_init(body);
                }
                continue;
            }
            Some(Amends::WithoutThoughts | Amends::WithoutPictures) | None => {}
        }
        let continues = if asked.expanded { None } else { stored::previous(asked.body) };
        let forgets = continues.is_some_and(|id| relay::forgets_response(status, &error, &id));
        if forgets && whole.expanded {
            // It had it once.
            asked = whole;
            continue;
        }
        let mut failure =
            codec::decode_error(hop.target.protocol, status, retry_after.as_deref(), &error, SystemTime::now());
        // What is left that cannot be read stands for the conversation; its maker may be another place or account.
        let only_here = forgets || amends == Some(Amends::WithoutBlobs);
        if forgets && hop.target.protocol == Protocol::Responses {
            failure = relay::forgotten(status, &error);
        } else if let Some(path) = compaction::unreadable(asked.request).filter(|_| only_here) {
            failure.message.push_str(&format!(" `{path}` is {}.", compaction::NOT_READABLE));
        }
        let cannot_compact = match asked.task {
            Task::Compaction(form) => relay::cannot_compact(status, &error, form == Form::Object),
            Task::Answer | Task::Summary => false,
        };
        let failure = with_key_source(named(secrets.hide(failure), hop.label()), live, hop);
        return Err(Miss { failure, cannot_compact, only_here });
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
            Begun::Failed(failure) => {
                story.wasted(source.usage());
                return Err(failure.into());
            }
        }
    }
}

/// A refused key's failure, with where that key is from, so that it can be looked for there.
fn with_key_source(failure: Failure, live: &Live, hop: &Hop) -> Failure {
    if failure.kind != FailureKind::Credentials {
        return failure;
    }
    let accounts = live.settings.providers.get(&hop.provider).map(|provider| provider.accounts.as_slice());
    let accounts = accounts.unwrap_or_default();
    let source = match hop.account.and_then(|at| accounts.get(at)) {
        None => "No key is configured for it".to_owned(),
        Some(account) if accounts.len() == 1 => format!("Its key is from {}", account.key),
        Some(account) => format!("The key of its account {} is from {}", account.name, account.key),
    };
    Failure { message: format!("{} ({source}.)", failure.message), ..failure }
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
