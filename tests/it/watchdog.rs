//! The built watchdog on a bus of its own, with a scripted service manager: what it tells, what it does, what it leaves
//! alone, and what outlives it. The fault is always that the proxy's port is taken: all but a memory of it is real.

use crate::support::bus::{self, Bus, Facts, error_name, text};
use crate::support::contract;
use crate::support::desk::{Desk, FULL, press};
use crate::support::manager::Manager;
use crate::support::proxy::Proxy;
use crate::support::root;
use crate::support::watchdog::{Client, Home, Watchdog, fact, is_ahead};
use codex_proxy::watchdog::face::{NAME, PATH};
use codex_proxy::watchdog::signal::Unit;
use nix::sys::signal::Signal;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use zbus::Variant;

const PROXY: &str = env!("CARGO_BIN_EXE_codex-proxy");
const KILL: &str = "kill_stale_processes";
const START: [&str; 1] = ["StartUnit codex-proxy.service fail"];
const DAY_S: u64 = 24 * 3600;

fn leftover() -> Proxy {
    Proxy::leftover(Path::new(PROXY))
}

/// The same program under another name, and the directory that it vanishes with.
fn stranger() -> (Proxy, tempfile::TempDir) {
    let proxy = Path::new(PROXY);
    // Beside the program, on the same file system, so that it can be linked there.
    let dir = tempfile::tempdir_in(proxy.parent().unwrap()).unwrap();
    let other = dir.path().join("stranger");
    std::fs::hard_link(proxy, &other).unwrap();
    (Proxy::leftover(&other), dir)
}

/// The next two signals tell that a leftover was found and is going to be ended; gives the incident.
async fn announced(client: &mut Client) -> String {
    let opened = client.next("IncidentOpened").await;
    assert_eq!(text(&opened.facts, "fault").unwrap(), "A2");
    let pending = client.next("ActionPending").await;
    assert_eq!((&pending.id, pending.text.as_str()), (&opened.id, KILL));
    assert!(is_ahead(pending.until_usec, 3), "{pending:?}");
    pending.id
}

/// The next signal tells that the incident ended so.
async fn closed(client: &mut Client, id: &str, end: &str) {
    let closed = client.next("IncidentClosed").await;
    assert_eq!((closed.id.as_str(), text(&closed.facts, "end").as_deref()), (id, Some(end)), "{closed:?}");
    assert!(closed.facts.contains_key("closed_usec") && closed.facts.contains_key("why"), "{closed:?}");
}

async fn is_error<A>(client: &Client, method: &'static str, arguments: &A, error: &str)
where
    A: serde::Serialize + zbus::wire::DynamicType,
{
    let answer = client.call::<A, ()>(method, arguments).await;
    assert_eq!(error_name(answer), format!("org.codexproxy.Error.{error}"), "{method}");
}

#[test]
fn the_contract_is_what_the_running_watchdog_says_of_itself() {
    let Some(bus) = Bus::start() else { return };
    let home = Home::new();
    bus::run(async {
        let watchdog = Watchdog::start(&home, &bus).await;
        contract::is_kept(&bus, NAME, PATH, 40).await;
        watchdog.stop(&home);
    });
}

#[test]
fn who_asks_the_watchdog_names_it_as_it_names_itself() {
    let code = std::fs::read_to_string(root().join("src/ctl/watchdog.rs")).unwrap();
    let literals = code.split('"').skip(1).step_by(2);
    let names: BTreeSet<&str> = literals.filter(|text| text.replace('/', ".").contains("org.codexproxy")).collect();
    assert_eq!(names, BTreeSet::from([NAME, PATH]));
}

#[test]
fn a_stranger_at_the_port_is_named_and_left_alone() {
    let Some(bus) = Bus::start() else { return };
    let (home, (mut stranger, dir)) = (Home::new(), stranger());
    bus::run(async {
        let manager = Manager::start(&bus, stranger.port(), "done").await;
        let mut watchdog = Watchdog::start(&home, &bus).await;
        let client = &mut watchdog.client;
        manager.port_is_taken().await;
        let opened = client.next("IncidentOpened").await;
        assert_eq!(opened.id, "i1");
        for (name, value) in [
            ("id", "i1"),
            ("fault", "A2"),
            ("title", "The proxy's port is taken"),
            ("severity", "critical"),
            ("subject", "proxy"),
            ("evidence", "the socket failed: resources"),
        ] {
            assert_eq!(text(&opened.facts, name).unwrap(), value);
        }
        let alert = client.next("Alert").await;
        let exe = dir.path().canonicalize().unwrap().join("stranger");
        let named = format!("It is held by process {} ({}).", stranger.pid(), exe.display());
        assert!(alert.text.contains(&named), "{}", alert.text);
        assert_eq!(
            [text(&alert.facts, "fault"), text(&alert.facts, "severity")].map(Option::unwrap),
            ["A2", "critical"]
        );
        closed(client, "i1", "alerted").await;
        assert_eq!(client.get::<u32>("OpenIncidents").await, 0);

        let listed = async |filter: &[(&'static str, Variant<'static>)]| -> Vec<String> {
            let filter: HashMap<_, _> =
                filter.iter().map(|(name, value)| (*name, value.try_clone().unwrap())).collect();
            let list: Vec<Facts> = client.call("ListIncidents", &filter).await.unwrap();
            list.iter().map(|facts| text(facts, "id").unwrap()).collect()
        };
        let opened_usec = u64::try_from(&opened.facts["opened_usec"]).unwrap();
        for fits in [
            &[][..],
            &[("open", false.into())],
            &[("fault", "A2".into())],
            &[("since_usec", opened_usec.into())],
            &[("max", 1_u32.into())],
            &[("of_later_versions", true.into())],
        ] {
            assert_eq!(listed(fits).await, ["i1"], "{fits:?}");
        }
        for fits_not in [
            ("open", true.into()),
            ("fault", "A1".into()),
            ("since_usec", (opened_usec + 1).into()),
            ("max", 0_u32.into()),
        ] {
            assert!(listed(&[fits_not]).await.is_empty());
        }
        for (name, value) in [
            ("open", Variant::from(1_u32)),
            ("fault", 2_u32.into()),
            ("fault", "Z9".into()),
            ("since_usec", "yesterday".into()),
            ("max", 1_i32.into()),
        ] {
            is_error(client, "ListIncidents", &HashMap::from([(name, value)]), "OutOfRange").await;
        }
        for id in ["i2", "", "1x", "A2"] {
            for method in ["GetIncident", "Export", "Cancel"] {
                is_error(client, method, &id, "UnknownIncident").await;
            }
        }
        is_error(client, "Cancel", &"i1", "UnknownIncident").await;

        let story = client.story("i1").await;
        for words in ["A2 The proxy's port is taken: proxy", "told a person: ", "alerted: a person was told"] {
            assert!(story.contains(words), "{words}: {story}");
        }
        let file: zbus::OwnedFd = client.call("Export", &"i1").await.unwrap();
        let mut export = Vec::new();
        File::from(std::os::fd::OwnedFd::from(file)).read_to_end(&mut export).unwrap();
        let retold: String = home.replay(&bus, &export).lines().map(|line| format!("{}\n", fact(line))).collect();
        assert_eq!(retold, story);
        let list = home.ctl(&bus, &["incidents", "list"]);
        assert_eq!((&list["incidents"][0]["id"], &list["incidents"][0]["end"]), (&"i1".into(), &"alerted".into()));
        let shown = home.ctl(&bus, &["incidents", "show", "i1"]);
        let told: String = shown["story"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| format!("{}\n", one["text"].as_str().unwrap()))
            .collect();
        assert_eq!(told, story);
        assert_eq!(manager.asked(), [""; 0]);
        watchdog.stop(&home);
    });
    assert!(stranger.lives());
}

#[test]
fn the_end_of_a_leftover_is_announced_and_can_be_cancelled() {
    let Some(bus) = Bus::start() else { return };
    let (home, mut leftover) = (Home::new(), leftover());
    bus::run(async {
        let manager = Manager::start(&bus, leftover.port(), "done").await;
        let mut watchdog = Watchdog::start(&home, &bus).await;
        let client = &mut watchdog.client;
        assert!(client.get::<Facts>("PendingAction").await.is_empty());
        manager.port_is_taken().await;
        let id = announced(client).await;
        assert_eq!(client.get::<String>("State").await, "acting");
        let pending = client.get::<Facts>("PendingAction").await;
        assert_eq!([text(&pending, "incident"), text(&pending, "action")].map(Option::unwrap), [&id, KILL]);
        assert!(is_ahead(u64::try_from(&pending["until_usec"]).unwrap(), 3), "{pending:?}");
        client.call::<_, ()>("Cancel", &id).await.unwrap();
        closed(client, &id, "held").await;
        is_error(client, "Cancel", &id, "UnknownIncident").await;
        client.until::<Facts>("PendingAction", Facts::is_empty).await;
        assert_eq!(client.get::<String>("State").await, "watching");
        assert!(client.story(&id).await.ends_with("a person cancelled it\nheld: a person cancelled it\n"));
        assert_eq!(manager.asked(), [""; 0]);
        watchdog.stop(&home);
    });
    assert!(leftover.lives());
}

#[test]
fn a_leftover_is_ended_and_the_proxy_is_started_once() {
    let Some(bus) = Bus::start() else { return };
    let (home, mut leftover) = (Home::new(), leftover());
    bus::run(async {
        let manager = Manager::start(&bus, leftover.port(), "later").await;
        let mut watchdog = Watchdog::start(&home, &bus).await;
        let client = &mut watchdog.client;
        manager.port_is_taken().await;
        let id = announced(client).await;
        let finished = async |client: &mut Client, action: &str| {
            let finished = client.next("ActionFinished").await;
            assert_eq!((finished.id, finished.text.as_str()), (id.clone(), action));
            assert_eq!(text(&finished.facts, "outcome").unwrap(), "done");
        };
        finished(client, KILL).await;
        assert!(!leftover.lives());
        assert_eq!(manager.until_asked().await, START);
        is_error(client, "Cancel", &id, "NothingPending").await;
        manager.serves().await;
        // A real start takes longer than the news of it. No change of this number is signalled.
        while client.get::<u32>("RestartsInWindow").await == 0 {}
        manager.job_done().await;
        finished(client, "start_proxy").await;
        closed(client, &id, "healed").await;
        assert!(client.story(&id).await.contains("seen to help after "));
        assert_eq!(manager.asked(), START);
        assert_eq!(client.get::<u32>("RestartsInWindow").await, 1);
        watchdog.stop(&home);
    });
}

#[test]
fn while_it_is_paused_nothing_is_done_and_that_outlives_it() {
    let Some(bus) = Bus::start() else { return };
    let (home, mut leftover) = (Home::new(), leftover());
    bus::run(async {
        let manager = Manager::start(&bus, leftover.port(), "done").await;
        let mut watchdog = Watchdog::start(&home, &bus).await;
        for wrong in [0, 7 * DAY_S + 1, u64::MAX] {
            is_error(&watchdog.client, "Pause", &(wrong, ""), "OutOfRange").await;
        }
        watchdog.client.call::<_, ()>("Pause", &(7 * DAY_S, "a test")).await.unwrap();
        watchdog.client.until::<String>("State", |state| state == "paused").await;
        manager.port_is_taken().await;
        let id = watchdog.client.next("IncidentOpened").await.id;
        let held = "not done: kill_stale_processes: the watchdog is paused";
        watchdog.running.until_said(held).await;
        watchdog.kill();

        let mut watchdog = Watchdog::start(&home, &bus).await;
        let client = &mut watchdog.client;
        client.until::<u32>("OpenIncidents", |open| *open == 1).await;
        assert_eq!(client.get::<String>("State").await, "paused");
        assert!(client.story(&id).await.contains(held));
        assert!(leftover.lives());
        client.call::<_, ()>("Resume", &()).await.unwrap();
        // The first signal since: nobody was alerted.
        let pending = client.next("ActionPending").await;
        assert_eq!((pending.id.as_str(), pending.text.as_str()), (id.as_str(), KILL));
        client.call::<_, ()>("Cancel", &id).await.unwrap();
        closed(client, &id, "held").await;
        assert_eq!(manager.asked(), [""; 0]);
        watchdog.stop(&home);
    });
}

#[test]
fn what_a_person_said_about_acting_counts_before_the_configuration() {
    let Some(bus) = Bus::start() else { return };
    let (home, mut leftover) = (Home::new(), leftover());
    bus::run(async {
        let manager = Manager::start(&bus, leftover.port(), "done").await;
        let acts = async |client: &Client, acts: bool| {
            assert_eq!(client.get::<bool>("Enabled").await, acts);
            assert_eq!(client.get::<String>("State").await, if acts { "watching" } else { "observing" });
        };
        let mut watchdog = Watchdog::start(&home, &bus).await;
        acts(&watchdog.client, true).await;
        watchdog.client.face().await.set_property("Enabled", false).await.unwrap();
        watchdog.client.until::<bool>("Enabled", |enabled| !enabled).await;
        manager.port_is_taken().await;
        let id = watchdog.client.next("IncidentOpened").await.id;
        closed(&mut watchdog.client, &id, "held").await;
        watchdog.kill();
        let watchdog = Watchdog::start(&home, &bus).await;
        acts(&watchdog.client, false).await;
        watchdog.client.face().await.set_property("Enabled", true).await.unwrap();
        acts(&watchdog.client, true).await;
        watchdog.stop(&home);

        home.configure("[watchdog]\nenabled = false\n");
        let watchdog = Watchdog::start(&home, &bus).await;
        acts(&watchdog.client, true).await;
        watchdog.stop(&home);
        let fresh = Home::new();
        fresh.configure("[watchdog]\nenabled = false\n");
        let watchdog = Watchdog::start(&fresh, &bus).await;
        acts(&watchdog.client, false).await;
        watchdog.stop(&fresh);
        assert_eq!(manager.asked(), [""; 0]);
    });
    assert!(leftover.lives());
}

#[test]
fn what_is_open_when_it_is_killed_goes_on_and_nothing_is_done_twice() {
    let Some(bus) = Bus::start() else { return };
    let (home, mut leftover) = (Home::new(), leftover());
    bus::run(async {
        let manager = Manager::start(&bus, leftover.port(), "later").await;
        let mut watchdog = Watchdog::start(&home, &bus).await;
        manager.port_is_taken().await;
        let id = announced(&mut watchdog.client).await;
        watchdog.kill();

        // What was announced is announced again.
        let mut watchdog = Watchdog::start(&home, &bus).await;
        let pending = watchdog.client.next("ActionPending").await;
        assert_eq!((pending.id.as_str(), pending.text.as_str()), (id.as_str(), KILL));
        assert_eq!(manager.until_asked().await, START);
        assert!(!leftover.lives());
        watchdog.kill();

        // What was sent is waited for.
        let watchdog = Watchdog::start(&home, &bus).await;
        watchdog.running.until_said("again, 3 times now: the socket failed: resources").await;
        assert_eq!(watchdog.client.get::<String>("State").await, "acting");
        is_error(&watchdog.client, "Cancel", &id, "NothingPending").await;
        assert_eq!(manager.asked(), START);
        assert_eq!((home.facts("opened"), home.facts("commanded"), home.facts("closed")), (1, 2, 0));
        watchdog.stop(&home);
    });
}

#[test]
fn what_cannot_be_kept_is_not_done() {
    let Some(bus) = Bus::start() else { return };
    let (home, mut leftover) = (Home::new(), leftover());
    let aside = home.path().join("aside");
    std::fs::rename(home.state(), &aside).unwrap();
    std::fs::write(home.state(), "").unwrap();
    bus::run(async {
        let manager = Manager::start(&bus, leftover.port(), "done").await;
        let mut watchdog = Watchdog::start(&home, &bus).await;
        let client = &mut watchdog.client;
        let trouble = client.until::<String>("Trouble", |trouble| !trouble.is_empty()).await;
        assert!(trouble.contains("incidents cannot be kept") && trouble.contains("File exists"), "{trouble}");
        manager.port_is_taken().await;
        let id = announced(client).await;
        let finished = client.next("ActionFinished").await;
        assert_eq!(text(&finished.facts, "outcome").unwrap(), "failed");
        assert!(text(&finished.facts, "why").unwrap().starts_with("it was not sent, because it cannot be kept: "));
        assert!(client.next("Alert").await.text.contains("port is taken"));
        closed(client, &id, "alerted").await;
        is_error(client, "GetIncident", &id, "Store").await;
        is_error(client, "ListIncidents", &Facts::new(), "Store").await;
        watchdog.running.until_said("failed: it was not sent, because it cannot be kept").await;

        let client = &mut watchdog.client;
        std::fs::remove_file(home.state()).unwrap();
        std::fs::rename(&aside, home.state()).unwrap();
        client.until::<String>("Trouble", String::is_empty).await;
        client.call::<_, ()>("Pause", &(DAY_S, "")).await.unwrap();
        manager.change(Unit::Socket, |socket| socket.active = "active").await;
        manager.port_is_taken().await;
        let id = client.next("IncidentOpened").await.id;
        let list: Vec<Facts> =
            client.call("ListIncidents", &HashMap::from([("open", Variant::from(true))])).await.unwrap();
        assert_eq!(list.iter().map(|one| text(one, "id").unwrap()).collect::<Vec<_>>(), [id]);
        assert_eq!(manager.asked(), [""; 0]);
        watchdog.stop(&home);
    });
    assert!(leftover.lives());
}

#[test]
fn a_second_watchdog_says_why_it_does_not_work() {
    let Some(bus) = Bus::start() else { return };
    let home = Home::new();
    bus::run(async {
        let watchdog = Watchdog::start(&home, &bus).await;
        let second = home.run(&bus, &[]);
        assert_eq!(second.status.code(), Some(5), "{second:?}");
        assert!(String::from_utf8_lossy(&second.stderr).contains("another watchdog is at work"), "{second:?}");
        watchdog.stop(&home);
    });
}

#[test]
fn a_dry_run_only_tells_also_beside_one_that_works() {
    let Some(bus) = Bus::start() else { return };
    let (home, mut leftover) = (Home::new(), leftover());
    let files = || -> BTreeSet<_> {
        let dirs = ["state", "state/codex-proxy", "cache", "run", "tmp"].map(|dir| home.path().join(dir));
        dirs.iter().flat_map(|dir| std::fs::read_dir(dir).unwrap()).map(|file| file.unwrap().path()).collect()
    };
    let before = files();
    bus::run(async {
        let manager = Manager::start(&bus, leftover.port(), "done").await;
        manager.port_is_taken().await;
        let tells = async || {
            let mut dry = home.start(&bus, &["--dry-run"]);
            for words in [
                "i1  A2 The proxy's port is taken: proxy: the socket failed: resources",
                "i1  not done: kill_stale_processes: the watchdog only watches\n",
                "i1  held: the watchdog only watches\n",
            ] {
                dry.until_said(words).await;
            }
            dry.signal(Signal::SIGTERM);
            assert!(dry.wait_exit().success());
        };
        let names = zbus::fdo::DBusProxy::new(&manager.connection).await.unwrap();
        tells().await;
        assert!(!names.name_has_owner(NAME.try_into().unwrap()).await.unwrap());
        assert_eq!(files(), before);

        let mut watchdog = Watchdog::start(&home, &bus).await;
        let id = announced(&mut watchdog.client).await;
        watchdog.client.call::<_, ()>("Cancel", &id).await.unwrap();
        let kept = home.kept();
        tells().await;
        assert_eq!(home.kept(), kept);
        closed(&mut watchdog.client, &id, "held").await;
        assert_eq!(manager.asked(), [""; 0]);
        watchdog.stop(&home);
    });
    assert!(leftover.lives());
}

#[test]
fn without_a_bus_it_works_and_comes_to_it_when_there_is_one() {
    let Some(mut bus) = Bus::start() else { return };
    let home = Home::new();
    bus.stop();
    bus::run(async {
        let running = home.start(&bus, &[]);
        running.until_said("not on the session bus, working without").await;
        bus.restart();
        let client = Client::connect(&bus).await;
        client.until_named().await;
        client.until::<String>("Trouble", |trouble| trouble.contains("service manager")).await;
        bus.restart();
        let client = Client::connect(&bus).await;
        client.until_named().await;
        let _manager = Manager::start(&bus, 9, "done").await;
        client.until::<String>("Trouble", String::is_empty).await;
        Watchdog { running, client }.stop(&home);
    });
}

#[test]
fn a_wrong_configuration_is_told_and_the_defaults_count() {
    let Some(bus) = Bus::start() else { return };
    let home = Home::new();
    let file = home.configure("[watchdog]\nenabled = false\n[nonsense]\n");
    bus::run(async {
        let _manager = Manager::start(&bus, 9, "done").await;
        let watchdog = Watchdog::start(&home, &bus).await;
        let told = |trouble: &String| trouble.contains(file.to_str().unwrap()) && trouble.contains("nonsense");
        watchdog.client.until::<String>("Trouble", told).await;
        assert_eq!(watchdog.client.get::<String>("State").await, "watching");
        watchdog.stop(&home);
    });
}

#[test]
fn the_button_at_the_desktop_cancels_what_is_announced() {
    let Some(bus) = Bus::start() else { return };
    let (home, mut leftover) = (Home::new(), leftover());
    bus::run(async {
        let mut desk = Desk::start(&bus, FULL, false).await;
        let manager = Manager::start(&bus, leftover.port(), "done").await;
        let mut watchdog = Watchdog::start(&home, &bus).await;
        manager.port_is_taken().await;
        let id = announced(&mut watchdog.client).await;
        let shown = desk.shown().await;
        assert_eq!(shown.actions, ["cancel", "Cancel"]);
        assert!(shown.text.contains("the socket failed: resources"), "{shown:?}");
        press(&desk.connection, shown.id, "cancel").await;
        closed(&mut watchdog.client, &id, "held").await;
        assert_eq!(desk.closed().await, shown.id);
        assert_eq!(manager.asked(), [""; 0]);
        watchdog.stop(&home);
    });
    assert!(leftover.lives());
}
