//! The development mock: paints stills instead of rendering them, on a machine that has no renderer. It takes tasks of
//! `RenderStills` and nothing else, and what it paints never replaces a real still.
//!
//! Off unless `RENDER_DEV_SNAPSHOTS` is `1` or `true`; with `FLATRENDER_ENV=production` that is refused.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flatrender_engine::{
    Activity as _, Client, Failure,
    remote::{RemoteWorker, Service, wire::Claim},
};
use flatrender_workflows::{
    contracts::snapshot::{RenderStills, SNAPSHOT_QUEUE, STILLS_A_VISIT, Still},
    models::{Role, Scope, render::live_task},
};
use image::{ImageFormat, Rgb, RgbImage};
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use std::{env, error::Error, io::Cursor, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The variable that turns the mock on, and the one that says where we are.
const SWITCH: &str = "RENDER_DEV_SNAPSHOTS";
const PLACE: &str = "FLATRENDER_ENV";
/// How often it looks for work.
const LOOK: Duration = Duration::from_millis(300);
/// The longest side of a placeholder: some hundred bytes as a PNG of one colour.
const SIDE: u32 = 240;

/// Whether stills are painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholders {
    /// Never.
    Off,
    /// Whenever there is a still to render.
    Painted,
}

/// The environment asks for what is not allowed, or cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSetting {
    /// Painted stills and production.
    #[error("{SWITCH} is for development and {PLACE} is production: unset one of them")]
    InProduction,
    /// Neither on nor off.
    #[error("{SWITCH} is {0:?}: say 1 or true, or 0 or false")]
    Unclear(String),
}

/// Whether the environment says that this is production.
pub fn in_production() -> bool {
    env::var_os(PLACE).is_some_and(|place| place == "production")
}

impl Placeholders {
    /// As the environment says.
    ///
    /// # Errors
    /// [`BadSetting`]; nothing is to start.
    pub fn from_env() -> Result<Self, BadSetting> {
        let read = |name| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self::read(read(SWITCH).as_deref(), read(PLACE).as_deref())
    }

    fn read(switch: Option<&str>, place: Option<&str>) -> Result<Self, BadSetting> {
        let production = place.is_some_and(|p| p.trim().eq_ignore_ascii_case("production"));
        match switch.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "0" | "false" => Ok(Self::Off),
            "1" | "true" if production => Err(BadSetting::InProduction),
            "1" | "true" => Ok(Self::Painted),
            other => Err(BadSetting::Unclear(other.chars().take(40).collect())),
        }
    }

    /// Paints until `stopping`; ends at once when it is off.
    pub(super) async fn paint(self, db: PgPool, stopping: CancellationToken) {
        if self == Self::Off {
            return;
        }
        tracing::warn!("{SWITCH} is on: stills of scenes are painted, not rendered");
        let painter = Painter::new(db);
        while !stopping.is_cancelled() {
            if let Err(error) = painter.round().await {
                tracing::warn!(error = error.as_ref() as &dyn Error, "cannot paint stills yet");
            }
            tokio::select! {
                () = stopping.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

struct Painter {
    db: PgPool,
    client: Client,
    service: Service,
    worker: RemoteWorker,
    incarnation: Uuid,
}

impl Painter {
    fn new(db: PgPool) -> Self {
        let client = Client::new(db.clone());
        let worker = RemoteWorker { name: "dev-snapshots".into(), queues: vec![SNAPSHOT_QUEUE.to_owned()] };
        Self { db, service: Service::new(client.clone()), client, worker, incarnation: Uuid::new_v4() }
    }

    /// Paints what is there to be painted, whatever it asks of a renderer.
    async fn round(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut tx = Scope::platform(Role::Workflow).begin(&self.db).await?;
        let asked = live_task::labels_asked(&mut tx, SNAPSHOT_QUEUE, RenderStills::NAME).await?;
        drop(tx);
        for labels in asked {
            let claim = Claim {
                incarnation: self.incarnation,
                queues: Vec::new(),
                activities: vec![RenderStills::NAME.to_owned()],
                labels,
                slots: STILLS_A_VISIT,
                wait_seconds: 0.0,
            };
            for task in self.service.claim(&self.worker, &claim).await? {
                let painted = serde_json::from_value::<RenderStills>(task.input).map_err(|e| e.to_string());
                let painted = painted.and_then(|still| paint(&still.scene, still.size).map_err(|e| e.to_string()));
                match painted {
                    Ok(url) => {
                        self.client.complete(task.task_id, task.lease_token, &Still::Placeholder(url)).await?;
                    }
                    Err(error) => {
                        let failure = Failure::permanent("mock.unpainted", error);
                        self.client.fail(task.task_id, task.lease_token, &failure).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A picture in the colour of a scene, as an address.
fn paint(scene: &str, size: [u32; 2]) -> image::ImageResult<String> {
    let longest = size[0].max(size[1]).max(1);
    let side = |pixels: u32| (u64::from(pixels) * u64::from(SIDE) / u64::from(longest)).clamp(1, SIDE.into()) as u32;
    let mut png = Cursor::new(Vec::new());
    RgbImage::from_pixel(side(size[0]), side(size[1]), tint(scene)).write_to(&mut png, ImageFormat::Png)?;
    Ok(format!("data:image/png;base64,{}", BASE64.encode(png.into_inner())))
}

/// The colour of a scene: the first bytes of the hash of its key.
fn tint(scene: &str) -> Rgb<u8> {
    let [r, g, b, ..] = <[u8; 32]>::from(Sha256::digest(scene));
    Rgb([r, g, b])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s088_the_mock_is_off_unless_it_is_turned_on_outside_of_production() {
        for place in [None, Some(""), Some("development"), Some("production"), Some("Production ")] {
            for off in [None, Some(""), Some("0"), Some("false"), Some("FALSE"), Some(" 0 ")] {
                assert_eq!(Placeholders::read(off, place), Ok(Placeholders::Off), "{off:?} {place:?}");
            }
            for on in ["1", "true", "True"] {
                let expected = match place {
                    Some("production" | "Production ") => Err(BadSetting::InProduction),
                    _ => Ok(Placeholders::Painted),
                };
                assert_eq!(Placeholders::read(Some(on), place), expected, "{on} {place:?}");
            }
            assert_eq!(Placeholders::read(Some("yes"), place), Err(BadSetting::Unclear("yes".into())));
        }
    }

    #[test]
    fn s087_a_placeholder_has_the_colour_of_its_scene_and_is_small() {
        for (scene, size) in [("title", [1920, 1080]), ("logo", [1080, 1920]), ("x", [8192, 1])] {
            let url = paint(scene, size).unwrap();
            assert!(url.len() <= 16 * 1024, "{} bytes", url.len());
            let png = BASE64.decode(url.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
            let picture = image::load_from_memory_with_format(&png, ImageFormat::Png).unwrap().into_rgb8();
            assert!(picture.pixels().all(|pixel| *pixel == tint(scene)));
            assert_eq!(picture.width() >= picture.height(), size[0] >= size[1]);
        }
        assert_ne!(tint("title"), tint("logo"));
    }
}
