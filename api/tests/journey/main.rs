//! Stories of the whole platform: real processes, a real PostgreSQL, the built-in renderer, HTTP from outside.

mod cancel;
mod kills;
mod platform;
