//! The HTTP API on a real database, storage and engine: every fact a client may rely on.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod attacks;
mod auth;
mod authenticator;
mod branding;
mod cleanup;
mod contract;
mod crashes;
mod derivatives;
mod domains;
mod events;
mod exports;
mod factors;
mod files;
mod film;
mod fleet;
mod folder_model;
mod folders;
mod folders_by_hand;
mod guesses;
mod idempotency;
mod identity_providers;
mod internal;
mod isolation;
mod jane;
mod kept_frames;
mod keys;
mod late;
mod links;
mod matrix;
mod nodes;
mod openid;
mod operate;
mod orders;
mod people;
mod placement;
mod previews;
mod quotas;
mod renders;
mod request_logs;
mod schedules;
mod secrets;
#[path = "../../../activities/tests/storage/server.rs"]
mod server;
mod shares;
mod snapshots;
mod svg_previews;
mod tenants;
mod traces;
mod upkeep;
mod uploads;
mod usage;
mod webauthn;
mod webhooks;
mod world;
