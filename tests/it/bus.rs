//! The face on the session bus, on a bus of its own: the contract, every member, failure signals, and what must never
//! be seen there.

use crate::support::bus::{self, Bus, Facts, NAME, PATH, Signals, text};
use crate::support::chat::{Chat, say};
use crate::support::contract;
use crate::support::events::{self, DEADLINE, Gate};
use crate::support::golden::Differences;
use crate::support::proxy::{Proxy, Setup};
use crate::support::upstream::{Reply, Step, Upstream};
use crate::support::{http, root};
use codex_proxy::model::signal;
use serde_json::{Value, json};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const KEY: &str = "sk-planted-upstream-key-0123456789";
const SHORT: &str = "retry_deadline_s = 5\nhead_hold_s = 5\nupstream_head_s = 5";
/// Two routes, two accounts.
const MORE: &str = "[providers.two]\nbase_url = \"http://127.0.0.1:9/v1\"\ndialect = \"generic\"\n";

fn setup() -> Setup {
    Setup {
        proxy: SHORT.to_owned(),
        more: format!("{MORE}[models.pair]\nroutes = [\"up/deepseek-v4-pro\", \"two/other\"]\n"),
        ..Setup::default()
    }
}

fn start_with(setup: &Setup, upstream: &Upstream, bus: &Bus, env: &[(&str, &str)]) -> Proxy {
    let mut all = vec![("UP_KEY", KEY), ("DBUS_SESSION_BUS_ADDRESS", bus.address())];
    all.extend(env);
    Proxy::start(&setup.toml(&upstream.base_url()), &all)
}

fn start(upstream: &Upstream, bus: &Bus) -> Proxy {
    start_with(&setup(), upstream, bus, &[])
}

fn ask(model: &str, text: &str) -> Value {
    json!({"model": model, "stream": true, "input": [{"type": "message", "role": "user",
        "content": [{"type": "input_text", "text": text}]}]})
}

/// Sends a request from a thread of its own.
fn ask_aside(proxy: &Proxy, body: Value) -> std::thread::JoinHandle<http::Answer> {
    let (address, bearer) = (proxy.address().to_owned(), format!("Bearer {}", proxy.token()));
    std::thread::spawn(move || {
        let headers = [("authorization", bearer.as_str()), ("thread-id", "thread-7")];
        http::send(&address, "POST", "/v1/responses", &headers, Some(&body)).unwrap()
    })
}

#[test]
fn the_contract_is_what_the_running_proxy_says_of_itself() {
    let Some(bus) = Bus::start() else { return };
    let upstream = Upstream::sequence(Vec::new());
    let _proxy = start(&upstream, &bus);
    bus::run(contract::is_kept(&bus, NAME, PATH, 30));
}

#[test]
fn the_message_catalogue_is_that_of_the_signal_table() {
    let mut differences = Differences::default();
    differences.compare(&root().join("systemd/codex-proxy.catalog"), &signal::catalogue());
    differences.none();
}

#[test]
fn properties_tell_what_is_configured_and_changes_are_signalled() {
    let Some(bus) = Bus::start() else { return };
    let upstream = Upstream::sequence(vec![say("hello")]);
    let proxy = start(&upstream, &bus);
    bus::run(async {
        let connection = bus.connect().await;
        let face = bus::proxy(&connection).await;
        let mut changes = Signals::of(&connection, "org.freedesktop.DBus.Properties", "PropertiesChanged").await;
        assert_eq!(face.get_property::<String>("State").await.unwrap(), "ready");
        assert_eq!(face.get_property::<Vec<String>>("Listen").await.unwrap(), [proxy.address()]);
        let config = proxy.home().join("config.toml");
        assert_eq!(face.get_property::<String>("ConfigPath").await.unwrap(), config.to_str().unwrap());
        assert_eq!(face.get_property::<String>("ConfigError").await.unwrap(), "");
        assert_eq!(face.get_property::<String>("Version").await.unwrap(), env!("CARGO_PKG_VERSION"));
        assert!(face.get_property::<u64>("StartedUSec").await.unwrap() > 1_700_000_000_000_000);
        assert!(face.get_property::<u64>("MemoryBytes").await.unwrap() > 1_000_000);
        let before: u64 = face.call("Ping", &()).await.unwrap();
        assert!(face.call::<_, _, u64>("Ping", &()).await.unwrap() > before && before > 0);
        assert_eq!(face.get_property::<u64>("RequestsTotal").await.unwrap(), 0);
        assert_eq!(ask_aside(&proxy, ask("work", "hi")).join().unwrap().status, 200);
        assert_eq!(face.get_property::<u64>("RequestsTotal").await.unwrap(), 1);
        assert_eq!(face.get_property::<u64>("RequestsFailed").await.unwrap(), 0);
        assert_eq!(face.get_property::<u32>("ActiveStreams").await.unwrap(), 0);

        // Twenty changes at once are few signals, and the last one tells the end.
        let began = Instant::now();
        for at in 0..20 {
            face.call::<_, _, ()>("SetRouteEnabled", &("up/deepseek-v4-pro", at % 2 == 1)).await.unwrap();
        }
        face.call::<_, _, ()>("SetRouteEnabled", &("two/other", false)).await.unwrap();
        let mut count = 0;
        loop {
            let message = changes.next(DEADLINE).await.expect("a change is signalled");
            count += 1;
            let (_, changed, _): (String, Facts, Vec<String>) = message.body().deserialize().unwrap();
            assert_eq!(changed.keys().collect::<Vec<_>>(), ["Routes"]);
            let routes = Vec::<Facts>::try_from(changed["Routes"].try_clone().unwrap()).unwrap();
            let off = |r: &Facts| text(r, "route").unwrap() == "two/other" && !bool::try_from(&r["enabled"]).unwrap();
            if routes.iter().any(off) {
                break;
            }
        }
        let allowed = 2 + began.elapsed().as_millis() / 500;
        assert!(count <= allowed, "{count} signals in {:?}", began.elapsed());

        // A configuration that cannot be used is told, and changes nothing.
        let good = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("{good}\n[nonsense]\n")).unwrap();
        let error = face.call::<_, _, ()>("Reload", &()).await.unwrap_err();
        assert!(error.to_string().contains("org.codexproxy.Error.Configuration"), "{error}");
        assert!(face.get_property::<String>("ConfigError").await.unwrap().contains("nonsense"));
        assert_eq!(face.get_property::<String>("State").await.unwrap(), "ready");
        std::fs::write(&config, good.replace("[models.pair]", "[models.couple]")).unwrap();
        face.call::<_, _, ()>("Reload", &()).await.unwrap();
        assert_eq!(face.get_property::<String>("ConfigError").await.unwrap(), "");
        let routes: Vec<Facts> = face.get_property("Routes").await.unwrap();
        assert!(routes.iter().any(|route| text(route, "model").unwrap() == "couple"));
    });
    assert!(proxy.wait_log("reload asked for over the bus", DEADLINE));
    assert!(proxy.log().contains(&format!("codex_caller_pid={}", std::process::id())), "{}", proxy.log());
}

#[test]
fn what_is_switched_steers_requests_and_unknown_names_are_errors() {
    let Some(bus) = Bus::start() else { return };
    let upstream = Upstream::start(|_| say("hello"));
    let proxy = start(&upstream, &bus);
    bus::run(async {
        let connection = bus.connect().await;
        let face = bus::proxy(&connection).await;
        // The second place is dead: whoever asks it first is told of it in the log.
        face.call::<_, _, ()>("SwitchRoute", &("pair", "two/other")).await.unwrap();
        assert_eq!(ask_aside(&proxy, ask("pair", "a")).join().unwrap().terminal()["type"], "response.completed");
        assert!(proxy.wait_log("codex_route=\"two/other\"", DEADLINE), "{}", proxy.log());
        face.call::<_, _, ()>("SetAccountEnabled", &("up", "main", false)).await.unwrap();
        let refused = ask_aside(&proxy, ask("work", "b")).join().unwrap();
        assert!(refused.text().contains("switched off"), "{}", refused.text());
        face.call::<_, _, ()>("SetAccountEnabled", &("up", "main", true)).await.unwrap();
        face.call::<_, _, ()>("SetTimeoutFactor", &("up/deepseek-v4-pro", 2.5)).await.unwrap();
        assert_eq!(ask_aside(&proxy, ask("work", "c")).join().unwrap().terminal()["type"], "response.completed");
        let accounts: Vec<Facts> = face.get_property("Accounts").await.unwrap();
        assert_eq!(text(&accounts[0], "account").unwrap(), "main");

        let name = |result: zbus::Result<()>| match result.unwrap_err() {
            zbus::Error::MethodError(name, _, _) => name.to_string(),
            other => panic!("{other}"),
        };
        let unknown = "org.codexproxy.Error.UnknownRoute";
        assert_eq!(name(face.call("SetRouteEnabled", &("no/such", true)).await), unknown);
        assert_eq!(name(face.call("SetTimeoutFactor", &("no/such", 1.0)).await), unknown);
        assert_eq!(name(face.call("SwitchRoute", &("work", "two/other")).await), "org.codexproxy.Error.NotARouteOf");
        assert_eq!(name(face.call("SwitchRoute", &("none", "two/other")).await), "org.codexproxy.Error.UnknownModel");
        let account = face.call("SetAccountEnabled", &("up", "none", true)).await;
        assert_eq!(name(account), "org.codexproxy.Error.UnknownAccount");
        let factor = face.call("SetTimeoutFactor", &("two/other", 11.0)).await;
        assert_eq!(name(factor), "org.codexproxy.Error.OutOfRange");
        assert_eq!(name(face.call("CancelRequest", &"req_0").await), "org.codexproxy.Error.UnknownRequest");
    });
}

#[test]
fn a_cancelled_request_ends_once_and_says_so() {
    let Some(bus) = Bus::start() else { return };
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |request| {
        if request.mentions("early") {
            Reply::silence()
        } else {
            Chat::new().text("half").open().then(Step::Wait(held.clone()))
        }
    });
    let proxy = start(&upstream, &bus);
    bus::run(async {
        let connection = bus.connect().await;
        let face = bus::proxy(&connection).await;
        let mut signals = Signals::of(&connection, NAME, "FailureSignal").await;
        for (index, (word, state)) in [("early", "waiting"), ("late", "streaming")].into_iter().enumerate() {
            let asking = ask_aside(&proxy, ask("work", word));
            upstream.wait_requests(index + 1, DEADLINE);
            let began = Instant::now();
            let listed = loop {
                let listed: Vec<Facts> = face.call("ListRequests", &10_u32).await.unwrap();
                if listed.first().is_some_and(|request| text(request, "state").unwrap() == state) {
                    break listed;
                }
                assert!(began.elapsed() < DEADLINE, "{listed:?}");
            };
            assert_eq!(listed.len(), 1);
            let facts = ["model", "route", "thread_id"].map(|name| text(&listed[0], name).unwrap());
            assert_eq!(facts, ["work", "up/deepseek-v4-pro", "thread-7"]);
            assert!(face.call::<_, _, Vec<Facts>>("ListRequests", &0_u32).await.unwrap().is_empty());
            let id = text(&listed[0], "id").unwrap();
            face.call::<_, _, ()>("CancelRequest", &id).await.unwrap();
            let answer = asking.join().unwrap();
            assert_eq!(answer.header("x-request-id"), Some(id.as_str()));
            let said = if state == "waiting" {
                assert_eq!(answer.status, 400);
                answer.json()["error"].clone()
            } else {
                let terminal = answer.terminal();
                assert_eq!(terminal["type"], "response.failed");
                terminal["response"]["error"].clone()
            };
            let message = said["message"].as_str().unwrap();
            assert!(message.starts_with("The request was cancelled"), "{message}");
            upstream.wait_closed(index, DEADLINE);
            assert!(face.call::<_, _, Vec<Facts>>("ListRequests", &10_u32).await.unwrap().is_empty());
        }
        let signal = signals.next(Duration::from_millis(300)).await;
        assert!(signal.is_none(), "who is cancelled has not failed: {signal:?}");
    });
    gate.open();
}

/// Signals until the one that ends the request, as `(event id, signal, facts)`.
async fn collect(signals: &mut Signals, count: usize) -> Vec<(String, String, Facts)> {
    let mut all = Vec::new();
    while all.len() < count {
        let message =
            signals.next(DEADLINE).await.unwrap_or_else(|| panic!("{} of {count} signals: {all:?}", all.len()));
        all.push(message.body().deserialize().unwrap());
    }
    if let Some(message) = signals.next(Duration::from_millis(200)).await {
        panic!("one more than {count}: {message:?} after {all:?}");
    }
    all
}

#[test]
fn each_failed_attempt_is_one_signal_and_one_entry_of_the_log() {
    let Some(bus) = Bus::start() else { return };
    let fault = std::sync::Arc::new(Mutex::new(Vec::<Reply>::new()));
    let replies = std::sync::Arc::clone(&fault);
    let upstream = Upstream::start(move |_| {
        let mut replies = replies.lock().unwrap();
        if replies.is_empty() { say("well") } else { replies.remove(0) }
    });
    let proxy = start(&upstream, &bus);
    let error = |status, words: &str| Reply::error(status, "scripted", "scripted", words);
    let overflow = Reply::json(
        400,
        &json!({"error": {"code": "context_length_exceeded", "type":
        "invalid_request_error", "message": "This model's maximum context length is 10 tokens."}}),
    );
    let cut = Chat::new().text("half").open().then(Step::Close);
    let played: Vec<(Vec<Reply>, Vec<&str>)> = vec![
        (vec![error(500, "broken")], vec!["upstream.server_error"]),
        (vec![error(503, "overloaded"), error(500, "broken")], vec!["upstream.overloaded", "upstream.server_error"]),
        (vec![error(401, "no")], vec!["upstream.auth", "route.all_down"]),
        (vec![error(402, "pay")], vec!["upstream.budget", "route.all_down"]),
        (vec![error(422, "wrong")], vec!["upstream.bad_request"]),
        (vec![Reply::html(403)], vec!["upstream.bot_wall"]),
        (vec![Reply::html(502)], vec!["upstream.server_error"]),
        (vec![error(426, "old")], vec!["upstream.upgrade_required", "route.all_down"]),
        (vec![overflow], vec!["context.overflow"]),
        (vec![cut], vec!["upstream.reset"]),
    ];
    bus::run(async {
        let connection = bus.connect().await;
        let mut signals = Signals::of(&connection, NAME, "FailureSignal").await;
        for (replies, expected) in played {
            *fault.lock().unwrap() = replies;
            let answer = ask_aside(&proxy, ask("work", "go")).join().unwrap();
            let request_id = answer.header("x-request-id").unwrap().to_owned();
            let found = collect(&mut signals, expected.len()).await;
            assert_eq!(found.iter().map(|(_, signal, _)| signal.as_str()).collect::<Vec<_>>(), expected);
            for (event_id, signal, facts) in &found {
                assert_eq!(text(facts, "request_id").unwrap(), request_id);
                let texts = ["thread_id", "model", "provider", "account"].map(|name| text(facts, name).unwrap());
                assert_eq!(texts, ["thread-7", "work", "up", "main"]);
                assert_eq!(text(facts, "route").unwrap(), "up/deepseek-v4-pro");
                // The connection that broke had answered well until then.
                let broke = expected == ["upstream.reset"];
                assert_eq!(text(facts, "phase").unwrap(), if broke { "streaming" } else { "waiting" });
                assert_eq!(facts.contains_key("status"), !broke, "{facts:?}");
                assert!(facts.contains_key("elapsed_ms"));
                let row = signal::Signal::ALL.into_iter().map(signal::Signal::row).find(|r| r.name == signal).unwrap();
                let entries = || -> Vec<String> {
                    proxy.log().lines().filter(|line| line.contains(event_id)).map(str::to_owned).collect()
                };
                assert!(events::wait(DEADLINE, || (!entries().is_empty()).then_some(())).is_some());
                let entries = entries();
                assert_eq!(entries.len(), 1, "{entries:?}");
                let line = &entries[0];
                assert!(line.contains(row.message_id) && line.contains(signal) && line.contains(&request_id), "{line}");
                assert!(signal == "route.all_down" || broke || line.contains("INFO"), "{line}");
            }
        }
        // A client that leaves.
        *fault.lock().unwrap() = vec![Chat::new().text("half").open().then(Step::Stall)];
        let bearer = format!("Bearer {}", proxy.token());
        let headers = [("authorization", bearer.as_str()), ("thread-id", "thread-7")];
        let body = ask("work", "leaving");
        let count = upstream.count();
        let connection = http::open(proxy.address(), "POST", "/v1/responses", &headers, Some(&body)).unwrap();
        upstream.wait_requests(count + 1, DEADLINE);
        drop(connection);
        let found = collect(&mut signals, 1).await;
        assert_eq!(found[0].1, "client.gone");
    });
}

#[test]
fn requests_are_served_without_a_bus_and_while_it_is_away() {
    let Some(mut bus) = Bus::start() else { return };
    let upstream = Upstream::start(|_| say("hello"));
    let lonely = setup().start(&upstream);
    assert_eq!(lonely.responses(&ask("work", "hi")).status, 200);
    assert!(lonely.wait_log("not on the session bus, serving without", DEADLINE));
    let proxy = start(&upstream, &bus);
    bus.restart();
    assert!(proxy.wait_log("the session bus went away", DEADLINE));
    assert_eq!(proxy.responses(&ask("work", "hi")).status, 200);
    assert!(proxy.wait_log("on the session bus codex_bus_name", DEADLINE), "{}", proxy.log());
    bus::run(async {
        let face = bus::proxy(&bus.connect().await).await;
        assert_eq!(face.get_property::<String>("State").await.unwrap(), "ready");
    });
    // A second one started by hand leaves the name where it is.
    let second = start(&upstream, &bus);
    assert!(second.wait_log("another proxy is on the session bus", DEADLINE));
    assert_eq!(second.responses(&ask("work", "hi")).status, 200);
}

#[test]
fn busctl_can_call_it() {
    let Some(bus) = Bus::start() else { return };
    let upstream = Upstream::sequence(Vec::new());
    let _proxy = start(&upstream, &bus);
    let busctl = |arguments: &[&str]| {
        let address = format!("--address={}", bus.address());
        Command::new("busctl").arg(address).arg("--user").args(arguments).output()
    };
    let Ok(output) = busctl(&["call", NAME, PATH, NAME, "Ping"]) else {
        eprintln!("no busctl here");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("t "), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let output = busctl(&["call", NAME, PATH, NAME, "SetRouteEnabled", "sb", "no/such", "true"]).unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("There is no route"));
    let output = busctl(&["introspect", NAME, PATH, NAME]).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for word in [".StartedUSec", ".FailureSignal", ".SetTimeoutFactor", "emits-change"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn no_secret_and_no_prompt_is_seen_anywhere_but_where_it_belongs() {
    let Some(bus) = Bus::start() else { return };
    let [file_key, header, prompt, answer] =
        ["sk-planted-file-key-987654321", "planted-header-value-42", "PLANTED-PROMPT-TEXT", "PLANTED-ANSWER-TEXT"];
    let upstream = Upstream::start(move |request| {
        let sent = request.header("authorization").unwrap_or_default().to_owned();
        let sent = format!("{sent} {}", request.header("x-extra").unwrap_or_default());
        if request.mentions("fail") {
            // Providers quote what they were sent.
            return Reply::error(500, "scripted", "scripted", &format!("no: {sent}: {prompt}"));
        }
        if request.mentions("refuse") {
            return Reply::error(401, "scripted", "scripted", &format!("bad key {sent}"));
        }
        say(answer)
    });
    let keys = crate::support::scratch();
    let key_file = keys.path().join("key");
    std::fs::write(&key_file, file_key).unwrap();
    std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let setup = Setup {
        proxy: "retry_deadline_s = 1".to_owned(),
        more: format!(
            "[providers.filed]\nbase_url = \"{}\"\ndialect = \"generic\"\nheaders = {{ x-extra = {header:?} }}\n\
             accounts = [{{ name = \"f\", key = {{ file = {:?} }} }}]\n[models.filed]\nroutes = [\"filed/m\"]\n",
            upstream.base_url(),
            key_file.display().to_string()
        ),
        ..Setup::default()
    };
    let mut all = Vec::new();
    let config = setup.toml(&upstream.base_url());
    let proxy = {
        let env = [("UP_KEY", KEY), ("DBUS_SESSION_BUS_ADDRESS", bus.address())];
        Proxy::start_logging(&config, &env, "trace")
    };
    bus::run(async {
        let connection = bus.connect().await;
        let face = bus::proxy(&connection).await;
        let mut signals = Signals::of(&connection, NAME, "FailureSignal").await;
        for model in ["work", "filed"] {
            for word in ["well", "fail", "refuse"] {
                let body = ask(model, &format!("{prompt} {word}"));
                let asking = ask_aside(&proxy, body);
                while let Some(message) = signals.next(Duration::from_millis(50)).await {
                    all.push(format!("{:?}", message.body().deserialize::<(String, String, Facts)>().unwrap()));
                }
                asking.join().unwrap();
                all.push(format!("{:?}", face.call::<_, _, Vec<Facts>>("ListRequests", &9_u32).await.unwrap()));
            }
        }
        while let Some(message) = signals.next(Duration::from_millis(300)).await {
            all.push(format!("{:?}", message.body().deserialize::<(String, String, Facts)>().unwrap()));
        }
        // A key that was written into the configuration by mistake.
        let path = proxy.home().join("config.toml");
        std::fs::write(&path, config.replace("{ env = \"UP_KEY\" }", &format!("{KEY:?}"))).unwrap();
        let error = face.call::<_, _, ()>("Reload", &()).await.unwrap_err();
        all.push(error.to_string());
        std::fs::write(&path, &config).unwrap();
        let properties: Facts = connection
            .call_method(Some(NAME), PATH, Some("org.freedesktop.DBus.Properties"), "GetAll", &NAME)
            .await
            .unwrap()
            .body()
            .deserialize()
            .unwrap();
        assert!(properties.len() >= 12);
        all.push(format!("{properties:?}"));
        let interface = Some("org.freedesktop.DBus.Introspectable");
        let reply = connection.call_method(Some(NAME), PATH, interface, "Introspect", &()).await.unwrap();
        all.push(reply.body().deserialize::<String>().unwrap());
    });
    assert!(all.iter().any(|text| text.contains("upstream.auth")), "{all:?}");
    let token = proxy.token();
    all.push(String::from_utf8_lossy(&std::fs::read(format!("/proc/{}/cmdline", proxy.pid())).unwrap()).into_owned());
    all.push(proxy.log());
    let mut directories = vec![proxy.home().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            // Where the token and the configured header belong.
            if path == proxy.token_path() || path == proxy.home().join("config.toml") {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else {
                all.push(String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned());
            }
        }
    }
    for secret in [KEY, file_key, header, prompt, answer, token.as_str()] {
        let found = all.iter().find(|text| text.contains(secret));
        assert!(found.is_none(), "{secret} is seen in: {}", found.unwrap());
    }
}
