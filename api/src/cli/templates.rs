//! `flatrender templates`: what can be rendered, and what each template wants to be told.

use super::answers::Template;
use super::failure::CliError;
use super::server::ServerArgs;
use anyhow::Context as _;
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;

/// Lists the templates, or tells everything about one.
///
/// With a slug: its texts with their limits, pictures, colours, themes and scenes.
#[derive(Debug, Clone, Args)]
pub struct TemplatesArgs {
    /// Only this one, with its fields.
    slug: Option<String>,
    /// Print what the server says, as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
///
/// # Errors
/// See [`CliError`].
pub async fn run(args: TemplatesArgs) -> Result<(), CliError> {
    let client = args.server.connect().await?;
    let (json, text) = match &args.slug {
        Some(slug) => {
            let one = client.template(slug).await?;
            let text = details(&one.value, &one.json["manifest"]);
            (one.json, text)
        }
        None => {
            let list = client.templates().await?;
            let text = list.value.data.iter().map(line).collect();
            (list.json, text)
        }
    };
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&json).context("cannot write JSON")?),
        false => print!("{text}"),
    }
    Ok(())
}

fn line(t: &Template) -> String {
    let size = format!("{}×{}", t.width, t.height);
    format!("{:<16} {size:>9}  {:>5.1} s  {}\n", t.slug, t.duration_seconds, english(&t.title))
}

fn details(t: &Template, manifest: &Value) -> String {
    let mut out = format!(
        "{}, version {}: {}\n{}\n{}×{}, {} frames a second, {:.1} s\n",
        t.slug,
        t.version,
        english(&t.title),
        english(&t.description),
        t.width,
        t.height,
        t.fps,
        t.duration_seconds,
    );
    section(&mut out, "Texts", manifest, "texts", |f| {
        let needed = if f["required"] == true { "required" } else { "optional" };
        let lines = if f["max_lines"] == 1 { "line" } else { "lines" };
        format!("{needed}, at most {} characters in {} {lines}", f["max_chars"], f["max_lines"])
    });
    section(&mut out, "Images", manifest, "images", |f| {
        format!("{}×{}, {}", f["width"], f["height"], plain(&f["fit"]))
    });
    section(&mut out, "Colors", manifest, "colors", |f| plain(&f["default"]));
    section(&mut out, "Themes", manifest, "themes", |_| String::new());
    section(&mut out, "Visibility", manifest, "visibility", |f| format!("{} when nothing is said", f["default"]));
    let fps = if t.fps > 0.0 { t.fps } else { 1.0 };
    section(&mut out, "Scenes", manifest, "scenes", |f| {
        let seconds = |key: &str| f[key].as_f64().unwrap_or_default() / fps;
        format!("{:.1} s ({:.1} to {:.1})", seconds("frames"), seconds("min_frames"), seconds("max_frames"))
    });
    out
}

fn section(out: &mut String, title: &str, manifest: &Value, list: &str, say: impl Fn(&Value) -> String) {
    let fields = manifest[list].as_array().map(Vec::as_slice).unwrap_or_default();
    if fields.is_empty() {
        return;
    }
    out.push_str(&format!("\n{title}\n"));
    for field in fields {
        let key = plain(if field["key"].is_null() { &field["id"] } else { &field["key"] });
        let label = plain(&field["label"]["en"]);
        out.push_str(format!("  {key:<16} {label:<27} {}", say(field)).trim_end());
        out.push('\n');
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn english(label: &BTreeMap<String, String>) -> &str {
    label.get("en").or_else(|| label.values().next()).map_or("", String::as_str)
}
