//! Folders and files beside a model that is a dozen lines a rule: whatever is done in whatever order, the API answers as the model
//! does, and in the end both hold the same.

use crate::world::{Answer, World, request, with_json};
use axum::http::Method;
use flatrender_workflows::models::identity::tenant_api_key::SCOPES;
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Act {
    Make { folder: bool, name: usize, within: usize },
    Move { what: usize, into: usize },
    Rename { what: usize, name: usize },
    Trash { what: usize },
    Restore { what: usize },
}

/// Few names, of which some are the same in another case.
const NAMES: [&str; 5] = ["a", "A", "b", "Ünal", "ünal"];

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let (what, name) = (0..40usize, 0..NAMES.len());
    let act = prop_oneof![
        4 => (any::<bool>(), name.clone(), what.clone()).prop_map(|(folder, name, within)| Act::Make { folder, name, within }),
        3 => (what.clone(), what.clone()).prop_map(|(what, into)| Act::Move { what, into }),
        1 => (what.clone(), name).prop_map(|(what, name)| Act::Rename { what, name }),
        2 => what.clone().prop_map(|what| Act::Trash { what }),
        2 => what.prop_map(|what| Act::Restore { what }),
    ];
    prop::collection::vec(act, 20..50)
}

/// A folder or file of the model; `trashed` names what was put into the trash, and it with that.
#[derive(Debug, Clone)]
struct Thing {
    id: String,
    folder: bool,
    name: &'static str,
    within: Option<usize>,
    trashed: Option<usize>,
}

#[derive(Debug, Default)]
struct Model(Vec<Thing>);

impl Model {
    fn pick(&self, n: usize) -> Option<usize> {
        (!self.0.is_empty()).then(|| n % self.0.len())
    }

    /// A folder to put something into, or the top.
    fn place(&self, n: usize) -> Option<usize> {
        let folders: Vec<usize> = (0..self.0.len()).filter(|i| self.0[*i].folder).collect();
        folders.get(n % (folders.len() + 1)).copied()
    }

    fn is_below(&self, what: usize, above: usize) -> bool {
        what == above || self.0[what].within.is_some_and(|w| self.is_below(w, above))
    }

    fn depth(&self, what: Option<usize>) -> usize {
        what.map_or(0, |w| 1 + self.depth(self.0[w].within))
    }

    fn height(&self, what: usize) -> usize {
        let below = (0..self.0.len()).filter(|i| self.0[*i].folder && self.0[*i].within == Some(what));
        below.map(|i| 1 + self.height(i)).max().unwrap_or(0)
    }

    /// Why `what` cannot be called so within `within`; `what` is its number or, when it is new, that of nothing.
    fn refusal(&self, what: usize, folder: bool, name: &str, within: Option<usize>) -> Option<&'static str> {
        if folder {
            if within.is_some_and(|w| what < self.0.len() && self.is_below(w, what)) {
                return Some("folder.within_itself");
            }
            let height = if what < self.0.len() { self.height(what) } else { 0 };
            if self.depth(within) + 1 + height > 20 {
                return Some("folder.too_deep");
            }
        }
        if within.is_some_and(|w| self.0[w].trashed.is_some()) {
            return Some("folder.in_trash");
        }
        let beside = |(i, other): (usize, &Thing)| {
            let same = other.name.to_lowercase() == name.to_lowercase();
            // At the top files are in no folder, and their names are nobody's.
            let counts = within.is_some() || folder && other.folder;
            i != what && other.within == within && other.trashed.is_none() && same && counts
        };
        let taken = self.0.iter().enumerate().any(beside);
        taken.then_some(if folder { "folder.name_taken" } else { "file.name_taken" })
    }

    fn restore_refusal(&self, what: usize) -> Option<&'static str> {
        let thing = &self.0[what];
        match thing.trashed {
            None => None,
            Some(with) if with != what => Some("trash.with_folder"),
            Some(_) => self.refusal(what, thing.folder, thing.name, thing.within),
        }
    }
}

/// One tenant of the API and its model.
struct Play<'a> {
    world: &'a World,
    key: String,
    model: Model,
    /// What every file is: as small as can be, since it is not pixels that are tried.
    picture: Vec<u8>,
}

impl Play<'_> {
    async fn ask(&self, method: Method, path: &str, body: Value) -> Answer {
        self.world.send(with_json(request(method, path, &self.key), &body)).await
    }

    fn path(&self, what: usize) -> String {
        let Thing { folder, id, .. } = &self.model.0[what];
        format!("/v1/{}/{id}", if *folder { "folders" } else { "files" })
    }

    fn place_of(&self, folder: bool, within: Option<usize>) -> Value {
        let id = within.map(|w| self.model.0[w].id.clone());
        if folder { json!({ "parent_id": id }) } else { json!({ "folder_id": id }) }
    }

    /// Does it on both sides; what the API should have refused it with.
    async fn act(&mut self, act: &Act) -> (Option<&'static str>, Answer) {
        let nothing = json!({});
        match *act {
            Act::Make { folder: true, name, within } => {
                let within = self.model.place(within);
                let mut body = self.place_of(true, within);
                body["name"] = json!(NAMES[name]);
                let refusal = self.model.refusal(usize::MAX, true, NAMES[name], within);
                let answer = self.ask(Method::POST, "/v1/folders", body).await;
                if refusal.is_none() {
                    self.add(&answer, true, NAMES[name], within);
                }
                (refusal, answer)
            }
            Act::Make { name, .. } => {
                let picture = self.picture.clone();
                let path = format!("/v1/files?name={}", NAMES[name].replace('Ü', "%C3%9C").replace('ü', "%C3%BC"));
                let ask = request(Method::POST, &path, &self.key).body(picture.into()).unwrap();
                let answer = self.world.send(ask).await;
                self.add(&answer, false, NAMES[name], None);
                (None, answer)
            }
            Act::Move { what, into } => {
                let Some(what) = self.model.pick(what) else { return self.idle().await };
                let (into, thing) = (self.model.place(into), self.model.0[what].clone());
                let refusal = match thing.trashed {
                    Some(_) => Some(if thing.folder { "folder.in_trash" } else { "file.in_trash" }),
                    None => self.model.refusal(what, thing.folder, thing.name, into),
                };
                let answer = self.ask(Method::PATCH, &self.path(what), self.place_of(thing.folder, into)).await;
                if refusal.is_none() {
                    self.model.0[what].within = into;
                }
                (refusal, answer)
            }
            Act::Rename { what, name } => {
                let Some(what) = self.model.pick(what) else { return self.idle().await };
                let thing = self.model.0[what].clone();
                let refusal = match thing.trashed {
                    Some(_) => Some(if thing.folder { "folder.in_trash" } else { "file.in_trash" }),
                    None => self.model.refusal(what, thing.folder, NAMES[name], thing.within),
                };
                let answer = self.ask(Method::PATCH, &self.path(what), json!({ "name": NAMES[name] })).await;
                if refusal.is_none() {
                    self.model.0[what].name = NAMES[name];
                }
                (refusal, answer)
            }
            Act::Trash { what } => {
                let Some(what) = self.model.pick(what) else { return self.idle().await };
                let answer = self.ask(Method::POST, &format!("{}/trash", self.path(what)), nothing).await;
                if self.model.0[what].trashed.is_none() {
                    let below: Vec<usize> = (0..self.model.0.len()).filter(|i| self.model.is_below(*i, what)).collect();
                    for i in below {
                        self.model.0[i].trashed.get_or_insert(what);
                    }
                }
                (None, answer)
            }
            Act::Restore { what } => {
                let Some(what) = self.model.pick(what) else { return self.idle().await };
                let refusal = self.model.restore_refusal(what);
                let answer = self.ask(Method::POST, &format!("{}/restore", self.path(what)), nothing).await;
                if refusal.is_none() {
                    for thing in self.model.0.iter_mut().filter(|t| t.trashed == Some(what)) {
                        thing.trashed = None;
                    }
                }
                (refusal, answer)
            }
        }
    }

    async fn idle(&self) -> (Option<&'static str>, Answer) {
        (None, self.ask(Method::GET, "/v1/folders", json!({})).await)
    }

    fn add(&mut self, answer: &Answer, folder: bool, name: &'static str, within: Option<usize>) {
        let id = answer.json()["id"].as_str().unwrap_or_else(|| panic!("{:?}", answer.body)).to_owned();
        self.model.0.push(Thing { id, folder, name, within, trashed: None });
    }

    /// By id: the name, where it lies, and whether it is in the trash.
    fn expected(&self) -> BTreeMap<String, (String, Option<String>, bool)> {
        let of = |t: &Thing| {
            (t.id.clone(), (t.name.to_owned(), t.within.map(|w| self.model.0[w].id.clone()), t.trashed.is_some()))
        };
        self.model.0.iter().map(of).collect()
    }

    /// The same, as the API shows it.
    async fn found(&self) -> BTreeMap<String, (String, Option<String>, bool)> {
        let seen = futures::future::join_all((0..self.model.0.len()).map(async |what| {
            let view = self.ask(Method::GET, &self.path(what), json!({})).await.json();
            let text = |v: &Value| v.as_str().map(str::to_owned);
            let within = text(&view["parent_id"]).or(text(&view["folder_id"]));
            (text(&view["id"]).unwrap(), (text(&view["name"]).unwrap(), within, view["trashed_at"].is_string()))
        }));
        seen.await.into_iter().collect()
    }
}

async fn play(world: &World, n: usize, acts: &[Act]) -> Result<(), TestCaseError> {
    let key = world.key_for(world.tenant(&format!("tenant-{n}")).await, &SCOPES).await.1;
    let mut picture = std::io::Cursor::new(vec![]);
    image::RgbImage::new(1, 1).write_to(&mut picture, image::ImageFormat::Png).unwrap();
    let mut play = Play { world, key, model: Model::default(), picture: picture.into_inner() };
    for act in acts {
        let (refusal, answer) = play.act(act).await;
        let code = (answer.status.as_u16() >= 400).then(|| answer.problem());
        prop_assert_eq!(code.as_deref(), refusal, "{:?}: {:?}\n{:#?}", act, answer.body, play.model);
    }
    prop_assert_eq!(play.found().await, play.expected());
    Ok(())
}

#[sqlx::test(migrations = "../migrations")]
async fn s095_the_tree_does_as_its_model(db: PgPool) {
    let world = World::new(db).await;
    let runtime = tokio::runtime::Handle::current();
    let world = tokio::task::spawn_blocking(move || {
        let config =
            ProptestConfig { cases: 8, max_shrink_iters: 64, failure_persistence: None, ..ProptestConfig::default() };
        let played = std::cell::Cell::new(0);
        TestRunner::new(config)
            .run(&acts(), |acts| {
                played.set(played.get() + 1);
                runtime.block_on(play(&world, played.get(), &acts))
            })
            .unwrap();
        world
    })
    .await
    .unwrap();
    let broken = flatrender_workflows::models::invariants::check(&world.db, false).await.unwrap();
    assert!(broken.is_empty(), "{broken:?}");
}
