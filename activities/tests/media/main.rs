//! The media activities with the real ffmpeg, on small pictures and short sounds.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod derivatives;
mod ending;
mod film;
mod frames;
mod parts;
mod scenes;
mod sound;
mod stills;
mod strangers;
mod uploads;
mod world;
