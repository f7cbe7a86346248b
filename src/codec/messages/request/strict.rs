//! Which schemas the service can hold a model to, and how many in one request; all others it refuses. PURE.
//!
//! (<https://platform.claude.com/docs/en/build-with-claude/structured-outputs>, "JSON Schema limitations" and "Schema
//! complexity limits", read 2026-11-21: "For 'integer' type, properties maximum, minimum are not supported".) A list of
//! what is supported: a keyword that does not stand here is taken for one that is refused.

use std::collections::BTreeSet;

use serde_json::{Map, Value, value::RawValue};

const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"];
const TYPES: [&str; 7] = ["object", "array", "string", "integer", "number", "boolean", "null"];
/// One of these says what a value is.
const KINDS: [&str; 6] = ["type", "anyOf", "allOf", "$ref", "enum", "const"];
/// Definitions within definitions that are followed.
const DEPTH_MAX: usize = 32;

/// What is left of a request's limits: they are of all its schemas together.
#[derive(Debug)]
pub(super) struct Room {
    tools: usize,
    /// Properties that are not required.
    optional: usize,
    /// Values of several types.
    unions: usize,
}

impl Room {
    /// That of a request without schemas.
    pub(super) fn new() -> Self {
        Self { tools: 20, optional: 24, unions: 16 }
    }

    /// Whether an answer can be held to this schema, which then takes its room.
    pub(super) fn holds(&mut self, schema: &RawValue) -> bool {
        let Ok(root) = serde_json::from_str::<Value>(schema.get()) else { return false };
        let mut walk = Walk { root: &root, under_way: Vec::new(), done: BTreeSet::new(), optional: 0, unions: 0 };
        if !walk.is_supported(&root) || walk.optional > self.optional || walk.unions > self.unions {
            return false;
        }
        self.optional -= walk.optional;
        self.unions -= walk.unions;
        true
    }

    /// The same for a tool's arguments.
    pub(super) fn holds_tool(&mut self, schema: &RawValue) -> bool {
        let holds = self.tools > 0 && self.holds(schema);
        self.tools -= usize::from(holds);
        holds
    }
}

struct Walk<'s> {
    root: &'s Value,
    /// Definitions that are looked at, each within the one before.
    under_way: Vec<&'s str>,
    done: BTreeSet<&'s str>,
    optional: usize,
    unions: usize,
}

impl<'s> Walk<'s> {
    fn is_supported(&mut self, schema: &'s Value) -> bool {
        let Value::Object(members) = schema else { return false };
        let has_type = |wanted: &str| match members.get("type") {
            Some(Value::Array(types)) => types.iter().any(|one| one == wanted),
            Some(one) => one == wanted,
            None => false,
        };
        let is_object = has_type("object") || members.contains_key("properties");
        let closed = !is_object || members.contains_key("additionalProperties");
        let has_items = !has_type("array") || members.contains_key("items");
        closed
            && has_items
            && KINDS.iter().any(|kind| members.contains_key(*kind))
            && members.iter().all(|(key, value)| self.takes(key, value, members))
    }

    fn takes(&mut self, key: &str, value: &'s Value, beside: &'s Map<String, Value>) -> bool {
        let is_scalar = |value: &Value| !value.is_object() && !value.is_array();
        match key {
            "$schema" | "title" | "description" | "default" => true,
            "type" => {
                let types = value.as_array();
                self.unions += usize::from(types.is_some());
                types.map_or_else(|| is_type(value), |types| types.iter().all(is_type))
            }
            "properties" => {
                let Value::Object(properties) = value else { return false };
                let required = beside.get("required").and_then(Value::as_array);
                let is_required = |name: &String| required.is_some_and(|all| all.iter().any(|one| one == name));
                self.optional += properties.keys().filter(|name| !is_required(name)).count();
                properties.values().all(|property| self.is_supported(property))
            }
            "required" => value.as_array().is_some_and(|names| names.iter().all(Value::is_string)),
            "additionalProperties" => *value == Value::Bool(false),
            "items" => self.is_supported(value),
            "minItems" => matches!(value.as_u64(), Some(0 | 1)),
            "enum" => value.as_array().is_some_and(|values| values.iter().all(is_scalar)),
            "const" => is_scalar(value),
            "anyOf" => {
                self.unions += 1;
                value.as_array().is_some_and(|all| all.iter().all(|one| self.is_supported(one)))
            }
            "allOf" => value
                .as_array()
                .is_some_and(|all| all.iter().all(|one| one.get("$ref").is_none() && self.is_supported(one))),
            "$ref" => value.as_str().is_some_and(|reference| self.follows(reference)),
            // Looked at where they are referred to, and here, should nobody do so.
            "$defs" | "definitions" => {
                let Value::Object(definitions) = value else { return false };
                let at_root = self.root.get(key).is_some_and(|of_root| std::ptr::eq(of_root, value));
                at_root && definitions.keys().all(|name| self.follows_to(key, name))
            }
            "format" => value.as_str().is_some_and(|format| FORMATS.contains(&format)),
            "pattern" => value.as_str().is_some_and(is_plain),
            _ => false,
        }
    }

    fn follows(&mut self, reference: &'s str) -> bool {
        match reference.strip_prefix("#/").and_then(|path| path.split_once('/')) {
            Some((key @ ("$defs" | "definitions"), name)) => self.follows_to(key, name),
            // Of another document, or the schema itself within itself.
            Some(_) | None => false,
        }
    }

    fn follows_to(&mut self, key: &str, name: &str) -> bool {
        let Some((name, definition)) =
            self.root.get(key).and_then(Value::as_object).and_then(|all| all.get_key_value(name))
        else {
            return false;
        };
        if self.done.contains(name.as_str()) {
            return true;
        }
        // What leads back to itself has no end.
        if self.under_way.contains(&name.as_str()) || self.under_way.len() == DEPTH_MAX {
            return false;
        }
        self.under_way.push(name);
        let is_supported = self.is_supported(definition);
        self.under_way.pop();
        self.done.insert(name);
        is_supported
    }
}

fn is_type(name: &Value) -> bool {
    name.as_str().is_some_and(|name| TYPES.contains(&name))
}

/// Whether an expression looks neither around nor back.
fn is_plain(pattern: &str) -> bool {
    let mut escaped = false;
    let escapes = pattern.chars().any(|c| {
        let odd = escaped && matches!(c, 'b' | 'B' | 'k' | '1'..='9');
        escaped = c == '\\' && !escaped;
        odd
    });
    !escapes && pattern.match_indices("(?").all(|(at, _)| pattern[at..].starts_with("(?:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(room: &mut Room, schema: &str) -> bool {
        room.holds(&RawValue::from_string(schema.to_owned()).unwrap())
    }

    /// An object with this one property.
    fn with(property: &str) -> String {
        format!(r#"{{"type":"object","properties":{{"a":{property}}},"required":["a"],"additionalProperties":false}}"#)
    }

    #[test]
    fn schemas_that_are_refused_are_told_from_those_that_are_not() {
        for fine in [
            r#"{"type":"string","description":"d","enum":["x",null,1]}"#,
            r#"{"type":"string","format":"date-time"}"#,
            r#"{"type":"string","pattern":"^(?:a|\\\\b)[0-9]{4}$"}"#,
            r#"{"type":["integer","null"],"default":3}"#,
            r#"{"type":"array","items":{"type":"number"},"minItems":1}"#,
            r#"{"anyOf":[{"type":"null"},{"const":"x"}]}"#,
            r#"{"type":"object","properties":{},"additionalProperties":false}"#,
        ] {
            assert!(holds(&mut Room::new(), &with(fine)), "{fine}");
        }
        for refused in [
            r#"{"type":"integer","minimum":0}"#,
            r#"{"type":"integer","maximum":10}"#,
            r#"{"type":"number","multipleOf":2}"#,
            r#"{"type":"number","exclusiveMinimum":2}"#,
            r#"{"type":"string","maxLength":36}"#,
            r#"{"type":"string","minLength":1}"#,
            r#"{"type":"string","format":"regex"}"#,
            r#"{"type":"string","pattern":"(?=a)"}"#,
            r#"{"type":"string","pattern":"\\bword"}"#,
            r#"{"type":"array","items":{"type":"string"},"maxItems":3}"#,
            r#"{"type":"array","items":{"type":"string"},"minItems":2}"#,
            r#"{"type":"array","items":{"type":"string"},"uniqueItems":true}"#,
            r#"{"type":"array"}"#,
            r#"{"type":"object","properties":{}}"#,
            r#"{"type":"object","additionalProperties":{"type":"string"}}"#,
            r#"{"oneOf":[{"type":"string"}]}"#,
            r##"{"allOf":[{"$ref":"#/$defs/x"}]}"##,
            r##"{"$ref":"#"}"##,
            r##"{"$ref":"https://example.invalid/x"}"##,
            r#"{"enum":[{"a":1}]}"#,
            r#"{"type":"date"}"#,
            "{}",
            "true",
        ] {
            assert!(!holds(&mut Room::new(), &with(refused)), "{refused}");
        }
    }

    #[test]
    fn definitions_are_followed_and_may_not_lead_back() {
        let of = |definitions: &str| {
            let schema = with(r##"{"$ref":"#/$defs/a"}"##);
            let schema = schema.replacen('{', &format!(r#"{{"$defs":{definitions},"#), 1);
            holds(&mut Room::new(), &schema)
        };
        assert!(of(r##"{"a":{"anyOf":[{"$ref":"#/$defs/b"},{"$ref":"#/$defs/b"}]},"b":{"type":"string"}}"##));
        assert!(!of(r##"{"a":{"anyOf":[{"type":"null"},{"$ref":"#/$defs/b"}]},"b":{"$ref":"#/$defs/a"}}"##));
        assert!(!of(r#"{"a":{"type":"string"},"b":{"type":"string","minLength":1}}"#));
        assert!(!of(r#"{"b":{"type":"string"}}"#));
    }

    #[test]
    fn the_room_is_of_all_schemas_together() {
        let one = r#"{"type":"object","properties":{"a":{"type":"string"},"b":{"type":["string","null"]}},"required":["b"],"additionalProperties":false}"#;
        let mut room = Room::new();
        assert_eq!((0..30).filter(|_| holds(&mut room, one)).count(), 16);
        let tool = RawValue::from_string(with(r#"{"type":"string"}"#)).unwrap();
        let mut room = Room::new();
        assert_eq!((0..30).filter(|_| room.holds_tool(&tool)).count(), 20);
        let free = one.replace(r#"["string","null"]"#, r#""string""#);
        assert_eq!((0..30).filter(|_| holds(&mut room, &free)).count(), 24);
    }
}
