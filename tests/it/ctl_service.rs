//! The commands of `codex-proxyctl` that look after the service, against a `systemctl` and a `journalctl` of our own.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which the lints do not know as such")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::ctl::{Done, Home, Server};

/// A home with a service manager: `show` prints `units`, every call is written to `calls`.
pub(crate) struct Managed {
    pub(crate) home: Home,
}

/// The states of socket, service and fallback.
pub(crate) type States<'a> = [&'a str; 3];

pub(crate) const RUNS: States = ["active", "active", "inactive"];
pub(crate) const STOPPED: States = ["inactive"; 3];

impl Managed {
    /// `states` are shown until a call of `verb` has been made, then `after`.
    pub(crate) fn new(port: u16, states: States, verb: &str, after: States) -> Self {
        let home = Home::new();
        fs::create_dir_all(home.path("bin")).unwrap();
        let managed = Self { home };
        fs::write(managed.home.path("before"), shown(port, states)).unwrap();
        fs::write(managed.home.path("after"), shown(port, after)).unwrap();
        managed.program(
            "systemctl",
            &format!(
                r#"echo "$*" >> "$HOME/calls"
                [ "$3" != "{verb}" ] || touch "$HOME/done"
                case "$*" in
                *show-environment*) echo PATH=/usr/bin ;;
                *--version*) echo "systemd 257 (257.9-1)" ;;
                *" show "*)
                    if [ -e "$HOME/done" ]; then cat "$HOME/after"; else cat "$HOME/before"; fi ;;
                esac"#
            ),
        );
        managed.program("journalctl", r#"echo "journal: $*""#);
        managed
    }

    pub(crate) fn still(port: u16, states: States) -> Self {
        Self::new(port, states, "never", states)
    }

    pub(crate) fn program(&self, name: &str, script: &str) {
        let file = self.home.path("bin").join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn ctl(&self, arguments: &[&str]) -> Done {
        self.home.ctl(arguments)
    }

    pub(crate) fn calls(&self) -> String {
        fs::read_to_string(self.home.path("calls")).unwrap_or_default()
    }
}

/// What `systemctl show` would print.
fn shown(port: u16, states: States) -> String {
    let names = ["codex-proxy.socket", "codex-proxy.service", "codex-proxy-capped.service"];
    let units = names.iter().zip(states).map(|(name, state)| {
        let listen =
            if name.ends_with("socket") { format!("Listen=127.0.0.1:{port} (Stream)\n") } else { String::new() };
        let result = if state == "failed" { "signal" } else { "success" };
        format!(
            "{listen}Id={name}\nLoadState=loaded\nActiveState={state}\nSubState=x\nResult={result}\nNRestarts=0\n\
             StateChangeTimestamp=today\nStatusText=Serving 2 models.\nUnitFileState=enabled\n"
        )
    });
    units.collect::<Vec<_>>().join("\n")
}

/// A proxy's face: `/health` and the models.
pub(crate) fn proxy() -> Server {
    Server::start(|_| {
        let page = json!({
            "ok": true, "state": "ready", "version": "0.1.0", "uptime_s": 7, "requests_total": 3, "active_streams": 0,
            "routes": [{"model": "work", "routes": ["a/b"]}], "data": [{"id": "work"}],
        });
        (200, "application/json", page.to_string().into_bytes())
    })
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_proxy_that_serves_is_told_in_words_and_in_json() {
    let server = proxy();
    let managed = Managed::still(server.port, RUNS);
    let done = managed.ctl(&["status"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    for words in ["serves on 127.0.0.1", "codex-proxy.service: active (x), since today", "models: work", ": yours"] {
        assert!(done.stdout.contains(words), "{words}: {done:?}");
    }
    let done = managed.ctl(&["status", "--json"]);
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&report["state"], &report["port"]), (&json!("serving"), &json!(server.port)));
    assert_eq!(report["models"], json!(["work"]));
    assert_eq!(report["units"][1]["status_text"], "Serving 2 models.");
    let keys: Vec<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "health",
        "manager_error",
        "models",
        "port",
        "port_owner_uid",
        "state",
        "troubles",
        "units",
        "watchdog",
        "windows_assumed",
    ];
    assert_eq!(keys, expected, "keys are only ever added");
}

#[test]
fn what_does_not_run_is_told_from_what_is_in_trouble() {
    let port = free_port();
    let done = Managed::still(port, STOPPED).ctl(&["status"]);
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.stdout.contains("codex-proxyctl start"), "{done:?}");
    let done = Managed::still(port, ["failed", "failed", "active"]).ctl(&["status"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stdout.contains("mend:  codex-proxyctl recover"), "{done:?}");
    // The socket alone: asking would start the service.
    let server = proxy();
    let done = Managed::still(server.port, ["active", "inactive", "inactive"]).ctl(&["status"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("the first connection starts it"), "{done:?}");
    assert_eq!(server.seen().len(), 0);
}

#[test]
fn without_a_manager_the_port_tells() {
    let home = Home::new();
    let done = home.ctl(&["status"]);
    assert!(done.stdout.contains("port 8459"), "{done:?}");
    let done = home.ctl(&["recover"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("by hand"), "{done:?}");
}

#[test]
fn a_proxy_by_hand_is_looked_for_where_codex_looks_for_it() {
    let home = Home::new();
    let server = proxy();
    let port = server.port.to_string();
    home.ctl(&["setup", "--port", &port]);
    let serves = format!("serves on 127.0.0.1:{port}");
    let done = home.ctl(&["status"]);
    assert!(done.code == Some(0) && done.stdout.contains(&serves), "{done:?}");
    let done = home.ctl(&["doctor"]);
    assert!(done.stdout.contains(&serves) && done.stdout.contains("ok    codex-config"), "{done:?}");
    let done = home.ctl(&["setup"]);
    assert!(done.stdout.contains("set up already"), "{done:?}");

    let other = free_port();
    let done = home.ctl(&["status", "--port", &other.to_string()]);
    assert!(done.code == Some(3) && done.stdout.contains(&format!("port {other} is free")), "{done:?}");
    let done = home.ctl(&["doctor", "--port", &other.to_string()]);
    assert!(done.stdout.contains(&format!("codex-proxy --listen 127.0.0.1:{other}")), "{done:?}");
    assert!(done.stdout.contains(&format!("on port {port}, and it is on {other}")), "{done:?}");
}

#[test]
fn each_command_waits_for_the_manager_and_asks_the_proxy() {
    let server = proxy();
    for (command, expected) in [
        ("start", "--user --no-pager start codex-proxy.socket codex-proxy.service\n"),
        ("restart", "--user --no-pager restart codex-proxy.service\n"),
        ("recover", "--user --no-pager start codex-proxy.socket codex-proxy.service\n"),
    ] {
        let verb = if command == "restart" { "restart" } else { "start" };
        let managed = Managed::new(server.port, ["failed", "failed", "active"], verb, RUNS);
        let done = managed.ctl(&[command]);
        assert_eq!(done.code, Some(0), "{command}: {done:?}");
        assert!(done.stdout.contains("serves on"), "{command}: {done:?}");
        let calls = managed.calls();
        assert!(calls.contains(expected), "{command}: {calls}");
        let cleared =
            calls.find("reset-failed codex-proxy.service").is_some_and(|at| at < calls.find(expected).unwrap());
        assert_eq!(cleared, command != "start", "{calls}");
    }
}

#[test]
fn a_recovery_that_brings_nothing_shows_the_journal() {
    let managed = Managed::still(free_port(), ["failed", "failed", "inactive"]);
    let done = managed.ctl(&["recover"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stdout.contains("in trouble") && done.stdout.contains("journal: --user"), "{done:?}");
}

#[test]
fn a_stop_is_complete_or_an_error() {
    let managed = Managed::new(free_port(), RUNS, "stop", STOPPED);
    let done = managed.ctl(&["stop"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(managed.calls().contains("stop codex-proxy.socket codex-proxy.service codex-proxy-capped.service\n"));
    let done = Managed::still(free_port(), RUNS).ctl(&["stop"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("codex-proxy.socket is still active"), "{done:?}");
}

#[test]
fn the_logs_are_those_of_our_units() {
    let managed = Managed::still(free_port(), RUNS);
    let done = managed.ctl(&["logs", "-f", "-n", "5", "--since", "today"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    for argument in [
        "--follow",
        "--lines=5",
        "--since=today",
        "_SYSTEMD_USER_UNIT=codex-proxy.service",
        "_SYSTEMD_USER_UNIT=codex-watchdog.service",
        "USER_UNIT=codex-proxy.socket",
        "+ SYSLOG_IDENTIFIER=codex-proxy",
    ] {
        assert!(done.stdout.contains(argument), "{argument}: {done:?}");
    }
    managed.program("journalctl", "echo 'No journal files were opened' >&2; exit 1");
    let done = managed.ctl(&["logs"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("No journal files were opened"), "{done:?}");
}

/// A program of somebody's that is not ours.
fn stranger() -> Server {
    Server::start(|_| (200, "text/html", b"<html>".to_vec()))
}

#[test]
fn setup_takes_the_port_of_the_socket() {
    let server = proxy();
    let managed = Managed::still(server.port, RUNS);
    let done = managed.ctl(&["setup"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let config = managed.home.read_config();
    assert!(config.contains(&format!("http://127.0.0.1:{}/v1", server.port)), "{config}");
    assert!(config.contains("model = \"work\""), "{config}");
    // A port that is named counts, and the difference is said.
    let done = managed.ctl(&["setup", "--port", "9"]);
    assert!(done.stdout.contains(&format!("listens on port {}", server.port)), "{done:?}");
    assert!(managed.home.read_config().contains("http://127.0.0.1:9/v1"));
}

#[test]
fn setup_moves_the_socket_when_its_port_is_taken() {
    let server = stranger();
    let managed = Managed::new(server.port, ["failed", "inactive", "inactive"], "restart", RUNS);
    let drop_in = managed.home.path(".config/systemd/user/codex-proxy.socket.d/port.conf");

    let done = managed.ctl(&["setup", "--model", "work", "--dry-run"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("would be moved to port") && !drop_in.exists(), "{done:?}");

    // The manager does not take it: all is as it was.
    let done = managed.ctl(&["setup", "--model", "work"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("could not be moved") && !drop_in.exists(), "{done:?}");
    assert!(!managed.home.config().exists());

    fs::remove_file(managed.home.path("done")).unwrap();
    let file = drop_in.display().to_string();
    managed.program(
        "systemctl",
        &format!(
            r#"echo "$*" >> "$HOME/calls"
            case "$*" in *restart*) touch "$HOME/done" ;; esac
            if [ -e "$HOME/done" ]; then
                port=$(sed -n 's/^ListenStream=127.0.0.1://p' '{file}')
                sed "s/^Listen=.*/Listen=127.0.0.1:$port (Stream)/" "$HOME/after"
            else cat "$HOME/before"; fi"#
        ),
    );
    fs::write(managed.home.path("calls"), "").unwrap();
    let done = managed.ctl(&["setup", "--model", "work"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("another program of yours"), "{done:?}");
    let text = fs::read_to_string(&drop_in).unwrap();
    let port = text.trim_end().rsplit(':').next().unwrap();
    assert!(text.contains("\nListenStream=\n"), "{text}");
    assert!(managed.home.read_config().contains(&format!("http://127.0.0.1:{port}/v1")));
    let calls = managed.calls();
    let at = |call: &str| calls.find(call).unwrap_or_else(|| panic!("{call}: {calls}"));
    assert!(at("daemon-reload") < at("restart codex-proxy.socket"));

    let done = managed.ctl(&["restore"]);
    assert!(done.stdout.contains("keeps the port") && drop_in.exists(), "{done:?}");
}

#[test]
fn a_config_that_cannot_be_edited_moves_nothing() {
    let server = stranger();
    let managed = Managed::still(server.port, ["failed", "inactive", "inactive"]);
    managed.home.write_config("a = = 1\n");
    assert_eq!(managed.ctl(&["setup", "--model", "work"]).code, Some(6));
    assert!(!managed.calls().contains("restart"));
}

/// The verdict of each check.
fn verdicts(done: &Done) -> std::collections::BTreeMap<String, String> {
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(report["ok"], done.code == Some(0), "{done:?}");
    let checks = report["checks"].as_array().unwrap().iter();
    checks
        .map(|check| (check["id"].as_str().unwrap().to_owned(), check["verdict"].as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn the_doctor_finds_nothing_wrong_with_what_works() {
    let server = proxy();
    let managed = Managed::still(server.port, RUNS);
    fs::create_dir_all(managed.home.path(".config/codex-proxy")).unwrap();
    let key = managed.home.path("key");
    fs::write(&key, "sk-very-secret\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let config = format!(
        "[providers.mine]\nbase_url = \"http://127.0.0.1:{}/v1\"\nkey = {{ file = \"{}\" }}\n\
         [models.work]\nroutes = [\"mine/m\"]\n",
        server.port,
        key.display()
    );
    fs::write(managed.home.path(".config/codex-proxy/config.toml"), config).unwrap();
    managed.ctl(&["setup"]);
    let done = managed.ctl(&["doctor", "--json"]);
    let found = verdicts(&done);
    for id in
        ["systemd", "units", "service", "token", "codex-config", "environment", "config", "provider:mine", "journal"]
    {
        assert_eq!(found.get(id).map(String::as_str), Some("ok"), "{id}: {done:?}");
    }
    assert_eq!(done.code, Some(0), "{done:?}");
    let asked = server.seen();
    let asked = asked.iter().rfind(|seen| seen.line.starts_with("GET /v1/models")).unwrap();
    assert!(asked.head.contains("Bearer sk-very-secret"), "{asked:?}");
    let done = managed.ctl(&["doctor"]);
    assert!(done.stdout.contains("ok    config: ") && !format!("{done:?}").contains("sk-very-secret"), "{done:?}");
}

#[test]
fn the_doctor_says_of_a_provider_what_a_test_of_it_says() {
    let home = Home::new();
    let server = Server::start(|seen| {
        let body: &[u8] = match seen.line.split(' ').nth(1).unwrap_or_default() {
            "/page/models" => return (200, "text/html", b"<html>Welcome</html>".to_vec()),
            "/google/models?pageSize=1000" => br#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}"#,
            "/open/models" => return (200, "application/json", br#"{"data":[{"id":"m"}]}"#.to_vec()),
            path => panic!("{path}"),
        };
        (400, "application/json", body.to_vec())
    });
    fs::create_dir_all(home.path(".config/codex-proxy")).unwrap();
    let provider = |name: &str, more: &str| {
        format!("[providers.{name}]\nbase_url = \"http://127.0.0.1:{}/{name}\"\n{more}\n", server.port)
    };
    let config = [
        provider("page", ""),
        provider("google", "protocol = 'gemini'\nkey = { env = 'GOOGLE' }"),
        provider("open", ""),
    ];
    fs::write(home.path(".config/codex-proxy/config.toml"), config.concat()).unwrap();
    let done = home.ctl_with(&["doctor"], &[("GOOGLE", "AIza-nobody")]);
    for words in ["fail  provider:page: ", "fail  provider:google: ", "ok    provider:open: 127.0.0.1 lists 1 models"] {
        assert!(done.stdout.contains(words), "{words}: {done:?}");
    }
    assert!(done.stdout.contains("not a list of models"), "{done:?}");
    assert!(
        done.stdout.contains("refuses the API key") && done.stdout.contains("environment variable GOOGLE"),
        "{done:?}"
    );
    assert!(!done.stdout.contains("takes the key") && !done.stdout.contains("AIza"), "{done:?}");
    let tested = home.ctl_with(&["providers", "test", "google"], &[("GOOGLE", "AIza-nobody")]);
    assert!(tested.stdout.contains("refuses the API key"), "{tested:?}");
}

#[test]
fn the_doctor_names_what_is_wrong_and_what_mends_it() {
    let managed = Managed::still(free_port(), ["failed", "failed", "inactive"]);
    fs::create_dir_all(managed.home.path(".config/codex-proxy")).unwrap();
    let config = format!(
        "[providers.mine]\nbase_url = \"http://127.0.0.1:{}/v1\"\n[providers.shell]\npreset = \"openrouter\"\n\
         key = {{ env = \"NOT_HERE\" }}\n[models.work]\nroutes = [\"mine/m\"]\n",
        free_port()
    );
    fs::write(managed.home.path(".config/codex-proxy/config.toml"), config).unwrap();
    managed.ctl(&["setup", "--model", "work", "--port", "9"]);
    fs::write(managed.home.path("codex/.env"), "HTTP_PROXY=http://10.0.0.1:1\n").unwrap();
    fs::create_dir_all(managed.home.path("state/codex-proxy")).unwrap();
    fs::write(managed.home.path("state/codex-proxy/token"), "short").unwrap();
    let done = managed.ctl(&["doctor", "--json"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    let found = verdicts(&done);
    for id in ["service", "token", "codex-config", "environment", "provider:mine", "provider:shell", "key:shell"] {
        assert_eq!(found.get(id).map(String::as_str), Some("fail"), "{id}: {done:?}");
    }
    let token = fs::read_to_string(managed.home.path("state/codex-proxy/token")).unwrap();
    assert_eq!(token, "short", "it only looks");
    fs::write(managed.home.path(".config/codex-proxy/config.toml"), "[provider]\n").unwrap();
    let done = managed.ctl(&["doctor"]);
    assert!(done.stdout.contains("fail  config: ") && done.stdout.contains("→"), "{done:?}");
}
