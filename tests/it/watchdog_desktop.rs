//! What the watchdog shows at the desktop, by a scripted notification daemon on a bus of its own.

use crate::support::bus::{self, Bus};
use crate::support::desk::{Asked, Desk, FULL, NAME, PATH, Shown, press};
use crate::support::scratch;
use codex_proxy::config::settings::NotificationLevel;
use codex_proxy::watchdog::catalog::{Action, Severity};
use codex_proxy::watchdog::desktop::{self, Notice};
use codex_proxy::watchdog::incidents::record::IncidentId;
use codex_proxy::watchdog::sources::{now, units::SessionBus};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use zbus::Connection;

const IMPORTANT: NotificationLevel = NotificationLevel::Important;

/// The side of the watchdog.
struct Watchdog {
    notices: mpsc::Sender<Notice>,
    cancels: mpsc::Receiver<IncidentId>,
    link: watch::Sender<Option<Connection>>,
    tasks: JoinSet<()>,
}

impl Watchdog {
    async fn start(bus: &Bus, level: NotificationLevel) -> Self {
        let connection = SessionBus::at(bus.address().to_owned()).connect().await.unwrap();
        let (notices, waiting) = mpsc::channel(4);
        let (pressed, cancels) = mpsc::channel(1);
        let (link, shown_by) = watch::channel(Some(connection));
        let mut tasks = JoinSet::new();
        tasks.spawn(desktop::show(level, shown_by, waiting, pressed));
        Self { notices, cancels, link, tasks }
    }

    async fn tell(&self, notice: Notice) {
        self.notices.send(notice).await.unwrap();
    }

    /// It ends by itself when nobody sends any more.
    async fn end(mut self) {
        drop(self.notices);
        self.tasks.join_next().await.unwrap().unwrap();
    }
}

fn alert(incident: u64, severity: Severity) -> Notice {
    let (title, text) = ("The proxy's port is taken".to_owned(), "by <nc> & co\u{1b}[1m".to_owned());
    Notice::Alert { incident: IncidentId(incident), severity, title, text }
}

fn announced(incident: u64, within: Duration) -> Notice {
    let until = now().plus_us(u64::try_from(within.as_micros()).unwrap());
    let incident = IncidentId(incident);
    Notice::Pending { incident, action: Action::RestartProxy, until, text: "it hangs".to_owned() }
}

fn over(incident: u64) -> Notice {
    Notice::Over { incident: IncidentId(incident) }
}

fn healed(incident: u64) -> Notice {
    Notice::Healed { incident: IncidentId(incident), title: "It works again".to_owned(), text: "restarted".to_owned() }
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn alerts_are_shown_by_their_severity_and_replace_each_other() {
    let Some(bus) = Bus::start() else { return };
    bus::run(async {
        let mut desk = Desk::start(&bus, FULL, false).await;
        let watchdog = Watchdog::start(&bus, IMPORTANT).await;
        watchdog.tell(alert(1, Severity::Info)).await;
        watchdog.tell(alert(1, Severity::Warning)).await;
        watchdog.tell(alert(1, Severity::Critical)).await;
        watchdog.tell(alert(2, Severity::Critical)).await;
        // What was announced is over; an alert stays until it is healed.
        watchdog.tell(over(1)).await;
        watchdog.tell(healed(1)).await;
        let first = desk.shown().await;
        let expected = Shown {
            id: 1,
            icon: "dialog-warning".to_owned(),
            title: "The proxy's port is taken".to_owned(),
            text: "by &lt;nc&gt; &amp; co [1m".to_owned(),
            urgency: 1,
            expires: -1,
            ..Shown::default()
        };
        assert_eq!(first, expected);
        let second = desk.shown().await;
        assert_eq!((second.replaces, second.urgency, second.icon.as_str()), (1, 2, "dialog-error"));
        assert_eq!(desk.shown().await.replaces, 0);
        assert_eq!(desk.closed().await, 1);
        watchdog.end().await;
    });
}

#[test]
fn all_is_shown_or_nothing_if_so_configured() {
    let Some(bus) = Bus::start() else { return };
    bus::run(async {
        let mut desk = Desk::start(&bus, &["body"], false).await;
        let all = Watchdog::start(&bus, NotificationLevel::All).await;
        all.tell(alert(1, Severity::Info)).await;
        all.tell(announced(1, MINUTE)).await;
        all.tell(healed(1)).await;
        let shown = desk.shown().await;
        // It reads no markup.
        assert_eq!(
            (shown.urgency, shown.icon.as_str(), shown.text.as_str()),
            (0, "dialog-information", "by <nc> & co [1m")
        );
        // It knows no buttons.
        let shown = desk.shown().await;
        assert_eq!((shown.id, shown.actions.as_slice()), (2, &[][..]));
        assert!((1..=60_000).contains(&shown.expires), "{}", shown.expires);
        let shown = desk.shown().await;
        assert_eq!((shown.replaces, shown.urgency, shown.title.as_str()), (1, 0, "It works again"));
        assert_eq!(desk.closed().await, 2);
        all.end().await;

        let none = Watchdog::start(&bus, NotificationLevel::None).await;
        none.tell(alert(1, Severity::Critical)).await;
        none.tell(announced(1, MINUTE)).await;
        none.end().await;
        assert!(desk.asked.try_recv().is_err());
    });
}

#[test]
fn the_button_cancels_and_strangers_do_not() {
    let Some(bus) = Bus::start() else { return };
    bus::run(async {
        let mut desk = Desk::start(&bus, FULL, false).await;
        let mut watchdog = Watchdog::start(&bus, IMPORTANT).await;
        let stranger = bus.connect().await;
        watchdog.tell(alert(6, Severity::Critical)).await;
        let alert = desk.shown().await;
        watchdog.tell(announced(7, MINUTE)).await;
        let seven = desk.shown().await;
        assert_eq!(seven.actions, ["cancel", "Cancel"]);
        watchdog.tell(announced(8, MINUTE)).await;
        let eight = desk.shown().await;
        press(&stranger, seven.id, "cancel").await;
        // The bus has passed the stranger's on before.
        zbus::fdo::DBusProxy::new(&stranger).await.unwrap().get_id().await.unwrap();
        // Another key, one that is no announcement, one that is unknown; then twice the same.
        press(&desk.connection, seven.id, "default").await;
        press(&desk.connection, alert.id, "cancel").await;
        press(&desk.connection, 99, "cancel").await;
        press(&desk.connection, eight.id, "cancel").await;
        press(&desk.connection, eight.id, "cancel").await;
        assert_eq!(watchdog.cancels.recv().await, Some(IncidentId(8)));
        press(&desk.connection, seven.id, "cancel").await;
        assert_eq!(watchdog.cancels.recv().await, Some(IncidentId(7)));
        watchdog.tell(over(7)).await;
        watchdog.tell(over(8)).await;
        assert_eq!([desk.closed().await, desk.closed().await], [seven.id, eight.id]);
        assert!(watchdog.cancels.try_recv().is_err());
        watchdog.end().await;
    });
}

#[test]
fn an_announcement_is_taken_back_when_its_time_is_over() {
    let Some(bus) = Bus::start() else { return };
    bus::run(async {
        let mut desk = Desk::start(&bus, FULL, false).await;
        let mut watchdog = Watchdog::start(&bus, IMPORTANT).await;
        let begun = Instant::now();
        watchdog.tell(announced(1, Duration::from_millis(300))).await;
        let shown = desk.shown().await;
        assert!((1..=300).contains(&shown.expires), "{}", shown.expires);
        assert_eq!(desk.closed().await, shown.id);
        assert!(begun.elapsed() >= Duration::from_millis(299));
        // Too late to be shown at all, and too late to be cancelled.
        watchdog.tell(announced(2, Duration::ZERO)).await;
        press(&desk.connection, shown.id, "cancel").await;
        watchdog.tell(alert(3, Severity::Warning)).await;
        assert_eq!(desk.shown().await.title, "The proxy's port is taken");
        assert!(watchdog.cancels.try_recv().is_err());
        // Closed by hand: it is not replaced nor closed again. That the button of another is heard tells that this was.
        watchdog.tell(announced(5, MINUTE)).await;
        let five = desk.shown().await;
        desk.connection.emit_signal(None::<&str>, PATH, NAME, "NotificationClosed", &(2_u32, 2_u32)).await.unwrap();
        press(&desk.connection, five.id, "cancel").await;
        assert_eq!(watchdog.cancels.recv().await, Some(IncidentId(5)));
        watchdog.tell(healed(3)).await;
        watchdog.tell(alert(4, Severity::Warning)).await;
        assert_eq!(desk.shown().await.replaces, 0);
        watchdog.end().await;
    });
}

#[test]
fn no_daemon_is_started_and_none_is_missed() {
    let Some(bus) = Bus::start() else { return };
    bus::run(async {
        let home = scratch();
        let mark = home.path().join("started");
        bus.offer(NAME, &format!("/usr/bin/touch {}", mark.display())).await;
        let watchdog = Watchdog::start(&bus, NotificationLevel::All).await;
        let begun = Instant::now();
        for incident in 0..200 {
            watchdog.tell(alert(incident, Severity::Critical)).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(2));
        let link = watchdog.link.clone();
        watchdog.end().await;
        assert!(!mark.exists());
        // Any other call would have.
        let connection = link.borrow().clone().unwrap();
        let error = connection.call_method(Some(NAME), PATH, Some(NAME), "GetCapabilities", &()).await;
        assert!(error.is_err() && mark.exists());

        let no_bus = Watchdog::start(&bus, NotificationLevel::All).await;
        no_bus.link.send_replace(None);
        for incident in 0..20 {
            no_bus.tell(alert(incident, Severity::Critical)).await;
        }
        no_bus.end().await;
    });
}

#[test]
fn a_daemon_that_does_not_answer_is_left_alone() {
    let Some(bus) = Bus::start() else { return };
    bus::run(async {
        let mut silent = Desk::start(&bus, FULL, true).await;
        let watchdog = Watchdog::start(&bus, IMPORTANT).await;
        watchdog.tell(alert(1, Severity::Critical)).await;
        assert_eq!(silent.asked.recv().await.unwrap(), Asked::Capabilities);
        let begun = Instant::now();
        for incident in 0..200 {
            watchdog.tell(alert(incident, Severity::Critical)).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "notices wait for the daemon");
        // Another takes its place in the middle of the call: what waited is for that one, as far as it was kept.
        silent.connection.release_name(NAME).await.unwrap();
        let mut other = Desk::start(&bus, FULL, false).await;
        watchdog.tell(alert(500, Severity::Critical)).await;
        assert_eq!(other.shown().await.replaces, 0);
        assert!(silent.asked.try_recv().is_err());
        watchdog.end().await;
    });
}

#[test]
fn another_daemon_knows_nothing_of_what_the_last_one_showed() {
    let Some(mut bus) = Bus::start() else { return };
    bus::run(async {
        let mut first = Desk::start(&bus, FULL, false).await;
        let mut watchdog = Watchdog::start(&bus, IMPORTANT).await;
        watchdog.tell(alert(1, Severity::Warning)).await;
        watchdog.tell(announced(2, MINUTE)).await;
        assert_eq!([first.shown().await.id, first.shown().await.id], [1, 2]);
        first.end().await;
        let mut second = Desk::start(&bus, &["body"], false).await;
        watchdog.tell(alert(1, Severity::Warning)).await;
        // Asked anew what it can do; and 1 is no number of this one's.
        assert_eq!(second.shown().await.replaces, 0);
        press(&second.connection, 2, "cancel").await;
        watchdog.tell(over(2)).await;
        watchdog.tell(alert(3, Severity::Warning)).await;
        assert_eq!(second.shown().await.id, 2);
        assert!(watchdog.cancels.try_recv().is_err());

        // The bus goes, and comes back.
        bus.restart();
        watchdog.tell(alert(4, Severity::Warning)).await;
        let mut third = Desk::start(&bus, FULL, false).await;
        let connection = SessionBus::at(bus.address().to_owned()).connect().await.unwrap();
        watchdog.link.send_replace(Some(connection));
        let mut shown = None;
        for incident in 5.. {
            watchdog.tell(alert(incident, Severity::Warning)).await;
            shown = tokio::time::timeout(Duration::from_millis(100), third.shown()).await.ok();
            if shown.is_some() {
                break;
            }
        }
        assert_eq!(shown.unwrap().replaces, 0);
        watchdog.end().await;
    });
}
