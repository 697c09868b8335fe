//! Pages of lists.

use crate::problem::{Code, Problem};
use serde::Serialize;
use utoipa::ToSchema;

/// Rows of a page when the client does not say.
const USUAL: u32 = 20;
/// Most rows of a page.
const MOST: u32 = 100;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T: ToSchema> {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Newest first.
    data: Vec<T>,
    /// Whether there are older ones.
    has_more: bool,
    /// `starting_after` of the next page.
    next_cursor: Option<String>,
}

/// The size of a page that was asked for.
///
/// # Errors
/// `query.invalid`
pub fn size(limit: Option<u32>) -> Result<i64, Problem> {
    let limit = limit.unwrap_or(USUAL);
    let fits = (1..=MOST).contains(&limit);
    fits.then_some(limit.into()).ok_or_else(|| Problem::new(Code::QueryInvalid, "limit is 1 to 100"))
}

impl<T: ToSchema> Page<T> {
    /// A page of `size` rows out of rows of which one more was fetched; `cursor` names the last one for the next page.
    pub fn of<R: Into<T>>(mut rows: Vec<R>, size: i64, cursor: impl FnOnce(&R) -> String) -> Self {
        let has_more = rows.len() as i64 > size;
        rows.truncate(size.max(0) as usize);
        let next_cursor = rows.last().filter(|_| has_more).map(cursor);
        Self { object: "list", data: rows.into_iter().map(Into::into).collect(), has_more, next_cursor }
    }
}
