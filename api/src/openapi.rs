//! The API's own description, OpenAPI 3.1, made from the handlers.

mod headers;
mod links;

use crate::problem::{Code, ProblemBody, code::FAULTS};
use serde_json::json;
use utoipa::{
    Modify, OpenApi as _, PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, OpenApi, Ref, RefOr, Response, Schema, Type,
        content::ContentBuilder,
        extensions::ExtensionsBuilder,
        path::Operation,
        response::ResponseBuilder,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

const DESCRIPTION: &str = "\
Films from templates. Send a customer's texts, pictures, colours and sound; get a video.\n\n\
1. `GET /v1/templates` tells what there is and what each wants.\n\
2. `POST /v1/files` uploads pictures and sounds.\n\
3. `POST /v1/renders` orders a film; `GET /v1/renders/{id}/events` follows it.\n\
4. `GET /v1/exports/{id}/download` fetches it.\n\n\
What answers with an `ETag` that is its revision can be changed with `If-Match`: if somebody else has changed it \
meanwhile, nothing happens (`revision.stale`).\n\n\
Every error is a problem (RFC 9457) with a stable `code` that programs may decide by. Every answer carries \
`x-request-id`; name it when asking for help.";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "FlatRender API", description = DESCRIPTION, version = env!("CARGO_PKG_VERSION")),
    servers((url = "/", description = "This server")),
    tags(
        (name = "Renders", description = "Films being made."),
        (name = "Exports", description = "Finished films."),
        (name = "Templates", description = "What films are made of."),
        (name = "Files", description = "Pictures and sounds of yours."),
        (name = "Uploads", description = "Files that come in pieces, and go on after a cut."),
        (name = "API keys", description = "What programs of yours sign in with."),
        (name = "Webhooks", description = "Where you hear of what happened."),
        (name = "Notifications", description = "What people are told, and how they want it."),
        (name = "Account", description = "You: signing in, your profile, your sessions and second factors."),
        (name = "Tenant", description = "Your organisation, and what was done in it."),
        (name = "Billing", description = "What is sold, and credits: seconds of rendering."),
        (name = "Rewards", description = "Points, achievements, gifts, and who brought whom."),
        (name = "Nodes", description = "What render nodes call. Not for customers."),
        (name = "Platform", description = "For whoever administers the platform."),
        (name = "Runs", description = "Runs of workflows, for whoever looks after them: of the platform, or of their tenant."),
        (name = "Operation", description = "For whoever runs the server.")
    ),
    components(schemas(ProblemBody)),
    security(("api_key" = []), ("session" = [])),
    modifiers(&Credentials)
)]
struct Base;

/// Raw bytes.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
pub struct Binary(());

/// A text in several languages, as `check_words` takes it.
pub struct Words(());

impl ToSchema for Words {}

impl PartialSchema for Words {
    #[expect(deprecated, reason = "as all derived schemas have it")]
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let language = text().pattern(Some("^[A-Za-z0-9-]{2,35}$"));
        let words = text().max_length(Some(200)).pattern(Some(r"^[^\u0000-\u001f\u007f-\u009f]+$"));
        ObjectBuilder::new()
            .description(Some("In 1 to 10 languages, by BCP 47: 1 to 200 characters each, and no control characters."))
            .min_properties(Some(1))
            .max_properties(Some(10))
            .property_names(Some(language))
            .additional_properties(Some(words))
            .example(Some(json!({"en": "Ten minutes", "fa": "ده دقیقه"})))
            .into()
    }
}

struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut OpenApi) {
        let bearer = |format: &str, description: &str| {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format(format);
            SecurityScheme::Http(scheme.description(Some(description)).build())
        };
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("api_key", bearer("fr_live_…", "API key of a tenant"));
        components.add_security_scheme("session", bearer("fr_at_…", "Access token of a person who is signed in"));
        components.add_security_scheme("node_credential", bearer("fr_node_…", "Credential of a render node"));
    }
}

/// The document without its routes.
pub fn base() -> OpenApi {
    Base::openapi()
}

/// Adds what holds for every operation: the answer when something is wrong, headers, where one goes from what was made, and the list of
/// codes.
pub fn finish(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let methods = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.head, &mut item.patch];
        for operation in methods.into_iter().chain([&mut item.options]).flatten() {
            add_problem(operation);
            headers::tell(path, operation);
        }
    }
    document.components.get_or_insert_default().headers.extend(headers::all());
    links::add(document);
    let problems: Vec<_> = Code::ALL.iter().map(|c| problem(*c)).collect();
    let faults: Vec<_> = FAULTS.iter().map(|(code, help)| json!({ "code": code, "help": help })).collect();
    let codes = ExtensionsBuilder::new().add("x-problems", json!(problems)).add("x-faults", json!(faults)).build();
    document.extensions.get_or_insert_default().merge(codes);
}

fn problem(code: Code) -> serde_json::Value {
    json!({ "code": code.as_str(), "status": code.status().as_u16(), "title": code.title(), "help": code.help() })
}

fn add_problem(operation: &mut Operation) {
    let default = operation.responses.responses.entry("default".to_owned());
    default.or_insert_with(|| RefOr::T(problem_response()));
}

fn problem_response() -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description("Any problem").content("application/problem+json", body).build()
}
