//! The proxy, asked over the session bus to read its configuration anew. Its contract is
//! `dbus/org.codexproxy.Proxy1.xml`. Nothing here starts it.

use std::time::Duration;

use zbus::proxy::CacheProperties;
use zbus::{DBusError, fdo};

use super::watchdog;

/// It reads some files; a slow disk counts.
const LIMIT: Duration = Duration::from_secs(5);

/// The method that is called here.
#[zbus::proxy(
    interface = "org.codexproxy.Proxy1",
    default_service = "org.codexproxy.Proxy1",
    default_path = "/org/codexproxy/Proxy1"
)]
trait Proxy1 {
    #[zbus(no_autostart)]
    fn reload(&self) -> zbus::Result<()>;
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// What the files say is in force.
    Done,
    /// Nobody has its name: it reads the files when it starts.
    NotRunning,
    /// It was told and refuses, in its own words; the old configuration is in force.
    Refused(String),
    /// There is no session bus, so it was not told.
    NoBus,
    /// Nobody knows.
    Unknown(String),
}

impl Reload {
    /// A sentence for people.
    pub fn sentence(&self) -> String {
        match self {
            Self::Done => "the running proxy has read it".to_owned(),
            Self::NotRunning => {
                "no proxy is on the session bus; it reads this when it starts (one started by hand: pkill -HUP -x codex-proxy)"
                    .to_owned()
            }
            Self::Refused(why) => format!("the running proxy refuses it, and goes on with what it had: {why}"),
            Self::NoBus => {
                "there is no session bus to tell a running proxy by; if one runs: pkill -HUP -x codex-proxy".to_owned()
            }
            Self::Unknown(why) => {
                format!("the running proxy was not told ({why}); tell it: systemctl --user reload codex-proxy")
            }
        }
    }
}

/// Asks for it and waits until it is done.
pub async fn reload() -> Reload {
    let asking = async {
        let Ok(connection) = watchdog::connect().await else { return Ok(Reload::NoBus) };
        Proxy1Proxy::builder(&connection).cache_properties(CacheProperties::No).build().await?.reload().await?;
        Ok(Reload::Done)
    };
    match tokio::time::timeout(LIMIT, asking).await {
        Ok(Ok(reload)) => reload,
        Ok(Err(error)) => failed(&error),
        Err(_) => Reload::Unknown(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

fn failed(error: &zbus::Error) -> Reload {
    let (name, text) = match error {
        zbus::Error::MethodError(name, text, _) => (name.to_string(), text.clone().unwrap_or_default()),
        zbus::Error::FDO(error) if !matches!(**error, fdo::Error::ZBus(_)) => {
            (error.name().to_string(), error.description().unwrap_or_default().to_owned())
        }
        error => return Reload::Unknown(error.to_string()),
    };
    match name.strip_prefix("org.freedesktop.DBus.Error.") {
        Some("ServiceUnknown" | "NameHasNoOwner") => Reload::NotRunning,
        Some(_) => Reload::Unknown(text),
        None => Reload::Refused(text),
    }
}
