//! The HTTP API on a real database, storage and engine: every fact a client may rely on.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod attacks;
mod auth;
mod authenticator;
mod branding;
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
mod guesses;
mod idempotency;
mod identity_providers;
mod internal;
mod isolation;
mod jane;
mod kept_frames;
mod keys;
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
mod secrets;
mod shares;
mod snapshots;
mod tenants;
mod traces;
mod usage;
mod webauthn;
mod webhooks;
mod world;
