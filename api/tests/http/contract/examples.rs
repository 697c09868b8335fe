//! Examples in the API's document are what its schemas say.

use super::{bare, operations};
use crate::world::World;
use serde_json::{Map, Value, json};
use sqlx::PgPool;

/// What stands at a reference; what is none stands for itself.
fn meant<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(target) => document.pointer(target.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The types that a schema names.
fn types(schema: &Value) -> Vec<&str> {
    schema["type"].as_str().into_iter().chain(list(&schema["type"]).filter_map(Value::as_str)).collect()
}

/// Something that is as a schema has it: its own example, or those of all that it requires. None where something has none.
fn example_of(document: &Value, schema: &Value) -> Option<Value> {
    let own = ["example", "default"].iter().find_map(|kind| schema.get(*kind));
    if let Some(own) = own.or_else(|| schema["enum"].get(0)) {
        return Some(own.clone());
    }
    if schema["$ref"].is_string() {
        return example_of(document, meant(document, schema));
    }
    if let Some(kinds) = schema["oneOf"].as_array() {
        return kinds.iter().find_map(|kind| example_of(document, kind));
    }
    match types(schema).as_slice() {
        ["object", ..] => {
            let required = list(&schema["required"]).filter_map(Value::as_str);
            let field = |name: &str| Some((name.to_owned(), example_of(document, &schema["properties"][name])?));
            required.map(field).collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        ["array", ..] => Some(json!([example_of(document, &schema["items"])?])),
        ["boolean", ..] => Some(json!(true)),
        _ => match schema["format"].as_str()? {
            "uuid" => Some(json!("0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11")),
            "date-time" => Some(json!("2026-11-27T09:30:00Z")),
            "date" => Some(json!("2026-11-27")),
            _ => None,
        },
    }
}

/// In what a value is not as a schema has it. Patterns and formats are left to others.
fn misfits(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = vec![];
    if schema["$ref"].is_string() {
        found.extend(misfits(document, meant(document, schema), value, at));
    }
    list(&schema["allOf"]).for_each(|part| found.extend(misfits(document, part, value, at)));
    for kind in ["oneOf", "anyOf"] {
        let fits = |part| misfits(document, part, value, at).is_empty();
        if schema[kind].is_array() && !list(&schema[kind]).any(fits) {
            found.push(format!("{at}: of no kind"));
        }
    }
    let types = types(schema);
    let is_of = |kind: &&str| match *kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    if !types.is_empty() && !types.iter().any(is_of) {
        found.push(format!("{at}: no {}", types.join(" or ")));
    }
    if schema["enum"].as_array().is_some_and(|choices| !choices.contains(value)) {
        found.push(format!("{at}: not one of {}", schema["enum"]));
    }
    let (of, size) = match value {
        Value::Number(number) => ("imum", number.as_f64().unwrap()),
        Value::String(text) => ("Length", text.chars().count() as f64),
        Value::Array(items) => ("Items", items.len() as f64),
        Value::Object(fields) => ("Properties", fields.len() as f64),
        _ => ("", 0.0),
    };
    let (least, most) = (schema[format!("min{of}")].as_f64(), schema[format!("max{of}")].as_f64());
    if least.is_some_and(|least| size < least) || most.is_some_and(|most| size > most) {
        found.push(format!("{at}: {size} of {least:?} to {most:?}"));
    }
    match value {
        Value::Object(fields) => {
            let absent = list(&schema["required"]).filter(|name| !fields.contains_key(name.as_str().unwrap()));
            found.extend(absent.map(|name| format!("{at}: no {name}")));
            for (name, value) in fields {
                let (at, rest) = (format!("{at}/{name}"), &schema["additionalProperties"]);
                match schema["properties"].get(name) {
                    Some(schema) => found.extend(misfits(document, schema, value, &at)),
                    None if *rest == json!(false) => found.push(format!("{at}: unknown")),
                    None => found.extend(misfits(document, rest, value, &at)),
                }
            }
        }
        Value::Array(items) => {
            items.iter().for_each(|item| found.extend(misfits(document, &schema["items"], item, at)));
        }
        _ => {}
    }
    found
}

/// The bodies of requests and answers that are JSON: where each stands, and its description.
fn bodies(document: &Value) -> Vec<(String, &Value)> {
    let mut all = vec![];
    for (name, operation) in operations(document) {
        let asked = &operation["requestBody"]["content"]["application/json"];
        let answers = operation["responses"].as_object().unwrap().iter();
        all.extend(asked.is_object().then(|| (name.clone(), asked)));
        all.extend(answers.filter_map(|(status, answer)| {
            let told = &answer["content"]["application/json"];
            told.is_object().then(|| (format!("{name} {status}"), told))
        }));
    }
    all
}

/// Whoever reads an example can send it, or will see its like.
#[sqlx::test(migrations = "../migrations")]
async fn every_example_in_the_document_fits_its_schema(db: PgPool) {
    let world = World::new(db).await;
    let document = bare(&world, "/openapi.json").await.json();
    let mut wrong = vec![];
    for (at, body) in bodies(&document) {
        let several = body["examples"].as_object().into_iter().flatten().map(|(_, example)| &example["value"]);
        for example in body.get("example").into_iter().chain(several) {
            wrong.extend(misfits(&document, &body["schema"], example, &at));
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let fields = schema["properties"].as_object().into_iter().flatten();
        let fields = fields.map(|(field, schema)| (format!("{name}.{field}"), schema));
        for (at, schema) in fields.chain([(name.clone(), schema)]) {
            if let Some(example) = schema.get("example") {
                wrong.extend(misfits(&document, schema, example, &at));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Of every body there is an example, of the whole or of each field that it cannot be without.
#[sqlx::test(migrations = "../migrations")]
async fn every_body_that_can_be_sent_has_an_example(db: PgPool) {
    let world = World::new(db).await;
    let document = bare(&world, "/openapi.json").await.json();
    let sent: Vec<_> = bodies(&document).into_iter().filter(|(at, _)| at.split(' ').count() == 2).collect();
    assert!(sent.len() > 100, "{}", sent.len());
    let mut wrong = vec![];
    for (at, body) in sent.into_iter().filter(|(_, body)| body.get("example").or(body.get("examples")).is_none()) {
        match example_of(&document, &body["schema"]) {
            Some(example) => wrong.extend(misfits(&document, &body["schema"], &example, &at)),
            None => wrong.push(format!("{at}: no example")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
