//! What is checked alike of providers that speak a protocol of their own, over real sockets and with the real Codex.

use super::codex::Codex;
use super::proxy::Proxy;
use super::upstream::{Cut, Recorded, Reply, Upstream};
use serde_json::{Value, json};

const SHORT: &str = "retry_deadline_s = 1\nhead_hold_s = 1\nkeepalive_s = 1\nupstream_head_s = 2\nupstream_idle_s = 2";

/// Who speaks.
pub struct Vendor {
    /// `protocol` of the configuration.
    pub protocol: &'static str,
    pub model: &'static str,
    pub key: &'static str,
    /// The usual last answer of a turn.
    pub say: fn(&str) -> Reply,
}

/// What every test asks for.
pub fn ask() -> Value {
    json!({"model": "work", "stream": true, "store": false, "instructions": "Be \"kind\".\n",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go\n– on"}]}]})
}

impl Vendor {
    /// A proxy before it. `proxy`, `provider`: more lines for these sections.
    pub fn start(&self, proxy: &str, provider: &str, upstream: &Upstream) -> Proxy {
        let Self { protocol, model, key, .. } = self;
        let config = format!(
            "[proxy]\n{proxy}\n[providers.up]\nprotocol = \"{protocol}\"\nbase_url = \"http://{}\"\n\
             key = {{ env = \"UP_KEY\" }}\nimages = true\n{provider}\n[models.work]\nroutes = [\"up/{model}\"]\n",
            upstream.address()
        );
        Proxy::start(&config, &[("UP_KEY", key)])
    }

    /// The real Codex before a proxy before it.
    pub fn session(&self, script: impl FnMut(&Recorded) -> Reply + Send + 'static) -> Option<(Codex, Proxy, Upstream)> {
        super::codex_bin()?;
        let upstream = Upstream::start(script);
        let proxy = self.start("", "", &upstream);
        Some((Codex::new(proxy.endpoint())?, proxy, upstream))
    }

    /// `reply` says "Hello – "wörld"", a line end and its counts, in pieces. Gives the request that was made.
    pub fn streams_text(&self, reply: &Reply) -> Recorded {
        let mut requests = Vec::new();
        for size in [7, 1_000_000] {
            let reply = reply.clone().split(size);
            let upstream = Upstream::start(move |_| reply.clone());
            let proxy = self.start("", "", &upstream);
            let got = proxy.responses(&ask());
            let end = got.terminal();
            assert_eq!((got.status, &end["type"]), (200, &json!("response.completed")), "{}", got.text());
            assert_eq!(got.items()[0]["content"][0]["text"], "Hello – \"wörld\"\n");
            let deltas = got.events().into_iter().filter(|event| event["type"] == "response.output_text.delta");
            assert!(deltas.count() >= 2, "{}", got.text());
            let usage = &end["response"]["usage"];
            assert_eq!(
                (&usage["input_tokens"], &usage["input_tokens_details"]["cached_tokens"], &usage["output_tokens"]),
                (&json!(100), &json!(60), &json!(20))
            );
            requests.append(&mut upstream.exactly(1));
        }
        assert_eq!(requests[0].json, requests[1].json);
        requests.remove(0)
    }

    /// A client that does not stream gets one object.
    pub fn gives_one_object(&self) {
        let say = self.say;
        let upstream = Upstream::start(move |_| say("whole"));
        let proxy = self.start("", "", &upstream);
        let mut body = ask();
        body["stream"] = json!(false);
        let object = proxy.responses(&body).json();
        let text = &object["output"][0]["content"][0]["text"];
        assert_eq!((&object["status"], text), (&json!("completed"), &json!("whole")));
    }

    /// Status and body of an error; status and code of what the client is told. No key is.
    pub fn tells_statuses(&self, rows: &[(u16, Value, u16, &str)]) {
        for (status, body, told, code) in rows {
            let reply = Reply::json_with(*status, &[("retry-after", "70")], body);
            let upstream = Upstream::start(move |_| reply.clone());
            let proxy = self.start("retry_deadline_s = 1", "", &upstream);
            let got = proxy.responses(&ask());
            assert_eq!((got.status, &got.json()["error"]["code"]), (*told, &json!(code)), "{}", got.text());
            assert!(!got.text().contains(self.key) && !proxy.log().contains(self.key), "{}", got.text());
            if *status == 429 {
                assert_eq!(got.header("retry-after"), Some("70"));
            }
        }
    }

    /// An overload `before` anything was said is tried again; what comes `behind` the first words, and says SCRIPTED, is
    /// told under that code.
    pub fn errors_within_an_answer(&self, before: &Reply, behind: &[(Reply, &str)]) {
        let (say, overload) = (self.say, before.clone());
        let upstream =
            Upstream::start(move |request| if request.index == 0 { overload.clone() } else { say("at last") });
        let proxy = self.start("", "", &upstream);
        assert_eq!(proxy.responses(&ask()).items()[0]["content"][0]["text"], "at last");
        upstream.exactly(2);
        for (reply, code) in behind {
            let reply = reply.clone();
            let upstream = Upstream::start(move |_| reply.clone());
            let proxy = self.start("", "", &upstream);
            let end = proxy.responses(&ask()).terminal();
            failed(&end, code);
            assert!(end.to_string().contains("SCRIPTED"), "{end}");
            upstream.exactly(1);
        }
    }

    /// `reply` says something and makes a call before it is cut: the call is never given.
    pub fn never_gives_a_cut_call(&self, reply: impl Fn(Cut) -> Reply) {
        for cut in [Cut::Reset, Cut::Close, Cut::Stall] {
            let reply = reply(cut);
            let upstream = Upstream::start(move |_| reply.clone());
            let proxy = self.start(SHORT, "", &upstream);
            let got = proxy.responses(&ask());
            failed(&got.terminal(), "server_error");
            assert!(got.items().iter().all(|item| item["type"] != "function_call"), "{cut:?}: {}", got.text());
            upstream.exactly(1);
        }
    }
}

fn failed(end: &Value, code: &str) {
    let found = (&end["type"], &end["response"]["error"]["code"]);
    assert_eq!(found, (&json!("response.failed"), &json!(code)), "{end}");
}
