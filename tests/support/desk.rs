//! A scripted notification daemon on a bus.

use super::bus::Bus;
use std::collections::HashMap;
use tokio::sync::mpsc;
use zbus::{Connection, OwnedVariant, connection, interface};

pub const NAME: &str = "org.freedesktop.Notifications";
pub const PATH: &str = "/org/freedesktop/Notifications";

/// What a good daemon can do.
pub const FULL: &[&str] = &["actions", "body", "body-markup"];

/// What the daemon was asked.
#[derive(Debug, PartialEq)]
pub enum Asked {
    Capabilities,
    Show(Box<Shown>),
    Close(u32),
}

/// One notification.
#[derive(Debug, Default, PartialEq)]
pub struct Shown {
    pub id: u32,
    pub replaces: u32,
    pub icon: String,
    pub title: String,
    pub text: String,
    pub actions: Vec<String>,
    pub urgency: u8,
    pub expires: i32,
}

/// Gives numbers from 1 on, or those that are replaced.
struct Daemon {
    capabilities: &'static [&'static str],
    silent: bool,
    asked: mpsc::UnboundedSender<Asked>,
    last: u32,
}

#[interface(name = "org.freedesktop.Notifications")]
impl Daemon {
    async fn get_capabilities(&self) -> Vec<String> {
        self.asked.send(Asked::Capabilities).unwrap();
        if self.silent {
            std::future::pending::<()>().await;
        }
        self.capabilities.iter().map(|name| (*name).to_owned()).collect()
    }

    #[expect(clippy::too_many_arguments, reason = "the specification's")]
    fn notify(
        &mut self,
        app_name: &str,
        replaces: u32,
        icon: String,
        title: String,
        text: String,
        actions: Vec<String>,
        hints: HashMap<String, OwnedVariant>,
        expires: i32,
    ) -> u32 {
        assert_eq!(app_name, "codex-proxy");
        let id = if replaces == 0 { self.last + 1 } else { replaces };
        self.last = self.last.max(id);
        assert_eq!(hints.len(), 1, "{hints:?}");
        let urgency = u8::try_from(hints["urgency"].try_clone().unwrap()).unwrap();
        let shown = Shown { id, replaces, icon, title, text, actions, urgency, expires };
        self.asked.send(Asked::Show(Box::new(shown))).unwrap();
        id
    }

    fn close_notification(&self, id: u32) {
        self.asked.send(Asked::Close(id)).unwrap();
    }
}

/// A daemon and what it is asked.
pub struct Desk {
    pub connection: Connection,
    pub asked: mpsc::UnboundedReceiver<Asked>,
}

impl Desk {
    pub async fn start(bus: &Bus, capabilities: &'static [&'static str], silent: bool) -> Self {
        let (sender, asked) = mpsc::unbounded_channel();
        let daemon = Daemon { capabilities, silent, asked: sender, last: 0 };
        let builder = connection::Builder::address(bus.address()).serve_at(PATH, daemon);
        Self { connection: builder.name(NAME).build().await.unwrap(), asked }
    }

    /// The next one that is shown.
    pub async fn shown(&mut self) -> Shown {
        loop {
            match self.asked.recv().await.unwrap() {
                Asked::Show(shown) => return *shown,
                Asked::Capabilities => {}
                Asked::Close(id) => panic!("{id} is closed"),
            }
        }
    }

    /// The number of the next one that is closed.
    pub async fn closed(&mut self) -> u32 {
        match self.asked.recv().await.unwrap() {
            Asked::Close(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Ends, and its name is free.
    pub async fn end(self) {
        self.connection.release_name(NAME).await.unwrap();
    }
}

/// Somebody presses a button.
pub async fn press(from: &Connection, id: u32, key: &str) {
    from.emit_signal(None::<&str>, PATH, NAME, "ActionInvoked", &(id, key)).await.unwrap();
}
