//! `codex-proxyctl providers` and `models` as they are run, against scripted servers.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use codex_proxy::config;
use serde_json::{Value, json};

use super::ctl::{Done, Home};
use crate::support::{
    bus::Bus,
    chat, events,
    proxy::Proxy,
    upstream::{Recorded, Reply, Upstream},
};

const KEY: &str = "sk-secret-of-the-test";

fn config_file(home: &Home) -> std::path::PathBuf {
    home.path(".config/codex-proxy/config.toml")
}

fn write(home: &Home, text: &str) {
    fs::create_dir_all(home.path(".config/codex-proxy")).unwrap();
    fs::write(config_file(home), text).unwrap();
}

fn written(home: &Home) -> String {
    fs::read_to_string(config_file(home)).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Runs with that standard input.
fn ctl_told(home: &Home, arguments: &[&str], input: &str) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_codex-proxyctl"));
    home.isolate(&mut command);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that refuses its flags does not read.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    Done::of(child.wait_with_output().unwrap())
}

#[test]
fn presets_are_shown_for_people_and_programs() {
    let home = Home::new();
    let done = home.ctl(&["providers", "presets", "claude"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("https://api.anthropic.com/v1") && !done.stdout.contains("deepseek"), "{done:?}");
    let done = home.ctl(&["providers", "presets", "--json"]);
    let all: Value = serde_json::from_str(&done.stdout).unwrap();
    let presets = all["presets"].as_array().unwrap();
    assert!(presets.len() > 50);
    let ollama = presets.iter().find(|preset| preset["name"] == "ollama").unwrap();
    assert_eq!((&ollama["key_variable"], &ollama["built"]), (&Value::Null, &json!(true)));
    let protocol = |name: &str| presets.iter().find(|preset| preset["name"] == name).unwrap()["protocol"].clone();
    assert_eq!((protocol("openai"), protocol("openai-chat")), (json!("responses"), json!("chat")));
    assert_eq!(home.ctl(&["providers", "presets", "nobody-has-this"]).code, Some(1));
}

#[test]
fn a_provider_is_added_and_all_else_stays() {
    let home = Home::new();
    let before = "# mine\n[proxy]\nkeepalive_s = 15 # odd\n\n[providers.local]\npreset = 'ollama'\n\n# the end\n";
    write(&home, before);
    fs::set_permissions(config_file(&home), fs::Permissions::from_mode(0o640)).unwrap();
    let add = ["providers", "add", "deepseek", "--key-stdin", "--model", "work=deepseek-v4-pro"];

    let dry = ctl_told(&home, &[&add[..], &["--dry-run"]].concat(), KEY);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert!(dry.stdout.contains("+ [providers.deepseek]"), "{dry:?}");
    assert!(!format!("{dry:?}").contains(KEY));
    assert_eq!(written(&home), before);
    assert!(!home.path(".config/codex-proxy/keys").exists());

    let done = ctl_told(&home, &add, &format!("{KEY}\n"));
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!format!("{done:?}").contains(KEY), "{done:?}");
    let text = written(&home);
    assert!(before.lines().all(|line| text.lines().any(|other| other == line)), "{text}");
    assert!(!text.contains(KEY) && text.contains("key = { file = \"~/.config/codex-proxy/keys/deepseek\" }"), "{text}");
    assert_eq!(mode(&config_file(&home)), 0o640);
    let key = home.path(".config/codex-proxy/keys/deepseek");
    assert_eq!((fs::read_to_string(&key).unwrap(), mode(&key)), (format!("{KEY}\n"), 0o600));
    assert_eq!(mode(key.parent().unwrap()), 0o700);
    let settings = config::parse(&[(Path::new("c"), &text)]).unwrap();
    assert_eq!(settings.models["work"].routes[0].model, "deepseek-v4-pro");

    // Once more is refused, and changes nothing; with --replace it is the same again.
    let again = ctl_told(&home, &add, "another");
    assert_eq!(again.code, Some(2), "{again:?}");
    assert!(again.stderr.contains("--replace"), "{again:?}");
    assert_eq!((written(&home), fs::read_to_string(&key).unwrap()), (text.clone(), format!("{KEY}\n")));
    let replaced = ctl_told(&home, &[&add[..], &["--replace"]].concat(), "sk-another");
    assert_eq!(replaced.code, Some(0), "{replaced:?}");
    assert_eq!((written(&home), fs::read_to_string(&key).unwrap()), (text, "sk-another\n".to_owned()));

    let elsewhere = home.ctl(&["providers", "add", "deepseek", "--key-env", "K", "--replace", "--dry-run"]);
    assert!(!elsewhere.stdout.contains("delete it"), "{elsewhere:?}");
    let list = home.ctl(&["providers", "list"]);
    assert!(
        list.stdout.contains("file ~/.config/codex-proxy/keys/deepseek") && list.stdout.contains("work"),
        "{list:?}"
    );
    assert!(!list.stdout.contains("sk-another"));
    let list: Value = serde_json::from_str(&home.ctl(&["providers", "list", "--json"]).stdout).unwrap();
    assert_eq!(list["providers"][0]["models"], json!(["work"]));

    let elsewhere = home.ctl(&["providers", "add", "deepseek", "--key-env", "K", "--replace"]);
    assert!(elsewhere.stdout.contains("keys/deepseek holds a key that deepseek does not use"), "{elsewhere:?}");
}

#[test]
fn a_name_that_is_a_preset_stays_one_at_another_address() {
    let home = Home::new();
    let add = ["providers", "add", "ollama", "--base-url", "http://127.0.0.1:18106", "--replace"];
    let done = home.ctl(&[&add[..], &["--model", "qwen3-coder"]].concat());
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("taken for the preset ollama"), "{done:?}");
    // There is no bus in this home.
    assert!(done.stdout.contains("pkill -HUP -x codex-proxy") && !done.stdout.contains("unix:path"), "{done:?}");
    let settings = config::parse(&[(Path::new("c"), &written(&home))]).unwrap();
    let provider = &settings.providers["ollama"];
    assert_eq!((provider.base_url.as_str(), provider.dialect.name), ("http://127.0.0.1:18106/v1", "ollama"));

    let done = home.ctl(&[&add[..], &["--preset", "none"]].concat());
    assert_eq!(done.code, Some(0), "{done:?}");
    let settings = config::parse(&[(Path::new("c"), &written(&home))]).unwrap();
    let provider = &settings.providers["ollama"];
    assert_eq!((provider.base_url.as_str(), provider.dialect.name), ("http://127.0.0.1:18106/", "generic"));
    let done = home.ctl(&["providers", "add", "groq", "--preset", "none", "--no-key"]);
    assert!(done.code == Some(2) && done.stderr.contains("--base-url"), "{done:?}");
}

#[test]
fn what_is_wrong_is_named_by_its_flag_and_nothing_is_written() {
    let home = Home::new();
    for (arguments, flag, words) in [
        (&["x"][..], "--preset", "no such preset"),
        (&["x", "--preset", "deepseak", "--key-env", "K"], "--preset", "did you mean \"deepseek\""),
        (&["x", "--preset", "anthropic", "--protocol", "smoke", "--key-env", "K"], "--protocol", "no such protocol"),
        (&["ollama", "--protocol", "anthropic"], "--protocol", "did you mean \"messages\""),
        (&["ollama", "--protocol", "google"], "--protocol", "did you mean \"gemini\""),
        (&["ollama", "--protocol", "openai"], "--protocol", "\"responses\" the Responses API"),
        (&["x", "--base-url", "h.example/v1", "--no-key"], "--base-url", "https://"),
        (&["x", "--base-url", "https://h.example/v1", "--dialect", "vlm", "--no-key"], "--dialect", "vllm"),
        (&["deepseek"], "--key-stdin", "--no-key"),
        (&["deepseek", "--key-env", "sk-1-2"], "--key-env", "not the key itself"),
        (&["deepseek", "--key-command", "pass show 'a b'"], "--key-command", "quotes"),
        (&["deepseek", "--key-command", "./pass"], "--key-command", "absolute path"),
        (&["a/b", "--preset", "ollama"], "NAME", "1 to 64"),
        (&["demo", "--preset", "ollama"], "NAME", "built in"),
        (&["ollama", "--model", "demo=x"], "--model", "built-in"),
        (&["ollama", "--model", "=x"], "--model", "NAME=ID"),
    ] {
        let done = home.ctl(&[&["providers", "add"][..], arguments].concat());
        assert_eq!(done.code, Some(2), "{arguments:?}: {done:?}");
        assert!(done.stderr.contains(flag) && done.stderr.contains(words), "{arguments:?}: {done:?}");
        assert!(!home.path(".config").exists(), "{arguments:?}");
    }
    // A key in the place of its place.
    let pasted = "gsk_4fJ2kLmN9pQr8sTu";
    for arguments in [
        ["--key-env", pasted],
        ["--key-env", "aVeryLongLowerCaseThingThatIsNoName"],
        ["--key-credential", pasted],
        ["--key-command", pasted],
        ["--key-file", pasted],
        ["--key", pasted],
        ["--key", "-starts-with-a-dash"],
    ] {
        let done = home.ctl(&[&["providers", "add", "groq"][..], &arguments].concat());
        assert_eq!(done.code, Some(2), "{arguments:?}: {done:?}");
        assert!(done.stderr.contains(&format!("{}: must say where", arguments[0])), "{arguments:?}: {done:?}");
        assert!(done.stderr.contains("--key-stdin") && !format!("{done:?}").contains(arguments[1]), "{done:?}");
        assert!(!home.path(".config").exists(), "{arguments:?}");
    }
    let equals = home.ctl(&["providers", "add", "groq", &format!("--key={pasted}")]);
    assert!(equals.code == Some(2) && !format!("{equals:?}").contains(pasted), "{equals:?}");
    let set = [("my_own_variable_in_lower_case", KEY)];
    let done = home.ctl_with(&["providers", "add", "groq", "--key-env", set[0].0, "--dry-run"], &set);
    assert_eq!(done.code, Some(0), "{done:?}");
    let none = home.ctl(&["providers", "add", "ollama", "--protocol", "smoke"]);
    assert!(!none.stderr.contains("codebuff"), "offers what is not built: {none:?}");
    let both = home.ctl(&["providers", "add", "deepseek", "--key-env", "A", "--no-key"]);
    assert_eq!(both.code, Some(2), "{both:?}");
    let empty = ctl_told(&home, &["providers", "add", "deepseek", "--key-stdin"], " \n");
    assert!(empty.stderr.contains("--key-stdin: one line"), "{empty:?}");
    assert!(!home.path(".config").exists());
}

#[test]
fn a_configuration_that_is_wrong_already_is_left_alone() {
    let home = Home::new();
    for (text, words) in
        [("a = = 1\n", "line 1"), ("[proxy]\nkeepalive_s = 0\n", "keepalive_s = 0"), ("providers = 1\n", "providers")]
    {
        write(&home, text);
        let done = home.ctl(&["providers", "add", "ollama"]);
        assert_eq!(done.code, Some(6), "{done:?}");
        assert!(done.stderr.contains(words) && done.stderr.contains("nothing was changed"), "{done:?}");
        assert_eq!(written(&home), text);
    }
    // The lines are those of the file as it is: what is added would stand before this one.
    write(&home, "[providers.z]\nbase_url = 'http://127.0.0.1:1'\n[models.m]\nroutes = ['z/x']\neffort = 'huge'\n");
    let done = home.ctl(&["providers", "add", "ollama"]);
    assert!(done.stderr.contains("config.toml:5: models.m.effort"), "{done:?}");
    // Elsewhere is not here.
    write(&home, "");
    fs::create_dir_all(home.path(".config/codex-proxy/config.d")).unwrap();
    fs::write(home.path(".config/codex-proxy/config.d/a.toml"), "[providers.ollama]\npreset = 'ollama'\n").unwrap();
    for arguments in [&["ollama"][..], &["ollama", "--replace"]] {
        let done = home.ctl(&[&["providers", "add"][..], arguments].concat());
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.stderr.contains("a.toml"), "{done:?}");
    }
    assert_eq!(written(&home), "");
}

#[test]
fn the_running_proxy_is_told() {
    let Some(bus) = Bus::start() else { return };
    let upstream = Upstream::sequence(Vec::new());
    let variables = [("DBUS_SESSION_BUS_ADDRESS", bus.address())];
    let proxy = Proxy::start("", &variables);
    // The proxy reads its own file: what counts here is that it was told to.
    let home = Home::new();
    let base_url = upstream.base_url();
    let add = ["providers", "add", "box", "--base-url", &base_url, "--model", "m"];
    let done = home.ctl_with(&add, &variables);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("the running proxy has read it"), "{done:?}");
    assert!(proxy.wait_log("configuration reloaded", events::DEADLINE));
}

/// A provider that lists two models, answers, and calls the tool it is told to call.
fn good(request: &Recorded) -> Reply {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/v1/models") => Reply::json(
            200,
            &json!({"object": "list", "data": [
                {"id": "large", "context_length": 200000, "supports_image_in": true, "supports_tools": true},
                {"id": "plain", "supports_tools": false},
            ]}),
        ),
        ("POST", _) if request.json["tools"].is_array() => {
            chat::Chat::new().call("c1", "report", &json!({"word": "ready"})).complete().reply()
        }
        ("POST", _) => chat::say("ready"),
        (method, path) => panic!("{method} {path}"),
    }
}

fn provider(upstream: &Upstream) -> String {
    format!("[providers.up]\nbase_url = \"{}\"\nkey = {{ env = \"UP_KEY\" }}\n", upstream.base_url())
}

const UP_KEY: [(&str, &str); 1] = [("UP_KEY", KEY)];

#[test]
fn a_provider_that_works_passes_every_step() {
    let home = Home::new();
    let upstream = Upstream::start(good);
    write(&home, &format!("{}[models.work]\nroutes = [\"up/large\"]\n", provider(&upstream)));
    let done = home.ctl_with(&["providers", "test", "up"], &UP_KEY);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("up works") && !format!("{done:?}").contains(KEY), "{done:?}");
    let requests = upstream.exactly(3);
    assert!(requests.iter().all(|request| request.header("authorization") == Some(format!("Bearer {KEY}").as_str())));
    assert_eq!(requests[1].json["model"], "large");

    let done = home.ctl_with(&["providers", "test", "up", "--free"], &UP_KEY);
    assert!(done.stdout.contains("up lists models; nothing was asked of it"), "{done:?}");
    assert!(!done.stdout.contains("works"), "{done:?}");
    let done = home.ctl_with(&["providers", "test", "up", "--free", "--json"], &UP_KEY);
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    let steps: Vec<(&str, &str)> = report["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["id"].as_str().unwrap(), step["verdict"].as_str().unwrap()))
        .collect();
    let expected = [
        ("address", "ok"),
        ("connection", "ok"),
        ("key", "ok"),
        ("tls", "skipped"),
        ("models", "ok"),
        ("answer", "skipped"),
        ("tools", "skipped"),
    ];
    assert_eq!((steps, &report["ok"]), (expected.to_vec(), &json!(true)));
    upstream.exactly(5);
}

#[test]
fn each_step_that_fails_says_what_to_do() {
    let home = Home::new();
    let fails = |text: &str, arguments: &[&str], step: &str, words: &str| {
        write(&home, text);
        let done = home.ctl_with(&[&["providers", "test", "up"][..], arguments].concat(), &UP_KEY);
        assert_eq!(done.code, Some(1), "{done:?}");
        let line = done.stdout.lines().find(|line| line.starts_with(&format!("failed   {step}: ")));
        assert!(line.is_some_and(|line| line.contains(words)), "{step}, {words}: {done:?}");
        assert!(!format!("{done:?}").contains(KEY));
        assert!(done.stderr.is_empty(), "{done:?}");
        done.stdout.lines().skip_while(|line| !line.starts_with("failed")).nth(1).unwrap_or_default().to_owned()
    };
    fails(
        "[providers.up]\nbase_url = 'http://nobody.invalid/v1'\n[providers.up.headers]\nx = 'y'\n",
        &[],
        "address",
        "nobody.invalid",
    );
    let port = crate::support::unused_port();
    fails(&format!("[providers.up]\nbase_url = 'http://127.0.0.1:{port}/v1'\n"), &[], "connection", "refused");
    let deaf = Upstream::sequence(Vec::new());
    let unset = format!("[providers.up]\nbase_url = \"{}\"\nkey = {{ env = \"UNSET\" }}\n", deaf.base_url());
    assert!(fails(&unset, &[], "key", "UNSET is not set").contains("--key-stdin"));
    let open = home.path("open");
    fs::write(&open, KEY).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = format!("[providers.up]\nbase_url = \"{}\"\nkey = {{ file = {open:?} }}\n", deaf.base_url());
    assert!(!fails(&exposed, &[], "key", "run chmod 600").contains("put the key"));
    let refusing =
        Upstream::start(|_| Reply::error(401, "invalid_request_error", "invalid_api_key", "Incorrect API key"));
    fails(&provider(&refusing), &["--model", "m"], "models", "key");
    let page = Upstream::start(|_| Reply::html(200));
    fails(&provider(&page), &["--model", "m"], "models", "not a list");
    let no_model = Upstream::start(|request| match request.method.as_str() {
        "GET" => Reply::error(404, "not_found", "", "no such path"),
        _ => Reply::error(404, "invalid_request_error", "model_not_found", "The model m does not exist"),
    });
    assert!(fails(&provider(&no_model), &["--model", "m"], "answer", "does not exist").contains("--model"));
    // The same for an address without a path, a wrong key where the list is open to all, and a wrong protocol.
    let nothing = Upstream::start(|_| Reply::error(404, "not_found", "", "no such path"));
    let bare = provider(&nothing).replace("/v1\"", "\"");
    let mend = fails(&bare, &["--model", "m"], "answer", "404");
    assert!(mend.contains("/v1\"") && !mend.contains("--model"), "{mend}");
    let done = home.ctl_with(&["providers", "test", "up", "--free"], &UP_KEY);
    assert!(done.stdout.contains("warn     models: ") && done.stdout.contains("/v1\""), "{done:?}");
    assert!(done.stdout.contains("up can be reached; nothing was asked of it"), "{done:?}");
    let open_list = Upstream::start(|request| match request.method.as_str() {
        "GET" => good(request),
        _ => Reply::error(401, "invalid_request_error", "invalid_api_key", "Incorrect API key"),
    });
    let mend = fails(&provider(&open_list), &["--model", "large"], "answer", "401");
    assert!(mend.contains("environment variable UP_KEY") && !mend.contains("--model"), "{mend}");
    let other = format!("{}protocol = \"messages\"\n", provider(&nothing));
    assert!(fails(&other, &["--model", "m"], "answer", "404").contains("protocol (now \"messages\")"));
    let chatty = Upstream::start(|request| match request.json["tools"].is_array() {
        true => chat::say("I would rather talk."),
        false => good(request),
    });
    fails(&provider(&chatty), &["--model", "large"], "tools", "without calling");
    let done = home.ctl(&["providers", "test", "nobody"]);
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.stderr.contains("there are: up"), "{done:?}");
}

#[test]
fn lists_are_kept_and_an_old_one_stays_when_a_provider_fails() {
    let home = Home::new();
    let upstream = Upstream::start(good);
    let mut asked = 0;
    let broken = Upstream::start(move |_| {
        asked += 1;
        match asked {
            1 => Reply::json(200, &json!({"data": [{"id": "old"}]})),
            _ => Reply::error(500, "server_error", "", "broken"),
        }
    });
    let more = format!("[providers.other]\nbase_url = \"{}\"\n", broken.base_url());
    let models = "[models.work]\nroutes = ['up/large']\ncontext_window = 1000000\n[models.plain]\nroutes = ['up/plain', 'other/new']\n";
    write(&home, &format!("{}{more}{models}", provider(&upstream)));
    assert!(home.ctl(&["models", "list"]).stdout.contains("up: no list yet"));

    let done = home.ctl_with(&["models", "refresh"], &UP_KEY);
    assert_eq!(done.code, Some(0), "{done:?}");
    for words in [
        "up: 2 models",
        "other: 1 models",
        "context_window = 1000000 is configured, and up/large holds 200000",
        "plain: up/plain does not call tools",
        "plain: other/new is not on the list of other",
    ] {
        assert!(done.stdout.contains(words), "{words}: {done:?}");
    }
    let file = home.path("state/codex-proxy/catalogue.json");
    assert_eq!(mode(&file), 0o600);
    let kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(
        (&kept["version"], &kept["providers"]["up"]["models"][0]["context_window"]),
        (&json!(1), &json!(200_000))
    );
    assert!(!kept.to_string().contains(KEY));

    let done = home.ctl_with(&["models", "refresh"], &UP_KEY);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.stdout.contains("other: failed: ") && done.stdout.contains("what it said just now stays: 1 models"),
        "{done:?}"
    );
    let done = home.ctl_with(&["models", "refresh", "--json"], &UP_KEY);
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((done.code, &report["ok"], &report["providers"][1]["models"]), (Some(1), &json!(false), &json!(2)));
    assert!(report["providers"][0]["error"].as_str().unwrap().contains("500"), "{done:?}");
    let listed = home.ctl(&["models", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listed["providers"][0]["models"][0]["id"], "old");
    let table = home.ctl(&["models", "list", "up"]).stdout;
    assert!(table.contains("large") && table.contains("200000"), "{table}");

    // The prompt of the installed client and the lists lie in one file, and neither costs the other.
    fs::write(&file, r#"{"version":1,"client_version":"1.2","base_instructions":"Be careful."}"#).unwrap();
    home.ctl_with(&["models", "refresh", "up"], &UP_KEY);
    let kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!((&kept["base_instructions"], kept["providers"]["up"].is_object()), (&json!("Be careful."), true));
}

/// An Ollama with one model, loaded with less than it could hold.
fn ollama(request: &Recorded) -> Reply {
    match request.path.as_str() {
        "/api/tags" => Reply::json(200, &json!({"models": [{"name": "coder:30b", "model": "coder:30b"}]})),
        "/api/ps" => Reply::json(200, &json!({"models": [{"name": "coder:30b", "context_length": 32768}]})),
        "/api/show" => Reply::json(
            200,
            &json!({"capabilities": ["completion", "tools", "vision"],
            "model_info": {"coder.context_length": 262144}}),
        ),
        path => panic!("{path}"),
    }
}

#[test]
fn the_catalogue_says_what_a_local_server_is_set_to() {
    let home = Home::new();
    let upstream = Upstream::start(ollama);
    let text = format!(
        "[providers.local]\npreset = 'ollama'\nbase_url = \"{}\"\n[models.mine]\nroutes = ['local/coder:30b']\n\
         [models.told]\nroutes = ['local/coder:30b']\ncontext_window = 8192\nimages = false\n",
        upstream.base_url()
    );
    write(&home, &text);
    let done = home.ctl(&["models", "refresh"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let caps = home.path(".cache/codex-proxy/provider-caps.json");
    assert_eq!(mode(&caps), 0o600);
    let kept: Value = serde_json::from_slice(&fs::read(&caps).unwrap()).unwrap();
    assert_eq!(kept["providers"]["local"]["models"][0]["context_window"], 32_768);

    let told = |model: &str| {
        let settings = config::parse(&[(Path::new("c"), &text)]).unwrap();
        let known = codex_proxy::proxy::known::load(
            &settings,
            &home.path("state/codex-proxy"),
            &home.path(".cache/codex-proxy"),
        );
        let settings = config::Settings { known, ..settings };
        let entries = codex_proxy::proxy::route::catalogue_entries(&settings);
        let entry = entries.into_iter().find(|entry| entry.slug == model).unwrap();
        (entry.context_window, entry.images)
    };
    assert_eq!(told("mine"), (Some(32_768), true));
    assert_eq!(told("told"), (Some(8192), false));
    // Without the cache the list is left; a damaged cache is set aside.
    fs::write(&caps, "{").unwrap();
    assert_eq!(told("mine"), (Some(32_768), true));
    assert!(!caps.exists());
    fs::remove_file(home.path("state/codex-proxy/catalogue.json")).unwrap();
    assert_eq!(told("mine"), (None, false));
}

#[test]
fn a_model_without_a_tag_is_the_latest() {
    let home = Home::new();
    let upstream = Upstream::start(|request| match request.path.as_str() {
        "/api/tags" => Reply::json(200, &json!({"models": [{"name": "coder:latest"}, {"name": "big:70b"}]})),
        "/api/ps" => Reply::json(200, &json!({"models": [{"name": "coder:latest", "context_length": 8192}]})),
        _ => Reply::json(200, &json!({"capabilities": ["tools"]})),
    });
    let text = format!(
        "[providers.local]\npreset = 'ollama'\nbase_url = \"{}\"\n[models.mine]\nroutes = ['local/coder']\n\
         [models.big]\nroutes = ['local/big']\n",
        upstream.base_url()
    );
    write(&home, &text);
    let done = home.ctl(&["models", "refresh"]);
    assert!(done.stdout.contains("local: 2 models") && !done.stdout.contains("local/coder is not"), "{done:?}");
    assert!(done.stdout.contains("local/big is not on the list"), "{done:?}");
    let settings = config::parse(&[(Path::new("c"), &text)]).unwrap();
    let (state, cache) = (home.path("state/codex-proxy"), home.path(".cache/codex-proxy"));
    let known = codex_proxy::proxy::known::load(&settings, &state, &cache);
    let settings = config::Settings { known, ..settings };
    let window = |name: &str| settings.context_window(&settings.models[name]);
    assert_eq!((window("mine"), window("big")), (Some(8192), None));
    let status = home.ctl(&["status"]).stdout;
    assert!(status.contains("window not known, 128000 tokens assumed: big ("), "{status}");
    let status: Value = serde_json::from_str(&home.ctl(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status["windows_assumed"], json!(["big"]));
}

#[test]
fn the_proxy_asks_local_servers_by_itself() {
    let upstream = Upstream::start(ollama);
    let text = format!(
        "[providers.local]\npreset = 'ollama'\nbase_url = \"{}\"\n[models.mine]\nroutes = ['local/coder:30b']\n",
        upstream.base_url()
    );
    let proxy = Proxy::start(&text, &[]);
    assert!(proxy.wait_log("local servers said", events::DEADLINE), "{}", proxy.log());
    let models = proxy.send("GET", "/v1/models", None).unwrap().json();
    let mine = models["models"].as_array().unwrap().iter().find(|model| model["slug"] == "mine").unwrap();
    assert_eq!((&mine["context_window"], &mine["input_modalities"]), (&json!(32_768), &json!(["text", "image"])));
    assert_eq!(mode(&proxy.home().join("cache/codex-proxy/provider-caps.json")), 0o600);
    upstream.exactly(3);
}
