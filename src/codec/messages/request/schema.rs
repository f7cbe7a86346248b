//! JSON Schemas of tools: the protocol wants the outermost to be an object, without choices between several. PURE.
//!
//! (`input_schema` of <https://platform.claude.com/docs/en/api/messages/create>, read 2026-11-21.)

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::codec::json::Fields;

/// The schema of a function that declares none.
pub(super) const ANY_OBJECT: &str = r#"{"type":"object","properties":{}}"#;

/// Choices that are refused at the outermost level.
const CHOICES: [&str; 4] = ["oneOf", "anyOf", "allOf", "$ref"];

/// The schema as it came if it will do, else one that will; and whether it says all that the first one said.
pub(super) fn object(declared: Option<&RawValue>) -> Result<(Cow<'_, RawValue>, bool), serde_json::Error> {
    let Some(declared) = declared.filter(|schema| schema.get() != "null") else {
        return Ok((Cow::Owned(RawValue::from_string(ANY_OBJECT.to_owned())?), true));
    };
    let Some(Fields(mut entries)) = Fields::of(declared) else {
        return Ok((Cow::Owned(RawValue::from_string(ANY_OBJECT.to_owned())?), false));
    };
    let is_object = entries.iter().any(|(key, value)| key == "type" && value.get() == r#""object""#);
    let chooses = |key: &str| CHOICES.contains(&key);
    if is_object && !entries.iter().any(|(key, _)| chooses(key)) {
        return Ok((Cow::Borrowed(declared), true));
    }
    let before = entries.len();
    entries.retain(|(key, _)| !chooses(key));
    let mut whole = entries.len() == before;
    // An object that does not say so loses nothing by saying it; a choice of types does.
    whole &= is_object || !entries.iter().any(|(key, _)| key == "type");
    entries.retain(|(key, _)| key != "type");
    let object: &RawValue = serde_json::from_str(r#""object""#)?;
    entries.insert(0, (Cow::Borrowed("type"), object));
    let written = serde_json::to_string(&Fields(entries))?;
    Ok((Cow::Owned(RawValue::from_string(written)?), whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(schema: &str) -> (String, bool) {
        let declared: &RawValue = serde_json::from_str(schema).unwrap();
        let (schema, whole) = object(Some(declared)).unwrap();
        (schema.get().to_owned(), whole)
    }

    #[test]
    fn what_is_an_object_stays_as_it_is_and_the_rest_becomes_one() {
        let fine = r#"{ "properties": {"a": {"anyOf": []}}, "type": "object" }"#;
        assert_eq!(of(fine), (fine.to_owned(), true));
        assert_eq!(of(r#"{"properties":{}}"#), (r#"{"type":"object","properties":{}}"#.to_owned(), true));
        assert_eq!(of("{}"), (r#"{"type":"object"}"#.to_owned(), true));
        assert_eq!(
            of(r#"{"type":["object","null"],"properties":{}}"#),
            (r#"{"type":"object","properties":{}}"#.to_owned(), false)
        );
        assert_eq!(
            of(r#"{"type":"object","anyOf":[{}],"required":[]}"#),
            (r#"{"type":"object","required":[]}"#.to_owned(), false)
        );
        assert_eq!(of("true"), (ANY_OBJECT.to_owned(), false));
        assert_eq!(of("null"), (ANY_OBJECT.to_owned(), true));
        assert_eq!(object(None).unwrap().0.get(), ANY_OBJECT);
    }
}
