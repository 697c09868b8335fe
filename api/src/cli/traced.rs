//! `flatrender traced …`: pictures of a template, traced to SVG, whose colours a page changes without a render.

use super::{
    client::path_part,
    failure::CliError,
    payments::{How, ask, show},
    server::ServerArgs,
};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::{io::Write as _, path::PathBuf};

/// Traces pictures of a template to SVG, and looks after them.
#[derive(Debug, Args)]
pub struct TracedArgs {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Lists the traced pictures of a template, and their colours.
    List {
        /// The template.
        template: String,
        #[command(flatten)]
        how: How,
    },
    /// Uploads a PNG, JPEG or WebP and traces it.
    Add {
        /// The template, one of your own.
        template: String,
        /// The picture.
        picture: PathBuf,
        /// The scene that it shows [default: the whole template].
        #[arg(long)]
        scene: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// Prints the SVG.
    Show {
        /// The template.
        template: String,
        /// The picture, by its id.
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Names colours of a picture.
    Name {
        /// The template.
        template: String,
        /// The picture, by its id.
        id: String,
        /// A colour and its name, such as slot-1=Background; without a name it has none.
        #[arg(required = true, value_name = "SLOT=NAME", value_parser = label)]
        labels: Vec<(String, String)>,
        #[command(flatten)]
        how: How,
    },
    /// Removes a traced picture; the one that it was traced from stays.
    Remove {
        /// The template.
        template: String,
        /// The picture, by its id.
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// See [`CliError`].
pub async fn run(args: TracedArgs) -> Result<(), CliError> {
    match args.deed {
        Deed::List { template, how } => {
            let all = ask(&how.connect().await?, Method::GET, &of(&template), None).await?;
            show(how.is_json(), &all, lines)
        }
        Deed::Add { template, picture, scene, how } => {
            let client = how.connect().await?;
            let file = client.upload(&picture).await?;
            let body = json!({"file_id": file.id, "scene": scene});
            show(how.is_json(), &ask(&client, Method::POST, &of(&template), Some(body)).await?, lines)
        }
        Deed::Show { template, id, server } => {
            let client = server.connect().await?;
            let answer = client.send(client.call(Method::GET, &format!("{}/svg", one(&template, &id)))).await?;
            let svg = answer.bytes().await.map_err(|e| client.lost(&e))?;
            Ok(std::io::stdout().write_all(&svg).context("cannot write the SVG")?)
        }
        Deed::Name { template, id, labels, how } => {
            let name = |name: String| if name.is_empty() { Value::Null } else { Value::String(name) };
            let labels: Map<String, Value> = labels.into_iter().map(|(slot, text)| (slot, name(text))).collect();
            let body = json!({ "labels": labels });
            let named = ask(&how.connect().await?, Method::PATCH, &one(&template, &id), Some(body)).await?;
            show(how.is_json(), &named, lines)
        }
        Deed::Remove { template, id, server } => {
            let client = server.connect().await?;
            client.send(client.call(Method::DELETE, &one(&template, &id))).await?;
            Ok(())
        }
    }
}

fn of(template: &str) -> String {
    format!("/v1/templates/{}/svg-previews", path_part(template))
}

fn one(template: &str, id: &str) -> String {
    format!("{}/{}", of(template), path_part(id))
}

/// The picture, and a line for each of its colours.
fn lines(picture: &Value) -> String {
    let text = |name: &str| picture[name].as_str().unwrap_or("-");
    let mut all = vec![format!("{} {}", text("id"), text("scene"))];
    for slot in picture["slots"].as_array().into_iter().flatten() {
        let text = |name: &str| slot[name].as_str().unwrap_or_default();
        let share = slot["share"].as_f64().unwrap_or_default() * 100.0;
        all.push(format!("  {:<8} {} {share:>5.1} %  {}", text("id"), text("color"), text("label")));
    }
    all.join("\n")
}

fn label(text: &str) -> Result<(String, String), String> {
    let (slot, name) = text.split_once('=').ok_or("a colour and its name are SLOT=NAME")?;
    Ok((slot.to_owned(), name.trim().to_owned()))
}
