//! JSON Schema as tools and formats declare it → the part of JSON Schema that the service takes. PURE.
//!
//! `parametersJsonSchema` and `responseJsonSchema` take JSON Schema, of which the service documents these keywords: `type`,
//! `format`, `title`, `description`, `enum` (strings and numbers), `items`, `prefixItems`, `minItems`, `maxItems`,
//! `minimum`, `maximum`, `anyOf`, `oneOf` (as `anyOf`), `properties`, `additionalProperties`, `required`, `$ref` and
//! `$defs` (the field description of `responseJsonSchema`, read 2026-11-21 in `google-genai` 3.4.0). Only these are sent:
//! what else a schema says is said with them where that is possible, and left out where not. References are put in
//! place, since gateways and older front ends refuse them. Order is kept and the same schema gives the same bytes:
//! provider caches depend on it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::codec::json::Fields;

/// Schemas within schemas beyond this are cut.
const DEPTH_MAX: usize = 24;

/// A schema with more schemas in it than this, references put in place, is cut.
const NODES_MAX: usize = 4096;

/// A schema larger than this when written is cut, in bytes.
const SCHEMA_BYTES_MAX: usize = 1024 * 1024;

/// Keywords that say nothing about what is valid, and bookkeeping: left out without a word.
const ANNOTATIONS: [&str; 17] = [
    "$schema",
    "$id",
    "id",
    "$anchor",
    "$comment",
    "$defs",
    "definitions",
    "$vocabulary",
    "$dynamicAnchor",
    "default",
    "example",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "nullable",
    "propertyOrdering",
];

/// Formats the service documents.
const FORMATS: [&str; 7] = ["date-time", "date", "time", "int32", "int64", "float", "double"];

/// What became of a schema.
#[derive(Debug)]
pub(super) struct Cleaned {
    /// The schema, in what the service takes.
    pub schema: Box<RawValue>,
    /// It allows more than the original: a rule had no counterpart.
    pub looser: bool,
    /// It was cut: too deep, too large, or it refers to itself or to what is not there.
    pub cut: bool,
}

/// Puts a schema into what the service takes. `object`: it must describe an object, as a function's parameters must.
/// `None` if it is no JSON object.
pub(super) fn clean(schema: &RawValue, object: bool) -> Option<Cleaned> {
    let root = Fields::of(schema)?;
    let mut cleaner =
        Cleaner { root: &root, refs: Vec::new(), nodes: 0, out: String::new(), looser: false, cut: false };
    cleaner.schema(&root, DEPTH_MAX, object);
    let schema = RawValue::from_string(cleaner.out).ok()?;
    Some(Cleaned { schema, looser: cleaner.looser, cut: cleaner.cut })
}

/// Whether a list of schemas is there and not empty.
fn names_some(fields: &Fields<'_>, key: &str) -> bool {
    let list = fields.get(key).and_then(|raw| serde_json::from_str::<Vec<&RawValue>>(raw.get()).ok());
    list.is_some_and(|list| !list.is_empty())
}

fn has_alternatives(fields: &Fields<'_>) -> bool {
    names_some(fields, "anyOf") || names_some(fields, "oneOf")
}

struct Cleaner<'r, 'a> {
    root: &'r Fields<'a>,
    /// References that are being put in place.
    refs: Vec<Cow<'a, str>>,
    nodes: usize,
    out: String,
    looser: bool,
    cut: bool,
}

/// What `type` and its relatives say.
#[derive(Debug, Default)]
struct Types<'a> {
    names: Vec<Cow<'a, str>>,
    nullable: bool,
}

impl<'a> Cleaner<'_, 'a> {
    /// Writes a schema that is any JSON value.
    fn value(&mut self, raw: &'a RawValue, depth: usize) {
        match Fields::of(raw) {
            Some(fields) => self.schema(&fields, depth, false),
            None => {
                // `true` allows anything; `false` nothing, which the service cannot be told.
                self.looser |= raw.get() != "true";
                self.out.push_str("{}");
            }
        }
    }

    fn schema(&mut self, fields: &Fields<'a>, depth: usize, object: bool) {
        self.nodes += 1;
        if depth == 0 || self.nodes > NODES_MAX || self.out.len() > SCHEMA_BYTES_MAX {
            self.cut = true;
            self.out.push_str("{}");
            return;
        }
        if let Some(reference) = fields.get("$ref") {
            self.reference(fields, reference, depth, object);
            return;
        }
        let refs = self.refs.len();
        let merged = self.merged(fields);
        let fields = merged.as_ref().unwrap_or(fields);
        let types = types_of(fields, object);
        let open = self.out.len();
        self.out.push('{');
        if types.names.len() > 1 {
            self.alternatives(fields, &types, depth);
        } else {
            let name = types.names.first().map(Cow::as_ref);
            match (name, types.nullable) {
                (Some(name), false) => self.field("type", &quoted(name)),
                (Some(name), true) => self.field("type", &format!("[{},\"null\"]", quoted(name))),
                (None, true) if fields.get("enum").is_none() && !has_alternatives(fields) => {
                    self.field("type", "\"null\"");
                }
                (None, _) => {}
            }
            for (key, value) in &fields.0 {
                self.keyword(fields, key, value, name, depth);
            }
        }
        self.out.push('}');
        self.refs.truncate(refs);
        // A comma that the first field put before itself.
        if self.out[open..].starts_with("{,") {
            self.out.remove(open + 1);
        }
    }

    /// `"key":json`, after a comma: [`Self::schema`] takes the first one away.
    fn field(&mut self, key: &str, json: &str) {
        self.key(key);
        self.out.push_str(json);
    }

    fn key(&mut self, key: &str) {
        self.out.push(',');
        self.out.push_str(&quoted(key));
        self.out.push(':');
    }

    /// One keyword of a schema whose type, if it has one, is `name`.
    fn keyword(&mut self, fields: &Fields<'a>, key: &str, value: &'a RawValue, name: Option<&str>, depth: usize) {
        match key {
            "type" => {}
            "title" | "description" if value.get().starts_with('"') => self.field(key, value.get()),
            "format" => {
                if text(value).is_some_and(|format| FORMATS.contains(&&*format)) {
                    self.field(key, value.get());
                } else {
                    self.looser = true;
                }
            }
            "minItems" | "maxItems" | "minimum" | "maximum" if is_number(value) => self.field(key, value.get()),
            "exclusiveMinimum" | "exclusiveMaximum" => self.exclusive(fields, key, value, name),
            "enum" => self.choices(value, name),
            "const" if fields.get("enum").is_none() => self.constant(value, name),
            "items" if value.get().starts_with('[') => self.list("prefixItems", value, depth),
            "items" => {
                self.key(key);
                self.value(value, depth.saturating_sub(1));
            }
            "prefixItems" => self.list(key, value, depth),
            "anyOf" => self.list(key, value, depth),
            "oneOf" if !names_some(fields, "anyOf") => self.list("anyOf", value, depth),
            "properties" => self.properties(value, depth),
            "required" => self.required(fields, value),
            "additionalProperties" => match value.get() {
                "true" | "false" => self.field(key, value.get()),
                _ => {
                    self.key(key);
                    self.value(value, depth.saturating_sub(1));
                }
            },
            _ if ANNOTATIONS.contains(&key) || key.starts_with("x-") => {}
            // Rules without a counterpart (`pattern`, `minLength`, `not`, `if` …), rules said twice, and words that are no
            // rules at all.
            _ => self.looser = true,
        }
    }

    /// Several types: one alternative each, with what concerns it.
    fn alternatives(&mut self, fields: &Fields<'a>, types: &Types<'a>, depth: usize) {
        for (key, value) in &fields.0 {
            if matches!(&**key, "title" | "description") {
                self.keyword(fields, key, value, None, depth);
            }
        }
        self.looser |= has_alternatives(fields);
        self.nodes += types.names.len();
        self.key("anyOf");
        self.out.push('[');
        let names = types.names.iter().map(Cow::as_ref).chain(types.nullable.then_some("null"));
        for (i, name) in names.enumerate() {
            if i > 0 {
                self.out.push(',');
            }
            self.out.push_str("{\"type\":");
            self.out.push_str(&quoted(name));
            for (key, value) in &fields.0 {
                if concerns(key, name) {
                    // Each alternative is a schema within this one.
                    self.keyword(fields, key, value, Some(name), depth.saturating_sub(1));
                }
            }
            self.out.push('}');
        }
        self.out.push(']');
    }

    /// A reference within the schema, put in place; what stands beside it adds to it.
    fn reference(&mut self, fields: &Fields<'a>, reference: &'a RawValue, depth: usize, object: bool) {
        let target = text(reference).and_then(|pointer| Some((resolve(self.root, &pointer)?, pointer)));
        let Some((target, pointer)) = target.filter(|(_, pointer)| !self.refs.contains(pointer)) else {
            self.cut = true;
            self.out.push_str(if object { "{\"type\":\"object\"}" } else { "{}" });
            return;
        };
        let mut joined = target;
        for (key, value) in &fields.0 {
            if key == "$ref" {
                continue;
            }
            match joined.0.iter_mut().find(|(name, _)| name == key) {
                Some(field) => field.1 = value,
                None => joined.0.push((key.clone(), value)),
            }
        }
        self.refs.push(pointer);
        self.schema(&joined, depth.saturating_sub(1), object);
        self.refs.pop();
    }

    /// A schema with `allOf` as one schema with what its members say; what is said twice counts once. References of members
    /// stay in `refs` until the schema is written.
    fn merged(&mut self, fields: &Fields<'a>) -> Option<Fields<'a>> {
        let members: Vec<&'a RawValue> = serde_json::from_str(fields.get("allOf")?.get()).unwrap_or_default();
        let mut merged = fields.clone();
        merged.0.retain(|(key, _)| key != "allOf");
        for member in members {
            let Some(mut member) = Fields::of(member) else { continue };
            if let Some(reference) = member.get("$ref") {
                let target = text(reference).and_then(|pointer| Some((resolve(self.root, &pointer)?, pointer)));
                match target.filter(|(_, pointer)| !self.refs.contains(pointer)) {
                    // One step only: a reference within it is left to its own place, or is a circle.
                    Some((target, pointer)) if target.get("$ref").is_none() && target.get("allOf").is_none() => {
                        self.refs.push(pointer);
                        member = target;
                    }
                    Some(_) | None => {
                        self.cut = true;
                        continue;
                    }
                }
            }
            for (key, value) in member.0 {
                match merged.0.iter().find(|(name, _)| *name == key) {
                    Some((_, there)) => self.looser |= there.get() != value.get(),
                    None => merged.0.push((key, value)),
                }
            }
        }
        Some(merged)
    }

    fn list(&mut self, key: &str, value: &'a RawValue, depth: usize) {
        let Ok(members) = serde_json::from_str::<Vec<&'a RawValue>>(value.get()) else {
            self.looser = true;
            return;
        };
        if members.is_empty() {
            return;
        }
        self.key(key);
        self.out.push('[');
        for (i, member) in members.into_iter().enumerate() {
            if i > 0 {
                self.out.push(',');
            }
            self.value(member, depth.saturating_sub(1));
        }
        self.out.push(']');
    }

    fn properties(&mut self, value: &'a RawValue, depth: usize) {
        let Some(properties) = Fields::of(value) else {
            self.looser = true;
            return;
        };
        self.key("properties");
        self.out.push('{');
        let mut first = true;
        for (name, property) in &properties.0 {
            // Forbidden by name: not offered.
            if property.get() == "false" {
                continue;
            }
            if !first {
                self.out.push(',');
            }
            first = false;
            self.out.push_str(&quoted(name));
            self.out.push(':');
            self.value(property, depth.saturating_sub(1));
        }
        self.out.push('}');
    }

    /// Names that are no properties make the service refuse the request.
    fn required(&mut self, fields: &Fields<'a>, value: &'a RawValue) {
        let names: Vec<Cow<'_, str>> = serde_json::from_str(value.get()).unwrap_or_default();
        let properties = fields.get("properties").and_then(Fields::of).unwrap_or_default();
        let declared = |name: &str| properties.get(name).is_some_and(|property| property.get() != "false");
        let known: Vec<String> = names.iter().filter(|name| declared(name)).map(|name| quoted(name)).collect();
        self.looser |= known.len() < names.len();
        if !known.is_empty() {
            self.field("required", &format!("[{}]", known.join(",")));
        }
    }

    /// Values to choose from: strings and numbers. `null` among them is told by the type.
    fn choices(&mut self, value: &'a RawValue, name: Option<&str>) {
        let Ok(values) = serde_json::from_str::<Vec<&'a RawValue>>(value.get()) else {
            self.looser = true;
            return;
        };
        let fits = |value: &&&RawValue| match name {
            Some("string") => value.get().starts_with('"') && value.get() != "\"\"",
            Some("number" | "integer") => is_number(value),
            Some(_) => false,
            None => (value.get().starts_with('"') && value.get() != "\"\"") || is_number(value),
        };
        let known: Vec<&str> = values.iter().filter(fits).map(|value| value.get()).collect();
        let meant = values.iter().filter(|value| value.get() != "null").count();
        if known.is_empty() || (known.len() < meant && name.is_none()) {
            self.looser = true;
            return;
        }
        self.looser |= known.len() < meant && name.is_some_and(|name| !matches!(name, "string" | "number" | "integer"));
        self.looser |= values.iter().any(|value| value.get() == "\"\"" || (value.get() == "null" && name.is_none()));
        self.field("enum", &format!("[{}]", known.join(",")));
    }

    fn constant(&mut self, value: &'a RawValue, name: Option<&str>) {
        let string = value.get().starts_with('"') && value.get() != "\"\"";
        if !(string || is_number(value)) {
            self.looser |= value.get() != "null";
            return;
        }
        if name.is_some_and(|name| (name == "string") != string) {
            self.looser = true;
            return;
        }
        self.field("enum", &format!("[{}]", value.get()));
    }

    /// Of whole numbers, the next one; of others, the bound itself, which allows one value too many.
    fn exclusive(&mut self, fields: &Fields<'a>, key: &str, value: &'a RawValue, name: Option<&str>) {
        let (bound, step) = if key == "exclusiveMinimum" { ("minimum", 1) } else { ("maximum", -1) };
        if fields.get(bound).is_some() || !is_number(value) {
            self.looser = true;
            return;
        }
        match value.get().parse::<i64>() {
            Ok(number) if name == Some("integer") => {
                self.field(bound, &number.saturating_add(step).to_string());
            }
            Ok(_) | Err(_) => {
                self.looser = true;
                self.field(bound, value.get());
            }
        }
    }
}

/// Whether a keyword says something about values of a type.
fn concerns(key: &str, name: &str) -> bool {
    match name {
        "object" => matches!(key, "properties" | "required" | "additionalProperties"),
        "array" => matches!(key, "items" | "prefixItems" | "minItems" | "maxItems"),
        "number" | "integer" => {
            matches!(key, "enum" | "const" | "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum")
        }
        "string" => matches!(key, "enum" | "const" | "format" | "pattern" | "minLength" | "maxLength"),
        _ => false,
    }
}

fn types_of<'a>(fields: &Fields<'a>, object: bool) -> Types<'a> {
    let mut types = Types::default();
    let known = ["object", "array", "string", "number", "integer", "boolean"];
    let mut add = |name: Cow<'a, str>| {
        let name = Cow::Owned::<'a, str>(name.to_ascii_lowercase());
        if name == "null" {
            types.nullable = true;
        } else if known.contains(&&*name) && !types.names.contains(&name) {
            types.names.push(name);
        }
    };
    match fields.get("type").map(|raw| (raw, raw.get().as_bytes().first())) {
        Some((raw, Some(b'"'))) => text(raw).into_iter().for_each(&mut add),
        Some((raw, Some(b'['))) => {
            serde_json::from_str::<Vec<Cow<'a, str>>>(raw.get()).into_iter().flatten().for_each(&mut add);
        }
        Some(_) | None => {}
    }
    let values: Vec<&RawValue> =
        fields.get("enum").and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    types.nullable |= fields.get("nullable").is_some_and(|raw| raw.get() == "true")
        || fields.get("const").is_some_and(|raw| raw.get() == "null")
        || values.iter().any(|value| value.get() == "null");
    if object {
        types = Types { names: vec![Cow::Borrowed("object")], nullable: false };
    } else if types.names.is_empty() && !has_alternatives(fields) {
        let plain = fields.get("const").map(|raw| vec![raw]).unwrap_or(values);
        let all = |of: fn(&RawValue) -> bool| {
            let mut some = plain.iter().filter(|value| value.get() != "null").peekable();
            some.peek().is_some() && some.all(|value| of(value))
        };
        let implied = if fields.get("properties").is_some() {
            Some("object")
        } else if fields.get("items").is_some() || fields.get("prefixItems").is_some() {
            Some("array")
        } else if all(|value| value.get().starts_with('"')) {
            Some("string")
        } else if all(is_number) {
            Some("number")
        } else if all(|value| matches!(value.get(), "true" | "false")) {
            Some("boolean")
        } else {
            None
        };
        types.names.extend(implied.map(Cow::Borrowed));
    }
    types
}

/// The schema a JSON pointer within the root (`#/$defs/a`) leads to.
fn resolve<'a>(root: &Fields<'a>, pointer: &str) -> Option<Fields<'a>> {
    let mut here = root.clone();
    for segment in pointer.strip_prefix('#')?.split('/').skip(1) {
        let name = segment.replace("~1", "/").replace("~0", "~");
        here = Fields::of(here.get(&name)?)?;
    }
    Some(here)
}

fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Plain<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Plain<'_>>(raw.get()).ok().map(|Plain(text)| text)
}

fn is_number(raw: &RawValue) -> bool {
    raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn cleaned(schema: &str) -> Cleaned {
        clean(serde_json::from_str(schema).unwrap(), false).unwrap()
    }

    /// `=`: nothing was lost; `~`: a rule was; `#`: it was cut.
    fn check(schema: &str, lost: char, expected: &str) {
        let got = cleaned(schema);
        let mark = if got.cut {
            '#'
        } else if got.looser {
            '~'
        } else {
            '='
        };
        assert_eq!((mark, got.schema.get()), (lost, expected), "{schema}");
    }

    #[test]
    fn what_the_service_takes_passes_as_it_is() {
        for schema in [
            r#"{"type":"object","properties":{"b":{"type":"string","description":"x"},"a":{"type":"integer","minimum":1}},"required":["b"],"additionalProperties":false}"#,
            r#"{"type":"array","items":{"type":"string","enum":["a","b"]},"minItems":1,"maxItems":3}"#,
            r#"{"type":["string","null"]}"#,
            r#"{"anyOf":[{"type":"string"},{"type":"number"}]}"#,
            r#"{}"#,
        ] {
            check(schema, '=', schema);
        }
    }

    #[test]
    fn what_has_a_counterpart_is_said_with_it() {
        for (schema, expected) in [
            (r#"{"$schema":"x","$id":"y","title":"t","default":1,"examples":[1],"x-y":1}"#, r#"{"title":"t"}"#),
            (r#"{"const":"a"}"#, r#"{"type":"string","enum":["a"]}"#),
            (r#"{"type":"STRING","nullable":true}"#, r#"{"type":["string","null"]}"#),
            (r#"{"enum":["a",null]}"#, r#"{"type":["string","null"],"enum":["a"]}"#),
            (r#"{"oneOf":[{"type":"string"},{"type":"null"}]}"#, r#"{"anyOf":[{"type":"string"},{"type":"null"}]}"#),
            (r#"{"type":"integer","exclusiveMinimum":0}"#, r#"{"type":"integer","minimum":1}"#),
            (r#"{"properties":{"a":true}}"#, r#"{"type":"object","properties":{"a":{}}}"#),
            (
                r#"{"type":["string","array","null"],"items":{"type":"string"},"enum":["a"]}"#,
                r#"{"anyOf":[{"type":"string","enum":["a"]},{"type":"array","items":{"type":"string"}},{"type":"null"}]}"#,
            ),
            (
                r##"{"$defs":{"s":{"type":"string","title":"S"}},"type":"object","properties":{"a":{"$ref":"#/$defs/s","description":"d"}}}"##,
                r#"{"type":"object","properties":{"a":{"type":"string","title":"S","description":"d"}}}"#,
            ),
            (
                r#"{"allOf":[{"type":"object","properties":{"a":{"type":"string"}}},{"required":["a"]}]}"#,
                r#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}"#,
            ),
            (
                r#"{"type":"array","items":[{"type":"string"},{"type":"number"}]}"#,
                r#"{"type":"array","prefixItems":[{"type":"string"},{"type":"number"}]}"#,
            ),
        ] {
            check(schema, '=', expected);
        }
    }

    #[test]
    fn rules_without_a_counterpart_are_left_out_and_told() {
        for (schema, expected) in [
            (r#"{"type":"string","pattern":"^a","minLength":1,"format":"uri"}"#, r#"{"type":"string"}"#),
            (r#"{"type":"number","exclusiveMinimum":0.5,"multipleOf":2}"#, r#"{"type":"number","minimum":0.5}"#),
            (r#"{"type":"boolean","enum":[true]}"#, r#"{"type":"boolean"}"#),
            (r#"{"const":true}"#, r#"{"type":"boolean"}"#),
            (r#"{"type":"string","enum":["","a"]}"#, r#"{"type":"string","enum":["a"]}"#),
            (r#"{"enum":["a",1,{}]}"#, r#"{}"#),
            (
                r#"{"type":"object","properties":{"a":{}},"required":["a","b"]}"#,
                r#"{"type":"object","properties":{"a":{}},"required":["a"]}"#,
            ),
            (
                r#"{"type":"object","patternProperties":{"^x":{}},"propertyNames":{"pattern":"a"}}"#,
                r#"{"type":"object"}"#,
            ),
            (r#"{"type":"array","items":false}"#, r#"{"type":"array","items":{}}"#),
        ] {
            check(schema, '~', expected);
        }
    }

    #[test]
    fn circles_and_what_is_not_there_are_cut() {
        for (schema, expected) in [
            (
                r##"{"type":"object","properties":{"next":{"$ref":"#"}}}"##,
                r#"{"type":"object","properties":{"next":{"type":"object","properties":{"next":{}}}}}"#,
            ),
            (r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##, "{}"),
            (r##"{"properties":{"a":{"$ref":"#/$defs/none"}}}"##, r#"{"type":"object","properties":{"a":{}}}"#),
            (
                r#"{"properties":{"a":{"$ref":"https://example.invalid/s"}}}"#,
                r#"{"type":"object","properties":{"a":{}}}"#,
            ),
        ] {
            check(schema, '#', expected);
        }
    }

    #[test]
    fn deep_and_exploding_schemas_are_bounded() {
        let deep = format!("{}{{}}{}", r#"{"items":"#.repeat(60), "}".repeat(60));
        assert!(cleaned(&deep).cut);
        let mut defs = serde_json::Map::new();
        for i in 0..40 {
            let next = format!("#/$defs/d{}", i + 1);
            defs.insert(format!("d{i}"), json!({"properties": {"a": {"$ref": next}, "b": {"$ref": next}}}));
        }
        let got = cleaned(&json!({"$ref": "#/$defs/d0", "$defs": defs}).to_string());
        assert!(got.cut && got.schema.get().len() < 2 * SCHEMA_BYTES_MAX);
    }

    #[test]
    fn parameters_describe_an_object() {
        let of = |schema| clean(serde_json::from_str(schema).unwrap(), true).map(|c| c.schema.get().to_owned());
        assert_eq!(of("{}").as_deref(), Some(r#"{"type":"object"}"#));
        assert_eq!(of(r#"{"type":["object","null"]}"#).as_deref(), Some(r#"{"type":"object"}"#));
        assert_eq!(of("true"), None);
    }

    fn schema() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!({})),
            Just(json!(true)),
            Just(json!({"type": "string"})),
            Just(json!({"type": ["integer", "null"], "exclusiveMaximum": 3})),
            Just(json!({"$ref": "#/$defs/a"})),
            Just(json!({"$ref": "#"})),
            Just(json!({"enum": [1, "a", null]})),
            Just(json!({"const": {"a": 1}})),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                (proptest::collection::vec(inner.clone(), 0..3), "anyOf|oneOf|allOf|prefixItems")
                    .prop_map(|(members, key)| json!({ key: members })),
                (inner.clone(), inner.clone())
                    .prop_map(|(a, b)| json!({"properties": {"a": a, "b": b}, "required": ["b", "c"]})),
                (inner.clone(), inner.clone())
                    .prop_map(|(a, b)| json!({"type": ["object", "array"], "items": a, "additionalProperties": b})),
                (inner.clone(), inner)
                    .prop_map(|(a, b)| json!({"$defs": {"a": a}, "not": b, "items": {"$ref": "#/$defs/a"}})),
            ]
        })
    }

    fn keys(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    if key == "properties" {
                        value.as_object().into_iter().flatten().for_each(|(_, value)| keys(value, found));
                    } else {
                        found.push(key.clone());
                        keys(value, found);
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    proptest! {
        #[test]
        fn any_schema_becomes_one_of_known_words_and_stays_so(schema in schema()) {
            let text = schema.to_string();
            let Some(first) = clean(serde_json::from_str(&text).unwrap(), false) else {
                prop_assert!(!schema.is_object());
                return Ok(());
            };
            let value: Value = serde_json::from_str(first.schema.get()).unwrap();
            let mut found = Vec::new();
            keys(&value, &mut found);
            let known = [
                "type", "format", "title", "description", "enum", "items", "prefixItems", "minItems", "maxItems",
                "minimum", "maximum", "anyOf", "required", "additionalProperties",
            ];
            for key in found {
                prop_assert!(known.contains(&&*key), "{key} in {value}");
            }
            let again = clean(&first.schema, false).unwrap();
            prop_assert_eq!(again.schema.get(), first.schema.get());
            prop_assert!(!again.cut && !again.looser, "{}", again.schema.get());
        }
    }
}
