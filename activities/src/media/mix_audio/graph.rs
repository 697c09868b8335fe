//! The filter graph of a mix, as text for ffmpeg. Everything in it is a number or a word of ours.
//!
//! ```text
//! music ──▶ sum ──────────────▶ lowered while the voice speaks ─┐
//! voice ──▶ sum ──┬─▶ (listened to) ───────┘                    ├─▶ sum ─▶ limiter ─▶ exact length
//!                 └─────────────────────────────────────────────┤
//! effects ─▶ sum ───────────────────────────────────────────────┘
//! ```
//!
//! Sums do not scale: a track is as loud as its volume says, however many there are. Nothing here is newer than
//! ffmpeg 4.2.

use super::{in_samples, track::Decoded};
use flatrender_workflows::contracts::media::AudioRole;

/// Ducking begins at −26 dB of voice, 6:1, fast in and slow out.
const DUCKING: &str = "sidechaincompress=threshold=0.05:ratio=6:attack=20:release=300";
/// Peaks stop below full scale; nothing is raised. It looks 5 ms ahead, which are 240 samples, and so speaks 239 late.
const LIMITER: &str = "alimiter=limit=0.95:level=0:attack=5,atrim=start_sample=239,asetpts=N/SR/TB";

/// The graph for `tracks`, which are inputs 0, 1 …; its output `[out]` has `samples` samples exactly.
pub(super) fn graph(tracks: &[Decoded], ducking: bool, samples: u64) -> String {
    let mut chains: Vec<_> = tracks.iter().enumerate().map(|(i, t)| chain(i, t, samples)).collect();
    let [music, voice, effects] = [AudioRole::Music, AudioRole::VoiceOver, AudioRole::Effect]
        .map(|role| sum(&mut chains, &labels(tracks, role), role_label(role)));
    let heard = match (music, voice) {
        (Some(music), Some(voice)) if ducking => {
            chains.push(format!("[{voice}]asplit=2[said][listened]"));
            chains.push(format!("[{music}][listened]{DUCKING}[ducked]"));
            vec!["ducked".to_owned(), "said".to_owned()]
        }
        (music, voice) => music.into_iter().chain(voice).collect(),
    };
    let heard: Vec<_> = heard.into_iter().chain(effects).collect();
    match sum(&mut chains, &heard, "all") {
        Some(all) => chains.push(format!("[{all}]{LIMITER},atrim=end_sample={samples}[out]")),
        None => chains.push(format!("anullsrc=r=48000:cl=stereo,atrim=end_sample={samples}[out]")),
    }
    chains.join(";")
}

/// A track at its place, and silence after it without end: while no input ends, a sum keeps its scale.
fn chain(input: usize, track: &Decoded, film: u64) -> String {
    let settings = &track.settings;
    let offset = in_samples(settings.offset_seconds);
    let room = film.saturating_sub(offset);
    let length = if settings.repeat { room } else { room.min(track.samples) };
    let fade_in = in_samples(settings.fade_in_seconds).min(length);
    let fade_out = in_samples(settings.fade_out_seconds).min(length);
    let mut filters = vec![format!("asetpts=N/SR/TB,atrim=end_sample={length}")];
    if fade_in > 0 {
        filters.push(format!("afade=t=in:start_sample=0:nb_samples={fade_in}"));
    }
    if fade_out > 0 {
        filters.push(format!("afade=t=out:start_sample={}:nb_samples={fade_out}", length - fade_out));
    }
    filters.push(format!("volume={:.6}:precision=float", settings.volume));
    if offset > 0 {
        filters.push(format!("adelay={offset}S|{offset}S"));
    }
    filters.push("apad".to_owned());
    format!("[{input}:a]{}[t{input}]", filters.join(","))
}

fn labels(tracks: &[Decoded], role: AudioRole) -> Vec<String> {
    let of_role = tracks.iter().enumerate().filter(|(_, track)| track.settings.role == role);
    of_role.map(|(index, _)| format!("t{index}")).collect()
}

fn role_label(role: AudioRole) -> &'static str {
    match role {
        AudioRole::Music => "music",
        AudioRole::VoiceOver => "voice",
        AudioRole::Effect => "effects",
    }
}

/// Adds the sum of `parts` to the graph, unless there is nothing to add up; gives back its label.
fn sum(chains: &mut Vec<String>, parts: &[String], name: &str) -> Option<String> {
    if parts.len() < 2 {
        return parts.first().cloned();
    }
    let inputs: String = parts.iter().map(|part| format!("[{part}]")).collect();
    // Its mean is our sum: asking for the sum itself needs a newer ffmpeg.
    chains.push(format!("{inputs}amix=inputs={0},volume={0}:precision=float[{name}]", parts.len()));
    Some(name.to_owned())
}
