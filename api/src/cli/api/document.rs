//! The description of the API, as the command line reads it: what `/openapi.json` of this version serves.

use super::shape::Shape;
use crate::{cli::failure::CliError, router};
use anyhow::Context as _;
use serde_json::{Value, json};

/// All of it.
#[derive(Debug)]
pub(super) struct Document(Value);

/// Something that the API does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation<'a> {
    document: &'a Value,
    /// In small letters.
    pub(super) method: &'a str,
    /// With its parameters in braces.
    pub(super) path: &'a str,
    about: &'a Value,
}

/// What an operation is told beside its body.
#[derive(Debug, Clone)]
pub(super) struct Parameter<'a> {
    pub(super) name: &'a str,
    /// `path`, `query` or `header`.
    pub(super) place: &'a str,
    pub(super) required: bool,
    pub(super) about: &'a str,
    pub(super) shape: Shape<'a>,
}

/// What an operation is sent.
#[derive(Debug, Clone)]
pub(super) struct Body<'a> {
    /// As what, such as `application/json`.
    pub(super) media: &'a str,
    pub(super) shape: Shape<'a>,
}

impl Document {
    /// That of this program.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub(super) fn ours() -> Result<Self, CliError> {
        Ok(Self(serde_json::to_value(router::document()).context("cannot read the description of the API")?))
    }

    /// What operations are grouped by, and what each group is about.
    pub(super) fn tags(&self) -> impl Iterator<Item = (&str, &str)> {
        let tags = self.0["tags"].as_array().into_iter().flatten();
        tags.map(|tag| (text(&tag["name"]), text(&tag["description"])))
    }

    /// Every operation, by address.
    pub(super) fn operations(&self) -> Vec<Operation<'_>> {
        let mut all = vec![];
        for (path, item) in self.0["paths"].as_object().into_iter().flatten() {
            for (method, about) in item.as_object().into_iter().flatten() {
                all.push(Operation { document: &self.0, method, path, about });
            }
        }
        all
    }

    /// The operation of this name, such as `list_renders`, or at this address, such as `GET /v1/renders`.
    ///
    /// # Errors
    /// [`CliError::Usage`], with names that are like it.
    pub(super) fn find(&self, asked: &str) -> Result<Operation<'_>, CliError> {
        let all = self.operations();
        let found = all.iter().find(|operation| operation.id() == asked || operation.address() == asked);
        found.copied().ok_or_else(|| {
            let near = like(&all, asked);
            let perhaps = if near.is_empty() { near } else { format!("; perhaps {near}") };
            CliError::Usage(format!("there is no operation {asked:?}{perhaps}: `flatrender api` lists all"))
        })
    }
}

/// The names that have most words in common with what was asked for.
fn like(all: &[Operation<'_>], asked: &str) -> String {
    let asked = asked.to_lowercase();
    // As much of a word as is the same in its other forms, and in most mistakes.
    let words: Vec<&str> = asked.split(['_', '-', '/', ' ']).map(|word| word.get(..4).unwrap_or(word)).collect();
    let common = |name: &str| words.iter().filter(|word| word.len() > 2 && name.contains(**word)).count();
    let mut near: Vec<(usize, &str)> = all.iter().map(|one| (common(one.id()), one.id())).collect();
    let most = near.iter().map(|(common, _)| *common).max().unwrap_or_default();
    near.retain(|(common, _)| *common > 0 && *common == most);
    near.sort_by_key(|(_, name)| name.len());
    near.iter().take(3).map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

impl<'a> Operation<'a> {
    /// Its name, which nothing else has.
    pub(super) fn id(&self) -> &'a str {
        text(&self.about["operationId"])
    }

    /// Such as `GET /v1/renders`.
    pub(super) fn address(&self) -> String {
        format!("{} {}", self.method.to_uppercase(), self.path)
    }

    /// The group that it is in.
    pub(super) fn tag(&self) -> &'a str {
        text(&self.about["tags"][0])
    }

    /// What it does, in a few words.
    pub(super) fn summary(&self) -> &'a str {
        text(&self.about["summary"])
    }

    /// What it does.
    pub(super) fn description(&self) -> &'a str {
        text(&self.about["description"])
    }

    /// Whether it asks nobody who they are.
    pub(super) fn is_open(&self) -> bool {
        self.about["security"] == json!([{}])
    }

    /// Whether it is a list that comes in pages.
    pub(super) fn is_paged(&self) -> bool {
        self.parameters().iter().any(|parameter| parameter.name == "starting_after")
    }

    /// What it is told beside its body.
    pub(super) fn parameters(&self) -> Vec<Parameter<'a>> {
        let all = self.about["parameters"].as_array().into_iter().flatten();
        all.map(|one| Parameter {
            name: text(&one["name"]),
            place: text(&one["in"]),
            required: one["required"] == true,
            about: text(&one["description"]),
            shape: Shape::new(self.document, &one["schema"]),
        })
        .collect()
    }

    /// What it is sent; none when that is nothing.
    pub(super) fn body(&self) -> Option<Body<'a>> {
        let (media, content) = self.about["requestBody"]["content"].as_object()?.iter().next()?;
        Some(Body { media, shape: Shape::new(self.document, &content["schema"]) })
    }

    /// Its answers: status, what that means, and what comes with it.
    pub(super) fn answers(&self) -> impl Iterator<Item = (&'a str, &'a str, Vec<&'a str>)> {
        let answers = self.about["responses"].as_object().into_iter().flatten();
        answers.map(|(status, answer)| (status.as_str(), text(&answer["description"]), names(&answer["content"])))
    }

    /// Headers of the answer with this status that other operations' answers do not have, too.
    pub(super) fn answer_headers(&self, status: u16) -> Vec<&'a str> {
        let all = self.about["responses"][status.to_string()]["headers"].as_object().into_iter().flatten();
        all.filter(|(_, header)| header.get("$ref").is_none()).map(|(name, _)| name.as_str()).collect()
    }
}

impl Parameter<'_> {
    /// Whether that is what it is called: names of headers are the same in small letters.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name || (self.place == "header" && self.name.eq_ignore_ascii_case(name))
    }
}

impl Body<'_> {
    /// Whether it has fields.
    pub(super) fn is_json(&self) -> bool {
        self.media == "application/json"
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn names(map: &Value) -> Vec<&str> {
    map.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_operation_is_found_by_its_name_and_by_its_address() {
        let document = Document::ours().unwrap();
        let (all, tags) = (document.operations(), document.tags().map(|(name, _)| name).collect::<BTreeSet<_>>());
        assert!(all.len() > 250, "{} operations", all.len());
        for operation in &all {
            for asked in [operation.id().to_owned(), operation.address()] {
                assert_eq!(document.find(&asked).unwrap().address(), operation.address());
            }
            assert!(tags.contains(operation.tag()), "{} is listed in no group", operation.id());
        }
    }

    #[test]
    fn a_name_that_is_none_leads_to_those_like_it() {
        let line = Document::ours().unwrap().find("list_member").unwrap_err().line();
        assert_eq!(line, "there is no operation \"list_member\"; perhaps list_members: `flatrender api` lists all");
        let line = Document::ours().unwrap().find("zzz").unwrap_err().line();
        assert_eq!(line, "there is no operation \"zzz\": `flatrender api` lists all");
    }
}
