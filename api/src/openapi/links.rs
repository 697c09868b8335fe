//! Where one goes from what was made: links of the answers to `POST` to what can be asked of its `id`. Programs that read the document find
//! their way by them, and a fuzzer asks for what is there instead of what is not.

use std::collections::BTreeMap;
use utoipa::openapi::{
    OpenApi, RefOr, Response,
    link::{Link, LinkBuilder},
    path::PathItem,
    schema::Schema,
};

/// What the document calls schemas.
type Schemas = BTreeMap<String, RefOr<Schema>>;

/// Adds to each answer that tells the `id` of something links to the operations on it. Those are the ones whose address begins with the one
/// that was posted to, and goes on with an id: `POST /v1/webhooks` leads to `PATCH /v1/webhooks/{id}` and `GET /v1/webhooks/{id}/deliveries`.
pub(super) fn add(document: &mut OpenApi) {
    let OpenApi { paths, components, .. } = document;
    let Some(schemas) = components.as_ref().map(|components| &components.schemas) else { return };
    let mut known: Vec<(String, String)> = vec![];
    for (path, item) in &paths.paths {
        known.extend(names(item).into_iter().map(|name| (path.clone(), name.to_owned())));
    }
    for (path, item) in &mut paths.paths {
        let Some(post) = &mut item.post else { continue };
        let links = known.iter().filter_map(|(to, name)| Some((name.clone(), RefOr::T(link(path, to, name)?))));
        let links: BTreeMap<_, _> = links.collect();
        for (status, answer) in &mut post.responses.responses {
            if let RefOr::T(answer) = answer
                && status.starts_with('2')
                && tells_an_id(answer, schemas)
            {
                answer.links.extend(links.clone());
            }
        }
    }
}

/// What the operations at an address are called.
fn names(item: &PathItem) -> Vec<&str> {
    let all = [&item.get, &item.put, &item.post, &item.delete, &item.patch];
    all.into_iter().flatten().filter_map(|operation| operation.operation_id.as_deref()).collect()
}

/// The link from a `POST` to the operation of this name; none where its address takes more than the id of what was made.
fn link(from: &str, to: &str, name: &str) -> Option<Link> {
    let (id, rest) = to.strip_prefix(from)?.strip_prefix("/{")?.split_once('}')?;
    let is_of_it = (id == "id" || id.ends_with("_id")) && !rest.contains('{');
    let given = parameters(from).map(|of| (of.to_owned(), format!("$request.path.{of}")));
    let told = given.chain([(id.to_owned(), "$response.body#/id".to_owned())]);
    is_of_it.then(|| {
        told.fold(LinkBuilder::new().operation_id(name), |link, (of, value)| link.parameter(of, value)).build()
    })
}

/// The parameters of an address.
fn parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|part| part.split('}').next())
}

fn tells_an_id(answer: &Response, schemas: &Schemas) -> bool {
    match answer.content.get("application/json") {
        Some(RefOr::T(content)) => content.schema.as_ref().is_some_and(|schema| has_id(schema, schemas)),
        _ => false,
    }
}

/// Whether what is so described has an `id`, by itself or by what it is made of.
fn has_id(schema: &RefOr<Schema>, schemas: &Schemas) -> bool {
    match schema {
        RefOr::Ref(to) => {
            let named = to.ref_location.rsplit('/').next().and_then(|name| schemas.get(name));
            named.is_some_and(|schema| has_id(schema, schemas))
        }
        RefOr::T(Schema::Object(object)) => object.properties.contains_key("id"),
        RefOr::T(Schema::AllOf(all)) => all.items.iter().any(|part| has_id(part, schemas)),
        RefOr::T(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_link_names_all_of_the_address_that_it_leads_to() {
        let to = |from: &str, to: &str| link(from, to, "it").map(|link| json!(link.parameters));
        let id = json!({"id": "$response.body#/id"});
        assert_eq!(to("/v1/films", "/v1/films/{id}"), Some(id.clone()));
        assert_eq!(to("/v1/films", "/v1/films/{id}/cancel"), Some(id));
        let both = json!({"id": "$request.path.id", "link_id": "$response.body#/id"});
        assert_eq!(to("/v1/files/{id}/links", "/v1/files/{id}/links/{link_id}"), Some(both));
        for other in [
            "/v1/films",
            "/v1/films/batch",
            "/v1/filmstrips/{id}",
            "/v1/films/{slug}",
            "/v1/films/{id}/parts/{number}",
            "/v1/files/{id}",
        ] {
            assert_eq!(to("/v1/films", other), None, "{other}");
        }
    }
}
