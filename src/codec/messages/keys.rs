//! Names of a tool's arguments that the service does not take, and others in their place. PURE.
//!
//! One such name in one tool costs every request of the conversation: `tools.14.custom.input_schema.properties: Property
//! keys should match pattern '^[a-zA-Z0-9_.-]{1,64}$'` (beautyfree/appstore-connect-mcp issue 2, decocms/studio pull
//! request 6874; read 2026-11-21). Only the outermost properties are looked at
//! (aws-solutions-library-samples/accelerated-intelligent-document-processing-on-aws issue 709, read 2026-11-21).
//! [`Names`] remembers the pairs: of each, the first is the wire's name and the second the client's.

use std::{borrow::Cow, collections::BTreeSet};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use crate::{
    codec::{json::Fields, names::Names},
    model::request::{Request, Tool, ToolKind},
};

const NAME_MAX: usize = 64;

/// Tells `names` how the arguments of the request's functions are called on the wire, where it is not as they are.
pub(super) fn spell(request: &Request<'_>, names: &mut Names) {
    for (i, tool) in request.tools.iter().enumerate() {
        let Tool::Callable(callable) = tool else { continue };
        let Some(schema) = callable.parameters.filter(|_| callable.tool.kind != ToolKind::Custom) else { continue };
        let spelled = spelled(schema);
        // The first declaration of a tool stands.
        let same = |other: &Tool<'_>| matches!(other, Tool::Callable(other) if other.tool == callable.tool);
        if !spelled.is_empty() && !request.tools.iter().take(i).any(same) {
            names.spell_arguments(&callable.tool, spelled);
        }
    }
}

/// Names for the properties of a schema that have none the service takes. They depend on the schema alone.
fn spelled(schema: &RawValue) -> Vec<(String, String)> {
    let mut spelled: Vec<(String, String)> = Vec::new();
    let Some(Fields(properties)) = properties(schema) else { return spelled };
    let fits = |name: &str| (1..=NAME_MAX).contains(&name.len()) && name.chars().all(is_permitted);
    let (good, bad): (Vec<_>, Vec<_>) = properties.into_iter().map(|(name, _)| name).partition(|name| fits(name));
    if bad.is_empty() {
        return spelled;
    }
    let mut used: BTreeSet<String> = good.into_iter().map(Cow::into_owned).collect();
    for name in bad {
        if spelled.iter().any(|(_, client)| *client == name) {
            continue;
        }
        let plain: String = name.chars().map(|c| if is_permitted(c) { c } else { '_' }).take(NAME_MAX).collect();
        let plain = match plain.trim_matches('_') {
            "" => "argument",
            plain => plain,
        };
        let (mut wire, mut nth) = (plain.to_owned(), 2);
        while !used.insert(wire.clone()) {
            let suffix = format!("_{nth}");
            wire = format!("{}{suffix}", &plain[..plain.len().min(NAME_MAX - suffix.len())]);
            nth += 1;
        }
        spelled.push((wire, name.into_owned()));
    }
    spelled
}

fn is_permitted(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

fn properties(schema: &RawValue) -> Option<Fields<'_>> {
    Fields::of(Fields::of(schema)?.get("properties")?)
}

/// A schema whose properties are called as on the wire. The model is told what they are called elsewhere.
pub(super) fn schema(schema: &RawValue, spelled: &[(String, String)]) -> Result<Box<RawValue>, serde_json::Error> {
    let Fields(entries) = serde_json::from_str(schema.get())?;
    let entries = entries.into_iter().map(|(key, value)| {
        let new = match &*key {
            "properties" => Some(renamed(value.get(), |name| wire_name(spelled, name), title)?),
            "required" => match serde_json::from_str::<Vec<Cow<'_, str>>>(value.get()) {
                Ok(names) => {
                    let names: Vec<&str> = names.iter().map(|name| wire_name(spelled, name).unwrap_or(name)).collect();
                    Some(RawValue::from_string(serde_json::to_string(&names)?)?)
                }
                Err(_) => None,
            },
            _ => None,
        };
        Ok((key, new.map_or(Cow::Borrowed(value), Cow::Owned)))
    });
    let entries: Result<Vec<_>, serde_json::Error> = entries.collect();
    RawValue::from_string(serde_json::to_string(&Owned(entries?))?)
}

/// A property's schema that names it, unless it has a title.
fn title(name: &str, value: &RawValue) -> Result<Option<Box<RawValue>>, serde_json::Error> {
    let Some(Fields(entries)) = Fields::of(value) else { return Ok(None) };
    if entries.iter().any(|(key, _)| key == "title") {
        return Ok(None);
    }
    let title = RawValue::from_string(serde_json::to_string(name)?)?;
    let mut named = vec![(Cow::Borrowed("title"), Cow::Owned(title))];
    named.extend(entries.into_iter().map(|(key, value)| (key, Cow::Borrowed(value))));
    RawValue::from_string(serde_json::to_string(&Owned(named))?).map(Some)
}

/// Arguments under the names of the wire. `None`: they are no object.
pub(super) fn to_wire(arguments: &str, spelled: &[(String, String)]) -> Option<Box<RawValue>> {
    renamed(arguments, |name| wire_name(spelled, name), |_, _| Ok(None)).ok()
}

/// Arguments under the names of the client. `None`: they are no object.
pub(super) fn to_client(arguments: &str, spelled: &[(String, String)]) -> Option<Box<RawValue>> {
    let client_name = |name: &str| spelled.iter().find(|(wire, _)| wire == name).map(|(_, client)| client.as_str());
    renamed(arguments, client_name, |_, _| Ok(None)).ok()
}

fn wire_name<'s>(spelled: &'s [(String, String)], name: &str) -> Option<&'s str> {
    spelled.iter().find(|(_, client)| client == name).map(|(wire, _)| wire.as_str())
}

/// An object with some entries called otherwise, whose values `value` may change.
fn renamed<'s>(
    object: &str,
    other: impl Fn(&str) -> Option<&'s str>,
    value: impl Fn(&str, &RawValue) -> Result<Option<Box<RawValue>>, serde_json::Error>,
) -> Result<Box<RawValue>, serde_json::Error> {
    let Fields(entries) = serde_json::from_str(object)?;
    let entries = entries.into_iter().map(|(key, old)| match other(&key) {
        Some(new) => Ok((Cow::Borrowed(new), value(&key, old)?.map_or(Cow::Borrowed(old), Cow::Owned))),
        None => Ok((key, Cow::Borrowed(old))),
    });
    let entries: Result<Vec<_>, serde_json::Error> = entries.collect();
    RawValue::from_string(serde_json::to_string(&Owned(entries?))?)
}

/// An object's fields, some of them of our own making.
struct Owned<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl Serialize for Owned<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    fn names(schema: &str) -> Vec<(String, String)> {
        spelled(&raw(schema))
    }

    #[test]
    fn names_are_of_the_services_pattern_and_no_two_are_the_same() {
        let long = "x".repeat(70);
        let schema = format!(
            r#"{{"properties":{{"filter[id]":{{}},"$top":{{}},"filter(id)":{{}},"filter_id_2":{{}},"top":{{}},
            "名":{{}},"":{{}},"a.b-c":{{}},"{long}":{{}},"{long}y":{{}},"$top":{{}}}}}}"#
        );
        let spelled = names(&schema);
        let pairs: Vec<(&str, &str)> = spelled.iter().map(|(wire, client)| (wire.as_str(), client.as_str())).collect();
        let (cut, second) = ("x".repeat(64), format!("{}_2", "x".repeat(62)));
        let longer = format!("{long}y");
        assert_eq!(
            pairs,
            [
                ("filter_id", "filter[id]"),
                ("top_2", "$top"),
                ("filter_id_3", "filter(id)"),
                ("argument", "名"),
                ("argument_2", ""),
                (&cut, &long),
                (&second, &longer),
            ]
        );
        assert_eq!(names(&schema), spelled);
        for fine in [r#"{"properties":{"a":{"properties":{"b[c]":{}}}}}"#, "{}", "true", r#"{"properties":[]}"#] {
            assert_eq!(names(fine), [], "{fine}");
        }
    }

    #[test]
    fn a_schema_is_renamed_with_what_it_requires() {
        let declared = r#"{"type":"object","required":["$top", "a"],"properties":{"a":{"type":"null"},
            "$top":{"type":"integer"},"b c":true,"d e":{"title":"D"}},"x":1}"#;
        let schema = schema(&raw(declared), &names(declared)).unwrap();
        assert_eq!(
            schema.get(),
            r#"{"type":"object","required":["top","a"],"properties":{"a":{"type":"null"},"top":{"title":"$top","type":"integer"},"b_c":true,"d_e":{"title":"D"}},"x":1}"#
        );
    }

    #[test]
    fn arguments_go_there_and_back() {
        let spelled = names(r#"{"properties":{"$top":{},"a":{}}}"#);
        let (client, wire) = (r#"{"a":{"$top":1},"$top":[2]}"#, r#"{"a":{"$top":1},"top":[2]}"#);
        assert_eq!(to_wire(client, &spelled).unwrap().get(), wire);
        assert_eq!(to_client(wire, &spelled).unwrap().get(), client);
        assert!(to_client("[]", &spelled).is_none() && to_client(r#"{"top":"#, &spelled).is_none());
    }
}
