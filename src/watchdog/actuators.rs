//! What the watchdog does to the proxy, through the service manager: it asks, and waits until the manager says how it
//! went. It decides nothing: the command leaves no choice, and whether it *helped* is the brain's to find out.
//!
//! Never `ResetFailed`: that would lift the cap on starts, which is for a person alone.

use std::{future::poll_fn, num::NonZeroUsize, pin::Pin, time::Duration};

use tokio::time::timeout;
use zbus::{
    Connection, MatchRule, MessageStream, OwnedObjectPath, export::futures_core::Stream, fdo::DBusProxy, message,
    names::OwnedUniqueName, proxy::CacheProperties,
};

use super::{
    incidents::record::Outcome,
    signal::Unit,
    sources::units::{CALL_LIMIT, MANAGER, ManagerProxy, QueuedJob, error_name},
};

/// A restart may take the unit's `TimeoutStopSec=` and its start.
const JOB_LIMIT: Duration = Duration::from_secs(30);
/// How a job is put into the queue.
///
/// A stop that a person has just asked for must come first. Measured with systemd 252 and 257, all alike:
///
/// | in the queue | `fail` | `replace` |
/// | --- | --- | --- |
/// | a stop that waits or runs | refused, `TransactionIsDestructive` | runs after the stop, or in its place |
/// | a start or a restart, also a running one | joined: the answer is that job | the same |
/// | nothing, a restart by the manager is due | done | the same |
/// | nothing, the fallback runs or is being stopped | done, the fallback is stopped first | the same |
/// | a start of the fallback | refused, `TransactionIsDestructive` | done, the fallback's start is dropped |
///
/// So it is `fail`, and `replace` where only a start of the fallback is in the way. A stop that comes later takes the
/// place of our job, which is then `canceled`. `ignore-dependencies` replaces a person's stop as well, and would leave
/// out the socket and the fallback.
const MODE: &str = "fail";
const MODE_OVER_FALLBACK: &str = "replace";
/// What `fail` is refused with.
const IN_THE_WAY: &str = "org.freedesktop.systemd1.TransactionIsDestructive";
/// Ends of other jobs that may come while ours runs.
const WAITING_MAX: usize = 256;

/// What is asked of the manager.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Start,
    Restart,
}

/// Starts the proxy's service, which pulls in its socket. It counts towards the start limit.
pub async fn start_proxy(connection: &Connection) -> Outcome {
    act(connection, Verb::Start).await
}

/// Restarts the proxy's service; its socket stays open. It counts towards the start limit.
pub async fn restart_proxy(connection: &Connection) -> Outcome {
    act(connection, Verb::Restart).await
}

async fn act(connection: &Connection, verb: Verb) -> Outcome {
    // Nothing was asked yet: an error is a failure.
    let prepared = timeout(CALL_LIMIT * 2, Prepared::new(connection)).await;
    let mut prepared = match prepared {
        Ok(Ok(prepared)) => prepared,
        Ok(Err(error)) => return Outcome::Failed { why: format!("the service manager cannot be asked: {error}") },
        Err(_) => return Outcome::Failed { why: "the service manager cannot be asked: no answer".to_owned() },
    };
    let mut asked = timeout(CALL_LIMIT, prepared.ask(verb, MODE)).await;
    if let Ok(Err(error)) = &asked
        && error_name(error).as_deref() == Some(IN_THE_WAY)
    {
        match timeout(CALL_LIMIT, prepared.manager.list_jobs()).await {
            Ok(Ok(jobs)) if only_fallback_starts(&jobs) => {
                asked = timeout(CALL_LIMIT, prepared.ask(verb, MODE_OVER_FALLBACK)).await;
            }
            Ok(Ok(jobs)) => return Outcome::Failed { why: who_is_in_the_way(&jobs) },
            Ok(Err(_)) | Err(_) => return Outcome::Failed { why: who_is_in_the_way(&[]) },
        }
    }
    let job = match asked {
        Ok(Ok(job)) => job,
        Ok(Err(error)) if error_name(&error).is_some_and(|name| !is_silence(&name)) => {
            return Outcome::Failed { why: format!("the service manager refuses: {error}") };
        }
        Ok(Err(error)) => return Outcome::Unknown { why: format!("no answer to the request: {error}") },
        Err(_) => {
            return Outcome::Unknown { why: format!("no answer to the request within {} s", CALL_LIMIT.as_secs()) };
        }
    };
    match timeout(JOB_LIMIT, prepared.end_of(&job)).await {
        Ok(Some(result)) if result == "done" => Outcome::Done,
        Ok(Some(result)) => Outcome::Failed { why: format!("the job ended: {result}{}", in_plain_words(&result)) },
        Ok(None) => Outcome::Unknown { why: "the session bus went away during the job".to_owned() },
        Err(_) => Outcome::Unknown { why: format!("the job did not end within {} s", JOB_LIMIT.as_secs()) },
    }
}

/// Whether nothing but a start of the fallback keeps the proxy from being started.
fn only_fallback_starts(jobs: &[QueuedJob]) -> bool {
    let ours = |unit: &str| Unit::ALL.iter().any(|one| one.name() == unit);
    let starts = |job: &QueuedJob| job.1 == Unit::Capped.name() && matches!(job.2.as_str(), "start" | "restart");
    jobs.iter().any(starts) && jobs.iter().filter(|job| ours(&job.1)).all(starts)
}

fn who_is_in_the_way(jobs: &[QueuedJob]) -> String {
    let stop = jobs
        .iter()
        .find(|(_, unit, kind, ..)| kind == "stop" && [Unit::Proxy, Unit::Socket].iter().any(|one| one.name() == unit));
    match stop {
        Some((_, unit, ..)) => format!("somebody has asked to stop {unit}, and that comes first"),
        None => "another request to the service manager is in the way, and comes first".to_owned(),
    }
}

/// What a job's result means; nothing where the word says it.
fn in_plain_words(result: &str) -> &'static str {
    match result {
        "canceled" => ": somebody asked for something else meanwhile, such as a stop",
        "dependency" => ": a unit that it needs, such as its socket, did not start",
        "timeout" => ": it took longer than the unit allows",
        _ => "",
    }
}

/// Errors that the bus makes when the other side is gone or silent after the call was passed on.
fn is_silence(error: &str) -> bool {
    ["NoReply", "Timeout", "TimedOut", "Disconnected"]
        .iter()
        .any(|silence| error.strip_prefix("org.freedesktop.DBus.Error.") == Some(silence))
}

/// Listens for the ends of jobs before one is begun: the end may come right after the answer.
struct Prepared {
    manager: ManagerProxy<'static>,
    owner: OwnedUniqueName,
    ends: MessageStream,
}

impl Prepared {
    async fn new(connection: &Connection) -> zbus::Result<Self> {
        let owner = DBusProxy::new(connection).await?.get_name_owner(MANAGER.try_into()?).await?;
        let rule = MatchRule::builder().msg_type(message::Type::Signal).path("/org/freedesktop/systemd1");
        let rule = rule.interface("org.freedesktop.systemd1.Manager").member("JobRemoved").build()?;
        let ends = MessageStream::for_match_rule(rule, connection, NonZeroUsize::new(WAITING_MAX)).await?;
        let manager = ManagerProxy::builder(connection)
            .destination(owner.clone())
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        // A second subscription of the same connection is an error, and no harm.
        match manager.subscribe().await {
            Ok(()) => {}
            Err(error) if error_name(&error).is_some() => {}
            Err(error) => return Err(error),
        }
        Ok(Self { manager, owner, ends })
    }

    async fn ask(&self, verb: Verb, mode: &str) -> zbus::Result<OwnedObjectPath> {
        let name = Unit::Proxy.name();
        match verb {
            Verb::Start => self.manager.start_unit(name, mode).await,
            Verb::Restart => self.manager.restart_unit(name, mode).await,
        }
    }

    /// The result of a job: `done`, `failed`, `canceled`, `timeout`, `dependency`, `skipped`; `None`: the bus is gone.
    async fn end_of(&mut self, job: &OwnedObjectPath) -> Option<String> {
        loop {
            let message = poll_fn(|cx| Pin::new(&mut self.ends).poll_next(cx)).await?.ok()?;
            if message.header().sender().map(|sender| sender.as_str()) != Some(self.owner.as_str()) {
                continue;
            }
            let body = message.body();
            if let Ok((_, path, _, result)) = body.deserialize::<(u32, OwnedObjectPath, String, String)>()
                && path == *job
            {
                return Some(result);
            }
        }
    }
}
