//! What happens in FlatRender, in which order, and what is remembered.
//!
//! [`contracts`] say what may be asked of the world and link no SQL; `definitions` say in which order it is
//! asked; `models` hold every row and every statement. The latter two need the feature `store`.

pub mod contracts;
#[cfg(feature = "store")]
pub mod definitions;
#[cfg(feature = "store")]
pub mod models;
