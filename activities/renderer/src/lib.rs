//! The built-in renderer: template packages in the Lottie format to picture files, without After Effects.
//!
//! ```text
//! package + data.json ──▶ Project ──bake──▶ Composition ──render──▶ frames ──▶ PNG files
//!                         (checks)          (texts as outlines,     (ThorVG,
//!                                            pictures as pixels)     N threads)
//! ```
//!
//! Everything about customers' data happens in Rust before the rasteriser sees a document. The program
//! `flatrender-aerender` gives this the command line of After Effects' `aerender`; see [`aerender`].
//! Knows packages, frames and files; never jobs, queues, networks or video encoding.
//!
//! ```no_run
//! use flatrender_renderer::{Frame, MissingImages, PngFolder, Project, RenderPlan, render};
//! # fn main() -> Result<(), flatrender_renderer::RenderError> {
//! let project = Project::open("templates/promo".as_ref())?;
//! let film = project.composition(project.main(), MissingImages::Refuse)?;
//! let plan = RenderPlan::all(&film).on_threads(2);
//! let name = std::sync::Arc::new(|frame| format!("out/{frame:05}.png").into());
//! let sink = || {
//!     let mut folder = PngFolder::new(name.clone());
//!     move |frame: &Frame<'_>| folder.write(frame)
//! };
//! render(&film, &plan, sink, |done| println!("frame {}", done.number))
//! # }
//! ```

pub mod aerender;
mod bake;
mod color;
mod data;
mod error;
mod fields;
mod limits;
mod lottie;
mod names;
mod package;
mod project;
mod property;
mod raster;
mod text;

pub use error::RenderError;
pub use fields::Fields;
pub use project::{Composition, MissingImages, Project};
pub use raster::{Frame, FrameDone, PngFolder, Quality, RenderPlan, encode_png, render};
