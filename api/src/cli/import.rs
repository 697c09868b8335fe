//! `flatrender import`: orders in the forms of others.

use super::{
    client::Client,
    failure::CliError,
    film, nexrender,
    order::{LocalOrder, OrderArgs},
    progress,
    render::{check_out, describe},
    server::ServerArgs,
};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};
use uuid::Uuid;

/// Orders in one request: their texts have to fit into a body.
const BATCH: usize = 100;
/// Longest file of orders.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// Orders films from files in the forms of others.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    #[command(subcommand)]
    form: Form,
}

#[derive(Debug, Clone, Subcommand)]
enum Form {
    Csv(CsvArgs),
    Nexrender(NexrenderArgs),
}

/// Orders a film for each row of a table.
///
/// The first row names the columns: text.KEY, image.KEY (a path beside the table), color.KEY, visible.KEY (true or false), theme, height,
/// quality, music (a path), and metadata.KEY, which is given back with the render. An empty cell says nothing.
#[derive(Debug, Clone, Args)]
struct CsvArgs {
    /// The table, in UTF-8.
    file: PathBuf,
    /// The template to fill in: see `flatrender templates`.
    #[arg(long, short, value_name = "SLUG")]
    template: String,
    /// Read the table and every file it names, and order nothing.
    #[arg(long)]
    dry_run: bool,
    /// Orders with the same key are ordered once, however often this is run.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Print what became of each row, as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Makes the film of a job of nexrender, as far as a template can be told what it says.
///
/// Layers are found among the fields of the template by their names. What does not map is listed; when it would make another film, nothing
/// is ordered unless --lossy is given.
#[derive(Debug, Clone, Args)]
struct NexrenderArgs {
    /// The job, as nexrender takes it.
    job: PathBuf,
    /// The template to fill in [default: the name of the job's project].
    #[arg(long, short, value_name = "SLUG")]
    template: Option<String>,
    /// Say what maps and what does not, and order nothing.
    #[arg(long)]
    dry_run: bool,
    /// Make the film although something of the job is lost.
    #[arg(long)]
    lossy: bool,
    /// Where to put the film [default: where the job copies it, or film.mp4].
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print what maps and the finished render as JSON, and no progress.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
///
/// # Errors
/// See [`CliError`].
pub async fn run(args: ImportArgs) -> Result<(), CliError> {
    match args.form {
        Form::Csv(args) => csv(args).await,
        Form::Nexrender(args) => one_job(args).await,
    }
}

async fn csv(args: CsvArgs) -> Result<(), CliError> {
    let orders = rows(&args.file, &args.template)?;
    if args.dry_run {
        match args.json {
            true => println!("{}", json!({ "orders": orders.len() })),
            false => println!("{} orders, and every file is there; nothing was ordered", orders.len()),
        }
        return Ok(());
    }
    let client = args.server.connect().await?;
    let key = args.key.unwrap_or_else(|| Uuid::now_v7().to_string());
    eprintln!("orders of {} under --key {key}", args.file.display());
    let (mut uploaded, mut done) = (BTreeMap::new(), vec![]);
    let count = orders.len();
    let bar = progress::count(count as u64, args.json);
    let mut orders = orders.into_iter();
    for number in 0..count.div_ceil(BATCH) {
        let mut bodies = vec![];
        for order in orders.by_ref().take(BATCH) {
            bodies.push(order.upload_once(&client, &mut uploaded).await?);
        }
        let asked = bodies.len();
        done.extend(batch(&client, &bodies, &format!("{key}:{number}")).await?);
        bar.inc(asked as u64);
    }
    bar.finish_and_clear();
    tell(&done, &key, args.json)
}

/// Orders a batch; those that there was no time for are sent again with the same key.
async fn batch(client: &Client, orders: &[Value], key: &str) -> Result<Vec<Value>, CliError> {
    loop {
        let call = client.call(reqwest::Method::POST, "/v1/renders/batch").header("idempotency-key", key);
        let answer = client.json::<Value>(call.json(&json!({ "orders": orders }))).await?.value;
        let items = answer["data"].as_array().cloned().unwrap_or_default();
        if !items.iter().any(|item| item["problem"]["code"] == "server.timeout") {
            return Ok(items);
        }
    }
}

/// A line a refused row, and a summary. Rows are counted as a spreadsheet does, names first.
fn tell(items: &[Value], key: &str, as_json: bool) -> Result<(), CliError> {
    let refused = items.iter().enumerate().filter(|(_, item)| item["outcome"] == "refused");
    let refused: Vec<(usize, &Value)> = refused.map(|(index, item)| (index + 2, &item["problem"])).collect();
    if as_json {
        let rows = items.iter().enumerate().map(|(index, item)| {
            json!({"row": index + 2, "outcome": item["outcome"], "render": item["render"]["id"], "problem": item["problem"]})
        });
        println!("{:#}", json!({"object": "list", "data": rows.collect::<Vec<_>>()}));
    } else {
        for (row, problem) in &refused {
            println!(
                "row {row}: {} ({})",
                problem["detail"].as_str().unwrap_or_default(),
                problem["code"].as_str().unwrap_or_default()
            );
        }
        println!("{} of {} ordered", items.len() - refused.len(), items.len());
    }
    match refused.len() {
        0 => Ok(()),
        some => Err(CliError::Unhealthy(format!(
            "{some} rows were refused; correct them and run this again with --key {key}: what was ordered is not ordered twice"
        ))),
    }
}

/// The orders of a table, every file they name looked at.
fn rows(path: &Path, template: &str) -> Result<Vec<LocalOrder>, CliError> {
    let text = read(path, "the table")?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut reader = ::csv::ReaderBuilder::new().from_reader(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text));
    let wrong = |e: ::csv::Error| CliError::Usage(format!("{}: {e}", path.display()));
    let names = reader.headers().map_err(wrong)?.clone();
    let mut orders = vec![];
    for (row, record) in reader.records().enumerate() {
        let record = record.map_err(wrong)?;
        let about = |e: CliError| CliError::Usage(format!("row {}: {}", row + 2, e.line()));
        orders.push(order(template, folder, names.iter().zip(record.iter())).map_err(about)?);
    }
    match orders.is_empty() {
        true => Err(CliError::Usage(format!("{}: there is no row below the names", path.display()))),
        false => Ok(orders),
    }
}

fn order<'a>(
    template: &str,
    folder: &Path,
    cells: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<LocalOrder, CliError> {
    let mut args = OrderArgs { template: template.to_owned(), ..OrderArgs::default() };
    let mut metadata = Map::new();
    for (name, cell) in cells.filter(|(_, cell)| !cell.is_empty()) {
        let (kind, key) = name.trim().split_once('.').unwrap_or((name.trim(), ""));
        let beside = || folder.join(cell);
        match (kind, key) {
            ("text", key) if !key.is_empty() => args.text.push((key.to_owned(), cell.to_owned())),
            ("image", key) if !key.is_empty() => {
                args.image.push((key.to_owned(), beside().to_string_lossy().into_owned()))
            }
            ("color", key) if !key.is_empty() => args.color.push((key.to_owned(), cell.to_owned())),
            ("metadata", key) if !key.is_empty() => {
                metadata.insert(key.to_owned(), cell.into());
            }
            ("visible", key) if !key.is_empty() => match cell.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => args.show.push(key.to_owned()),
                "false" | "no" | "0" => args.hide.push(key.to_owned()),
                _ => return Err(CliError::Usage(format!("{name}: {cell:?} is neither true nor false"))),
            },
            ("theme", "") => args.theme = Some(cell.to_owned()),
            ("quality", "") => args.quality = Some(cell.to_owned()),
            ("music", "") => args.music = Some(beside()),
            ("height", "") => {
                let height =
                    cell.trim().parse().map_err(|_| CliError::Usage(format!("height: {cell:?} is no number")))?;
                args.height = Some(height);
            }
            _ => {
                let known =
                    "text.KEY, image.KEY, color.KEY, visible.KEY, metadata.KEY, theme, height, quality and music";
                return Err(CliError::Usage(format!("there is no column {name:?}; there are {known}")));
            }
        }
    }
    Ok(args.read()?.with_metadata(metadata))
}

async fn one_job(args: NexrenderArgs) -> Result<(), CliError> {
    let begun = Instant::now();
    let text = read(&args.job, "the job")?;
    let slug = match args.template {
        Some(slug) => slug,
        None => nexrender::slug(&text)?
            .ok_or_else(|| CliError::Usage("the job names no project: say which template with --template".into()))?,
    };
    let server = args.server.connect_or_start("127.0.0.1:0", &[]).await?;
    let made = async {
        let manifest = server.client.template(&slug).await?.json["manifest"].clone();
        let folder = args.job.parent().unwrap_or(Path::new(""));
        let mapped = nexrender::map(&text, folder, &slug, &manifest)?;
        if !args.json {
            list(&mapped);
        }
        let found = json!({"template": slug, "kept": mapped.kept, "lost": mapped.lost, "moot": mapped.moot});
        if args.dry_run {
            return Ok((found, None));
        }
        if !mapped.lost.is_empty() && !args.lossy {
            let lost = mapped.lost.join("; ");
            return Err(CliError::Usage(format!(
                "the film would be another; --lossy makes it all the same. Lost: {lost}"
            )));
        }
        let out = args.out.or(mapped.out).unwrap_or_else(|| "film.mp4".into());
        check_out(&out)?;
        let order = mapped.order.read()?.with_metadata(mapped.metadata);
        let film = film::make(&server.client, order, &out, args.json).await?;
        Ok((found, Some((film, out))))
    }
    .await;
    server.stop().await;
    let (mut found, film) = made?;
    if let Some((film, out)) = film {
        if !args.json {
            let took = progress::duration(begun.elapsed());
            println!("{} ({}, in {took})", out.display(), describe(&film.render.value));
        }
        found["render"] = film.render.json;
        found["file"] = out.to_string_lossy().into();
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&found).context("cannot write JSON")?);
    }
    Ok(())
}

fn list(mapped: &nexrender::Mapped) {
    for (mark, lines) in [("maps ", &mapped.kept), ("moot ", &mapped.moot), ("LOST ", &mapped.lost)] {
        for line in lines {
            println!("{mark} {line}");
        }
    }
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, CliError> {
    let unreadable = |e: &dyn std::fmt::Display| CliError::unreadable(what, path, e);
    let length = std::fs::metadata(path).map_err(|e| unreadable(&e))?.len();
    if length > MOST_BYTES {
        return Err(unreadable(&"it is longer than 64 MiB"));
    }
    std::fs::read(path).map_err(|e| unreadable(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Result<Vec<LocalOrder>, CliError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("logo.png"), b"picture").unwrap();
        std::fs::write(dir.path().join("table.csv"), text).unwrap();
        rows(&dir.path().join("table.csv"), "promo")
    }

    #[test]
    fn each_row_is_an_order() {
        let orders = table(
            "\u{feff}text.title,image.logo,color.accent,visible.badge,theme,height,metadata.id\n\
             \"Spring, \"\"sale\"\"\",logo.png,#ff0000,no,night,720,7\n\
             بهار,,,,,,8\n",
        );
        let orders = orders.unwrap();
        assert_eq!(orders[0].body()["data"]["texts"], json!({"title": "Spring, \"sale\""}));
        assert_eq!(orders[0].body()["data"]["visibility"], json!({"badge": false}));
        assert_eq!(orders[0].body()["output"], json!({"height": 720}));
        assert_eq!(orders[0].file_count(), 1);
        assert_eq!(orders[1].body()["metadata"], json!({"id": "8"}));
        assert_eq!(orders[1].body()["data"]["texts"], json!({"title": "بهار"}));
    }

    #[test]
    fn what_is_wrong_with_a_table_is_said_with_its_row() {
        for (text, said) in [
            ("", "no row"),
            ("text.title\n", "no row"),
            ("title\nx\n", "row 2: there is no column \"title\""),
            ("text.title,height\nx,tall\n", "row 2: height: \"tall\" is no number"),
            ("text.title\nx\ny,z\n", "table.csv"),
            ("text.title,visible.x\na,true\nb,perhaps\n", "row 3: visible.x"),
            ("image.logo\nlogo.png\nnone.png\n", "row 3: images.logo: cannot read"),
        ] {
            let line = table(text).unwrap_err().line();
            assert!(line.contains(said), "{line}");
        }
    }
}
