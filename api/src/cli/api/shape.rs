//! What the document says a value may be: reading one from the command line, and saying what is wanted.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What a value may be: by one schema, or by each of several that know it.
#[derive(Debug, Clone)]
pub(super) struct Shape<'a> {
    document: &'a Value,
    schemas: Vec<&'a Value>,
}

impl<'a> Shape<'a> {
    /// What `schema` says, a part of `document`.
    pub(super) fn new(document: &'a Value, schema: &'a Value) -> Self {
        Self { document, schemas: vec![schema] }
    }

    /// `text` as such a value: as it is where that may be text, else as JSON.
    ///
    /// # Errors
    /// It is none; told is what would be.
    pub(super) fn read(&self, text: &str) -> Result<Value, String> {
        let types = self.types();
        let is_text = types.is_empty() || types.contains("string");
        let value = if is_text { Some(Value::from(text)) } else { serde_json::from_str(text).ok() };
        value.filter(|value| self.allows(value)).ok_or_else(|| self.kind())
    }

    /// In a word or two: `string (uuid)`, `list of integer`, `one of on, off`.
    pub(super) fn kind(&self) -> String {
        let (choices, types) = (self.choices(), self.types());
        if !choices.is_empty() {
            return format!("one of {}", Vec::from_iter(choices).join(", "));
        }
        if let Some(item) = self.item() {
            return format!("list of {}", item.kind());
        }
        let names = Vec::from_iter(types).join(" or ");
        match self.format() {
            Some(format) => format!("{names} ({format})"),
            None if names.is_empty() => "anything".to_owned(),
            None => names,
        }
    }

    /// What it is for, as the document has it.
    pub(super) fn about(&self) -> &'a str {
        let mut told = self.schemas.iter().copied().chain(self.parts());
        told.find_map(|part| part["description"].as_str()).unwrap_or_default()
    }

    /// What one of a list is; none for what is no list.
    pub(super) fn item(&self) -> Option<Self> {
        let is_list = self.types() == BTreeSet::from(["array"]);
        let schemas: Vec<_> = self.parts().into_iter().filter_map(|part| part.get("items")).collect();
        is_list.then_some(Self { document: self.document, schemas })
    }

    /// The fields of an object, by name.
    pub(super) fn fields(&self) -> BTreeMap<&'a str, Self> {
        let mut fields: BTreeMap<&str, Self> = BTreeMap::new();
        for part in self.parts() {
            for (name, schema) in part["properties"].as_object().into_iter().flatten() {
                let field = fields.entry(name).or_insert(Self { document: self.document, schemas: vec![] });
                field.schemas.push(schema);
            }
        }
        fields
    }

    /// Names of the fields that no such object is without.
    pub(super) fn required(&self) -> BTreeSet<&'a str> {
        self.schemas.iter().copied().flat_map(|schema| required(self.document, schema)).collect()
    }

    fn allows(&self, value: &Value) -> bool {
        let (choices, types) = (self.choices(), self.types());
        let is_uuid = self.format() == Some("uuid");
        let is_good =
            |text: &str| (choices.is_empty() || choices.contains(text)) && (!is_uuid || text.parse::<Uuid>().is_ok());
        let is_of = |kind: &&str| match *kind {
            "string" => value.as_str().is_some_and(is_good),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            _ => value.is_object(),
        };
        types.is_empty() || types.iter().any(is_of)
    }

    /// The types that JSON has, apart from null.
    fn types(&self) -> BTreeSet<&'a str> {
        let told = self.parts().into_iter().flat_map(|part| strings(&part["type"]));
        told.filter(|kind| *kind != "null").collect()
    }

    fn choices(&self) -> BTreeSet<&'a str> {
        self.parts().into_iter().flat_map(|part| strings(&part["enum"])).collect()
    }

    /// How a text is written; how wide a number is means nothing here.
    fn format(&self) -> Option<&'a str> {
        let mut formats = self.parts().into_iter().filter_map(|part| part["format"].as_str());
        formats.find(|format| !format.starts_with("int") && !matches!(*format, "float" | "double"))
    }

    /// Each schema that says something of it, wherever it stands in the document.
    fn parts(&self) -> Vec<&'a Value> {
        let mut found = vec![];
        self.schemas.iter().copied().for_each(|schema| gather(self.document, schema, &mut found));
        found
    }
}

/// The schema that this one refers to.
fn named<'a>(document: &'a Value, schema: &'a Value) -> Option<&'a Value> {
    document.pointer(schema["$ref"].as_str()?.trim_start_matches('#'))
}

fn gather<'a>(document: &'a Value, schema: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(schema);
    if let Some(named) = named(document, schema) {
        return gather(document, named, found);
    }
    for kind in ["allOf", "oneOf", "anyOf"] {
        list(&schema[kind]).for_each(|part| gather(document, part, found));
    }
}

/// What one of several variants requires is required when each of them does.
fn required<'a>(document: &'a Value, schema: &'a Value) -> BTreeSet<&'a str> {
    if let Some(named) = named(document, schema) {
        return required(document, named);
    }
    let mut all: BTreeSet<&str> = strings(&schema["required"]).collect();
    list(&schema["allOf"]).for_each(|part| all.extend(required(document, part)));
    for kind in ["oneOf", "anyOf"] {
        let variants = list(&schema[kind]).map(|part| required(document, part));
        all.extend(variants.reduce(|one, other| &one & &other).unwrap_or_default());
    }
    all
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A text, or each of a list of them.
fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_str().into_iter().chain(list(value).filter_map(Value::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({"schemas": {
            "Turn": {"type": "string", "enum": ["on", "off"], "description": "Whether."},
            "Deed": {"oneOf": [
                {"required": ["deed"], "properties": {"deed": {"type": "string", "enum": ["rest"]}}},
                {"required": ["deed", "why"], "properties": {"deed": {"type": "string", "enum": ["go"]}, "why": {"type": "string"}}}
            ]}
        }})
    }

    #[test]
    fn a_value_is_text_where_it_may_be_and_else_json() {
        let document = document();
        let read = |schema: Value, text: &str| Shape::new(&document, &schema).read(text);
        assert_eq!(read(json!({"type": "string"}), "7"), Ok(json!("7")));
        assert_eq!(read(json!({"type": ["string", "null"]}), "null"), Ok(json!("null")));
        assert_eq!(read(json!({}), "7"), Ok(json!("7")));
        assert_eq!(read(json!({"type": ["integer", "null"], "format": "int32"}), "7"), Ok(json!(7)));
        assert_eq!(read(json!({"type": "integer", "format": "int32"}), "7.5"), Err("integer".to_owned()));
        assert_eq!(read(json!({"type": "boolean"}), "yes"), Err("boolean".to_owned()));
        assert_eq!(read(json!({"type": "string", "format": "uuid"}), "7"), Err("string (uuid)".to_owned()));
        assert_eq!(read(json!({"$ref": "#/schemas/Turn"}), "on"), Ok(json!("on")));
        assert_eq!(read(json!({"$ref": "#/schemas/Turn"}), "of"), Err("one of off, on".to_owned()));
        assert_eq!(read(json!({"type": "object"}), "{\"a\":1}"), Ok(json!({"a": 1})));
        assert_eq!(read(json!({"type": "object"}), "[]"), Err("object".to_owned()));
    }

    #[test]
    fn variants_share_their_fields_and_require_what_all_of_them_do() {
        let (document, schema) = (document(), json!({"$ref": "#/schemas/Deed"}));
        let deed = Shape::new(&document, &schema);
        assert_eq!(Vec::from_iter(deed.fields().into_keys()), ["deed", "why"]);
        assert_eq!(deed.fields()["deed"].kind(), "one of go, rest");
        assert_eq!(deed.required(), BTreeSet::from(["deed"]));
    }

    #[test]
    fn a_list_says_of_what() {
        let (document, schema) = (document(), json!({"type": "array", "items": {"$ref": "#/schemas/Turn"}}));
        let turns = Shape::new(&document, &schema);
        assert_eq!(turns.kind(), "list of one of off, on");
        assert_eq!(turns.item().map(|one| one.about()), Some("Whether."));
        assert!(Shape::new(&document, &document["schemas"]["Turn"]).item().is_none());
    }
}
