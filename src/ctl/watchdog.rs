//! The watchdog, asked over the session bus: `codex-proxyctl cancel|pause|resume`, and what `status`, `stop` and `doctor`
//! want of it.
//!
//! Its contract is `dbus/org.codexproxy.Watchdog1.xml`. Nothing here starts it, and nothing waits longer than two seconds,
//! connection included.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zbus::{Connection, DBusError, OwnedVariant, connection, fdo, proxy::CacheProperties};

use super::units::{Pending, Watching};
use super::{CtlError, Outcome, manager, times};

/// For a whole question; a bus on this machine answers in milliseconds.
const LIMIT: Duration = Duration::from_secs(2);
/// The contract's longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(7 * 86_400);

const INTERFACE: &str = "org.codexproxy.Watchdog1";

/// `a{sv}`
type Facts = HashMap<String, OwnedVariant>;

/// The methods that are called here.
#[zbus::proxy(
    interface = "org.codexproxy.Watchdog1",
    default_service = "org.codexproxy.Watchdog1",
    default_path = "/org/codexproxy/Watchdog1"
)]
trait Watchdog1 {
    #[zbus(no_autostart)]
    fn cancel(&self, id: &str) -> zbus::Result<()>;

    #[zbus(no_autostart)]
    fn pause(&self, seconds: u64, reason: &str) -> zbus::Result<()>;

    #[zbus(no_autostart)]
    fn resume(&self) -> zbus::Result<()>;

    #[zbus(no_autostart)]
    fn note_stop(&self) -> zbus::Result<()>;
}

/// Its properties: the macro's own getters would start it.
#[zbus::proxy(
    interface = "org.freedesktop.DBus.Properties",
    default_service = "org.codexproxy.Watchdog1",
    default_path = "/org/codexproxy/Watchdog1"
)]
trait Properties {
    #[zbus(no_autostart)]
    fn get_all(&self, interface: &str) -> zbus::Result<Facts>;
}

/// Why it did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    /// Nobody has its name.
    #[error("the watchdog does not run; start it: systemctl --user start codex-watchdog")]
    NotRunning,
    /// It has its name and says nothing.
    #[error("the watchdog gave no answer within {} s; look at `codex-proxyctl logs`, or: systemctl --user restart codex-watchdog", LIMIT.as_secs())]
    Silent,
    /// There is no way to it.
    #[error(
        "the session bus, over which the watchdog is asked, cannot be reached: {0}. Log in directly (not by su or sudo)"
    )]
    NoBus(zbus::Error),
    /// Its own words.
    #[error("the watchdog refuses: {0}")]
    Refuses(String),
}

impl From<WatchdogError> for CtlError {
    fn from(error: WatchdogError) -> Self {
        Self::Unforeseen(error.to_string())
    }
}

impl From<zbus::Error> for WatchdogError {
    fn from(error: zbus::Error) -> Self {
        let (name, text) = match &error {
            zbus::Error::MethodError(name, text, _) => (name.to_string(), text.clone().unwrap_or_default()),
            zbus::Error::FDO(error) if !matches!(**error, fdo::Error::ZBus(_)) => {
                (error.name().to_string(), error.description().unwrap_or_default().to_owned())
            }
            _ => return Self::NoBus(error),
        };
        match name.strip_prefix("org.freedesktop.DBus.Error.") {
            Some("ServiceUnknown" | "NameHasNoOwner") => Self::NotRunning,
            // It went away before it answered.
            Some("NoReply") => Self::Silent,
            _ => Self::Refuses(if text.is_empty() { name } else { text }),
        }
    }
}

pub(super) async fn connect() -> zbus::Result<Connection> {
    let builder = match manager::missing_runtime_directory() {
        Some(runtime) if std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_none() => {
            connection::Builder::address(format!("unix:path={}/bus", runtime.display()).as_str())
        }
        _ => connection::Builder::session(),
    };
    builder.build().await
}

async fn within<T>(asking: impl Future<Output = zbus::Result<T>>) -> Result<T, WatchdogError> {
    match tokio::time::timeout(LIMIT, asking).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(WatchdogError::Silent),
    }
}

async fn methods() -> zbus::Result<Watchdog1Proxy<'static>> {
    Watchdog1Proxy::builder(&connect().await?).cache_properties(CacheProperties::No).build().await
}

/// What it says of itself.
///
/// # Errors
/// [`WatchdogError`].
pub async fn look() -> Result<Watching, WatchdogError> {
    let facts = within(async {
        let connection = connect().await?;
        PropertiesProxy::builder(&connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await?
            .get_all(INTERFACE)
            .await
    });
    Ok(watching(facts.await?))
}

/// What is missing, or of another type, is not known.
fn watching(mut facts: Facts) -> Watching {
    let pending = take::<Facts>(&mut facts, "PendingAction").and_then(|mut pending| {
        Some(Pending {
            incident: take(&mut pending, "incident")?,
            action: take(&mut pending, "action")?,
            until_usec: take(&mut pending, "until_usec"),
        })
    });
    Watching {
        state: take(&mut facts, "State").unwrap_or_default(),
        trouble: take(&mut facts, "Trouble").unwrap_or_default(),
        open_incidents: take(&mut facts, "OpenIncidents"),
        pending_action: pending,
    }
}

fn take<T: TryFrom<OwnedVariant>>(facts: &mut Facts, name: &str) -> Option<T> {
    T::try_from(facts.remove(name)?).ok()
}

/// Tells it that a person stops the proxy, if it is there to hear it: a stop must not wait for its guardian.
pub async fn note_stop() {
    let told = within(async { methods().await?.note_stop().await }).await;
    if let Err(error) = told {
        tracing::debug!(%error, "the watchdog was not told of the stop");
    }
}

/// Gives up what is done for an incident; without one, what is announced.
pub async fn cancel(id: Option<&str>) -> Result<Outcome, CtlError> {
    let (id, action) = match id {
        Some(id) => (super::incidents::parse_id(id)?.to_string(), None),
        None => match look().await?.pending_action {
            Some(pending) => (pending.incident, Some(pending.action)),
            None => {
                return Err(CtlError::Unforeseen(
                    "nothing is announced, so there is nothing to cancel; `codex-proxyctl cancel ID` also gives up what \
                     is held back for an incident"
                        .to_owned(),
                ));
            }
        },
    };
    within(async { methods().await?.cancel(&id).await }).await?;
    let what = action.unwrap_or_else(|| "what was to be done".to_owned());
    Ok(Outcome::of(format!("{id}: {what} is given up, and the incident ends as held\n")))
}

/// Lets it do nothing for a while.
pub async fn pause(span: &str, reason: Option<&str>) -> Result<Outcome, CtlError> {
    let span = times::span(span).map_err(CtlError::Arguments)?;
    if span.is_zero() || span > PAUSE_MAX {
        return Err(CtlError::Arguments(format!("a pause lasts from 1s to {}d", PAUSE_MAX.as_secs() / 86_400)));
    }
    within(async { methods().await?.pause(span.as_secs(), reason.unwrap_or_default()).await }).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let until = times::utc(u64::try_from((now + span).as_micros()).unwrap_or(u64::MAX));
    Ok(Outcome::of(format!(
        "the watchdog does nothing for {} (until {until}); systemd still restarts the proxy. To end the pause: codex-proxyctl resume\n",
        times::words(span)
    )))
}

/// Ends a pause.
pub async fn resume() -> Result<Outcome, CtlError> {
    within(async { methods().await?.resume().await }).await?;
    Ok(Outcome::of("the watchdog is not paused any more\n".to_owned()))
}

#[cfg(test)]
mod tests {
    use zbus::Variant;

    use super::*;

    fn facts<const N: usize>(pairs: [(&str, Variant<'_>); N]) -> Facts {
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.try_to_owned().unwrap())).collect()
    }

    #[test]
    fn what_is_not_said_is_not_known() {
        assert_eq!(watching(Facts::new()), Watching::default());
        let said = watching(facts([
            ("State", Variant::from("watching")),
            ("OpenIncidents", Variant::from(2_u32)),
            ("Trouble", Variant::from(7_u8)),
            ("PendingAction", Variant::from(Facts::new())),
        ]));
        assert_eq!((said.state.as_str(), said.open_incidents, said.trouble.as_str()), ("watching", Some(2), ""));
        assert_eq!(said.pending_action, None);
    }
}
