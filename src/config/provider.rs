//! Reads one `[providers.NAME]` table, over its preset. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::path::{Component, Path, PathBuf};

use http::{HeaderName, HeaderValue};
use url::Url;

use super::{
    base_url,
    credentials::{KeySource, Secret, looks_like_a_key},
    defaults, endpoint,
    error::{ConfigError, Report},
    fragment::Value,
    nearest::hint,
    presets::{PROTOCOLS_NOT_BUILT, Preset},
    section::{Entry, Section},
    settings::{Account, DEMO, HeaderSource, Protocol, Provider, Proxy},
};
use crate::codec::{
    NativeTools,
    chat::dialect::{DIALECTS, Dialect},
    listing::Listing,
};

/// Headers the proxy sets itself, or that belong to one hop (RFC 9110 §7.6.1).
const HEADERS_REFUSED: &[&str] = &[
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a key source may look like, for messages.
const KEY_SOURCES: &str =
    "{ env = \"NAME\" }, { file = \"~/…\" }, { credential = \"NAME\" } or { command = [\"program\", …] }";

/// The provider, or `None` if too little of it is right.
pub(super) fn read(name: &str, entry: &Entry<'_>, proxy: &Proxy, report: &mut Report) -> Option<Provider> {
    let mut section = entry.section(report)?;
    if name == DEMO {
        entry.refuse("\"demo\" is built in and cannot be configured; take another name", report);
        return None;
    }
    if !is_name(name) {
        entry.refuse("a provider's name must have 1 to 64 of a-z A-Z 0-9 _ . -, the first a letter or digit", report);
    }
    let (preset, preset_wrong) = match section.text("preset", report) {
        Some((entry, text)) => {
            let preset = Preset::named(text);
            match preset {
                None => report.refuse_value(&entry.node.place, &entry.key, text, Preset::unknown(text)),
                Some(preset) if !preset.is_built() && !section.holds("protocol") => {
                    refuse_preset(&entry, preset, report);
                }
                Some(_) => {}
            }
            (preset, preset.is_none())
        }
        None => (None, false),
    };
    // A preset says how its own protocol lists models; another protocol or dialect has its own way.
    let usual = preset.filter(|_| !section.holds("protocol") && !section.holds("dialect"));
    let protocol = protocol(&mut section, preset, report);
    let dialect = dialect(&mut section, protocol, preset, report);
    let bare_path = bare_path(protocol, preset, dialect);
    let own = own_interface(preset, dialect);
    let base_url =
        address(name, &mut section, preset, bare_path, preset_wrong, report).map(|url| base_url::compatible(url, own));
    let accounts = accounts(&mut section, report);
    let headers = headers(&mut section, report);
    let images = section.flag("images", report).unwrap_or(preset.is_some_and(|preset| preset.images));
    let upstream_idle = idle(&mut section, proxy, report);
    let continue_max = continue_max(&mut section, protocol, report);
    let native_tools = native_tools(&mut section, protocol, preset, report);
    if let (None, Some(url)) = (&accounts, &base_url)
        && !base_url::is_local(url)
        && preset.is_none_or(|preset| preset.needs_key)
        && headers.is_empty()
    {
        let variable = preset.map_or("NAME", |preset| preset.key_variable);
        let why = format!(
            "missing; say where the key is: key = {{ file = \"~/.config/codex-proxy/keys/{name}\" }} or \
             {{ env = \"{variable}\" }}; accounts = [] if it needs none"
        );
        report.refuse(section.place, &section.path_of("key"), why);
    }
    section.finish(report);
    Some(Provider {
        name: name.to_owned(),
        base_url: base_url?,
        protocol: protocol?,
        listing: usual.map_or(Listing::of(protocol?.name(), dialect?.name), |preset| preset.listing),
        dialect: dialect?,
        accounts: accounts.unwrap_or_default(),
        headers,
        upstream_idle,
        images,
        continue_max,
        native_tools,
    })
}

/// `upstream_idle_s` of a provider or model; above the time the head is held.
pub(super) fn idle(section: &mut Section<'_>, proxy: &Proxy, report: &mut Report) -> Option<std::time::Duration> {
    let idle = section.number("upstream_idle_s", &defaults::UPSTREAM_IDLE_S, report)?;
    if idle.seconds() <= proxy.head_hold
        && let Some(place) = idle.written
    {
        let why = format!("must be more than proxy.head_hold_s, which is {}", proxy.head_hold.as_secs());
        report.refuse_value(place, &section.path_of("upstream_idle_s"), idle.value, why);
    }
    Some(idle.seconds())
}

fn is_name(name: &str) -> bool {
    let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (1..=64).contains(&name.len()) && name.chars().all(lawful) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn protocol(section: &mut Section<'_>, preset: Option<&'static Preset>, report: &mut Report) -> Option<Protocol> {
    let Some(entry) = section.entry("protocol") else {
        return Protocol::named(preset.map_or(Protocol::Chat.name(), |preset| preset.protocol));
    };
    let text = entry.text(report)?;
    let protocol = Protocol::named(text);
    let built = Protocol::BUILT.iter().copied();
    if protocol.is_none() && PROTOCOLS_NOT_BUILT.contains(&text) {
        let names: Vec<String> = built.map(|protocol| format!("{:?}", protocol.name())).collect();
        not_built(&entry, text, format!("this protocol; there are {}", names.join(", ")), report);
    } else if protocol.is_none() {
        let what = match text.to_lowercase().as_str() {
            "openai" | "openai-compatible" | "openai-compat" => {
                "OpenAI has two: \"chat\" is Chat Completions, \"responses\" the Responses API".to_owned()
            }
            _ => hint(text, built.map(Protocol::name)),
        };
        report.refuse_value(&entry.node.place, &entry.key, text, format!("no such protocol; {what}"));
    }
    protocol
}

fn refuse_preset(entry: &Entry<'_>, preset: &Preset, report: &mut Report) {
    let instead =
        preset.stand_in().map_or(String::new(), |other| format!("; preset = {:?} takes the same key", other.name));
    not_built(entry, preset.name, format!("its protocol, {:?}{instead}", preset.protocol), report);
}

fn not_built(entry: &Entry<'_>, text: &str, what: String, report: &mut Report) {
    let value = Some(format!("{text:?}"));
    report.add(ConfigError::NotBuilt { place: entry.node.place.clone(), key: entry.key.clone(), value, what });
}

fn dialect(
    section: &mut Section<'_>,
    protocol: Option<Protocol>,
    preset: Option<&'static Preset>,
    report: &mut Report,
) -> Option<&'static Dialect> {
    let entry = section.entry("dialect");
    if protocol.is_some_and(|protocol| protocol != Protocol::Chat) {
        if let Some(entry) = entry {
            entry.refuse("only the protocol \"chat\" has dialects", report);
        }
        return Dialect::named("generic");
    }
    let Some(entry) = entry else {
        // Every preset's dialect exists, says a test of the table.
        return Dialect::named(preset.map_or("generic", |preset| preset.dialect));
    };
    let text = entry.text(report)?;
    let dialect = Dialect::named(text);
    if dialect.is_none() {
        let why = format!("no such dialect; {}", hint(text, DIALECTS.iter().map(|dialect| dialect.name)));
        report.refuse_value(&entry.node.place, &entry.key, text, why);
    }
    dialect
}

/// How often answers that met a limit are gone on with.
fn continue_max(section: &mut Section<'_>, protocol: Option<Protocol>, report: &mut Report) -> u32 {
    const KEY: &str = "continue_max";
    if protocol.is_some_and(|protocol| protocol != Protocol::Gemini) {
        if let Some(entry) = section.entry(KEY) {
            entry.refuse("only answers in the protocol \"gemini\" are gone on with", report);
        }
        return 0;
    }
    // In range, so it fits.
    u32::try_from(section.number_or_default(KEY, &defaults::CONTINUE_MAX, report).value).unwrap_or_default()
}

/// Which of the client's tools a host knows that speaks the client's protocol.
fn native_tools(
    section: &mut Section<'_>,
    protocol: Option<Protocol>,
    preset: Option<&'static Preset>,
    report: &mut Report,
) -> NativeTools {
    const KEYS: [&str; 2] = ["custom_tools", "hosted_tools"];
    if protocol.is_some_and(|protocol| protocol != Protocol::Responses) {
        for entry in KEYS.into_iter().filter_map(|key| section.entry(key)) {
            entry.refuse(
                "only a provider of the protocol \"responses\" is given the client's tools as they are; leave it out",
                report,
            );
        }
        return NativeTools::ALL;
    }
    let usual = preset.is_none_or(|preset| !preset.functions_only);
    let [custom, hosted] = KEYS.map(|key| section.flag(key, report).unwrap_or(usual));
    NativeTools { custom, hosted }
}

/// The path of a host that is given without one: the preset's, else that of the protocol, else that of the dialect.
fn bare_path(
    protocol: Option<Protocol>,
    preset: Option<&'static Preset>,
    dialect: Option<&'static Dialect>,
) -> &'static str {
    let by_protocol = || protocol.and_then(endpoint::bare_path);
    let by_dialect = || dialect.map_or("", |dialect| Preset::path_for_dialect(dialect.name));
    preset.map(Preset::path).or_else(by_protocol).unwrap_or_else(by_dialect)
}

/// Where a server that has an interface of its own beside the compatible one is spoken to in that: Ollama's
/// documentation shows `/api/chat`, LM Studio's `/api/v0` and `/api/v1/chat`.
fn own_interface(preset: Option<&'static Preset>, dialect: Option<&'static Dialect>) -> &'static [&'static str] {
    let of_dialect = dialect.map(|dialect| dialect.name).filter(|name| *name != "generic");
    match of_dialect.or(preset.map(|preset| preset.dialect)) {
        Some("ollama") => &["/api", "/api/chat", "/api/generate", "/api/tags"],
        Some("lmstudio") => &["/api/v0", "/api/v1", "/api/v1/chat"],
        _ => &[],
    }
}

/// The base URL, over the preset's.
fn address(
    name: &str,
    section: &mut Section<'_>,
    preset: Option<&'static Preset>,
    bare_path: &str,
    preset_wrong: bool,
    report: &mut Report,
) -> Option<Url> {
    if let Some(entry) = section.entry("base_url") {
        let text = entry.text(report)?;
        let normal = base_url::normalise(text, bare_path);
        return normal.map_err(|why| entry.refuse(why, report)).ok();
    }
    if let Some(preset) = preset {
        // Every preset's address is one, says a test of the table.
        return base_url::normalise(preset.base_url, "").ok();
    }
    if !preset_wrong {
        let why = match Preset::named(name) {
            Some(_) => format!("missing; give it, or preset = \"{name}\""),
            None => "missing; give it, or a preset".to_owned(),
        };
        report.refuse(section.place, &section.path_of("base_url"), why);
    }
    None
}

/// The accounts; `None` if nothing is said of them.
fn accounts(section: &mut Section<'_>, report: &mut Report) -> Option<Vec<Account>> {
    let (single, list) = (section.entry("key"), section.entry("accounts"));
    if let (Some(_), Some(list)) = (&single, &list) {
        list.refuse("give either key or accounts, not both", report);
    }
    if let Some(entry) = single {
        let key = key_source(&entry, report);
        return Some(key.map(|key| Account { name: "default".to_owned(), key, enabled: true }).into_iter().collect());
    }
    let list = list?;
    let mut accounts: Vec<Account> = Vec::new();
    for item in list.items("an array of tables { name = …, key = … }", report).unwrap_or_default() {
        let Some(account) = account(&item, report) else { continue };
        if accounts.iter().any(|other| other.name == account.name) {
            item.refuse(format!("a second account named {:?}; names must differ", account.name), report);
        }
        accounts.push(account);
    }
    Some(accounts)
}

fn account(item: &Entry<'_>, report: &mut Report) -> Option<Account> {
    let mut section = item.section(report)?;
    let name = section.text("name", report).map(|(_, name)| name);
    if !name.is_some_and(is_name) {
        let why = "must be 1 to 64 of a-z A-Z 0-9 _ . -, the first a letter or digit";
        report.refuse(section.place, &section.path_of("name"), why);
    }
    let key = section.entry("key");
    if key.is_none() {
        report.refuse(section.place, &section.path_of("key"), format!("missing; must be {KEY_SOURCES}"));
    }
    let key = key.and_then(|entry| key_source(&entry, report));
    let enabled = section.flag("enabled", report).unwrap_or(true);
    section.finish(report);
    Some(Account { name: name?.to_owned(), key: key?, enabled })
}

/// Where a key is found. Never shows what was written: people paste the key itself.
pub(super) fn key_source(entry: &Entry<'_>, report: &mut Report) -> Option<KeySource> {
    let Value::Table(entries) = &entry.node.value else {
        let found = entry.node.value.type_name();
        entry.refuse(format!("must be {KEY_SOURCES}, found {found}; the key itself does not belong here"), report);
        return None;
    };
    let mut section = entry.section(report)?;
    let (env, file) = (section.entry("env"), section.entry("file"));
    let (credential, command) = (section.entry("credential"), section.entry("command"));
    if let Some(service) = section.entry("secret_service") {
        let what =
            "keys from the secret service; use a file, a credential, or a command such as secret-tool".to_owned();
        let place = service.node.place.clone();
        report.add(ConfigError::NotBuilt { place, key: service.key, value: None, what });
        return None;
    }
    section.finish(report);
    if entries.len() != 1 {
        entry.refuse(format!("must be exactly one of {KEY_SOURCES}"), report);
        return None;
    }
    if let Some(entry) = env {
        let name = entry.text(report)?;
        let lawful = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_name = !name.is_empty() && name.chars().all(lawful) && !name.starts_with(|c: char| c.is_ascii_digit());
        if !is_name || looks_like_a_key(name) {
            entry.refuse("must be the name of an environment variable, not the key itself", report);
            return None;
        }
        return Some(KeySource::Env(name.to_owned()));
    }
    if let Some(entry) = file {
        let path = entry.text(report)?;
        if !(path.starts_with('/') || path.starts_with("~/")) || path.contains('\0') {
            entry.refuse("must be an absolute path, or one that begins with ~/", report);
            return None;
        }
        return Some(KeySource::File(PathBuf::from(path)));
    }
    if let Some(entry) = credential {
        let name = entry.text(report)?;
        let mut components = Path::new(name).components();
        let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
        if !plain || name.contains(['/', '\0']) {
            entry.refuse("must be the name of a credential of the unit, without any \"/\"", report);
            return None;
        }
        return Some(KeySource::Credential(name.to_owned()));
    }
    command.and_then(|entry| command_source(&entry, report))
}

fn command_source(entry: &Entry<'_>, report: &mut Report) -> Option<KeySource> {
    let expected = "a program, or an array of a program and its arguments; no shell reads it";
    let words: Vec<&str> = match &entry.node.value {
        Value::String(program) => vec![program],
        Value::Array(_) => {
            let items = entry.items(expected, report)?;
            let words: Vec<&str> = items.iter().filter_map(|item| item.text(report)).collect();
            if words.len() != items.len() {
                return None;
            }
            words
        }
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime | Value::Table(_) => {
            entry.refuse_type(expected, report);
            return None;
        }
    };
    let Some((program, arguments)) = words.split_first().filter(|(program, _)| !program.is_empty()) else {
        entry.refuse(format!("must be {expected}; the program is missing"), report);
        return None;
    };
    // A relative path would mean another program in another working directory; blanks are a forgotten array.
    let found = !program.contains('/') || program.starts_with('/') || program.starts_with("~/");
    let one_word = arguments.is_empty() && program.contains(char::is_whitespace);
    if !found || one_word || words.iter().any(|word| word.contains('\0')) {
        let why = "must name a program on the search path, or by an absolute path or ~/; arguments are further items \
                   of an array";
        entry.refuse(why, report);
        return None;
    }
    let arguments = arguments.iter().map(ToString::to_string).collect();
    Some(KeySource::Command { program: (*program).to_owned(), arguments })
}

fn headers(section: &mut Section<'_>, report: &mut Report) -> Vec<(HeaderName, HeaderSource)> {
    let mut headers: Vec<(HeaderName, HeaderSource)> = Vec::new();
    for (name, entry) in section.section("headers", report).all() {
        let Ok(lawful) = HeaderName::from_bytes(name.as_bytes()) else {
            entry.refuse("not a lawful header name", report);
            continue;
        };
        if lawful == http::header::AUTHORIZATION {
            entry.refuse("set by the proxy; the key is given by key or accounts", report);
            continue;
        }
        if HEADERS_REFUSED.contains(&lawful.as_str()) || lawful.as_str().starts_with("x-codex-") {
            entry.refuse("set by the proxy or bound to the connection; it cannot be configured", report);
            continue;
        }
        if headers.iter().any(|(other, _)| *other == lawful) {
            entry.refuse("given twice; header names do not tell upper from lower case", report);
            continue;
        }
        let source = match &entry.node.value {
            Value::String(text) => {
                if text.trim() != text || HeaderValue::from_str(text).is_err() {
                    entry.refuse("must be one line of printable ASCII without blanks around it", report);
                    continue;
                }
                HeaderSource::Literal(Secret::new(text))
            }
            Value::Table(_) => match key_source(&entry, report) {
                Some(source) => HeaderSource::Key(source),
                None => continue,
            },
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime | Value::Array(_) => {
                entry.refuse_type(&format!("a string, {KEY_SOURCES}"), report);
                continue;
            }
        };
        headers.push((lawful, source));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn provider(text: &str) -> Provider {
        let mut settings = parse(&[(Path::new("c"), &format!("[providers.p]\n{text}"))]).unwrap();
        settings.providers.remove("p").unwrap()
    }

    #[test]
    fn a_preset_gives_everything_but_the_key() {
        let provider = provider("preset = 'deepseek'\nkey = { env = 'K' }");
        assert_eq!(provider.request_url("m").as_str(), "https://api.deepseek.com/chat/completions");
        assert_eq!(provider.models_url().as_str(), "https://api.deepseek.com/models");
        assert_eq!(provider.dialect.name, "deepseek");
        let account = Account { name: "default".into(), key: KeySource::Env("K".into()), enabled: true };
        assert_eq!(provider.accounts, [account]);
        assert!(!provider.is_loopback());
    }

    #[test]
    fn any_key_overrides_the_preset() {
        let provider = provider(
            "preset = 'openrouter'\nbase_url = 'http://box:9'\ndialect = 'vllm'\nimages = false\nupstream_idle_s = 30",
        );
        assert_eq!(provider.base_url.as_str(), "http://box:9/api/v1");
        assert_eq!(provider.dialect.name, "vllm");
        assert!(!provider.images);
        assert_eq!(provider.upstream_idle.map(|idle| idle.as_secs()), Some(30));
        assert_eq!(provider.accounts, []);
    }

    #[test]
    fn a_bare_host_gets_a_path_only_where_the_dialect_has_one() {
        assert_eq!(provider("base_url = 'http://box:9'\ndialect = 'vllm'").base_url.as_str(), "http://box:9/v1");
        assert_eq!(provider("base_url = 'http://box:9'").base_url.as_str(), "http://box:9/");
        assert_eq!(provider("base_url = 'http://localhost:9'\npreset = 'ollama'").base_url.path(), "/v1");
    }

    #[test]
    fn the_own_interface_of_a_local_server_is_not_spoken_to() {
        let path = |text: &str| provider(text).base_url.path().to_owned();
        for written in ["/api", "/api/", "/api/chat", "/api/tags"] {
            assert_eq!(path(&format!("preset = 'ollama'\nbase_url = 'http://h:1{written}'")), "/v1", "{written}");
        }
        assert_eq!(path("preset = 'ollama'\nprotocol = 'responses'\nbase_url = 'http://h:1/api'"), "/v1");
        assert_eq!(path("dialect = 'lmstudio'\nbase_url = 'http://h:1/api/v0/chat/completions'"), "/v1");
        assert_eq!(path("base_url = 'http://h:1/api'"), "/api");
        assert_eq!(path("preset = 'openrouter'\nbase_url = 'http://h:1/api'\naccounts = []"), "/api");
    }

    #[test]
    fn protocols_have_their_own_addresses() {
        let url = |text: &str| provider(text).request_url("m").to_string();
        for written in
            ["http://box:9", "http://box:9/v1/", "http://box:9/v1/responses", "http://box:9/v1/chat/completions"]
        {
            assert_eq!(url(&format!("protocol = 'responses'\nbase_url = '{written}'")), "http://box:9/v1/responses");
        }
        let over = provider("preset = 'deepseek'\nkey = { env = 'K' }\nprotocol = 'responses'");
        assert_eq!(over.request_url("m").as_str(), "https://api.deepseek.com/responses");
        assert_eq!(over.dialect.name, "generic");
    }

    #[test]
    fn tools_are_native_unless_the_host_is_known_or_said_not_to_have_them() {
        let tools = |text: &str| {
            let tools = provider(text).native_tools;
            (tools.custom, tools.hosted)
        };
        let native = "protocol = 'responses'\nbase_url = 'http://box:9'";
        assert_eq!(tools(native), (true, true));
        assert_eq!(tools(&format!("{native}\ncustom_tools = false")), (false, true));
        assert_eq!(tools(&format!("{native}\nhosted_tools = false")), (true, false));
        assert_eq!(tools("preset = 'ollama'\nprotocol = 'responses'"), (false, false));
        assert_eq!(tools("preset = 'ollama'\nprotocol = 'responses'\ncustom_tools = true"), (true, false));
        assert_eq!(tools("preset = 'openai'\nkey = { env = 'K' }"), (true, true));
    }

    #[test]
    fn who_needs_no_key_is_not_asked_for_one() {
        assert!(provider("preset = 'ollama'").accounts.is_empty());
        assert!(provider("base_url = 'https://h.example/v1'\naccounts = []").accounts.is_empty());
        assert!(provider("base_url = 'https://h.example/v1'\nheaders = { x-key = { env = 'K' } }").accounts.is_empty());
    }

    #[test]
    fn key_sources() {
        let key = |text| provider(&format!("preset = 'groq'\nkey = {text}")).accounts.remove(0).key;
        assert_eq!(key("{ file = '~/k' }"), KeySource::File("~/k".into()));
        assert_eq!(key("{ credential = 'groq' }"), KeySource::Credential("groq".into()));
        let pass = |arguments: &[&str]| KeySource::Command {
            program: "pass".into(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(key("{ command = ['pass', 'show', 'a b'] }"), pass(&["show", "a b"]));
        assert_eq!(key("{ command = 'pass' }"), pass(&[]));
    }

    #[test]
    fn headers_are_typed() {
        let provider = provider("preset = 'ollama'\n[providers.p.headers]\nX-A = 'v'\nx-b = { env = 'B' }");
        assert_eq!(provider.headers[0].0, "x-a");
        assert_eq!(provider.headers[0].1, HeaderSource::Literal(Secret::new("v")));
        assert_eq!(provider.headers[1].1, HeaderSource::Key(KeySource::Env("B".into())));
    }
}
