//! Folders and files from the command line, as people type it.

use crate::world::{PUBLIC_URL, World, png};
use axum::{
    body::Body,
    http::{Method, Request},
};
use serde_json::json;
use sqlx::PgPool;
use std::net::SocketAddr;
use tokio::{net::TcpListener, process::Command};

/// The program, told where the server is: how it ended, and what it said.
pub struct Hand<'a> {
    world: &'a World,
    at: SocketAddr,
}

impl<'a> Hand<'a> {
    pub async fn new(world: &'a World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let service = world.router.clone().into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { world, at }
    }

    async fn run(&self, args: &[&str]) -> (i32, String) {
        self.call(&[&["files"], args].concat(), &[]).await
    }

    /// The same of any command, with an environment.
    pub async fn call(&self, args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_flatrender"));
        program.args(args).env_remove("FLATRENDER_LOG").current_dir(self.world.folder.path());
        program.env("FLATRENDER_URL", format!("http://{}", self.at)).env("FLATRENDER_API_KEY", &self.world.key);
        program.envs(env.iter().copied());
        let out = program.output().await.unwrap();
        let said = if out.status.success() { out.stdout } else { out.stderr };
        (out.status.code().unwrap(), String::from_utf8(said).unwrap().trim().to_owned())
    }

    /// The names that a command has told of.
    async fn names(&self, args: &[&str]) -> Vec<String> {
        let (code, said) = self.run(args).await;
        assert_eq!(code, 0, "{args:?}: {said}");
        said.lines().map(|line| line.rsplit_once("  ").unwrap().1.to_owned()).collect()
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_tree_is_kept_by_hand(db: PgPool) {
    let world = World::new(db).await;
    let hand = Hand::new(&world).await;
    world.upload("logo.png", png([1, 2, 3])).await;
    world.upload("twice.png", png([1, 2, 3])).await;
    world.upload("twice.png", png([3, 2, 1])).await;
    assert_eq!(hand.names(&["mkdir", "Films"]).await, ["Films/"]);
    assert_eq!(hand.names(&["mkdir", "Films/Spring"]).await, ["Spring/"]);
    assert_eq!(hand.names(&["mv", "logo.png", "films/SPRING"]).await, ["logo.png"]);
    assert_eq!(hand.names(&["ls"]).await, ["Films/", "twice.png", "twice.png"]);
    assert_eq!(hand.names(&["ls", "Films/Spring"]).await, ["logo.png"]);
    assert_eq!(hand.names(&["rename", "Films/Spring/logo.png", "brand.png"]).await, ["brand.png"]);
    // A link is printed once, and gives the file.
    let (_, link) = hand.run(&["share", "Films/Spring/brand.png", "--downloads", "1"]).await;
    let path = link.strip_prefix(PUBLIC_URL).unwrap();
    let got = world.send(Request::builder().method(Method::GET).uri(path).body(Body::empty()).unwrap()).await;
    assert_eq!(got.body, png([1, 2, 3]));
    // Away with all of it, and back.
    assert_eq!(hand.names(&["trash", "Films"]).await, ["Films/"]);
    assert_eq!(hand.names(&["ls"]).await, ["twice.png", "twice.png"]);
    assert_eq!(hand.names(&["ls", "--trash"]).await, ["Films/"]);
    let (_, trash) = hand.run(&["ls", "--trash"]).await;
    let id = trash.split_whitespace().next().unwrap();
    assert_eq!(hand.names(&["restore", id]).await, ["Films/"]);
    assert_eq!(hand.names(&["ls", "Films/Spring"]).await, ["brand.png"]);
    assert_eq!(hand.run(&["empty-trash"]).await, (0, "0 files and 0 folders go with the next clean-up".to_owned()));
    // What is not there, and what could be two, is told.
    let told = |text: &str| format!("error: {text}");
    assert_eq!(hand.run(&["ls", "Nowhere"]).await, (2, told("Nowhere: there is no such file or folder")));
    let several = "twice.png: there are several; say which by its id, as `files ls` tells it";
    assert_eq!(hand.run(&["trash", "twice.png"]).await, (2, told(several)));
    assert_eq!(hand.run(&["share", "Films"]).await, (2, told("Films: a folder cannot be shared, only a file")));
    let (code, line) = hand.run(&["mkdir", "films"]).await;
    assert!(code == 4 && line.ends_with("(folder.name_taken)"), "{line}");
    let (code, line) = hand.run(&["mv", "Films", "Films/Spring"]).await;
    assert!(code == 4 && line.ends_with("(folder.within_itself)"), "{line}");
    assert_eq!(world.get("/v1/files?name_prefix=brand").await.json()["data"][0]["rev"], json!(4));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_picture_is_published_by_hand_and_taken_back(db: PgPool) {
    let world = World::new(db).await;
    let hand = Hand::new(&world).await;
    world.upload("logo.png", png([1, 2, 3])).await;
    let (code, url) = hand.run(&["publish", "logo.png"]).await;
    assert_eq!(code, 0, "{url}");
    let path = url.strip_prefix(PUBLIC_URL).unwrap();
    let see = async || world.send(Request::get(path).body(Body::empty()).unwrap()).await;
    assert_eq!(see().await.body, png([1, 2, 3]));
    assert_eq!(hand.names(&["unpublish", "logo.png"]).await, ["logo.png"]);
    assert_eq!(see().await.problem(), "file.not_found");
    hand.names(&["mkdir", "Films"]).await;
    let told = "error: Films: a folder cannot be public, only a picture";
    assert_eq!(hand.run(&["publish", "Films"]).await, (2, told.to_owned()));
}
