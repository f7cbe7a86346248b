//! The face on the session bus: connects, holds the name, shows changes, carries what is told. The members are in
//! `watchdog1.rs`, their contract in `dbus/org.codexproxy.Watchdog1.xml`.
//!
//! The bus is for those who watch and steer. Nothing of the watchdog's work waits for it.

mod watchdog1;

use std::{path::PathBuf, pin::pin};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};
use zbus::{Connection, object_server::SignalEmitter};

use self::watchdog1::Watchdog1;
use super::{
    news::{Asked, News, Shown},
    sources::units::SessionBus,
};
use crate::bus::{CHANGES_PAUSE, CONNECT_TIME_MAX, PAUSE_FIRST, PAUSE_MAX, SEND_TIME_MAX};

/// The well-known name.
pub const NAME: &str = "org.codexproxy.Watchdog1";
/// The one object.
pub const PATH: &str = "/org/codexproxy/Watchdog1";

/// What the bus shows and steers.
#[derive(Debug)]
pub struct Face {
    bus: SessionBus,
    wishes: mpsc::Sender<Asked>,
    shows: watch::Receiver<Shown>,
    state: PathBuf,
    /// And what its first callers may have read before anybody looked for changes.
    connection: Option<(Connection, Shown)>,
}

enum Over {
    ConnectionLost,
    NothingMore,
}

impl Face {
    /// Connects and takes the name, if there is a bus. `state`: where the journal of incidents is.
    pub async fn connect(
        bus: SessionBus,
        wishes: mpsc::Sender<Asked>,
        shows: watch::Receiver<Shown>,
        state: PathBuf,
    ) -> Self {
        let mut face = Self { bus, wishes, shows, state, connection: None };
        match face.join().await {
            Ok(connection) => face.connection = Some(connection),
            Err(error) => {
                warn!(codex_bus_name = NAME, codex_error = %error, "not on the session bus, working without");
            }
        }
        face
    }

    async fn join(&self) -> zbus::Result<(Connection, Shown)> {
        let shown = self.shows.borrow().clone();
        let object = Watchdog1::new(self.wishes.clone(), self.shows.clone(), self.state.clone());
        let connecting = self.bus.builder().method_timeout(SEND_TIME_MAX).serve_at(PATH, object).name(NAME).build();
        let late = |_| zbus::Error::Failure(format!("no answer within {} s", CONNECT_TIME_MAX.as_secs()));
        let connection = timeout(CONNECT_TIME_MAX, connecting).await.map_err(late)??;
        Ok((connection, shown))
    }

    /// Serves the bus, and comes back to it when it went away. Ends when nothing is told any more.
    pub async fn keep(mut self, mut told: mpsc::Receiver<News>) {
        let mut pause = PAUSE_FIRST;
        loop {
            if let Some((connection, shown)) = self.connection.take() {
                pause = PAUSE_FIRST;
                if matches!(self.attend(&connection, shown, &mut told).await, Over::NothingMore) {
                    return;
                }
                info!("the session bus went away, working without and trying to come back");
            }
            // What is told meanwhile reaches nobody; it is in the journal.
            let mut over = pin!(sleep(pause));
            loop {
                tokio::select! {
                    () = &mut over => break,
                    news = told.recv() => if news.is_none() { return },
                }
            }
            pause = (pause * 2).min(PAUSE_MAX);
            match self.join().await {
                Ok(connection) => {
                    info!(codex_bus_name = NAME, "on the session bus");
                    self.connection = Some(connection);
                }
                Err(error) => debug!(codex_error = %error, "still not on the session bus"),
            }
        }
    }

    /// Carries news and changes until the connection is lost.
    async fn attend(&self, connection: &Connection, mut shown: Shown, told: &mut mpsc::Receiver<News>) -> Over {
        let Ok(emitter) = SignalEmitter::new(connection, PATH) else { return Over::ConnectionLost };
        let mut shows = self.shows.clone();
        let mut next_change = Instant::now();
        let mut pending = true;
        let mut closed = pin!(connection.closed());
        loop {
            tokio::select! {
                () = &mut closed => return Over::ConnectionLost,
                news = told.recv() => {
                    let Some(news) = news else { return Over::NothingMore };
                    let sent = timeout(SEND_TIME_MAX, watchdog1::tell(&emitter, &news)).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return Over::ConnectionLost;
                    }
                }
                Ok(()) = shows.changed() => pending = true,
                () = sleep_until(next_change), if pending => {
                    pending = false;
                    next_change = Instant::now() + CHANGES_PAUSE;
                    let now = shows.borrow_and_update().clone();
                    let sent = timeout(SEND_TIME_MAX, watchdog1::tell_changes(&now, &shown, &emitter)).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return Over::ConnectionLost;
                    }
                    shown = now;
                }
            }
        }
    }
}
