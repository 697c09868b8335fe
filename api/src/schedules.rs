//! What the platform does by itself: its schedules, as operators see and steer them.

pub mod operate;
