//! Which order of [`Event`]s is lawful, as a checker.
//!
//! ```text
//!           Start            ItemOpen … ItemClose (interleaved), Usage           End
//!  (empty) ──────► started ──────────────────────────────────────────► started ─────► ended
//!     └───────────────────────────── End(Failed) ───────────────────────────────────────┘
//! ```
//! One `Start`; every opened item is closed; a delta goes to an open item of its kind; at most one `Opaque` per
//! reasoning item; exactly one `End`, last. A `Failed` end may stand alone.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{End, Event, ItemKey, ItemKind};

/// Follows a stream of events and names the first unlawful one.
#[derive(Debug, Default)]
pub struct Checker {
    started: bool,
    ended: bool,
    open: BTreeMap<ItemKey, Open>,
    seen: BTreeSet<ItemKey>,
}

#[derive(Debug, PartialEq)]
enum Open {
    Message,
    Compaction,
    Reasoning { opaque: bool },
    Call,
}

/// What was wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {event}")]
pub struct Violation {
    /// The rule broken.
    pub what: &'static str,
    /// The event that broke it.
    pub event: String,
}

impl Checker {
    /// Takes the next event.
    pub fn push(&mut self, event: &Event) -> Result<(), Violation> {
        let fail = |what| Err(Violation { what, event: format!("{event:?}") });
        if self.ended {
            return fail("an event after the end");
        }
        if !self.started && !matches!(event, Event::Start { .. } | Event::End(End::Failed(_))) {
            return fail("an event before the start");
        }
        match event {
            Event::Start { .. } if self.started => return fail("a second start"),
            Event::Start { .. } => self.started = true,
            Event::ItemOpen { item, kind } => {
                if !self.seen.insert(*item) {
                    return fail("an item opened twice");
                }
                let open = match kind {
                    ItemKind::Message { .. } => Open::Message,
                    ItemKind::Compaction => Open::Compaction,
                    ItemKind::Reasoning => Open::Reasoning { opaque: false },
                    ItemKind::Call { call_id, .. } if call_id.is_empty() => return fail("a call without an id"),
                    ItemKind::Call { .. } => Open::Call,
                };
                self.open.insert(*item, open);
            }
            Event::Text { item, delta } => {
                if !matches!(self.open.get(item), Some(Open::Message | Open::Compaction)) || delta.is_empty() {
                    return fail("text that is empty or outside an open message");
                }
            }
            Event::Refusal { item, delta } => {
                if self.open.get(item) != Some(&Open::Message) || delta.is_empty() {
                    return fail("text that is empty or outside an open message");
                }
            }
            Event::Reasoning { item, delta } => {
                if !matches!(self.open.get(item), Some(Open::Reasoning { .. })) || delta.is_empty() {
                    return fail("thoughts that are empty or outside an open reasoning item");
                }
            }
            Event::CallArguments { item, delta } => {
                if self.open.get(item) != Some(&Open::Call) || delta.is_empty() {
                    return fail("arguments that are empty or outside an open call");
                }
            }
            Event::Opaque { item, .. } => match self.open.get_mut(item) {
                Some(Open::Reasoning { opaque }) if !*opaque => *opaque = true,
                Some(_) | None => return fail("opaque data outside an open reasoning item, or twice"),
            },
            Event::ItemClose { item, .. } => {
                if self.open.remove(item).is_none() {
                    return fail("a close of an item that is not open");
                }
            }
            Event::Usage(_) => {}
            Event::End(_) => {
                if !self.open.is_empty() {
                    return fail("an end with open items");
                }
                self.ended = true;
            }
        }
        Ok(())
    }

    /// True once the one `End` has passed.
    pub fn ended(&self) -> bool {
        self.ended
    }
}

/// Checks a whole answer: lawful throughout and ended.
pub fn check(events: &[Event]) -> Result<(), Violation> {
    let mut checker = Checker::default();
    for event in events {
        checker.push(event)?;
    }
    if checker.ended() { Ok(()) } else { Err(Violation { what: "no end", event: String::new() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::IncompleteReason;

    fn message(key: u32) -> Event {
        Event::ItemOpen { item: ItemKey(key), kind: ItemKind::Message { phase: None } }
    }
    fn text(key: u32) -> Event {
        Event::Text { item: ItemKey(key), delta: "x".into() }
    }
    fn close(key: u32) -> Event {
        Event::ItemClose { item: ItemKey(key), whole: true }
    }
    fn start() -> Event {
        Event::Start { model: String::new() }
    }

    #[test]
    fn lawful_answers_pass() {
        let end = Event::End(End::Complete);
        assert_eq!(check(&[start(), end.clone()]), Ok(()));
        assert_eq!(check(&[start(), message(0), message(1), text(1), text(0), close(0), close(1), end]), Ok(()));
    }

    #[test]
    fn unlawful_answers_are_named() {
        let end = || Event::End(End::Incomplete(IncompleteReason::ContentFilter));
        let cases: [(&str, Vec<Event>); 9] = [
            ("no end", vec![start()]),
            ("an event before the start", vec![end()]),
            ("a second start", vec![start(), start()]),
            ("an event after the end", vec![start(), end(), end()]),
            ("an end with open items", vec![start(), message(0), end()]),
            ("an item opened twice", vec![start(), message(0), close(0), message(0)]),
            ("text that is empty or outside an open message", vec![start(), text(0)]),
            ("a close of an item that is not open", vec![start(), close(0)]),
            (
                "arguments that are empty or outside an open call",
                vec![start(), message(0), Event::CallArguments { item: ItemKey(0), delta: "x".into() }],
            ),
        ];
        for (what, events) in cases {
            assert_eq!(check(&events).map_err(|v| v.what), Err(what));
        }
    }
}
