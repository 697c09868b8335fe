//! `flatrender api`: every operation of the API, by the name that its description gives it.

mod answer;
mod document;
mod request;
mod shape;

use super::{failure::CliError, render::check_out, server::ServerArgs};
use answer::To;
use clap::Args;
use document::{Document, Operation};
use request::Request;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Calls any operation of the API; without one, lists them all.
///
/// Parameters, and fields of the body, are NAME=VALUE, in any order: `flatrender api get_render id=…`. NAME:=JSON gives a value as JSON,
/// such as `name:=null`; a field that is a list is given once for each of its items. Secrets belong into --body @FILE or -, where nobody
/// else on this machine sees them.
#[derive(Debug, Clone, Args)]
pub struct ApiArgs {
    /// The operation, such as list_renders, or 'GET /v1/renders'.
    operation: Option<String>,
    /// What it is told.
    #[arg(value_name = "NAME=VALUE")]
    given: Vec<String>,
    /// Lists only operations with this word.
    #[arg(long, value_name = "WORD", conflicts_with = "operation")]
    find: Option<String>,
    /// Tells what the operation takes and answers, and calls nothing.
    #[arg(long, requires = "operation")]
    describe: bool,
    /// The body: JSON, @FILE, or - for standard input. Fields that are given as NAME=VALUE win.
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    body: Option<String>,
    /// One more header, such as Accept=text/csv. May be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// Follows a list to its end.
    #[arg(long)]
    all: bool,
    /// Where to put the answer.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON as the server says it, events as a line each, and the list of operations as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
///
/// # Errors
/// See [`CliError`].
pub async fn run(args: ApiArgs) -> Result<(), CliError> {
    let document = Document::ours()?;
    let Some(name) = &args.operation else {
        list(&document, &args.find.unwrap_or_default(), args.json);
        return Ok(());
    };
    let operation = document.find(name)?;
    if args.describe {
        match args.json {
            true => println!("{}", described(&operation)),
            false => print!("{}", description(&operation)),
        }
        return Ok(());
    }
    if args.all && !operation.is_paged() {
        return Err(CliError::Usage(format!("--all: {} is no list that comes in pages", operation.id())));
    }
    if let Some(out) = &args.out {
        check_out(out)?;
    }
    let request = Request::read(&operation, &args.given, &args.headers, args.body.as_deref())?;
    let mut server = args.server;
    if operation.is_open() {
        // Whoever signs in has no key yet.
        server.api_key = Some(String::new());
    }
    let client = server.connect().await?;
    let to = To { out: args.out.as_deref(), json: args.json };
    if args.all {
        return to.pass_all(&client, request.in_long_pages()).await.map_err(titled);
    }
    let answer = client.send(request.call(&client).await?).await;
    let answer = answer.map_err(|e| titled(request.failed(e)))?;
    to.pass(&client, &operation, answer).await
}

/// Whether there is such an operation, and it takes what it is given: nothing is asked of a server.
#[cfg(test)]
pub(super) fn understands(args: &ApiArgs) -> Result<(), CliError> {
    let document = Document::ours()?;
    let operation = document.find(args.operation.as_deref().unwrap_or_default())?;
    Request::read(&operation, &args.given, &args.headers, args.body.as_deref()).map(drop)
}

/// A refusal, beginning with what kind it is.
fn titled(error: CliError) -> CliError {
    match error {
        CliError::Refused { about, mut problem } if !problem.detail.is_empty() => {
            problem.detail = format!("{}: {}", problem.title.trim_end_matches('.'), problem.detail);
            CliError::Refused { about, problem }
        }
        other => other,
    }
}

/// Prints the operations that have `word` in them, by what they are about.
fn list(document: &Document, word: &str, as_json: bool) {
    let word = word.to_lowercase();
    let has_word = |one: &Operation<'_>| {
        let all = [one.id(), one.tag(), one.summary(), one.path];
        all.iter().any(|text| text.to_lowercase().contains(&word))
    };
    let found: Vec<Operation<'_>> = document.operations().into_iter().filter(has_word).collect();
    if as_json {
        let data: Vec<Value> = found.iter().map(brief).collect();
        println!("{}", json!({ "object": "list", "data": data }));
        return;
    }
    for (tag, about) in document.tags() {
        let of_it: Vec<_> = found.iter().filter(|one| one.tag() == tag).collect();
        if !of_it.is_empty() {
            println!("{tag}: {about}");
            of_it.iter().for_each(|one| println!("  {:<33} {}", one.id(), one.summary()));
            println!();
        }
    }
}

fn brief(operation: &Operation<'_>) -> Value {
    json!({ "operation": operation.id(), "method": operation.method.to_uppercase(), "path": operation.path,
            "tag": operation.tag(), "summary": operation.summary() })
}

/// What an operation takes and answers, for people.
fn description(operation: &Operation<'_>) -> String {
    let mut text = format!("{}: {}\n{}\n", operation.id(), operation.address(), operation.summary());
    if !operation.description().is_empty() {
        text.push_str(&format!("{}\n", operation.description()));
    }
    let told = fields(operation);
    for (place, title) in [("path", "Address"), ("query", "Query"), ("header", "Headers"), ("body", "Body")] {
        let of_it: Vec<_> = told.iter().filter(|field| field.place == place).collect();
        if !of_it.is_empty() {
            text.push_str(&format!("\n{title}\n"));
        }
        for field in of_it {
            let needed = if field.required { "required" } else { "optional" };
            text.push_str(&format!("  {:<18} {needed}, {}. {}\n", field.name, field.kind, field.about));
        }
    }
    if let Some(body) = operation.body().filter(|body| !body.is_json()) {
        text.push_str(&format!("\nBody\n  --body @FILE, as {}\n", body.media));
    }
    text.push_str("\nAnswers\n");
    for (status, about, media) in operation.answers() {
        text.push_str(format!("  {status:<8} {about}  {}", media.join(", ")).trim_end());
        text.push('\n');
    }
    text
}

/// The same for programs.
fn described(operation: &Operation<'_>) -> Value {
    let mut all = brief(operation);
    let told = fields(operation).into_iter().map(|field| {
        json!({ "name": field.name, "in": field.place, "required": field.required, "type": field.kind,
                "description": field.about })
    });
    all["description"] = operation.description().into();
    all["takes"] = told.collect();
    all["body"] = operation.body().map(|body| body.media).into();
    all
}

/// Something that can be given as NAME=VALUE.
struct Field<'a> {
    name: &'a str,
    /// `path`, `query`, `header` or `body`.
    place: &'a str,
    required: bool,
    kind: String,
    about: String,
}

fn fields<'a>(operation: &Operation<'a>) -> Vec<Field<'a>> {
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let parameters = operation.parameters().into_iter().map(|one| Field {
        name: one.name,
        place: one.place,
        required: one.required,
        kind: one.shape.kind(),
        about: line(one.about),
    });
    let mut all: Vec<Field<'a>> = parameters.collect();
    if let Some(body) = operation.body() {
        let required = body.shape.required();
        all.extend(body.shape.fields().into_iter().map(|(name, shape)| Field {
            name,
            place: "body",
            required: required.contains(name),
            kind: shape.kind(),
            about: line(shape.about()),
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operation_takes_is_told() {
        let document = Document::ours().unwrap();
        let text = description(&document.find("create_api_key").unwrap());
        for line in [
            "create_api_key: POST /v1/api-keys\n",
            "  name               required, string. 1 to 200 characters.\n",
            "  mode               optional, one of live, test. What it is for; `live` when absent.\n",
            "  scopes             optional, list of string. What it may do; ",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        let text = description(&document.find("upload_file").unwrap());
        assert!(text.contains("  --body @FILE, as application/octet-stream\n"), "{text}");
        let told = described(&document.find("get_render").unwrap());
        assert_eq!(
            (&told["method"], &told["takes"][0]["name"], &told["body"]),
            (&"GET".into(), &"id".into(), &Value::Null)
        );
    }

    #[test]
    fn every_operation_can_be_described() {
        for operation in Document::ours().unwrap().operations() {
            assert!(description(&operation).starts_with(operation.id()));
            assert_eq!(described(&operation)["operation"], operation.id());
        }
    }
}
