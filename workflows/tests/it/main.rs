//! The definitions against a real PostgreSQL, with the world played by handlers that do what a test tells them.

mod render_video;
mod world;
