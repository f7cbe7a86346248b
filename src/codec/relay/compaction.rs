//! What a host said to a request for a compaction: did it make one, or, asked for a summary, what did it write.
//!
//! Only here are a relayed answer's items looked into. It is short, rare, and over.

use serde_json::Value;

use crate::{
    codec::{DecodeError, responses::stream::Ended, sse::Framer},
    model::{
        event::{End, Event, ItemKey, ItemKind},
        request::{ToolKind, ToolRef},
        usage::Usage,
    },
};

/// Whether an answer holds a compaction item: `frames` of a stream, or the one object `whole`.
pub fn holds_compaction(frames: &[u8], whole: &[u8]) -> bool {
    let is_one = |item: &Value| {
        let kind = item["type"].as_str().is_some_and(|kind| matches!(kind, "compaction" | "compaction_summary"));
        kind && item["encrypted_content"].as_str().is_some_and(|blob| !blob.is_empty())
    };
    items(frames, whole).iter().any(is_one)
}

/// What an answer says that is over, as events: texts, that it refused, that it called tools. Thoughts are left out.
pub fn read_events(frames: &[u8], whole: &[u8], ended: &Ended, usage: Option<Usage>) -> Vec<Event> {
    let mut events = vec![Event::Start { model: String::new() }];
    for (key, item) in (0..).map(ItemKey).zip(items(frames, whole)) {
        let kind = match item["type"].as_str() {
            Some("message") => ItemKind::Message { phase: None },
            // Of those that the client runs. What the host runs by itself is over when it writes.
            Some(kind @ ("function_call" | "custom_tool_call" | "tool_search_call" | "local_shell_call")) => {
                let tool = ToolRef { namespace: None, name: kind.to_owned().into(), kind: ToolKind::Function };
                ItemKind::Call { call_id: "call".to_owned(), tool }
            }
            Some(_) | None => continue,
        };
        events.push(Event::ItemOpen { item: key, kind });
        for part in item["content"].as_array().into_iter().flatten() {
            let text = |field: &str| part[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
            if let Some(delta) = text("refusal") {
                events.push(Event::Refusal { item: key, delta });
            } else if let Some(delta) = text("text") {
                events.push(Event::Text { item: key, delta });
            }
        }
        events.push(Event::ItemClose { item: key, whole: true });
    }
    events.extend(usage.map(Event::Usage));
    events.push(Event::End(match ended {
        Ended::Completed => End::Complete,
        Ended::Incomplete(reason) => End::Incomplete(*reason),
        Ended::Failed(failure) => End::Failed(failure.clone()),
    }));
    events
}

/// The items of an answer: those that were told as done, else what its last object holds.
fn items(frames: &[u8], whole: &[u8]) -> Vec<Value> {
    let output = |response: &Value| response["output"].as_array().cloned().unwrap_or_default();
    let mut done = Vec::new();
    let mut last = serde_json::from_slice(whole).map_or_else(|_| Vec::new(), |object| output(&object));
    let mut framer = Framer::default();
    // Frames that passed are within their limit, and what is no JSON passed as well.
    let _: Result<(), DecodeError> = framer.feed(frames, |frame| {
        if let Ok(mut event) = serde_json::from_str::<Value>(frame.data) {
            match event["type"].as_str().or(frame.event) {
                Some("response.output_item.done") => done.push(event["item"].take()),
                Some("response.completed" | "response.incomplete") => last = output(&event["response"]),
                Some(_) | None => {}
            }
        }
        Ok(())
    });
    if done.is_empty() { last } else { done }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::compaction::condense,
        model::{event::IncompleteReason, failure::FailureKind, grammar},
    };

    fn frames(events: &[Value]) -> Vec<u8> {
        events.iter().map(|event| format!("data: {event}\n\n")).collect::<String>().into_bytes()
    }

    fn item(item: &Value) -> Value {
        serde_json::json!({"type": "response.output_item.done", "output_index": 0, "item": item})
    }

    fn completed(output: &Value) -> Value {
        serde_json::json!({"type": "response.completed", "response": {"id": "r", "output": output}})
    }

    #[test]
    fn a_compaction_is_found_wherever_the_host_puts_it() {
        let cmp = serde_json::json!({"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"});
        let empty = serde_json::json!({"type": "compaction", "id": "cmp_1", "encrypted_content": ""});
        let say = serde_json::json!({"type": "message", "content": [{"type": "output_text", "text": "compaction"}]});
        let none = Value::Array(vec![]);
        for (body, expected) in [
            (frames(&[item(&say), item(&cmp), completed(&none)]), true),
            (frames(&[completed(&serde_json::json!([cmp]))]), true),
            (frames(&[item(&say), completed(&serde_json::json!([say]))]), false),
            (frames(&[item(&empty), completed(&none)]), false),
            (frames(&[completed(&none)]), false),
        ] {
            assert_eq!(holds_compaction(&body, b""), expected, "{}", String::from_utf8_lossy(&body));
        }
        let object = serde_json::json!({"object": "response.compaction", "output": [say, cmp]});
        assert!(holds_compaction(b"", object.to_string().as_bytes()));
        assert!(!holds_compaction(b"", b"{\"output\":[]}") && !holds_compaction(b"", b""));
    }

    #[test]
    fn the_text_of_a_summary_is_read() {
        let thought = serde_json::json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": "SECRET"}]});
        let say =
            |text: &str| serde_json::json!({"type": "message", "content": [{"type": "output_text", "text": text}]});
        let body = frames(&[item(&thought), item(&say("one")), item(&say("two")), completed(&Value::Array(vec![]))]);
        let usage = Some(Usage::estimate(40, 4, 0));
        let events = read_events(&body, b"", &Ended::Completed, usage);
        grammar::check(&events).unwrap();
        let made = condense(events, false).unwrap();
        assert!(made.contains(&Event::Text { item: ItemKey(0), delta: "one\n\ntwo".to_owned() }), "{made:?}");
        assert!(made.contains(&Event::Usage(Usage::estimate(40, 4, 0))));

        let call = serde_json::json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
        let no = serde_json::json!({"type": "message", "content": [{"type": "refusal", "refusal": "no"}]});
        for (said, ended, kind) in [
            (&call, Ended::Completed, FailureKind::Upstream),
            (&no, Ended::Completed, FailureKind::Caller),
            (&say("half"), Ended::Incomplete(IncompleteReason::MaxOutputTokens), FailureKind::Operator),
        ] {
            let events = read_events(&frames(&[item(said)]), b"", &ended, None);
            assert_eq!(condense(events, false).unwrap_err().kind, kind, "{said}");
        }
    }
}
