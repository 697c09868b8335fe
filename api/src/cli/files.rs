//! `flatrender files …`: the tenant's folders and files, by paths such as `Films/Spring/logo.png` or by id.

use super::{
    answers::{Entry, List},
    client::{Answer, Client, path_part},
    failure::CliError,
    payments::{How, show, text},
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
        how: How,
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
        how: How,
    },
    /// Makes a folder.
    Mkdir {
        /// Where, such as `Films/Spring`; the folder above has to be there.
        path: String,
        #[command(flatten)]
        how: How,
    },
    /// Moves a file or folder into a folder.
    Mv {
        /// What.
        what: String,
        /// The folder it comes into; `/` for none.
        into: String,
        #[command(flatten)]
        how: How,
    },
    /// Gives a file or folder another name.
    Rename {
        /// What.
        what: String,
        /// The new name, without folders.
        name: String,
        #[command(flatten)]
        how: How,
    },
    /// Puts a file, or a folder with all below it, into the trash.
    Trash {
        /// What.
        what: String,
        #[command(flatten)]
        how: How,
    },
    /// Takes something out of the trash: a folder with exactly what went there with it.
    Restore {
        /// Its id, as `ls --trash` tells it.
        id: Uuid,
        #[command(flatten)]
        how: How,
    },
    /// Has the next clean-up remove all that is in the trash.
    EmptyTrash {
        #[command(flatten)]
        how: How,
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
        how: How,
    },
    /// Shows a picture to everybody, and prints where: an address that never shows anything else.
    Publish {
        /// What.
        what: String,
        #[command(flatten)]
        how: How,
    },
    /// Ends the public address of a picture. Whoever has kept what is there has it still.
    Unpublish {
        /// What.
        what: String,
        #[command(flatten)]
        how: How,
    },
}

/// Runs the command.
///
/// # Errors
/// See [`CliError`].
pub async fn run(args: FilesArgs) -> Result<(), CliError> {
    match args.deed {
        Deed::Ls { folder, trash, how } => ls(&how, folder.as_deref(), trash).await,
        Deed::Upload { path, resume, folder, direct, how } => {
            let client = how.connect().await?;
            let folder = client.folder_at(folder.as_deref().unwrap_or_default()).await?;
            let by = match (resume, direct) {
                (Some(id), _) => upload::How::Resume(id),
                (None, true) => upload::How::Direct(folder),
                (None, false) => upload::How::Tus(folder),
            };
            let id = upload::file(&client, &path, by).await?;
            show(how.is_json(), &json!({ "id": id }), |file| text(&file["id"]).to_owned())
        }
        Deed::Mkdir { path, how } => {
            let client = how.connect().await?;
            let (above, name) = path.trim_matches('/').rsplit_once('/').unwrap_or(("", path.trim_matches('/')));
            let parent = client.folder_at(above).await?;
            let body = json!({ "name": name, "parent_id": parent });
            let made = client.change(Method::POST, "/v1/folders", &body).await;
            told(&how, &made.map_err(|e| e.about(path))?)
        }
        Deed::Mv { what, into, how } => {
            let client = how.connect().await?;
            let (thing, into) = (client.thing_at(&what).await?, client.folder_at(&into).await?);
            let place = if thing.is_folder() { "parent_id" } else { "folder_id" };
            told(&how, &client.patched(&thing, &json!({ place: into })).await.map_err(|e| e.about(what))?)
        }
        Deed::Rename { what, name, how } => {
            let client = how.connect().await?;
            let thing = client.thing_at(&what).await?;
            told(&how, &client.patched(&thing, &json!({ "name": name })).await.map_err(|e| e.about(what))?)
        }
        Deed::Trash { what, how } => {
            let client = how.connect().await?;
            let path = format!("{}/trash", client.thing_at(&what).await?.path());
            told(&how, &client.change(Method::POST, &path, &json!({})).await.map_err(|e| e.about(what))?)
        }
        Deed::Restore { id, how } => {
            let client = how.connect().await?;
            let path = format!("{}/restore", client.thing_of(id).await?.path());
            told(&how, &client.change(Method::POST, &path, &json!({})).await.map_err(|e| e.about(id.to_string()))?)
        }
        Deed::EmptyTrash { how } => {
            let client = how.connect().await?;
            let emptied: Answer<Value> = client.change(Method::POST, "/v1/trash/empty", &json!({})).await?;
            show(how.is_json(), &emptied.json, |gone| {
                format!("{} files and {} folders go with the next clean-up", gone["files"], gone["folders"])
            })
        }
        Deed::Share { what, hours, downloads, how } => {
            let client = how.connect().await?;
            let thing = client.thing_at(&what).await?;
            if thing.is_folder() {
                return Err(CliError::Usage(format!("{what}: a folder cannot be shared, only a file")));
            }
            let body = json!({ "expires_in_seconds": hours * 3600, "max_downloads": downloads });
            let path = format!("{}/share-links", thing.path());
            let link: Answer<Value> = client.change(Method::POST, &path, &body).await.map_err(|e| e.about(what))?;
            show(how.is_json(), &link.json, |link| text(&link["url"]).to_owned())
        }
        Deed::Publish { what, how } => {
            let file = how.connect().await?.show(&what, "public").await?;
            show(how.is_json(), &file.json, |file| text(&file["public_url"]).to_owned())
        }
        Deed::Unpublish { what, how } => told(&how, &how.connect().await?.show(&what, "private").await?),
    }
}

async fn ls(how: &How, folder: Option<&str>, trash: bool) -> Result<(), CliError> {
    let client = how.connect().await?;
    let (folders, files) = if trash {
        ("/v1/folders?trashed=true".to_owned(), "/v1/files?state=trashed".to_owned())
    } else {
        match client.folder_at(folder.unwrap_or_default()).await? {
            Some(id) => (format!("/v1/folders?parent_id={id}"), format!("/v1/files?folder_id={id}")),
            None => ("/v1/folders?".to_owned(), "/v1/files?top=true".to_owned()),
        }
    };
    let mut all: Vec<Value> = vec![];
    for path in [folders, files] {
        let mut entries: Vec<Value> = client.all(&path).await?;
        entries.sort_by_key(|entry| text(&entry["name"]).to_lowercase());
        all.extend(entries);
    }
    show(how.is_json(), &json!({ "object": "list", "data": all }), line)
}

fn told(how: &How, entry: &Answer<Entry>) -> Result<(), CliError> {
    show(how.is_json(), &entry.json, line)
}

fn line(entry: &Value) -> String {
    let size = entry["size_bytes"].as_u64().map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
    let slash = if entry["object"] == "folder" { "/" } else { "" };
    format!("{}  {size:>12}  {}{slash}", text(&entry["id"]), text(&entry["name"]))
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
    async fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, CliError> {
        let (mut all, mut cursor) = (vec![], String::new());
        loop {
            let page: Answer<List<T>> = self.json(self.call(Method::GET, &format!("{path}&limit=100{cursor}"))).await?;
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
        let list: Vec<Entry> = self.all(&format!("/v1/folders?{place}name_prefix={}", path_part(name))).await?;
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
        let files: Vec<Entry> = self.all(&format!("/v1/files?{place}&name_prefix={}", path_part(name))).await?;
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
