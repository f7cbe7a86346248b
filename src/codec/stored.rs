//! Responses that a later request continues by naming them (`previous_response_id`): what is kept of one, and what a
//! request becomes that names it. PURE.
//!
//! ```text
//! input ─┬─ elements ─┐
//! output ┘            ├─► Kept ── seal ──► bytes, somewhere ── open ──► Kept ── expand ──► a body with the whole input
//!        who has it ──┘
//! ```
//! `instructions` are not kept: "When using along with `previous_response_id`, the instructions from a previous response
//! will not be carried over to the next response"
//! (<https://platform.openai.com/docs/api-reference/responses/create#responses-create-instructions>, read 2026-11-21).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    edits::Edits,
    seal::{NONCE_BYTES, Sealer},
};

/// A response that takes more, in bytes and with all that stood before it, is not kept.
pub const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What is kept of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The conversation up to its end, input and output: elements of a JSON array.
    pub items: String,
    /// The host that was told to keep it as well, and gave it its id.
    pub host: Option<Host>,
}

/// Who has a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The provider's name in the configuration.
    pub provider: String,
    /// The account's there.
    pub account: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Plain<'a> {
    #[serde(borrow)]
    items: Cow<'a, RawValue>,
    #[serde(default)]
    host: Option<Host>,
}

impl Kept {
    /// Seals it under its id. `nonce` as for [`Sealer::seal`]. `None`: it is no JSON, or too large.
    pub fn seal(&self, id: &str, sealer: &Sealer, nonce: [u8; NONCE_BYTES]) -> Option<Vec<u8>> {
        if self.items.len() > KEPT_BYTES_MAX {
            return None;
        }
        let items = RawValue::from_string(format!("[{}]", self.items)).ok()?;
        let plain = serde_json::to_vec(&Plain { items: Cow::Owned(items), host: self.host.clone() }).ok()?;
        sealer.seal_response(id, &plain, nonce)
    }

    /// Opens what [`Kept::seal`] gave. `None`: it is damaged, sealed under another key, or another response's.
    pub fn open(id: &str, sealed: &[u8], sealer: &Sealer) -> Option<Self> {
        let plain = sealer.open_response(id, sealed)?;
        let plain: Plain<'_> = serde_json::from_slice(&plain).ok()?;
        let items = plain.items.get().trim().strip_prefix('[')?.strip_suffix(']')?;
        Some(Self { items: items.trim().to_owned(), host: plain.host })
    }
}

/// The response that a body continues, if it names one. What is wrong with a body is for others to say.
pub fn previous(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow, default)]
        previous_response_id: Option<Cow<'a, str>>,
    }
    // Most bodies do not, and need not be read for that.
    memchr::memmem::find(body, b"\"previous_response_id\"")?;
    serde_json::from_slice::<Body<'_>>(body).ok()?.previous_response_id.map(Cow::into_owned)
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

/// Whether the input of a valid body is short enough to be kept.
pub fn fits(body: &[u8]) -> bool {
    let input = serde_json::from_slice::<Input<'_>>(body).ok().and_then(|body| body.input);
    input.is_some_and(|input| input.get().len() <= KEPT_BYTES_MAX)
}

/// The input of a valid body as elements of a JSON array.
pub fn elements(body: &[u8]) -> Option<String> {
    let input = serde_json::from_slice::<Input<'_>>(body).ok()?.input?;
    elements_of(input)
}

fn elements_of(input: &RawValue) -> Option<String> {
    if input.get().starts_with('"') {
        return Some(format!("{{\"type\":\"message\",\"role\":\"user\",\"content\":{}}}", input.get()));
    }
    Some(input.get().strip_prefix('[')?.strip_suffix(']')?.trim().to_owned())
}

/// Elements of JSON arrays as those of one.
pub fn join<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(",")
}

/// The body with `items`, elements of a JSON array, before its own input. `None`: it cannot be read.
pub fn expand(body: &[u8], items: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok()?;
    let wire: Input<'_> = serde_json::from_str(text).ok()?;
    let mut edits = Edits::new(text);
    match wire.input {
        Some(input) => edits.replace(input, format!("[{}]", join([items, &elements_of(input)?]))),
        // Nothing new is said, which is lawful.
        None => edits.insert(text, &format!("\"input\":[{items}]")),
    }
    Some(edits.apply().into_owned().into_bytes())
}

/// The body without the name of the response it continues: for who would look for that.
pub fn without_name(body: &[u8]) -> Cow<'_, [u8]> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow, default)]
        previous_response_id: Option<&'a RawValue>,
    }
    let named = |text: &str| -> Option<Vec<u8>> {
        let name = serde_json::from_str::<Body<'_>>(text).ok()?.previous_response_id?;
        let mut edits = Edits::new(text);
        edits.replace(name, "null");
        Some(edits.apply().into_owned().into_bytes())
    };
    std::str::from_utf8(body).ok().and_then(named).map_or(Cow::Borrowed(body), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn kept() -> Kept {
        let host = Some(Host { provider: "native".to_owned(), account: None });
        Kept { items: r#"{"role":"user","content":"SECRET"},{"type":"message" }"#.to_owned(), host }
    }

    #[test]
    fn what_is_sealed_opens_under_its_own_id_only() {
        let sealer = Sealer::new(&[7; 32]);
        let sealed = kept().seal("resp_1", &sealer, [1; 24]).unwrap();
        assert_eq!(Kept::open("resp_1", &sealed, &sealer), Some(kept()));
        assert!(
            memchr::memmem::find(&sealed, b"SECRET").is_none() && memchr::memmem::find(&sealed, b"native").is_none()
        );
        assert_eq!(Kept::open("resp_2", &sealed, &sealer), None);
        assert_eq!(Kept::open("resp_1", &sealed, &Sealer::new(&[8; 32])), None);
        assert_eq!(Kept::open("resp_1", &sealed[..sealed.len() - 1], &sealer), None);
        let empty = Kept { items: String::new(), host: None };
        let sealed = empty.seal("r", &sealer, [2; 24]).unwrap();
        assert_eq!(Kept::open("r", &sealed, &sealer), Some(empty));
        let long = Kept { items: format!("\"{}\"", "x".repeat(KEPT_BYTES_MAX)), host: None };
        assert_eq!(long.seal("r", &sealer, [3; 24]), None);
    }

    #[test]
    fn a_body_is_expanded_in_whatever_form_its_input_is() {
        let before = r#"{"role":"user","content":"a"},{"role":"assistant","content":"b"}"#;
        for (body, last) in [
            (
                r#"{"model":"m","input":"c \"d\""}"#,
                Some(json!({"type": "message", "role": "user", "content": "c \"d\""})),
            ),
            (
                r#"{"input" : [ {"role":"user","content":"c"} ] ,"model":"m"}"#,
                Some(json!({"role": "user", "content": "c"})),
            ),
            (r#"{"model":"m","input":[ ]}"#, None),
            (r#"{"model":"m"}"#, None),
        ] {
            let expanded: Value = serde_json::from_slice(&expand(body.as_bytes(), before).unwrap()).unwrap();
            let mut expected =
                vec![json!({"role": "user", "content": "a"}), json!({"role": "assistant", "content": "b"})];
            expected.extend(last);
            assert_eq!((&expanded["input"], &expanded["model"]), (&Value::Array(expected), &json!("m")), "{body}");
        }
        assert_eq!(expand(b"{\"input\":3}", before), None);
        assert_eq!(expand(b"nonsense", before), None);
    }

    #[test]
    fn elements_are_those_of_the_input() {
        let of = |body: &str| elements(body.as_bytes());
        assert_eq!(of(r#"{"input":[ 1, 2 ]}"#).as_deref(), Some("1, 2"));
        assert_eq!(of(r#"{"input":[]}"#).as_deref(), Some(""));
        assert_eq!(of("{}"), None);
        assert_eq!(join(["", "1", "", "2, 3"]), "1,2, 3");
        let long = format!("{{\"input\":\"{}\"}}", "x".repeat(KEPT_BYTES_MAX));
        assert!(fits(b"{\"input\":[]}") && !fits(b"{}") && !fits(long.as_bytes()));
    }

    #[test]
    fn the_named_response_is_found_without_reading_what_names_none() {
        let of = |body: &str| previous(body.as_bytes());
        assert_eq!(of(r#"{"input":"x","previous_response_id":"resp_\u0031"}"#).as_deref(), Some("resp_1"));
        assert_eq!(of(r#"{"previous_response_id":null}"#), None);
        assert_eq!(of(r#"{"input":"\"previous_response_id\":\"x\""}"#), None);
        assert_eq!(of(r#"{"previous_response_id":"#), None);
        let bare = without_name(br#"{"input":"x", "previous_response_id" : "resp_1"}"#);
        assert_eq!(&*bare, br#"{"input":"x", "previous_response_id" : null}"#);
        assert_eq!(&*without_name(b"{\"input\":1}"), b"{\"input\":1}");
    }
}
