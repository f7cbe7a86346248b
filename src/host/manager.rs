//! What the service manager is told: ready, reloading, alive, stopping, and a line of status.
//!
//! Without a manager every call does nothing. A manager that cannot be told is no reason to stop serving: the call
//! returns, and the missing word shows in the manager's own state.

use std::{env, time::Duration};

use sd_notify::NotifyState;

/// The manager that started this process, if one did.
#[derive(Debug, Clone, Copy)]
pub struct Manager {
    present: bool,
    keepalive: Option<Duration>,
}

impl Manager {
    /// Looks at the environment.
    pub fn from_env() -> Self {
        Self {
            present: env::var_os("NOTIFY_SOCKET").is_some(),
            // A third of the time limit, so that one late tick is no death.
            keepalive: sd_notify::watchdog_enabled().map(|limit| limit / 3),
        }
    }

    /// None: for a service that lives within another program.
    pub fn none() -> Self {
        Self { present: false, keepalive: None }
    }

    /// Whether a manager waits for word from us.
    pub fn present(self) -> bool {
        self.present
    }

    /// How often it wants to hear that we live; `None` if it does not ask.
    pub fn keepalive(self) -> Option<Duration> {
        self.keepalive
    }

    /// Everything is served.
    pub fn ready(self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The configuration is being read; [`Manager::ready`] follows.
    pub fn reloading(self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            self.tell(&[NotifyState::Reloading, now]);
        }
    }

    /// The path that serves has come round.
    pub fn alive(self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// The line that `systemctl status` shows.
    pub fn status(self, status: &str) {
        self.tell(&[NotifyState::Status(status)]);
    }

    /// The end has begun and takes up to `limit`.
    pub fn stopping(self, limit: Duration) {
        let usec = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(usec)]);
    }

    fn tell(self, states: &[NotifyState<'_>]) {
        if self.present {
            drop(sd_notify::notify(states));
        }
    }
}
