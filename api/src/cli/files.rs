//! `flatrender files …`: the tenant's folders and files, by paths such as `Films/Spring/logo.png` or by id.

use super::{
    answers::{Entry, List},
    client::{Answer, Client, path_part},
    failure::CliError,
    server::ServerArgs,
    upload,
};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::PathBuf;
use uuid::Uuid;

/// Lists, makes, moves, renames, throws away, takes back, shares and publishes files and folders.
///
/// What is meant is a path such as `Films/Spring/logo.png`, or an id. Takes a key with the scope `files`.
#[derive(Debug, Clone, Args)]
pub struct FilesArgs {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Clone, Subcommand)]
enum Deed {
    /// Lists a folder: its folders, then its files.
    Ls {
        /// The folder; what is in none when absent.
        folder: Option<String>,
        /// What was put into the trash, instead.
        #[arg(long)]
        trash: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Uploads a file in pieces, and goes on after a cut where it was. Prints the id of the file.
    Upload {
        /// The file.
        path: PathBuf,
        /// Goes on with this upload, of the same file: from what the server, or the storage, has of it.
        #[arg(long, value_name = "ID", conflicts_with_all = ["folder", "direct"])]
        resume: Option<Uuid>,
        /// The folder it comes into.
        #[arg(long, value_name = "FOLDER")]
        folder: Option<String>,
        /// Sends its parts to the storage itself, where that is a bucket.
        #[arg(long)]
        direct: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Makes a folder.
    Mkdir {
        /// Where, such as `Films/Spring`; the folder above has to be there.
        path: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Moves a file or folder into a folder.
    Mv {
        /// What.
        what: String,
        /// The folder it comes into; `/` for none.
        into: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Gives a file or folder another name.
    Rename {
        /// What.
        what: String,
        /// The new name, without folders.
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Puts a file, or a folder with all below it, into the trash.
    Trash {
        /// What.
        what: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Takes something out of the trash: a folder with exactly what went there with it.
    Restore {
        /// Its id, as `ls --trash` tells it.
        id: Uuid,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Has the next clean-up remove all that is in the trash.
    EmptyTrash {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Makes a link with which anybody gets a file. It is printed this once.
    Share {
        /// What.
        what: String,
        /// How long it works, in hours.
        #[arg(long, value_name = "HOURS", default_value_t = 168, value_parser = clap::value_parser!(u32).range(1..=8784))]
        hours: u32,
        /// How often it works; as often as somebody likes when absent.
        #[arg(long, value_name = "N")]
        downloads: Option<u32>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Shows a picture to everybody, and prints where: an address that never shows anything else.
    Publish {
        /// What.
        what: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Ends the public address of a picture. Whoever has kept what is there has it still.
    Unpublish {
        /// What.
        what: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// See [`CliError`].
pub async fn run(args: FilesArgs) -> Result<(), CliError> {
    match args.deed {
        Deed::Ls { folder, trash, server } => ls(&server.connect().await?, folder.as_deref(), trash).await,
        Deed::Upload { path, resume, folder, direct, server } => {
            let client = server.connect().await?;
            let folder = client.folder_at(folder.as_deref().unwrap_or_default()).await?;
            let how = match (resume, direct) {
                (Some(id), _) => upload::How::Resume(id),
                (None, true) => upload::How::Direct(folder),
                (None, false) => upload::How::Tus(folder),
            };
            println!("{}", upload::file(&client, &path, how).await?);
            Ok(())
        }
        Deed::Mkdir { path, server } => {
            let client = server.connect().await?;
            let (above, name) = path.trim_matches('/').rsplit_once('/').unwrap_or(("", path.trim_matches('/')));
            let parent = client.folder_at(above).await?;
            let body = json!({ "name": name, "parent_id": parent });
            told(&client.change(Method::POST, "/v1/folders", &body).await.map_err(|e| e.about(path))?.value);
            Ok(())
        }
        Deed::Mv { what, into, server } => {
            let client = server.connect().await?;
            let (thing, into) = (client.thing_at(&what).await?, client.folder_at(&into).await?);
            let place = if thing.is_folder() { "parent_id" } else { "folder_id" };
            client.patch(&thing, &json!({ place: into })).await.map_err(|e| e.about(what))
        }
        Deed::Rename { what, name, server } => {
            let client = server.connect().await?;
            let thing = client.thing_at(&what).await?;
            client.patch(&thing, &json!({ "name": name })).await.map_err(|e| e.about(what))
        }
        Deed::Trash { what, server } => {
            let client = server.connect().await?;
            let path = format!("{}/trash", client.thing_at(&what).await?.path());
            told(&client.change(Method::POST, &path, &json!({})).await.map_err(|e| e.about(what))?.value);
            Ok(())
        }
        Deed::Restore { id, server } => {
            let client = server.connect().await?;
            let path = format!("{}/restore", client.thing_of(id).await?.path());
            told(&client.change(Method::POST, &path, &json!({})).await.map_err(|e| e.about(id.to_string()))?.value);
            Ok(())
        }
        Deed::EmptyTrash { server } => {
            let client = server.connect().await?;
            let emptied: Answer<Value> = client.change(Method::POST, "/v1/trash/empty", &json!({})).await?;
            println!(
                "{} files and {} folders go with the next clean-up",
                emptied.json["files"], emptied.json["folders"]
            );
            Ok(())
        }
        Deed::Share { what, hours, downloads, server } => {
            let client = server.connect().await?;
            let thing = client.thing_at(&what).await?;
            if thing.is_folder() {
                return Err(CliError::Usage(format!("{what}: a folder cannot be shared, only a file")));
            }
            let body = json!({ "expires_in_seconds": hours * 3600, "max_downloads": downloads });
            let path = format!("{}/share-links", thing.path());
            let link: Answer<Value> = client.change(Method::POST, &path, &body).await.map_err(|e| e.about(what))?;
            println!("{}", link.json["url"].as_str().unwrap_or_default());
            Ok(())
        }
        Deed::Publish { what, server } => {
            let file = server.connect().await?.show(&what, "public").await?;
            println!("{}", file.json["public_url"].as_str().unwrap_or_default());
            Ok(())
        }
        Deed::Unpublish { what, server } => {
            told(&server.connect().await?.show(&what, "private").await?.value);
            Ok(())
        }
    }
}

async fn ls(client: &Client, folder: Option<&str>, trash: bool) -> Result<(), CliError> {
    let (folders, files) = if trash {
        ("/v1/folders?trashed=true".to_owned(), "/v1/files?state=trashed".to_owned())
    } else {
        match client.folder_at(folder.unwrap_or_default()).await? {
            Some(id) => (format!("/v1/folders?parent_id={id}"), format!("/v1/files?folder_id={id}")),
            None => ("/v1/folders?".to_owned(), "/v1/files?top=true".to_owned()),
        }
    };
    for path in [folders, files] {
        let mut entries = client.all(&path).await?;
        entries.sort_by_key(|entry| entry.name.to_lowercase());
        entries.iter().for_each(told);
    }
    Ok(())
}

fn told(entry: &Entry) {
    let size = entry.size_bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
    let slash = if entry.is_folder() { "/" } else { "" };
    println!("{}  {size:>12}  {}{slash}", entry.id, entry.name);
}

impl Entry {
    fn is_folder(&self) -> bool {
        self.object == "folder"
    }

    fn path(&self) -> String {
        format!("/v1/{}/{}", if self.is_folder() { "folders" } else { "files" }, self.id)
    }
}

impl Client {
    async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Answer<T>, CliError> {
        self.json(self.call(method, path).json(body)).await
    }

    async fn patch(&self, thing: &Entry, body: &Value) -> Result<(), CliError> {
        told(&self.patched(thing, body).await?.value);
        Ok(())
    }

    async fn patched(&self, thing: &Entry, body: &Value) -> Result<Answer<Entry>, CliError> {
        // What was looked at is what is changed.
        let call = self.call(Method::PATCH, &thing.path()).header("if-match", format!("\"{}\"", thing.rev));
        self.json(call.json(body)).await
    }

    /// Says who may see a picture: `public` or `private`.
    async fn show(&self, what: &str, visibility: &str) -> Result<Answer<Entry>, CliError> {
        let thing = self.thing_at(what).await?;
        if thing.is_folder() {
            return Err(CliError::Usage(format!("{what}: a folder cannot be public, only a picture")));
        }
        self.patched(&thing, &json!({ "visibility": visibility })).await.map_err(|e| e.about(what))
    }

    /// All of a list, page by page.
    async fn all(&self, path: &str) -> Result<Vec<Entry>, CliError> {
        let (mut all, mut cursor) = (vec![], String::new());
        loop {
            let page: Answer<List<Entry>> =
                self.json(self.call(Method::GET, &format!("{path}&limit=100{cursor}"))).await?;
            all.extend(page.value.data);
            match page.json["next_cursor"].as_str() {
                Some(next) => cursor = format!("&starting_after={next}"),
                None => return Ok(all),
            }
        }
    }

    /// The folder at a path, or of an id; none for the top.
    async fn folder_at(&self, path: &str) -> Result<Option<Uuid>, CliError> {
        if let Ok(id) = path.parse() {
            return Ok(Some(id));
        }
        let mut within = None;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            within = Some(self.folder_in(within, name).await?.ok_or_else(|| nothing(path))?.id);
        }
        Ok(within)
    }

    async fn folder_in(&self, within: Option<Uuid>, name: &str) -> Result<Option<Entry>, CliError> {
        let place = within.map(|id| format!("parent_id={id}&")).unwrap_or_default();
        let list = self.all(&format!("/v1/folders?{place}name_prefix={}", path_part(name))).await?;
        Ok(list.into_iter().find(|entry| same(&entry.name, name)))
    }

    /// The folder or file at a path, or of an id.
    async fn thing_at(&self, path: &str) -> Result<Entry, CliError> {
        if let Ok(id) = path.parse() {
            return self.thing_of(id).await;
        }
        let (above, name) = path.trim_matches('/').rsplit_once('/').unwrap_or(("", path.trim_matches('/')));
        if name.is_empty() {
            return Err(nothing(path));
        }
        let within = self.folder_at(above).await?;
        if let Some(folder) = self.folder_in(within, name).await? {
            return Ok(folder);
        }
        let place = within.map_or_else(|| "top=true".to_owned(), |id| format!("folder_id={id}"));
        let files = self.all(&format!("/v1/files?{place}&name_prefix={}", path_part(name))).await?;
        let mut found = files.into_iter().filter(|file| same(&file.name, name));
        match (found.next(), found.next()) {
            (Some(file), None) => Ok(file),
            (None, _) => Err(nothing(path)),
            _ => {
                Err(CliError::Usage(format!("{path}: there are several; say which by its id, as `files ls` tells it")))
            }
        }
    }

    async fn thing_of(&self, id: Uuid) -> Result<Entry, CliError> {
        match self.json(self.call(Method::GET, &format!("/v1/files/{id}"))).await {
            Err(CliError::Refused { problem, .. }) if problem.code == "file.not_found" => {
                Ok(self.json(self.call(Method::GET, &format!("/v1/folders/{id}"))).await?.value)
            }
            file => Ok(file?.value),
        }
    }
}

fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

fn nothing(path: &str) -> CliError {
    CliError::Usage(format!("{path}: there is no such file or folder"))
}
