//! Headers that many requests and answers have: what they are is said once, and they are named wherever they are.

use serde_json::{Value, json};
use utoipa::openapi::{
    Header, HeaderBuilder, ObjectBuilder, Ref, RefOr, Schema, Type,
    path::{Operation, Parameter, ParameterIn},
    schema::SchemaType,
};

/// What tells of the budgets that a request took from; none of them where it took from none.
const BUDGETS: [&str; 5] =
    ["RateLimit", "RateLimit-Policy", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"];
/// Where nobody says who they are, and an address gets only so many answers.
const BY_ADDRESS: [&str; 4] = ["/v1/auth/forgot-password", "/v1/auth/openid", "/v1/auth/register", "/v1/branding"];
/// Where only guesses are counted so.
const BY_GUESSES: &str = "/share/";
/// The revision that a change is meant for, as [`crate::revision`] reads it.
const REVISION: &str = r#"^(\*|"[0-9]+")$"#;

/// What each of them says.
pub(super) fn all() -> impl Iterator<Item = (String, RefOr<Header>)> {
    let told = [
        ("x-request-id", Type::String, json!("b7c2f0aa-1d3e-4f6b-8a59-0c9e2d4f7a31"), "Name it when asking for help."),
        ("RateLimit", Type::String, json!("\"caller\";r=8;t=1"), "Of each budget: requests left, seconds to full."),
        ("RateLimit-Policy", Type::String, json!("\"caller\";q=9;w=1"), "Of each budget: requests in so many seconds."),
        ("RateLimit-Limit", Type::Number, json!(60), "Requests of the budget of which the least is left."),
        ("RateLimit-Remaining", Type::Integer, json!(59), "Requests that are left of it."),
        ("RateLimit-Reset", Type::Integer, json!(1), "Seconds until it is full."),
        ("Retry-After", Type::Integer, json!(2), "In how many seconds to try again."),
        ("ETag", Type::String, json!("\"e3b0c44298fc1c14\""), "Of this answer: for `If-None-Match`."),
    ];
    told.into_iter().map(|(name, kind, example, about)| (name.to_owned(), RefOr::T(header(kind, example, about))))
}

#[expect(deprecated, reason = "as all derived schemas have it")]
fn header(kind: Type, example: Value, about: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(kind).example(Some(example));
    HeaderBuilder::new().schema(Some(schema)).description(Some(about)).build()
}

/// Names them in the answers of an operation: where budgets are taken from, they tell so; what a client may have already has a tag.
pub(super) fn tell(path: &str, operation: &mut Operation) {
    let is_counted = operation.security.is_none() || BY_ADDRESS.iter().any(|open| path.starts_with(open));
    let answers = &mut operation.responses.responses;
    let is_tagged = answers.contains_key("304");
    for (status, answer) in answers {
        let RefOr::T(answer) = answer else { continue };
        let is_guess = path.starts_with(BY_GUESSES) && matches!(status.as_str(), "404" | "429");
        let mut names = vec!["x-request-id"];
        names.extend(BUDGETS.into_iter().filter(|_| is_counted || is_guess));
        match status.as_str() {
            "429" | "503" | "default" => names.push("Retry-After"),
            "200" | "206" | "304" if is_tagged => names.push("ETag"),
            _ => {}
        }
        for name in names {
            let link = || RefOr::Ref(Ref::new(format!("#/components/headers/{name}")));
            answer.headers.entry(name.to_owned()).or_insert_with(link);
        }
    }
    operation.parameters.iter_mut().flatten().for_each(ask);
}

/// A header of a request is there or not, and never null; one that names a revision looks like one.
fn ask(parameter: &mut RefOr<Parameter>) {
    let RefOr::T(Parameter { name, parameter_in: ParameterIn::Header, schema, .. }) = parameter else { return };
    let Some(RefOr::T(Schema::Object(schema))) = schema else { return };
    if let SchemaType::Array(types) = &schema.schema_type
        && let Some(kind) = types.iter().find(|kind| **kind != Type::Null).cloned()
    {
        schema.schema_type = kind.into();
    }
    if name == "If-Match" {
        schema.pattern = Some(REVISION.to_owned());
    }
}
