//! The few colours that a picture is reduced to.

use crate::{Rgb, SLOTS, Slot};
use image::RgbaImage;
use std::collections::BTreeMap;

/// Colours are gathered in steps of 8 before they are grouped.
const STEP_BITS: u32 = 3;
/// Colours nearer than this, as [`distance`] counts, are one to the eye.
const SAME: u32 = 2_600;
/// What covers less is no slot of its own.
const LEAST_SHARE: f32 = 0.002;
/// Rounds after which groups no longer move by anything that could be seen.
const ROUNDS: usize = 8;

/// Colours, the one that covers most first.
pub(crate) struct Palette {
    colors: Vec<(Rgb, u64)>,
    seen: u64,
}

/// Colours that lie close together, and how often they are there.
struct Bin {
    color: [u32; 3],
    count: u64,
}

impl Palette {
    /// The palette of what can be seen of a picture; none when that is nothing. The same for the same picture.
    pub(crate) fn of(pixels: &RgbaImage) -> Option<Self> {
        let bins = bins(pixels);
        let seen: u64 = bins.iter().map(|bin| bin.count).sum();
        let mut centres = seeds(&bins)?;
        for _ in 0..ROUNDS {
            centres = averages(&bins, &centres);
        }
        let mut colors = counted(&bins, &merged(centres));
        colors.sort_by_key(|(color, count)| (std::cmp::Reverse(*count), *color));
        let large = colors.iter().filter(|(_, count)| *count as f32 >= LEAST_SHARE * seen as f32).count();
        colors.truncate(large.max(1));
        Some(Self { colors, seen })
    }

    /// Which colour is nearest, from 0.
    pub(crate) fn nearest(&self, color: [u8; 3]) -> usize {
        let color = color.map(u32::from);
        let far = |slot: &usize| distance(color, self.color(*slot).0.map(u32::from));
        (0..self.colors.len()).min_by_key(far).unwrap_or_default()
    }

    pub(crate) fn color(&self, slot: usize) -> Rgb {
        self.colors[slot].0
    }

    /// A colour that is not in it.
    pub(crate) fn absent(&self) -> Rgb {
        let taken = |color: &Rgb| self.colors.iter().any(|(known, _)| known == color);
        (1..=u8::MAX).map(|n| Rgb([n, 0, n])).find(|color| !taken(color)).unwrap_or(Rgb([1, 2, 3]))
    }

    pub(crate) fn slots(&self) -> Vec<Slot> {
        let slot = |(n, (color, count)): (usize, &(Rgb, u64))| Slot {
            id: format!("slot-{}", n + 1),
            color: *color,
            share: *count as f32 / self.seen as f32,
        };
        self.colors.iter().enumerate().map(slot).collect()
    }
}

/// Whether a pixel is seen at all.
pub(crate) fn is_seen(alpha: u8) -> bool {
    alpha >= 128
}

fn bins(pixels: &RgbaImage) -> Vec<Bin> {
    let mut sums: BTreeMap<[u8; 3], ([u64; 3], u64)> = BTreeMap::new();
    for pixel in pixels.pixels().filter(|pixel| is_seen(pixel[3])) {
        let [r, g, b, _] = pixel.0;
        let (sum, count) = sums.entry([r, g, b].map(|channel| channel >> STEP_BITS)).or_default();
        for (sum, channel) in sum.iter_mut().zip([r, g, b]) {
            *sum += u64::from(channel);
        }
        *count += 1;
    }
    sums.into_values().map(|(sum, count)| Bin { color: sum.map(|sum| (sum / count) as u32), count }).collect()
}

/// The commonest colour, and then each time the one that is common and far from all so far.
fn seeds(bins: &[Bin]) -> Option<Vec<[u32; 3]>> {
    let mut seeds = vec![bins.iter().max_by_key(|bin| bin.count)?.color];
    while seeds.len() < SLOTS {
        let far = |bin: &Bin| seeds.iter().map(|seed| distance(bin.color, *seed)).min().unwrap_or_default();
        let next = bins.iter().filter(|bin| far(bin) > SAME).max_by_key(|bin| u64::from(far(bin)) * bin.count);
        let Some(next) = next else { break };
        seeds.push(next.color);
    }
    Some(seeds)
}

fn averages(bins: &[Bin], centres: &[[u32; 3]]) -> Vec<[u32; 3]> {
    let mut sums = vec![([0_u64; 3], 0_u64); centres.len()];
    for bin in bins {
        let (sum, count) = &mut sums[nearest(bin.color, centres)];
        for (sum, channel) in sum.iter_mut().zip(bin.color) {
            *sum += u64::from(channel) * bin.count;
        }
        *count += bin.count;
    }
    sums.iter().filter(|(_, count)| *count > 0).map(|(sum, count)| sum.map(|sum| (sum / count) as u32)).collect()
}

/// Groups may have moved together.
fn merged(centres: Vec<[u32; 3]>) -> Vec<[u32; 3]> {
    centres.into_iter().fold(Vec::new(), |mut kept, centre| {
        if kept.iter().all(|other| distance(centre, *other) > SAME) {
            kept.push(centre);
        }
        kept
    })
}

fn counted(bins: &[Bin], centres: &[[u32; 3]]) -> Vec<(Rgb, u64)> {
    let mut counts = vec![0; centres.len()];
    for bin in bins {
        counts[nearest(bin.color, centres)] += bin.count;
    }
    let rgb = |centre: &[u32; 3]| Rgb(centre.map(|channel| channel.min(255) as u8));
    centres.iter().map(rgb).zip(counts).collect()
}

fn nearest(color: [u32; 3], centres: &[[u32; 3]]) -> usize {
    (0..centres.len()).min_by_key(|i| distance(color, centres[*i])).unwrap_or_default()
}

/// How far colours are apart to the eye: squares, of which green counts most.
fn distance(a: [u32; 3], b: [u32; 3]) -> u32 {
    let square = |i: usize| a[i].abs_diff(b[i]).pow(2);
    2 * square(0) + 4 * square(1) + 3 * square(2)
}
