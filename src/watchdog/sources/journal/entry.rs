//! One entry of the journal → an observation, by trusted fields alone. PURE.
//!
//! Every process of the user can write to the journal, with any `MESSAGE_ID`, `USER_UNIT` or `SYSLOG_IDENTIFIER`. Only
//! fields that begin with `_` are journald's own (systemd.journal-fields(7)), and of those `_COMM` is the writer's. So:
//!
//! * the manager is believed by `_UID`, `_EXE`, `_SYSTEMD_USER_UNIT=init.scope` and its process number on the bus;
//! * the proxy is believed by `_UID` and `_SYSTEMD_USER_UNIT=codex-proxy.service`;
//! * of everything else, a few words are worth a look, never an action.
//!
//! A field that is there twice, or is not text, is not believed (`journalctl -o json` writes arrays or `null`).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde_json::{Map, Value};

use crate::model::signal::Signal as Reported;
use crate::watchdog::signal::{Exit, Failure, Observation, Time, Unit};

/// The manager's own program, as `/proc/PID/exe` names it with and without a merged `/usr`.
pub(super) const MANAGER_PROGRAMS: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
/// Where the manager itself runs.
pub(super) const MANAGER_UNIT: &str = "init.scope";

// The manager's entries, by `MESSAGE_ID` (systemd's sd-messages.h; seen with 252 and 257).
pub(super) const STARTING: &str = "7d4958e842da4a758f6c1cdc7b36dcc5";
const PROCESS_EXIT: &str = "98e322203f7a4ed290d09fe03c09fe15";
const UNIT_FAILED: &str = "d9b373ed55a64feb8242e02dbe79a49c";
const UNIT_SUCCESS: &str = "7ad2d189f7e94e70a38c781354912448";

/// Words worth an incident, and the signature they are told by.
const WORDS: [(&str, &str); 2] =
    [("panicked at ", "panicked"), ("Start request repeated too quickly", "start_request_repeated_too_quickly")];
/// A hit is looked for in so much of a message.
const WORDS_CHARS_MAX: usize = 1024;

/// Whom to believe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// This user.
    pub uid: u32,
    /// The process that owns `org.freedesktop.systemd1` on the session bus; `None`: no entry of a manager is believed.
    pub manager_pid: Option<u32>,
    /// This boot, 32 hexadecimal digits: the monotonic clock of another means nothing here.
    pub boot: String,
}

/// An entry that says something.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its place in the journal.
    pub cursor: String,
    /// When journald received it.
    pub at: Time,
    /// What it says.
    pub observation: Observation,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its place in the journal.
    pub cursor: String,
    /// When journald received it.
    pub at: Time,
    /// What it says to us, if anything.
    pub observation: Option<Observation>,
}

/// Reads entries in the journal's order. It remembers how the main process ended until the manager says what became of
/// the run, and which run ended last, so that each run ends once: at the cap on starts the manager says so again.
#[derive(Debug)]
pub struct Reader {
    trust: Trust,
    ended: Option<Ended>,
    /// Its invocation.
    last: Option<String>,
}

#[derive(Debug)]
struct Ended {
    invocation: String,
    code: i32,
    status: i32,
}

impl Reader {
    /// A reader that believes those.
    pub const fn new(trust: Trust) -> Self {
        Self { trust, ended: None, last: None }
    }

    /// What one entry of `journalctl -o json` says; `None` if nothing.
    pub fn read(&mut self, json: &[u8]) -> Option<Entry> {
        let Line { cursor, at, observation } = self.line(json)?;
        observation.map(|observation| Entry { cursor, at, observation })
    }

    /// As [`Reader::read`], also for entries that say nothing to us; `None` for what is no entry of this boot.
    pub fn line(&mut self, json: &[u8]) -> Option<Line> {
        let fields = Fields(serde_json::from_slice(json).ok()?);
        if fields.text("_BOOT_ID") != Some(&self.trust.boot) {
            return None;
        }
        let cursor = fields.text("__CURSOR")?.to_owned();
        let at =
            Time { mono_us: fields.number("__MONOTONIC_TIMESTAMP")?, wall_us: fields.number("__REALTIME_TIMESTAMP")? };
        Some(Line { cursor, at, observation: self.observation(&fields) })
    }

    fn observation(&mut self, fields: &Fields) -> Option<Observation> {
        let ours = fields.number("_UID") == Some(self.trust.uid);
        let said = if ours && fields.is_of_manager(&self.trust) {
            self.of_manager(fields)
        } else if ours && fields.text("_SYSTEMD_USER_UNIT") == Some(Unit::Proxy.name()) {
            of_proxy(fields)
        } else {
            None
        };
        said.or_else(|| words(fields))
    }

    fn of_manager(&mut self, fields: &Fields) -> Option<Observation> {
        if fields.text("USER_UNIT") != Some(Unit::Proxy.name()) {
            return None;
        }
        let invocation = fields.text("USER_INVOCATION_ID").filter(|id| is_id(id))?.to_owned();
        match fields.text("MESSAGE_ID")? {
            STARTING => Some(Observation::Starting { invocation }),
            // Helpers of the unit (`ExecStopPost=` …) end, too.
            PROCESS_EXIT if fields.text("COMMAND") == Some("ExecStart") => {
                let code = match fields.text("EXIT_CODE")? {
                    "exited" => 1,
                    "killed" => 2,
                    "dumped" => 3,
                    _ => return None,
                };
                self.ended = Some(Ended { invocation, code, status: fields.number("EXIT_STATUS")? });
                None
            }
            UNIT_FAILED => {
                let result = fields.text("UNIT_RESULT")?.to_owned();
                self.exit(invocation, result)
            }
            // An end without fault is no entry at the manager's usual log level: the bus tells of those.
            UNIT_SUCCESS => self.exit(invocation, "success".to_owned()),
            _ => None,
        }
    }

    fn exit(&mut self, invocation: String, result: String) -> Option<Observation> {
        let ended = self.ended.take().filter(|ended| ended.invocation == invocation);
        if self.last.as_ref() == Some(&invocation) {
            return None;
        }
        self.last = Some(invocation.clone());
        let (code, status) = ended.map_or((0, 0), |ended| (ended.code, ended.status));
        Some(Observation::Exit(Exit { invocation, result, code, status }))
    }
}

/// A failure that the proxy itself logged.
fn of_proxy(fields: &Fields) -> Option<Observation> {
    let message_id = fields.text("MESSAGE_ID")?;
    let reported = Reported::ALL.into_iter().find(|signal| signal.row().message_id == message_id)?;
    let text = |name| fields.text(name).unwrap_or_default().to_owned();
    Some(Observation::Failure(Failure {
        event_id: fields.text("CODEX_EVENT_ID").filter(|id| !id.is_empty())?.to_owned(),
        signal: reported.row().name.to_owned(),
        request_id: text("CODEX_REQUEST_ID"),
        thread_id: text("CODEX_THREAD_ID"),
        model: text("CODEX_MODEL"),
        route: text("CODEX_ROUTE"),
        provider: text("CODEX_PROVIDER"),
        account: text("CODEX_ACCOUNT"),
        status: fields.number("CODEX_STATUS").unwrap_or(0),
        phase: text("CODEX_PHASE"),
    }))
}

/// What anybody could have written, under a name of ours.
fn words(fields: &Fields) -> Option<Observation> {
    let claims = [
        ("USER_UNIT", Unit::Proxy.name()),
        ("_SYSTEMD_USER_UNIT", Unit::Proxy.name()),
        ("SYSLOG_IDENTIFIER", "codex-proxy"),
    ];
    if !claims.iter().any(|(name, value)| fields.text(name) == Some(value)) {
        return None;
    }
    let head: String = fields.text("MESSAGE")?.chars().take(WORDS_CHARS_MAX).collect();
    let (_, signature) = WORDS.into_iter().find(|(words, _)| head.contains(words))?;
    Some(Observation::Words { signature: signature.to_owned() })
}

/// 32 hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The moment a cursor stands for on the monotonic clock of `boot`; `None`: it is of another boot, or no cursor.
///
/// The form `s=…;i=…;b=BOOT;m=MONOTONIC;t=REALTIME;x=…`, numbers in hexadecimal, is sd_journal_get_cursor(3)'s; who
/// does not find it there reads more than needed, not less.
pub fn cursor_mono_us(cursor: &str, boot: &str) -> Option<u64> {
    let part = |name: &str| cursor.split(';').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    (part("b")? == boot).then(|| u64::from_str_radix(part("m")?, 16).ok())?
}

/// The fields of one entry.
struct Fields(Map<String, Value>);

impl Fields {
    /// A field that is there once, as text.
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    /// Whether the manager of `trust` wrote it; the user is looked at before.
    fn is_of_manager(&self, trust: &Trust) -> bool {
        self.text("_EXE").is_some_and(|exe| MANAGER_PROGRAMS.contains(&exe))
            && self.text("_SYSTEMD_USER_UNIT") == Some(MANAGER_UNIT)
            && trust.manager_pid.is_some_and(|pid| self.number("_PID") == Some(pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BOOT: &str = "d991dd345de94afbba1cb87fa21718ec";
    const RUN: &str = "35b93e9ab5dc43bfb25a625fb14cc540";

    fn reader() -> Reader {
        Reader::new(Trust { uid: 1000, manager_pid: Some(34), boot: BOOT.to_owned() })
    }

    fn with(base: Value, changes: Value) -> Vec<u8> {
        let (Value::Object(mut fields), Value::Object(changes)) = (base, changes) else { panic!("objects") };
        fields.extend(changes);
        serde_json::to_vec(&fields).unwrap()
    }

    /// As a manager of version 252 wrote it.
    fn manager(message_id: &str, changes: Value) -> Vec<u8> {
        let base = json!({
            "_SOURCE_REALTIME_TIMESTAMP": "1795242687707908", "CODE_FUNC": "job_emit_start_message",
            "USER_INVOCATION_ID": RUN, "TID": "34", "__REALTIME_TIMESTAMP": "1795242687708164",
            "_SYSTEMD_UNIT": "user@1000.service", "_COMM": "systemd", "__MONOTONIC_TIMESTAMP": "17739976873",
            "JOB_ID": "10", "PRIORITY": "6", "MESSAGE": "Starting codex-proxy.service - Codex proxy...",
            "__CURSOR": format!("s=1d64;i=3a;b={BOOT};m=4216290a9;t=660c382afbc04;x=572f"), "_PID": "34",
            "_SYSTEMD_USER_UNIT": "init.scope", "_EXE": "/usr/lib/systemd/systemd", "SYSLOG_IDENTIFIER": "systemd",
            "USER_UNIT": "codex-proxy.service", "_UID": "1000", "_BOOT_ID": BOOT, "_TRANSPORT": "journal",
            "_CMDLINE": "/lib/systemd/systemd --user", "MESSAGE_ID": message_id,
        });
        with(base, changes)
    }

    fn proxy(changes: Value) -> Vec<u8> {
        let base = json!({
            "__CURSOR": "c", "__REALTIME_TIMESTAMP": "5", "__MONOTONIC_TIMESTAMP": "4", "_BOOT_ID": BOOT,
            "_UID": "1000", "_PID": "83", "_SYSTEMD_USER_UNIT": "codex-proxy.service", "_EXE": "/usr/bin/codex-proxy",
            "SYSLOG_IDENTIFIER": "codex-proxy", "MESSAGE": "an upstream attempt failed",
            "MESSAGE_ID": Reported::Reset.row().message_id, "CODEX_EVENT_ID": "evt_1", "CODEX_SIGNAL": "upstream.reset",
            "CODEX_REQUEST_ID": "req_1", "CODEX_MODEL": "work", "CODEX_ROUTE": "up/m", "CODEX_PROVIDER": "up",
            "CODEX_STATUS": "502", "CODEX_PHASE": "waiting",
        });
        with(base, changes)
    }

    #[test]
    fn the_managers_start_is_a_start() {
        let entry = reader().read(&manager(STARTING, json!({}))).unwrap();
        assert_eq!(entry.observation, Observation::Starting { invocation: RUN.to_owned() });
        assert_eq!(entry.at, Time { mono_us: 17_739_976_873, wall_us: 1_795_242_687_708_164 });
        assert_eq!(cursor_mono_us(&entry.cursor, BOOT), Some(17_739_976_873));
        assert_eq!(cursor_mono_us(&entry.cursor, "other"), None);
        assert_eq!(cursor_mono_us("garbage", BOOT), None);
    }

    #[test]
    fn a_run_ends_once_with_the_managers_word_for_it() {
        let mut reader = reader();
        let ended = json!({"COMMAND": "ExecStart", "EXIT_CODE": "killed", "EXIT_STATUS": "9"});
        assert_eq!(reader.read(&manager(PROCESS_EXIT, ended)), None);
        let helper = json!({"COMMAND": "ExecStopPost", "EXIT_CODE": "exited", "EXIT_STATUS": "1"});
        assert_eq!(reader.read(&manager(PROCESS_EXIT, helper)), None);
        let run = |number: u32| json!({"USER_INVOCATION_ID": format!("{number:032}")});
        let exit = |invocation: String, result: &str, code, status| {
            Some(Observation::Exit(Exit { invocation, result: result.to_owned(), code, status }))
        };
        let mut read = |line: Vec<u8>| reader.read(&line).map(|entry| entry.observation);
        let failed = |result: &str| manager(UNIT_FAILED, json!({"UNIT_RESULT": result}));
        assert_eq!(read(failed("watchdog")), exit(RUN.to_owned(), "watchdog", 2, 9));
        // "Start request repeated too quickly": of the same run.
        assert_eq!(read(failed("watchdog")), None);
        assert_eq!(read(manager(UNIT_SUCCESS, run(1))), exit(format!("{:032}", 1), "success", 0, 0));
        // The end of another run does not count for this one.
        let other = json!({"COMMAND": "ExecStart", "EXIT_CODE": "exited", "EXIT_STATUS": "3",
            "USER_INVOCATION_ID": format!("{:032}", 2)});
        assert_eq!(read(manager(PROCESS_EXIT, other)), None);
        assert_eq!(read(failed("signal")), exit(RUN.to_owned(), "signal", 0, 0));
    }

    #[test]
    fn forgeries_of_the_manager_are_nothing() {
        for forged in [
            // `logger --journald` in a terminal.
            json!({"_EXE": "/usr/bin/logger", "_COMM": "logger", "_PID": "102", "_SYSTEMD_USER_UNIT": null}),
            json!({"_EXE": "/usr/bin/logger", "_COMM": "systemd"}),
            // A copy of systemd, and the real one run by hand.
            json!({"_EXE": "/tmp/systemd"}),
            json!({"_PID": "4711"}),
            json!({"_SYSTEMD_USER_UNIT": "app-x.scope"}),
            json!({"_EXE": "/usr/lib/systemd/systemd (deleted)"}),
            // Another user, the machine's manager, another boot, another unit.
            json!({"_UID": "1001"}),
            json!({"_UID": "0", "_PID": "1", "_SYSTEMD_USER_UNIT": null}),
            json!({"_BOOT_ID": "00000000000000000000000000000000"}),
            json!({"USER_UNIT": "codex-proxy.socket"}),
            // Fields that are there twice, bytes, and nonsense.
            json!({"USER_UNIT": ["codex-proxy.service", "other.service"]}),
            json!({"_PID": ["34", "35"]}),
            json!({"USER_INVOCATION_ID": [53, 53]}),
            json!({"USER_INVOCATION_ID": "short"}),
            json!({"__CURSOR": null}),
            json!({"__MONOTONIC_TIMESTAMP": "soon"}),
        ] {
            assert_eq!(reader().read(&manager(STARTING, forged.clone())), None, "{forged}");
        }
        let mut unknown = Reader::new(Trust { uid: 1000, manager_pid: None, boot: BOOT.to_owned() });
        assert_eq!(unknown.read(&manager(STARTING, json!({}))), None);
        for nonsense in ["", "-- No entries --", "[]", "null", "{}", "{\"MESSAGE\":"] {
            assert_eq!(reader().read(nonsense.as_bytes()), None);
        }
    }

    #[test]
    fn the_proxys_failures_are_read_with_their_fields() {
        let Some(Observation::Failure(failure)) = reader().read(&proxy(json!({}))).map(|entry| entry.observation)
        else {
            panic!("a failure");
        };
        assert_eq!((failure.event_id.as_str(), failure.signal.as_str()), ("evt_1", "upstream.reset"));
        assert_eq!((failure.model.as_str(), failure.route.as_str()), ("work", "up/m"));
        assert_eq!((failure.status, failure.phase.as_str()), (502, "waiting"));
        assert_eq!((failure.account.as_str(), failure.thread_id.as_str()), ("", ""));
        for forged in [
            json!({"_SYSTEMD_USER_UNIT": null}),
            json!({"_SYSTEMD_USER_UNIT": "app-x.scope"}),
            json!({"_UID": "1001"}),
            json!({"MESSAGE_ID": STARTING}),
            json!({"MESSAGE_ID": [Reported::Reset.row().message_id, Reported::Panic.row().message_id]}),
            json!({"CODEX_EVENT_ID": null}),
        ] {
            assert_eq!(reader().read(&proxy(forged.clone())), None, "{forged}");
        }
    }

    #[test]
    fn words_of_anybody_are_words() {
        let forged = json!({"_SYSTEMD_USER_UNIT": null, "_EXE": "/usr/bin/cat", "MESSAGE_ID": null,
            "MESSAGE": "thread 'main' panicked at src/x.rs:1"});
        let words = |signature: &str| Some(Observation::Words { signature: signature.to_owned() });
        assert_eq!(reader().read(&proxy(forged)).map(|entry| entry.observation), words("panicked"));
        let tired = json!({"MESSAGE": "codex-proxy.service: Start request repeated too quickly.", "MESSAGE_ID": null});
        let said = reader().read(&manager(STARTING, tired)).map(|entry| entry.observation);
        assert_eq!(said, words("start_request_repeated_too_quickly"));
        let elsewhere = json!({"USER_UNIT": "other.service", "MESSAGE_ID": null, "MESSAGE": "x panicked at y"});
        assert_eq!(reader().read(&manager(STARTING, elsewhere)), None);
        let far = json!({"MESSAGE": format!("{}panicked at ", "ä".repeat(1100)), "MESSAGE_ID": null});
        assert_eq!(reader().read(&proxy(far)), None);
    }
}
