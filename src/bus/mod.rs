//! The face on the session bus: connects, holds the name, shows changes, carries failure signals. The members are in
//! `proxy1.rs`, their contract in `dbus/org.codexproxy.Proxy1.xml`.
//!
//! The bus is for those who watch and steer. Requests are served without it: nothing of the HTTP side waits for it.

mod proxy1;

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};
use zbus::{Connection, connection, object_server::SignalEmitter};

use self::proxy1::{Proxy1, Shown};
use crate::proxy::{reload::Reloader, reports::Report, service::Service};

/// The well-known name.
pub const NAME: &str = "org.codexproxy.Proxy1";
/// The one object.
pub const PATH: &str = "/org/codexproxy/Proxy1";

/// A bus on this machine answers in milliseconds; start does not wait for one that does not.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// A signal that the bus does not take for so long: the connection is given up.
pub(crate) const SEND_TIME_MAX: Duration = Duration::from_secs(5);
/// Between two `PropertiesChanged`.
pub(crate) const CHANGES_PAUSE: Duration = Duration::from_millis(500);
/// Between attempts to connect: doubling.
pub(crate) const PAUSE_FIRST: Duration = Duration::from_millis(250);
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What the bus shows and steers.
#[derive(Debug)]
pub struct Face {
    service: Arc<Service>,
    reloader: Arc<Reloader>,
    listen: Vec<String>,
    started_usec: u64,
    /// Run by a service manager: then the name is ours, and a proxy that was started by hand gives it up.
    managed: bool,
}

/// The bus, connected or not yet.
#[derive(Debug)]
pub struct Bus {
    face: Arc<Face>,
    connection: Option<Joined>,
    /// Tries to connect, as long as there is hope.
    hope: bool,
}

impl Bus {
    /// Connects and takes the name, if there is a bus.
    pub async fn connect(service: Arc<Service>, reloader: Arc<Reloader>, listen: Vec<String>, managed: bool) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_usec = u64::try_from(since_1970.as_micros()).unwrap_or(0);
        let face = Arc::new(Face { service, reloader, listen, started_usec, managed });
        let mut bus = Self { face, connection: None, hope: true };
        match bus.face.connect().await {
            Ok(connection) => bus.connection = Some(connection),
            Err(error) => bus.say_why_not(&error),
        }
        bus
    }

    /// Serves the bus, and comes back to it when it went away. Ends only with the queue of reports.
    pub async fn keep(mut self) {
        let Some(mut reports) = self.face.service.reports().take_receiver() else { return };
        let mut pause = PAUSE_FIRST;
        loop {
            if let Some(joined) = self.connection.take() {
                pause = PAUSE_FIRST;
                if self.face.attend(joined, &mut reports).await == Over::NoMoreReports {
                    return;
                }
                info!("the session bus went away, serving without and trying to come back");
            }
            if !self.wait(&mut reports, pause).await {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
            match self.face.connect().await {
                Ok(connection) => {
                    info!(codex_bus_name = NAME, "on the session bus");
                    self.connection = Some(connection);
                }
                // Somebody took it while the bus was away.
                Err(zbus::Error::NameTaken) if !self.face.managed => self.say_why_not(&zbus::Error::NameTaken),
                Err(error) => debug!(codex_error = %error, "still not on the session bus"),
            }
        }
    }

    /// Waits before the next attempt; reports meanwhile reach nobody, and later they would be stale. False: no more
    /// reports will come.
    async fn wait(&self, reports: &mut mpsc::Receiver<Report>, pause: Duration) -> bool {
        let mut over = pin!(sleep(pause));
        loop {
            tokio::select! {
                () = &mut over, if self.hope => return true,
                report = reports.recv() => match report {
                    Some(_) => self.face.service.reports().not_delivered(),
                    None => return false,
                },
            }
        }
    }

    fn say_why_not(&mut self, error: &zbus::Error) {
        let taken = matches!(error, zbus::Error::NameTaken);
        if taken && !self.face.managed {
            // Taking it whenever its owner restarts would take it from the service.
            self.hope = false;
            info!(codex_bus_name = NAME, "another proxy is on the session bus, serving without");
        } else if self.face.managed {
            warn!(codex_bus_name = NAME, codex_error = %error, "not on the session bus, serving without");
        } else {
            info!(codex_bus_name = NAME, codex_error = %error, "not on the session bus, serving without");
        }
    }
}

/// A connection that holds the name, and what its first callers may have read before anybody looked for changes.
#[derive(Debug)]
struct Joined {
    connection: Connection,
    shown: Shown,
}

#[derive(Debug, PartialEq, Eq)]
enum Over {
    ConnectionLost,
    NoMoreReports,
}

impl Face {
    async fn connect(self: &Arc<Self>) -> zbus::Result<Joined> {
        let shown = Shown::of(self);
        let connecting = connection::Builder::session()
            .method_timeout(SEND_TIME_MAX)
            .serve_at(PATH, Proxy1::new(Arc::clone(self)))
            .allow_name_replacements(!self.managed)
            .replace_existing_names(self.managed)
            .name(NAME)
            .build();
        let late = |_| zbus::Error::Failure(format!("no answer within {} s", CONNECT_TIME_MAX.as_secs()));
        let connection = timeout(CONNECT_TIME_MAX, connecting).await.map_err(late)??;
        Ok(Joined { connection, shown })
    }

    /// Carries reports and changes until the connection is lost.
    async fn attend(&self, joined: Joined, reports: &mut mpsc::Receiver<Report>) -> Over {
        let Joined { connection, mut shown } = joined;
        let Ok(emitter) = SignalEmitter::new(&connection, PATH) else { return Over::ConnectionLost };
        let mut changes = self.service.changes();
        let mut next_change = Instant::now();
        // Something may have changed before this looks.
        let mut pending = true;
        let mut closed = pin!(connection.closed());
        loop {
            tokio::select! {
                () = &mut closed => return Over::ConnectionLost,
                report = reports.recv() => {
                    let Some(report) = report else { return Over::NoMoreReports };
                    let sent = timeout(SEND_TIME_MAX, proxy1::send_report(&emitter, &report)).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        self.service.reports().not_delivered();
                        return Over::ConnectionLost;
                    }
                }
                Ok(()) = changes.changed() => pending = true,
                () = sleep_until(next_change), if pending => {
                    pending = false;
                    next_change = Instant::now() + CHANGES_PAUSE;
                    let now = Shown::of(self);
                    let sent = timeout(SEND_TIME_MAX, now.tell_changes(&shown, &emitter)).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return Over::ConnectionLost;
                    }
                    shown = now;
                }
            }
        }
    }
}
