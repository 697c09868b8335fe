//! The room of a film in what its tenant may keep: set aside when it is ordered, taken by the film in the transaction that keeps it, and free
//! again in the one that ends it otherwise. So what is kept and what is ordered never make more than the limit, whatever crashes when.
//!
//! ```text
//! order ─▶ held ─▶ used      the film and its contact sheet are kept, and count as what they are
//!              └─▶ released  the film has failed, or was cancelled
//! ```
//!
//! What else is made of a film has room of its own, each by itself: set aside with the film when it was ordered with it, or when it is asked
//! for, until it is there or cannot be made. Films are their tenant's and nobody's in person: a person's own quota has no part in them.
//!
//! How long a film becomes is known only once it is there. What is set aside is three times what dense drawings need; what is noise from edge
//! to edge may need more. It is kept nevertheless, as is a film that was ordered before there was room set aside for any: what is above the
//! limit then counts as excess, and keeps everything else out until it is gone.

use super::spec::RenderSpec;
use crate::{
    contracts::media::{DerivativeKind, EncodeProfile},
    models::{
        Db, Role, Scope,
        file_mgr::quota::{self, Outcome},
    },
};
use chrono::TimeDelta;
use std::iter;
use uuid::Uuid;

/// How long a film's room is set aside should nothing ever end it: films that were begun before they had a limit of time wait for a node for
/// as long as it takes.
const ROOM: TimeDelta = TimeDelta::days(365);
/// The same of what else is made of it, once the film is there.
const SOON: TimeDelta = TimeDelta::days(7);
/// The first try to make something else of a film.
const FIRST: i32 = 1;

/// The least that is set aside: headers, indexes and the like.
const LEAST: u64 = 64 * 1024;
/// The most: beyond all that can be kept, and small enough to be added to.
const MOST: i64 = 1 << 50;
/// Bytes that the index of a film needs for a frame and its sound.
const INDEX: u64 = 32;
/// Bytes of a film's sound a second: AAC of 192 kbit/s, with a quarter to spare.
const SOUND: u64 = 30_000;
/// The same of a small one, or of Opus.
const SMALL_SOUND: u64 = 20_000;
/// The same without compression: 48 kHz, two channels, 16 bits.
const PLAIN_SOUND: u64 = 192_000;
/// Pictures of a contact sheet.
const TILES: u64 = 12;
/// The width of one in pixels, of an upright film and of another.
const TILE: (u64, u64) = (270, 480);
/// Bits a pixel of a PNG: three colours that cannot be compressed.
const PNG: u64 = 24;
/// Bits a pixel of a JPEG or a GIF at most.
const PICTURE: u64 = 8;

/// What decides how long a film becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Width and height in pixels.
    pub size: [u32; 2],
    /// Frames a second.
    pub fps: u32,
    /// Length in frames.
    pub frames: u32,
}

impl Shape {
    /// That of what was ordered.
    pub fn of(spec: &RenderSpec) -> Self {
        Self { size: spec.size, fps: spec.fps, frames: spec.frames }
    }

    /// Pixels of a frame this wide; of the film's own when it is narrower.
    fn pixels(self, width: u64) -> u64 {
        let [own, height] = self.size.map(u64::from);
        let width = width.min(own);
        width.saturating_mul((width * height).div_ceil(own.max(1)))
    }

    /// Bytes of moving pictures of so many pixels, at so many hundredths of a bit a pixel, with their sound and index.
    fn stream(self, pixels: u64, hundredths: u64, sound: u64) -> u64 {
        let frames = u64::from(self.frames);
        let seconds = frames.div_ceil(u64::from(self.fps.max(1)));
        let picture = pixels.saturating_mul(frames).saturating_mul(hundredths).div_ceil(800);
        picture.saturating_add(seconds * sound).saturating_add(frames * INDEX)
    }
}

/// Bytes that are set aside for a film and its contact sheet: pixels × frames × bits a pixel, and the sound.
///
/// Measured with our encoder's settings on fractals in motion of 1280 × 720 at 30 frames a second: 0.14 bits a pixel as a preview, 0.20 as
/// a final film and 0.26 as a master; three times that is set aside. Noise from edge to edge took 2.5 to 3.1.
pub fn film_bytes(shape: Shape, profile: EncodeProfile) -> i64 {
    let hundredths = match profile {
        EncodeProfile::Preview => 42,
        EncodeProfile::Final => 60,
        EncodeProfile::Master => 78,
    };
    let [width, height] = shape.size.map(u64::from);
    let tile = if height > width { TILE.0 } else { TILE.1 };
    let tile = tile.saturating_mul((tile * height).div_ceil(width.max(1)));
    let sheet = TILES.min(shape.frames.into()).saturating_mul(tile).saturating_mul(PNG) / 8;
    bounded(shape.stream(width * height, hundredths, SOUND).saturating_add(sheet))
}

/// Bytes that are set aside for what else is made of a film, by the recipe of its kind. Of the same fractals a poster took 0.7 bits a pixel,
/// a GIF 4.4, a small film 0.02, a WebM 0.13 and ProRes 3.7.
pub fn derivative_bytes(shape: Shape, kind: DerivativeKind) -> i64 {
    let [width, height] = shape.size.map(u64::from);
    bounded(match kind {
        DerivativeKind::Poster => (width * height).saturating_mul(PICTURE) / 8,
        // 12 pictures a second, at most 480 pixels wide.
        DerivativeKind::Gif => {
            let pictures = (u64::from(shape.frames) * 12).div_ceil(shape.fps.max(1).into());
            shape.pixels(480).saturating_mul(pictures + 1).saturating_mul(PICTURE) / 8
        }
        // At most 360 pixels high, for slow lines.
        DerivativeKind::Small => {
            let low = height.min(360);
            shape.stream(low.saturating_mul((low * width).div_ceil(height.max(1)) + 2), 42, SMALL_SOUND)
        }
        // ProRes 422 HQ: 220 Mbit/s for 1920 × 1080 at 30 frames a second (Apple ProRes White Paper), that is 3.5 bits a pixel.
        DerivativeKind::Prores => shape.stream(width * height, 500, PLAIN_SOUND),
        DerivativeKind::Webm => shape.stream(width * height, 42, SMALL_SOUND),
    })
}

fn bounded(bytes: u64) -> i64 {
    i64::try_from(bytes.saturating_add(LEAST)).unwrap_or(MOST).min(MOST)
}

/// All that is set aside for an order, in bytes.
pub fn ordered_bytes(spec: &RenderSpec) -> i64 {
    let shape = Shape::of(spec);
    let others = spec.derivatives.iter().map(|kind| derivative_bytes(shape, *kind));
    others.fold(film_bytes(shape, spec.profile), i64::saturating_add)
}

/// The reservation of a film.
fn film(render_id: Uuid) -> String {
    format!("film:{render_id}")
}

/// The reservation of a try to make something else of a film.
pub(super) fn derivative(render_id: Uuid, kind: &str, tries: i32) -> String {
    format!("derivative:{render_id}:{kind}:{tries}")
}

/// The reservations of what else may have been ordered with a film.
fn ordered(render_id: Uuid) -> impl Iterator<Item = String> {
    DerivativeKind::ALL.into_iter().map(move |kind| derivative(render_id, kind.name(), FIRST))
}

/// Sets room aside for a film and all that was ordered with it, in the transaction that accepts it. False when there is not enough: then the
/// order is to be given up. Whoever else orders or keeps something of the tenant's waits until this transaction ends, so it comes last in it.
/// Ends as the tenant's files.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn hold(db: Db<'_>, tenant_id: Uuid, render_id: Uuid, spec: &RenderSpec) -> sqlx::Result<bool> {
    let shape = Shape::of(spec);
    let mut rooms = vec![(film(render_id), film_bytes(shape, spec.profile))];
    for kind in &spec.derivatives {
        rooms.push((derivative(render_id, kind.name(), FIRST), derivative_bytes(shape, *kind)));
    }
    Scope::tenant(Role::File, tenant_id).enter(&mut *db).await?;
    for (purpose, bytes) in rooms {
        if !quota::reserve(&mut *db, tenant_id, None, bytes, &purpose, ROOM).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sets room aside for a try to make something else of a finished film; the first of what was ordered with the film has its own already.
/// False when there is not enough. Begins as the tenant's renders and ends as its files.
pub async fn hold_derivative(
    db: Db<'_>,
    tenant_id: Uuid,
    export_id: Uuid,
    kind: DerivativeKind,
    tries: i32,
) -> sqlx::Result<bool> {
    let row = sqlx::query!(
        "select j.id, j.width, j.height, j.fps, j.frame_count from render.exports e join render.render_jobs j on j.id = e.render_job_id
         where e.tenant_id = $1 and e.id = $2",
        tenant_id,
        export_id,
    );
    let row = row.fetch_one(&mut *db).await?;
    let [width, height, fps, frames] = [row.width, row.height, row.fps, row.frame_count].map(|n| n.max(0) as u32);
    let shape = Shape { size: [width, height], fps, frames };
    let purpose = derivative(row.id, kind.name(), tries);
    Scope::tenant(Role::File, tenant_id).enter(&mut *db).await?;
    if quota::is_held(&mut *db, tenant_id, &purpose).await? {
        return Ok(true);
    }
    quota::forget(&mut *db, tenant_id, &purpose).await?;
    quota::reserve(db, tenant_id, None, derivative_bytes(shape, kind), &purpose, SOON).await
}

/// A film takes the room that was set aside for it: its files are kept in this transaction. What else was ordered with it follows soon.
/// Begins and ends as the tenant's files.
pub(super) async fn take(db: Db<'_>, tenant_id: Uuid, render_id: Uuid) -> sqlx::Result<()> {
    quota::settle(&mut *db, tenant_id, &film(render_id), Outcome::Used).await?;
    let others: Vec<String> = ordered(render_id).collect();
    quota::shorten(db, tenant_id, &others, SOON).await
}

/// Frees what is still set aside for a film that has ended, in the transaction of its end; that of what else was ordered with it stays when
/// the film is finished, as it is yet to be made. Ends as the tenant's renders.
pub(super) async fn free(db: Db<'_>, tenant_id: Uuid, render_id: Uuid, finished: bool) -> sqlx::Result<()> {
    let others = ordered(render_id).filter(|_| !finished);
    let purposes: Vec<String> = iter::once(film(render_id)).chain(others).collect();
    release(db, tenant_id, &purposes).await
}

/// Frees what is set aside for these purposes. Ends as the tenant's renders.
pub(super) async fn release(db: Db<'_>, tenant_id: Uuid, purposes: &[String]) -> sqlx::Result<()> {
    Scope::tenant(Role::File, tenant_id).enter(&mut *db).await?;
    quota::settle_all(&mut *db, tenant_id, purposes, Outcome::Released).await?;
    Scope::tenant(Role::Render, tenant_id).enter(db).await
}

#[cfg(test)]
mod tests {
    use super::{super::spec, *};

    const HD: Shape = Shape { size: [1920, 1080], fps: 30, frames: 1800 };

    #[test]
    fn a_minute_of_full_hd_has_close_to_three_hundred_megabytes_and_its_preview_a_fifth() {
        let film = film_bytes(HD, EncodeProfile::Final);
        assert!((280_000_000..300_000_000).contains(&film), "{film}");
        let preview = film_bytes(Shape { size: [960, 540], ..HD }, EncodeProfile::Preview);
        assert!(film / 7 < preview && preview < film / 5, "{preview}");
        assert!(film_bytes(HD, EncodeProfile::Master) > film);
    }

    #[test]
    fn what_else_is_made_has_room_by_its_kind() {
        let bytes = |kind| derivative_bytes(HD, kind);
        assert!((2_000_000..3_000_000).contains(&bytes(DerivativeKind::Poster)));
        let order = [
            DerivativeKind::Poster,
            DerivativeKind::Small,
            DerivativeKind::Gif,
            DerivativeKind::Webm,
            DerivativeKind::Prores,
        ];
        assert!(order.is_sorted_by_key(|kind| bytes(*kind)), "{:?}", order.map(bytes));
        assert!(bytes(DerivativeKind::Prores) > 220_000_000 / 8 * 60, "no less than its makers say");
    }

    #[test]
    fn the_least_and_the_most_can_be_reserved() {
        let least = film_bytes(Shape { size: [2, 2], fps: 30, frames: 1 }, EncodeProfile::Preview);
        assert!(least > LEAST as i64, "{least}");
        let endless = Shape { size: [u32::MAX; 2], fps: 0, frames: u32::MAX };
        assert_eq!(film_bytes(endless, EncodeProfile::Final), MOST);
        assert!(DerivativeKind::ALL.iter().all(|kind| (1..=MOST).contains(&derivative_bytes(endless, *kind))));
        let mut spec = spec::tests::spec(90);
        let alone = ordered_bytes(&spec);
        spec.derivatives = DerivativeKind::ALL.into();
        assert!(ordered_bytes(&spec) > alone);
    }
}
