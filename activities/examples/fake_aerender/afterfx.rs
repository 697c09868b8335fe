//! The application as a host of scripts: runs the very script that prepares projects, against a model of the objects
//! that it touches. `AfterFX -m -noui -r SCRIPT`; it can prove the script and its runner, never After Effects.

use rquickjs::{CatchResultExt, Context, Ctx, Function, Object, Runtime, context::EvalOptions};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{fs, path::Path};

const STACK_BYTES: usize = 16 << 20;
const MODEL: [&str; 4] = [
    include_str!("afterfx/properties.js"),
    include_str!("afterfx/items.js"),
    include_str!("afterfx/application.js"),
    include_str!("afterfx/es3.js"),
];

/// What goes wrong while a project is prepared.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prepare {
    /// Where it stops for ever: `launch`, before the script; `open`, at a dialog over the project; `quit`, at the end.
    pub hang: String,
    /// It dies while it opens the project.
    pub crash: bool,
    /// The preference that lets scripts write files.
    pub may_write: Option<bool>,
    /// What it says when it cannot open the project.
    pub open_error: String,
    /// What it says of every picture that is imported.
    pub bad_media: String,
    /// Fonts that this node does not have.
    pub missing_fonts: Vec<String>,
    /// A version without `app.fonts`.
    pub no_font_check: bool,
    /// A version whose output modules have no setting for frame numbers.
    pub no_frame_numbers: bool,
    /// What an expression on every text layer says.
    pub expression_error: String,
    /// It takes the last letter off every text.
    pub alters_text: bool,
    /// It throws where no script expects it.
    pub throws: bool,
    /// What the designer's output module writes.
    pub format: String,
    /// The system that it says it runs on; empty: macOS.
    pub os: String,
}

/// Runs a script as if it lay at `path`. What it threw, if it did.
pub fn run(script: &str, path: &Path, prepare: &Prepare) -> Result<(), String> {
    // The engine recurses; not every system gives a program's first thread enough room for that.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let ran = thread.spawn_scoped(scope, || interpret(script, path, prepare)).map_err(|e| e.to_string())?;
        ran.join().unwrap_or_else(|_| Err("the engine broke".to_owned()))
    })
}

fn interpret(script: &str, path: &Path, prepare: &Prepare) -> Result<(), String> {
    let runtime = Runtime::new().map_err(|e| e.to_string())?;
    runtime.set_max_stack_size(STACK_BYTES / 2);
    let context = Context::full(&runtime).map_err(|e| e.to_string())?;
    context.with(|ctx| {
        furnish(&ctx, path, prepare).catch(&ctx).map_err(|e| e.to_string())?;
        for part in MODEL.into_iter().chain([script]) {
            let mut options = EvalOptions::default();
            options.strict = false;
            ctx.eval_with_options::<(), _>(part, options).catch(&ctx).map_err(|e| e.to_string())?;
        }
        Ok(())
    })
}

/// Gives the model its way to the world.
fn furnish(ctx: &Ctx<'_>, path: &Path, prepare: &Prepare) -> rquickjs::Result<()> {
    let host = Object::new(ctx.clone())?;
    host.set("script", path.to_string_lossy().replace('\\', "/"))?;
    host.set("settings", ctx.json_parse(serde_json::to_vec(prepare).unwrap_or_default())?)?;
    host.set(
        "read",
        Function::new(ctx.clone(), |path: String| fs::read_to_string(path).ok().map_or(Null(None), |t| Null(Some(t)))),
    )?;
    host.set("write", Function::new(ctx.clone(), |path: String, text: String| fs::write(path, text).is_ok()))?;
    host.set("rename", Function::new(ctx.clone(), |from: String, to: String| fs::rename(from, to).is_ok()))?;
    host.set("remove", Function::new(ctx.clone(), |path: String| fs::remove_file(path).is_ok()))?;
    host.set(
        "hash",
        Function::new(ctx.clone(), |path: String| Null(fs::read(path).ok().map(|b| hex::encode(Sha256::digest(b))))),
    )?;
    host.set("hang", Function::new(ctx.clone(), hang))?;
    host.set("crash", Function::new(ctx.clone(), crash))?;
    ctx.globals().set("host", host)
}

/// A text or `null`; the library's own `None` is `undefined`.
struct Null(Option<String>);

impl<'js> rquickjs::IntoJs<'js> for Null {
    fn into_js(self, ctx: &Ctx<'js>) -> rquickjs::Result<rquickjs::Value<'js>> {
        match self.0 {
            Some(text) => text.into_js(ctx),
            None => Ok(rquickjs::Value::new_null(ctx.clone())),
        }
    }
}

fn crash() {
    std::process::abort()
}

/// A dialog that nobody answers.
pub fn hang() {
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}
