//! From the words of the command line to a request, held against the document before anything is sent.

use super::document::{Body, Operation, Parameter};
use super::shape::Shape;
use crate::cli::{
    client::{Client, path_part},
    failure::CliError,
};
use anyhow::Context as _;
use reqwest::{
    Method, RequestBuilder,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, io::Read as _, path::PathBuf};
use uuid::Uuid;

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// Where a page of a list begins.
const CURSOR: &str = "starting_after";

/// What is asked of the server.
#[derive(Debug)]
pub(super) struct Request {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    content: Content,
    /// It is asked without telling who asks.
    is_open: bool,
}

#[derive(Debug, PartialEq)]
enum Content {
    Nothing,
    Json(Value),
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// A value that was given: `NAME=VALUE`, or `NAME:=JSON`.
struct Given<'a> {
    name: &'a str,
    value: &'a str,
    is_json: bool,
}

impl Request {
    /// The call of `operation` with these values, more `headers`, and this body: JSON, `@FILE`, or `-` for standard input.
    ///
    /// # Errors
    /// [`CliError::Usage`]: what is unknown, wrong, given twice or missing.
    pub(super) fn read(
        operation: &Operation<'_>,
        given: &[String],
        headers: &[String],
        body: Option<&str>,
    ) -> Result<Self, CliError> {
        let method = Method::from_bytes(operation.method.to_uppercase().as_bytes());
        let mut request = Self {
            method: method.context("cannot read the description of the API")?,
            path: operation.path.to_owned(),
            query: vec![],
            headers: HeaderMap::new(),
            content: Content::Nothing,
            is_open: operation.is_open(),
        };
        let (parameters, sent) = (operation.parameters(), operation.body());
        let fields = sent.as_ref().filter(|body| body.is_json()).map(|body| body.shape.fields());
        let (mut told, mut object) = (BTreeSet::new(), Map::new());
        for text in given {
            let one = Given::read(text)?;
            if let Some(parameter) = parameters.iter().find(|parameter| parameter.is_called(one.name)) {
                if !told.insert(parameter.name) {
                    return Err(one.twice());
                }
                request.tell(parameter, one.value)?;
                continue;
            }
            match &fields {
                // An object that says nothing of its fields takes any.
                Some(fields) if fields.is_empty() => one.put_into(&mut object, None)?,
                Some(fields) if fields.contains_key(one.name) => one.put_into(&mut object, fields.get(one.name))?,
                _ => return Err(unknown(operation, one.name)),
            }
        }
        let is_told = |parameter: &Parameter<'_>| {
            let mut names = headers.iter().filter_map(|header| header.split_once('=')).map(|(name, _)| name);
            let is_header = parameter.place == "header";
            told.contains(parameter.name) || (is_header && names.any(|name| parameter.is_called(name)))
        };
        let needed = parameters.iter().filter(|parameter| parameter.required && !is_told(parameter));
        let mut missing: Vec<&str> = needed.map(|parameter| parameter.name).collect();
        request.content = match sent {
            Some(sent) if sent.is_json() => {
                let whole = merged(body, object)?;
                let required = sent.shape.required().into_iter();
                missing.extend(required.filter(|name| whole.is_object() && whole.get(*name).is_none()));
                request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Content::Json(whole)
            }
            Some(sent) => {
                request.headers.insert(CONTENT_TYPE, header_value("content-type", sent.media)?);
                bytes(operation, &sent, body)?
            }
            None if body.is_some() => return Err(usage(format!("--body: {} takes none", operation.id()))),
            None => Content::Nothing,
        };
        if !missing.is_empty() {
            let (id, missing) = (operation.id(), missing.join(", "));
            return Err(usage(format!("{id} needs {missing}: `flatrender api {id} --describe` tells more")));
        }
        if parameters.iter().any(|p| p.name == IDEMPOTENCY_KEY) && !told.contains(IDEMPOTENCY_KEY) {
            request.put_header(IDEMPOTENCY_KEY, &Uuid::now_v7().to_string())?;
        }
        for text in headers {
            let header = Given::read(text)?;
            request.put_header(header.name, header.value)?;
        }
        Ok(request)
    }

    /// Asks for long pages, unless it was said how long they are.
    pub(super) fn in_long_pages(mut self) -> Self {
        if !self.query.iter().any(|(name, _)| name == "limit") {
            self.query.push(("limit".to_owned(), "100".to_owned()));
        }
        self
    }

    /// Goes on with the page after `cursor`.
    pub(super) fn after(&mut self, cursor: String) {
        self.query.retain(|(name, _)| name != CURSOR);
        self.query.push((CURSOR.to_owned(), cursor));
    }

    /// As a call of the server that `client` knows.
    ///
    /// # Errors
    /// The file that is to be sent cannot be read.
    pub(super) async fn call(&self, client: &Client) -> Result<RequestBuilder, CliError> {
        let call = match self.is_open {
            true => client.elsewhere(self.method.clone(), &client.at(&self.path)),
            false => client.call(self.method.clone(), &self.path),
        };
        let call = call.query(&self.query).headers(self.headers.clone());
        Ok(match &self.content {
            Content::Nothing => call,
            Content::Json(value) => call.body(value.to_string()),
            Content::Bytes(bytes) => call.body(bytes.clone()),
            Content::File(path) => {
                let unreadable = |e| CliError::unreadable("--body", path, e);
                let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
                let size = file.metadata().await.map_err(unreadable)?.len();
                let stream = tokio_util::io::ReaderStream::new(file);
                call.header(CONTENT_LENGTH, size).body(reqwest::Body::wrap_stream(stream))
            }
        })
    }

    /// A failure of it. When nobody knows what became of it, it is told how it can be sent again.
    pub(super) fn failed(&self, error: CliError) -> CliError {
        let key = self.headers.get(IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok());
        match (error, key) {
            (CliError::NoServer(line), Some(key)) => {
                CliError::NoServer(format!("{line}; {IDEMPOTENCY_KEY}={key} makes it safe to repeat"))
            }
            (error, _) => error,
        }
    }

    fn tell(&mut self, parameter: &Parameter<'_>, value: &str) -> Result<(), CliError> {
        let name = parameter.name;
        parameter.shape.read(value).map_err(|wanted| wrong(name, value, &wanted))?;
        match parameter.place {
            // These would lead to another address.
            "path" if matches!(value, "" | "." | "..") => return Err(wrong(name, value, "part of an address")),
            "path" => self.path = self.path.replace(&format!("{{{name}}}"), &path_part(value)),
            "header" => self.put_header(name, value)?,
            _ => self.query.push((name.to_owned(), value.to_owned())),
        }
        Ok(())
    }

    fn put_header(&mut self, name: &str, value: &str) -> Result<(), CliError> {
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("header", name, "name of a header"))?;
        self.headers.insert(key, header_value(name, value)?);
        Ok(())
    }
}

impl<'a> Given<'a> {
    fn read(text: &'a str) -> Result<Self, CliError> {
        let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
        let (name, value) = parts.ok_or_else(|| usage(format!("{text:?} is neither NAME=VALUE nor NAME:=JSON")))?;
        let json = name.strip_suffix(':');
        Ok(Self { name: json.unwrap_or(name), value, is_json: json.is_some() })
    }

    /// As a field of an object. A field that is a list gets one more; `:=` gives all of it.
    fn put_into(&self, object: &mut Map<String, Value>, shape: Option<&Shape<'_>>) -> Result<(), CliError> {
        let wanted = |wanted: String| wrong(self.name, self.value, &wanted);
        let value: Value = match shape {
            _ if self.is_json => {
                serde_json::from_str(self.value).map_err(|e| usage(format!("{} is no JSON: {e}", self.name)))?
            }
            None => self.value.into(),
            Some(shape) => match shape.item() {
                None => shape.read(self.value).map_err(wanted)?,
                Some(item) => {
                    let more = item.read(self.value).map_err(wanted)?;
                    match object.remove(self.name) {
                        Some(Value::Array(all)) => all.into_iter().chain([more]).collect(),
                        _ => json!([more]),
                    }
                }
            },
        };
        match object.insert(self.name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(self.twice()),
        }
    }

    fn twice(&self) -> CliError {
        usage(format!("{} is given twice", self.name))
    }
}

/// The JSON of `--body`, with the fields that were given beside it.
fn merged(body: Option<&str>, fields: Map<String, Value>) -> Result<Value, CliError> {
    let mut whole: Value = match body {
        Some(body) => {
            let text = whole_of(body)?;
            serde_json::from_slice(&text).map_err(|e| usage(format!("--body is no JSON: {e}")))?
        }
        None => json!({}),
    };
    match whole.as_object_mut() {
        Some(object) => object.extend(fields),
        None if fields.is_empty() => {}
        None => return Err(usage("--body is no object, so fields cannot be given beside it".to_owned())),
    }
    Ok(whole)
}

fn bytes(operation: &Operation<'_>, sent: &Body<'_>, body: Option<&str>) -> Result<Content, CliError> {
    let none = || {
        let (id, media) = (operation.id(), sent.media);
        usage(format!("{id} needs a body of {media}: --body @FILE, - for standard input, or '' for no bytes"))
    };
    let body = body.ok_or_else(none)?;
    match body.strip_prefix('@') {
        Some(path) => Ok(Content::File(path.into())),
        None => Ok(Content::Bytes(whole_of(body)?)),
    }
}

/// What stands behind `@FILE` or `-`, or else the text itself.
fn whole_of(body: &str) -> Result<Vec<u8>, CliError> {
    if let Some(path) = body.strip_prefix('@') {
        return std::fs::read(path).map_err(|e| CliError::unreadable("--body", path.as_ref(), e));
    }
    if body != "-" {
        return Ok(body.into());
    }
    let mut all = vec![];
    std::io::stdin().read_to_end(&mut all).context("cannot read standard input")?;
    Ok(all)
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue, CliError> {
    HeaderValue::from_str(value).map_err(|_| wrong(name, value, "value of a header"))
}

fn unknown(operation: &Operation<'_>, name: &str) -> CliError {
    let fields = operation.body().map(|body| body.shape.fields()).unwrap_or_default();
    let known: Vec<&str> = operation.parameters().iter().map(|one| one.name).chain(fields.into_keys()).collect();
    let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
    usage(format!("{} takes no {name}; it takes {known}", operation.id()))
}

fn wrong(name: &str, value: &str, wanted: &str) -> CliError {
    usage(format!("{name}: {value:?} is not what is wanted: {wanted}"))
}

fn usage(line: String) -> CliError {
    CliError::Usage(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::api::document::Document;

    fn read(document: &Document, operation: &str, given: &[&str], body: Option<&str>) -> Result<Request, CliError> {
        let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
        Request::read(&document.find(operation)?, &given, &[], body)
    }

    /// Something that may be such a value.
    fn sample(shape: &Shape<'_>) -> String {
        let kind = shape.kind();
        let item = kind.strip_prefix("list of ").unwrap_or(&kind);
        let choice = item.strip_prefix("one of ").and_then(|all| all.split(", ").next());
        choice
            .unwrap_or(match item {
                "string (uuid)" => "0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11",
                "integer" | "number" => "7",
                "boolean" => "true",
                "object" => "{}",
                _ => "words & more",
            })
            .to_owned()
    }

    #[test]
    fn every_operation_can_be_called_with_all_that_it_takes_and_with_no_more_than_it_needs() {
        let document = Document::ours().unwrap();
        for operation in document.operations() {
            let id = operation.id();
            let body = operation.body();
            let raw = body.as_ref().filter(|body| !body.is_json()).map(|_| "bytes");
            let fields =
                body.as_ref().filter(|body| body.is_json()).map(|body| body.shape.fields()).unwrap_or_default();
            let required = body.as_ref().map(|body| body.shape.required()).unwrap_or_default();
            for all in [true, false] {
                let parameters = operation.parameters();
                let told = parameters.iter().filter(|one| all || one.required);
                let sent = fields.iter().filter(|(name, _)| all || required.contains(*name));
                let given = told.map(|one| (one.name, &one.shape)).chain(sent.map(|(name, shape)| (*name, shape)));
                let given: Vec<String> = given.map(|(name, shape)| format!("{name}={}", sample(shape))).collect();
                let request = Request::read(&operation, &given, &[], raw);
                let request = request.unwrap_or_else(|e| panic!("{id} {given:?}: {}", e.line()));
                assert!(!request.path.contains(['{', '}', ' ']), "{id}: {}", request.path);
                for one in parameters.iter().filter(|one| all || one.required) {
                    let is_told = match one.place {
                        "path" => operation.path.contains(&format!("{{{}}}", one.name)),
                        "query" => request.query.iter().any(|(name, _)| name == one.name),
                        place => place == "header" && request.headers.contains_key(one.name),
                    };
                    assert!(is_told, "{id}: {} in {}", one.name, one.place);
                }
                let Content::Json(whole) = &request.content else { continue };
                assert!(fields.keys().all(|name| whole.get(*name).is_some() || !all), "{id}: {whole}");
            }
        }
    }

    /// Else nobody could tell which of them a value is for.
    #[test]
    fn no_field_of_a_body_is_called_as_a_parameter_beside_it() {
        for operation in Document::ours().unwrap().operations() {
            let fields = operation.body().map(|body| body.shape.fields()).unwrap_or_default();
            let parameters = operation.parameters();
            for (index, one) in parameters.iter().enumerate() {
                assert!(!fields.keys().any(|name| one.is_called(name)), "{}: {}", operation.id(), one.name);
                let others = &parameters[index + 1..];
                assert!(!others.iter().any(|other| one.is_called(other.name)), "{}: {}", operation.id(), one.name);
            }
        }
    }

    #[test]
    fn values_go_where_the_document_has_them() {
        let document = Document::ours().unwrap();
        let id = "0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11";
        let payment = format!("id={id}");
        let given = [payment.as_str(), "idempotency-key=k 1", "amount=-5", "reason=too late", "revoke:=false"];
        let request = read(&document, "request_refund", &given, None).unwrap();
        assert_eq!((&request.method, request.path.as_str()), (&Method::POST, &*format!("/v1/payments/{id}/refunds")));
        assert_eq!(request.headers[IDEMPOTENCY_KEY], "k 1");
        assert_eq!(request.content, Content::Json(json!({"amount": -5, "reason": "too late", "revoke": false})));
        let given = ["name=Shop", "scopes=render", "scopes=files", "expires_at:=null"];
        let request = read(&document, "create_api_key", &given, None).unwrap();
        let whole = json!({"name": "Shop", "scopes": ["render", "files"], "expires_at": null});
        assert_eq!(request.content, Content::Json(whole));
        let request = read(&document, "GET /v1/templates/{slug}", &["slug=a/../b?c"], None).unwrap();
        assert_eq!((request.path.as_str(), request.content), ("/v1/templates/a%2F..%2Fb%3Fc", Content::Nothing));
    }

    #[test]
    fn fields_win_over_the_body_that_they_are_given_beside() {
        let document = Document::ours().unwrap();
        let body = Some(r#"{"name": "Old", "scopes": ["files"]}"#);
        let request = read(&document, "create_api_key", &["name=New"], body).unwrap();
        assert_eq!(request.content, Content::Json(json!({"name": "New", "scopes": ["files"]})));
    }

    #[test]
    fn a_key_is_made_for_whatever_takes_one() {
        let document = Document::ours().unwrap();
        let of = |body: &str| {
            let request = read(&document, "create_render", &[], Some(body)).unwrap();
            request.headers[IDEMPOTENCY_KEY].to_str().unwrap().to_owned()
        };
        let (one, other) = (of(r#"{"template": "promo"}"#), of(r#"{"template": "promo"}"#));
        assert!(one.parse::<Uuid>().is_ok() && one != other, "{one} {other}");
    }

    #[test]
    fn what_is_wrong_is_said_in_a_line_before_anything_is_sent() {
        let document = Document::ours().unwrap();
        let id = "id=0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11";
        let cases: [(&str, &[&str], Option<&str>, &str); 14] = [
            ("get_render", &[], None, "get_render needs id: `flatrender api get_render --describe` tells more"),
            ("get_render", &["id=7"], None, "id: \"7\" is not what is wanted: string (uuid)"),
            ("get_render", &[id, id], None, "id is given twice"),
            ("get_render", &[id, "size=7"], None, "get_render takes no size; it takes id, If-None-Match"),
            ("get_render", &["id"], None, "\"id\" is neither NAME=VALUE nor NAME:=JSON"),
            ("get_render", &["=7"], None, "\"=7\" is neither NAME=VALUE nor NAME:=JSON"),
            ("get_render", &[id], Some("{}"), "--body: get_render takes none"),
            ("list_renders", &["limit=many"], None, "limit: \"many\" is not what is wanted: integer"),
            ("get_template", &["slug=.."], None, "slug: \"..\" is not what is wanted: part of an address"),
            ("create_api_key", &["name:=Shop"], None, "name is no JSON: "),
            ("create_api_key", &["name=a", "name=b"], None, "name is given twice"),
            ("create_api_key", &[], Some("{"), "--body is no JSON: "),
            ("create_api_key", &["name=a"], Some("[]"), "--body is no object, so fields cannot be given beside it"),
            ("upload_file", &[], None, "upload_file needs a body of application/octet-stream: --body @FILE"),
        ];
        for (operation, given, body, said) in cases {
            let error = read(&document, operation, given, body).unwrap_err();
            assert!(error.exit_code() == 2 && error.line().starts_with(said), "{operation}: {}", error.line());
        }
    }
}
