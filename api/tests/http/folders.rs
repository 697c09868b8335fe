//! Folders and files in them: they are made, moved, renamed, thrown away and taken back, and nothing gets lost or doubled.

use crate::world::{Answer, World, png, request, with_json};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::PgPool;

fn id(answer: &Answer) -> String {
    answer.json()["id"].as_str().unwrap_or_else(|| panic!("{:?}", answer.body)).to_owned()
}

impl World {
    async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(with_json(self.request(Method::PATCH, path), &body)).await
    }

    async fn folder(&self, name: &str, parent: Option<&str>) -> String {
        let made = self.post("/v1/folders", json!({ "name": name, "parent_id": parent })).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.json());
        id(&made)
    }

    /// A picture in a folder.
    async fn file_in(&self, name: &str, folder: &str) -> String {
        let file = id(&self.upload(&name.replace(' ', "%20"), png([1, 2, 3])).await);
        let moved = self.patch(&format!("/v1/files/{file}"), json!({ "folder_id": folder })).await;
        assert_eq!(moved.status, StatusCode::OK, "{}", moved.json());
        file
    }

    async fn act(&self, path: &str) -> Answer {
        self.post(path, json!({})).await
    }

    /// The names on a page.
    async fn names(&self, path: &str) -> Vec<String> {
        let page = self.get(path).await.json();
        page["data"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap().to_owned()).collect()
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_folder_is_made_renamed_and_moved(db: PgPool) {
    let world = World::new(db).await;
    let made = world.post("/v1/folders", json!({ "name": "U\u{308}ber uns" })).await;
    assert_eq!((made.status, made.header("etag")), (StatusCode::CREATED, "\"0\""));
    assert_eq!(made.json()["name"], "Über uns", "NFC");
    assert_eq!(world.get(made.header("location")).await.json(), made.json());
    let (above, below) = (id(&made), world.folder("below", None).await);
    let path = format!("/v1/folders/{below}");
    let moved = world.patch(&path, json!({ "parent_id": above, "name": "deeper" })).await;
    assert_eq!((moved.status, moved.header("etag")), (StatusCode::OK, "\"1\""));
    assert_eq!(world.names(&format!("/v1/folders?parent_id={above}")).await, ["deeper"]);
    assert_eq!(world.names("/v1/folders").await, ["Über uns"]);
    let renamed = world.patch(&path, json!({ "name": "DEEPER" })).await.json();
    assert_eq!((&renamed["parent_id"], &renamed["name"]), (&json!(above), &json!("DEEPER")), "it stays where it was");
    assert_eq!(world.patch(&path, json!({ "parent_id": null })).await.json()["parent_id"], Value::Null);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_name_is_taken_whatever_its_case_and_kind(db: PgPool) {
    let world = World::new(db).await;
    let films = world.folder("Films", None).await;
    for name in ["films", "FILMS", "fi\u{200c}lms"] {
        assert_eq!(world.post("/v1/folders", json!({ "name": name })).await.problem(), "folder.name_taken", "{name}");
    }
    world.folder("films", Some(&films)).await;
    let file = world.file_in("Logo.png", &films).await;
    let other = id(&world.upload("logo.PNG", png([3, 2, 1])).await);
    let into = json!({ "folder_id": films });
    assert_eq!(world.patch(&format!("/v1/files/{other}"), into.clone()).await.problem(), "file.name_taken");
    let as_folder = json!({ "folder_id": films, "name": "FILMS" });
    assert_eq!(world.patch(&format!("/v1/files/{other}"), as_folder).await.problem(), "file.name_taken");
    let as_file = json!({ "name": "logo.png", "parent_id": films });
    assert_eq!(world.post("/v1/folders", as_file).await.problem(), "folder.name_taken");
    // In the trash a name is nobody's.
    world.act(&format!("/v1/files/{file}/trash")).await;
    assert_eq!(world.patch(&format!("/v1/files/{other}"), into).await.status, StatusCode::OK);
    assert_eq!(world.act(&format!("/v1/files/{file}/restore")).await.problem(), "file.name_taken");
    // Uploads that nobody has put anywhere may be called alike.
    assert_eq!(world.upload("logo.png", png([1, 1, 1])).await.status, StatusCode::CREATED);
    assert_eq!(world.upload("logo.png", png([2, 1, 1])).await.status, StatusCode::CREATED);
}

#[sqlx::test(migrations = "../migrations")]
async fn an_upload_comes_into_a_folder_or_is_not_there(db: PgPool) {
    let world = World::new(db).await;
    let films = world.folder("Films", None).await;
    let into = |folder: &str| format!("logo.png&folder_id={folder}");
    let file = world.upload(&into(&films), png([1, 2, 3])).await;
    assert_eq!((file.status, &file.json()["folder_id"]), (StatusCode::CREATED, &json!(films)));
    assert_eq!(world.upload(&into(&films), png([3, 2, 1])).await.problem(), "file.name_taken");
    let nowhere = world.upload(&into(&uuid::Uuid::nil().to_string()), png([3, 2, 1])).await;
    assert_eq!(nowhere.faults(), ["/folder_id folder.not_found"]);
    world.act(&format!("/v1/folders/{films}/trash")).await;
    assert_eq!(world.upload(&into(&films), png([3, 2, 1])).await.problem(), "folder.in_trash");
    assert_eq!(world.count("file_mgr.files").await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn bad_names_are_told(db: PgPool) {
    let world = World::new(db).await;
    let file = id(&world.upload("a.png", png([1, 2, 3])).await);
    for name in ["", "a/b", "..", "a:b", "CON", "a ", "a\u{202e}b", "x\u{0}y", &"a".repeat(256)] {
        assert_eq!(world.post("/v1/folders", json!({ "name": name })).await.faults(), ["/name file.name"], "{name:?}");
        let renamed = world.patch(&format!("/v1/files/{file}"), json!({ "name": name })).await;
        assert_eq!(renamed.faults(), ["/name file.name"], "{name:?}");
    }
    assert_eq!(world.upload("NUL.png", png([1, 2, 3])).await.problem(), "file.name_invalid");
}

#[sqlx::test(migrations = "../migrations")]
async fn no_folder_is_within_itself_or_deeper_than_twenty(db: PgPool) {
    let world = World::new(db).await;
    let top = world.folder("1", None).await;
    let mut last = top.clone();
    for level in 2..=20 {
        last = world.folder(&level.to_string(), Some(&last)).await;
    }
    let deeper = world.post("/v1/folders", json!({ "name": "21", "parent_id": last })).await;
    assert_eq!(deeper.problem(), "folder.too_deep");
    let path = format!("/v1/folders/{top}");
    assert_eq!(world.patch(&path, json!({ "parent_id": last })).await.problem(), "folder.within_itself");
    assert_eq!(world.patch(&path, json!({ "parent_id": top })).await.problem(), "folder.within_itself");
    let above = world.folder("0", None).await;
    assert_eq!(world.patch(&path, json!({ "parent_id": above })).await.problem(), "folder.too_deep", "with all below");
}

/// Each of two moves looks well by itself; together they would make a loop that nobody reaches.
#[sqlx::test(migrations = "../migrations")]
async fn two_moves_at_once_make_no_loop(db: PgPool) {
    let world = World::new(db).await;
    for round in 0..20 {
        let (a, b) = (world.folder(&format!("a{round}"), None).await, world.folder(&format!("b{round}"), None).await);
        let into = async |folder: &str, parent: &str| {
            world.patch(&format!("/v1/folders/{folder}"), json!({ "parent_id": parent })).await
        };
        let (one, two) = tokio::join!(into(&a, &b), into(&b, &a));
        let mut codes = [one.status.as_u16(), two.status.as_u16()];
        codes.sort_unstable();
        assert_eq!(codes, [200, 409], "{:?} {:?}", one.body, two.body);
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn the_same_name_at_once_makes_one(db: PgPool) {
    let world = World::new(db).await;
    let made = join_all((0..8).map(|_| world.post("/v1/folders", json!({ "name": "Films" })))).await;
    assert_eq!(made.iter().filter(|a| a.status == StatusCode::CREATED).count(), 1);
    assert!(made.iter().filter(|a| a.status != StatusCode::CREATED).all(|a| a.problem() == "folder.name_taken"));
}

#[sqlx::test(migrations = "../migrations")]
async fn the_trash_gives_back_exactly_what_went_with_a_folder(db: PgPool) {
    let world = World::new(db).await;
    let films = world.folder("Films", None).await;
    let spring = world.folder("Spring", Some(&films)).await;
    let (kept, gone) = (world.file_in("kept.png", &spring).await, world.file_in("gone.png", &spring).await);
    world.act(&format!("/v1/files/{gone}/trash")).await;
    let trashed = world.act(&format!("/v1/folders/{films}/trash")).await;
    assert!(trashed.json()["trashed_at"].is_string() && trashed.json()["purge_after"].is_string());
    assert_eq!(world.names("/v1/folders").await, [""; 0]);
    assert_eq!(world.names(&format!("/v1/files?folder_id={spring}")).await, [""; 0]);
    assert_eq!(world.names("/v1/folders?trashed=true").await, ["Films"], "as somebody put it there");
    assert_eq!(world.names("/v1/files?state=trashed").await, ["gone.png"]);
    assert_eq!(world.get(&format!("/v1/files/{kept}")).await.json()["state"], "trashed");
    // What went with a folder comes back with it, and there is no place in a folder that is not there.
    assert_eq!(world.act(&format!("/v1/files/{kept}/restore")).await.problem(), "trash.with_folder");
    assert_eq!(world.act(&format!("/v1/folders/{spring}/restore")).await.problem(), "trash.with_folder");
    assert_eq!(world.act(&format!("/v1/files/{gone}/restore")).await.problem(), "folder.in_trash");
    let other = id(&world.upload("other.png", png([1, 1, 1])).await);
    let into = world.patch(&format!("/v1/files/{other}"), json!({ "folder_id": spring })).await;
    assert_eq!(into.problem(), "folder.in_trash");
    let below = world.post("/v1/folders", json!({ "name": "x", "parent_id": spring })).await;
    assert_eq!(below.problem(), "folder.in_trash");
    assert_eq!(world.patch(&format!("/v1/files/{kept}"), json!({ "name": "b" })).await.problem(), "file.in_trash");
    assert_eq!(world.patch(&format!("/v1/folders/{films}"), json!({ "name": "b" })).await.problem(), "folder.in_trash");
    // Back, but for what was thrown away before.
    let back = world.act(&format!("/v1/folders/{films}/restore")).await;
    assert_eq!((back.status, &back.json()["trashed_at"]), (StatusCode::OK, &Value::Null));
    assert_eq!(world.names(&format!("/v1/folders?parent_id={films}")).await, ["Spring"]);
    assert_eq!(world.names(&format!("/v1/files?folder_id={spring}")).await, ["kept.png"]);
    assert_eq!(world.act(&format!("/v1/files/{gone}/restore")).await.status, StatusCode::OK);
    assert_eq!(world.names(&format!("/v1/files?folder_id={spring}")).await, ["gone.png", "kept.png"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn what_is_in_the_trash_is_no_part_of_an_order(db: PgPool) {
    let world = World::new(db).await;
    let logo = id(&world.upload("logo.png", png([1, 2, 3])).await);
    let order = crate::world::order_with("data.images", json!({ "logo": logo }));
    world.act(&format!("/v1/files/{logo}/trash")).await;
    assert_eq!(world.post("/v1/renders", order.clone()).await.faults(), ["/data/images/logo file.not_found"]);
    world.act(&format!("/v1/files/{logo}/restore")).await;
    assert_eq!(world.post("/v1/renders", order).await.status, StatusCode::ACCEPTED);
}

#[sqlx::test(migrations = "../migrations")]
async fn emptying_the_trash_leaves_the_removal_to_the_clean_up(db: PgPool) {
    let world = World::new(db).await;
    let films = world.folder("Films", None).await;
    let file = world.file_in("a.png", &films).await;
    assert_eq!(world.act("/v1/trash/empty").await.json()["files"], 0);
    world.act(&format!("/v1/folders/{films}/trash")).await;
    let soon = "file_mgr.files where purge_after <= now()";
    assert_eq!(world.count(soon).await, 0, "there are 30 days");
    for _ in 0..2 {
        let emptied = world.act("/v1/trash/empty").await;
        assert_eq!(emptied.status, StatusCode::ACCEPTED);
        assert_eq!((&emptied.json()["files"], &emptied.json()["folders"]), (&json!(1), &json!(1)));
        assert!(emptied.json()["size_bytes"].as_i64() > Some(0));
    }
    assert_eq!(world.count(soon).await, 1);
    assert_eq!(world.get(&format!("/v1/files/{file}")).await.json()["state"], "trashed");
}

/// Whoever takes something out of a trash that was emptied wants it: its days were the trash's.
#[sqlx::test(migrations = "../migrations")]
async fn what_is_restored_from_an_emptied_trash_stays(db: PgPool) {
    let world = World::new(db).await;
    let file = id(&world.upload("a.png", png([1, 2, 3])).await);
    let brief = "update file_mgr.files set retention = 'temp', purge_after = workflow.now() + interval '10 days'";
    sqlx::raw_sql(brief).execute(&world.db).await.unwrap();
    let ends = "file_mgr.files where state = 'ready' and purge_after > workflow.now() + interval '9 days'";
    for _ in 0..2 {
        world.act(&format!("/v1/files/{file}/trash")).await;
        assert_eq!(world.act(&format!("/v1/files/{file}/restore")).await.status, StatusCode::OK);
        assert_eq!(world.count(ends).await, 1, "its own time is as it was");
    }
    world.act(&format!("/v1/files/{file}/trash")).await;
    assert_eq!(world.act("/v1/trash/empty").await.status, StatusCode::ACCEPTED);
    assert_eq!(world.act(&format!("/v1/files/{file}/restore")).await.status, StatusCode::OK);
    assert_eq!(world.count("file_mgr.files where purge_after <= workflow.now()").await, 0);
}

/// Nobody gives what is about to go another life by way of the trash.
#[sqlx::test(migrations = "../migrations")]
async fn what_was_over_before_it_was_thrown_away_is_over_when_it_comes_back(db: PgPool) {
    let world = World::new(db).await;
    let folder = world.folder("Films", None).await;
    let [alone, within] =
        [id(&world.upload("a.png", png([1, 2, 3])).await), id(&world.upload("b.png", png([3, 2, 1])).await)];
    world.patch(&format!("/v1/files/{within}"), json!({ "folder_id": folder })).await;
    let over = "update file_mgr.files set retention = 'preview', purge_after = workflow.now() - interval '1 minute'";
    sqlx::raw_sql(over).execute(&world.db).await.unwrap();
    for path in [format!("/v1/files/{alone}"), format!("/v1/folders/{folder}")] {
        world.act(&format!("{path}/trash")).await;
        assert_eq!(world.act(&format!("{path}/restore")).await.status, StatusCode::OK);
    }
    assert_eq!(world.count("file_mgr.files where state = 'ready' and purge_after <= workflow.now()").await, 2);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_change_is_made_to_what_was_looked_at(db: PgPool) {
    let world = World::new(db).await;
    let folder = world.folder("Films", None).await;
    let file = id(&world.upload("a.png", png([1, 2, 3])).await);
    for path in [format!("/v1/folders/{folder}"), format!("/v1/files/{file}")] {
        let ask = async |tag: &str, name: &str| {
            let ask = world.request(Method::PATCH, &path).header("if-match", tag);
            world.send(with_json(ask, &json!({ "name": name }))).await
        };
        let seen = world.get(&path).await.header("etag").to_owned();
        assert_eq!(ask(&seen, "one").await.status, StatusCode::OK);
        let late = ask(&seen, "two").await;
        assert_eq!((late.status.as_u16(), late.problem().as_str()), (412, "revision.stale"));
        assert_eq!(ask("nonsense", "two").await.problem(), "revision.stale");
        assert_eq!(world.get(&path).await.json()["name"], "one");
        assert_eq!(ask("*", "two").await.status, StatusCode::OK);
        let trash = world.request(Method::POST, &format!("{path}/trash")).header("if-match", &seen);
        assert_eq!(world.send(trash.body(Body::empty()).unwrap()).await.problem(), "revision.stale");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn lists_are_cut_into_pages_and_filtered(db: PgPool) {
    let world = World::new(db).await;
    let films = world.folder("Films", None).await;
    for n in 0..5 {
        world.folder(&format!("Film {n}"), Some(&films)).await;
        world.file_in(&format!("Film {n}.png"), &films).await;
    }
    world.upload("Film%209.png", png([1, 1, 1])).await;
    let all = async |path: &str| {
        let (mut found, mut cursor) = (vec![], String::new());
        loop {
            let page = world.get(&format!("{path}&limit=2{cursor}")).await.json();
            assert!(page["data"].as_array().unwrap().len() <= 2);
            found.extend(page["data"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&starting_after={next}"),
                None => return found,
            }
        }
    };
    let folders = ["Film 0", "Film 1", "Film 2", "Film 3", "Film 4"];
    assert_eq!(all(&format!("/v1/folders?parent_id={films}")).await, folders);
    let files = ["Film 4.png", "Film 3.png", "Film 2.png", "Film 1.png", "Film 0.png"];
    assert_eq!(all(&format!("/v1/files?folder_id={films}")).await, files);
    assert_eq!(world.names("/v1/files?top=true").await, ["Film 9.png"]);
    assert_eq!(world.names("/v1/files?kind=audio").await, [""; 0]);
    assert_eq!(world.names("/v1/files?name_prefix=FILM%209").await, ["Film 9.png"]);
    assert_eq!(world.names(&format!("/v1/folders?parent_id={films}&name_prefix=film%203")).await, ["Film 3"]);
    assert_eq!(world.names("/v1/files?name_prefix=%25").await, [""; 0], "a prefix is no pattern");
    for wrong in ["/v1/files?state=purged", "/v1/files?limit=0", "/v1/folders?limit=101", "/v1/folders?name=x"] {
        assert_eq!(world.get(wrong).await.problem(), "query.invalid", "{wrong}");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn another_tenants_folders_are_not_there(db: PgPool) {
    let world = World::new(db).await;
    let films = world.folder("Films", None).await;
    let file = world.file_in("a.png", &films).await;
    let stranger = world.stranger().await;
    let ask =
        async |method: Method, path: &str| world.send(with_json(request(method, path, &stranger), &json!({}))).await;
    for (path, code) in
        [(format!("/v1/folders/{films}"), "folder.not_found"), (format!("/v1/files/{file}"), "file.not_found")]
    {
        for method in [Method::GET, Method::PATCH] {
            assert_eq!(ask(method, &path).await.problem(), code, "{path}");
        }
        for act in ["trash", "restore"] {
            assert_eq!(ask(Method::POST, &format!("{path}/{act}")).await.problem(), code, "{path} {act}");
        }
    }
    assert_eq!(ask(Method::POST, "/v1/trash/empty").await.json()["files"], 0);
    let list = ask(Method::GET, &format!("/v1/files?folder_id={films}")).await;
    assert_eq!(list.json()["data"], json!([]));
    // The same name is free with them.
    let same =
        world.send(with_json(request(Method::POST, "/v1/folders", &stranger), &json!({ "name": "Films" }))).await;
    assert_eq!(same.status, StatusCode::CREATED);
}
