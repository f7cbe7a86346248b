//! What the one who drives the brain has done elsewhere: commands, looks into `/proc`, probes. Nothing of it keeps the
//! brain waiting, and nothing is decided here.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, watch},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};
use tracing::error;
use zbus::Connection;

use super::{
    actuators,
    brain::Order,
    catalog::Action,
    incidents::record::{CommandId, Outcome},
    signal::{Observation, Port, Signal, Source},
    sources::{
        Seen,
        holder::Expected,
        now,
        probe::{health, ping},
        processes::{self, ActError},
    },
};

/// From one probe to the next; one that takes longer is followed at once.
const PROBE_PAUSE: Duration = Duration::from_secs(5);
/// So long a look waits to learn which port it is about; then it says nothing, and the brain asks again.
const PORT_WAIT: Duration = Duration::from_secs(2);

/// Something came to its end.
#[derive(Debug)]
pub enum Done {
    /// A command.
    Command {
        /// Which.
        command: CommandId,
        /// How.
        outcome: Outcome,
    },
    /// A look, which has told what it saw.
    Look,
}

/// All that is under way.
#[derive(Debug)]
pub struct Hands {
    under_way: JoinSet<Done>,
    eyes: Eyes,
    looking: Arc<Notify>,
    aim: watch::Sender<Option<u32>>,
}

/// What is needed to look and to act.
#[derive(Debug, Clone)]
struct Eyes {
    seen: mpsc::Sender<Seen>,
    link: watch::Receiver<Option<Connection>>,
    manager: watch::Receiver<Option<u32>>,
    port: watch::Receiver<Option<u16>>,
    proxy: String,
}

impl Hands {
    /// And the future that probes, which ends with them. `seen`: where looks tell what they see. `link`, `manager`,
    /// `port`: as found by `sources/units.rs`. `proxy`: the proxy's program.
    pub fn new(
        seen: mpsc::Sender<Seen>,
        link: watch::Receiver<Option<Connection>>,
        manager: watch::Receiver<Option<u32>>,
        port: watch::Receiver<Option<u16>>,
        proxy: String,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let eyes = Eyes { seen, link, manager, port, proxy };
        let (aim, aimed) = watch::channel(None);
        let looking = Arc::new(Notify::new());
        let probes = eyes.clone().probe(aimed, Arc::clone(&looking));
        (Self { under_way: JoinSet::new(), eyes, looking, aim }, probes)
    }

    /// The next thing that came to its end; `None`: nothing is under way.
    pub async fn next(&mut self) -> Option<Done> {
        loop {
            match self.under_way.join_next().await? {
                Ok(done) => return Some(done),
                // Its command's time will be over, and its outcome unknown.
                Err(error) => error!(codex_error = %error, "an action broke off"),
            }
        }
    }

    /// Probes the proxy's process from now on; `None`: does not.
    pub fn aim(&self, pid: Option<u32>) {
        self.aim.send_if_modified(|aim| std::mem::replace(aim, pid) != pid);
    }

    /// Looks now.
    pub fn look(&mut self, source: Source) {
        match source {
            Source::Probe => self.looking.notify_one(),
            Source::Processes => {
                let eyes = self.eyes.clone();
                self.under_way.spawn(async move {
                    if let Some(port) = eyes.holder().await {
                        eyes.tell(Source::Processes, Observation::Port(port)).await;
                    }
                    Done::Look
                });
            }
            // They tell by themselves.
            Source::Units | Source::Journal | Source::Failures => {}
        }
    }

    /// Carries a command out.
    pub fn act(&mut self, order: Order) {
        let eyes = self.eyes.clone();
        self.under_way.spawn(async move {
            let command = order.command;
            Done::Command { command, outcome: eyes.act(order).await }
        });
    }
}

impl Eyes {
    async fn tell(&self, source: Source, observation: Observation) {
        let signal = Signal { at: now(), source, observation };
        // Nobody listens at the end.
        drop(self.seen.send(Seen { signal, cursor: None }).await);
    }

    fn expected(&self) -> Option<Expected> {
        Some(Expected {
            port: (*self.port.borrow())?,
            exe: self.proxy.clone(),
            uid: nix::unistd::geteuid().as_raw(),
            manager: *self.manager.borrow(),
        })
    }

    /// Who holds the port; `None`: it is not known yet which port that is. Then nothing was seen, and the brain asks
    /// again.
    async fn holder(&self) -> Option<Port> {
        // After a start with something open, a look is asked for before the manager has said what the port is, and who
        // it is itself, which it says before.
        drop(timeout(PORT_WAIT, self.port.clone().wait_for(Option::is_some)).await);
        let expected = self.expected()?;
        Some(spawn_blocking(move || processes::port(&expected)).await.unwrap_or(Port::Unknown))
    }

    async fn act(&self, order: Order) -> Outcome {
        match order.action {
            Action::StartProxy | Action::RestartProxy => {
                let Some(connection) = self.link.borrow().clone() else {
                    return Outcome::Failed { why: "there is no session bus".to_owned() };
                };
                match order.action {
                    Action::StartProxy => actuators::start_proxy(&connection).await,
                    _ => actuators::restart_proxy(&connection).await,
                }
            }
            Action::KillStaleProcesses => self.end(order).await,
            Action::RetryNow
            | Action::ClearSchemaCache
            | Action::SwitchProvider
            | Action::IncreaseTimeout
            | Action::RegenerateConfig
            | Action::CleanupCodexStale
            | Action::CleanupPids
            | Action::RefreshToken => {
                Outcome::Failed { why: format!("this version cannot carry out {}", order.action.word()) }
            }
            Action::AlertUser
            | Action::Suggest
            | Action::Ignore
            | Action::CheckProxyHealth
            | Action::WaitRetryAfter
            | Action::RetryWithBackoff => Outcome::Done,
        }
    }

    async fn end(&self, order: Order) -> Outcome {
        let (Some(process), Some(expected)) = (order.process, self.expected()) else {
            return Outcome::Failed { why: "it is not known which process".to_owned() };
        };
        match spawn_blocking(move || processes::end(&process, &expected)).await {
            Ok(Ok(_)) => Outcome::Done,
            Ok(Err(error @ ActError::Signal { .. })) => Outcome::Unknown { why: error.to_string() },
            Ok(Err(error)) => Outcome::Failed { why: error.to_string() },
            Err(error) => Outcome::Unknown { why: error.to_string() },
        }
    }

    /// Probes what is aimed at, every five seconds, at once when it changes, and when somebody wants to know.
    async fn probe(self, mut aim: watch::Receiver<Option<u32>>, looking: Arc<Notify>) {
        loop {
            let aimed = *aim.borrow_and_update();
            let next = Instant::now() + PROBE_PAUSE;
            let port = *self.port.borrow();
            if let (Some(pid), Some(port)) = (aimed, port) {
                let link = self.link.borrow().clone();
                let (ping, health) = tokio::join!(ping(link.as_ref()), health(port, pid));
                // Of a process that is gone it says nothing.
                if *aim.borrow() == aimed {
                    self.tell(Source::Probe, Observation::Ping(ping)).await;
                    self.tell(Source::Probe, Observation::Health(health)).await;
                }
            }
            tokio::select! {
                changed = aim.changed() => if changed.is_err() { return },
                () = looking.notified() => {}
                () = sleep_until(next), if aimed.is_some() => {}
            }
        }
    }
}
