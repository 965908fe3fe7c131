//! Lists, a page at a time, and ids in paths.
//!
//! Invariant: a list has `limit` entries at most (50 unless asked otherwise, 500 at the most) and goes on after the last id that was
//! given, whatever was added or removed meanwhile. A cursor is opaque: what is in it may change.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;

/// Entries of a page unless asked otherwise.
pub const LIMIT: usize = 50;
/// Entries of a page at the most.
pub const LIMIT_MAX: usize = 500;

/// Which page is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// So many entries at most.
    pub limit: usize,
    /// Entries after this one.
    pub after: Option<String>,
}

impl Page {
    /// Reads `limit` and `cursor`.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn read(query: &Query) -> Result<Self, Problem> {
        let limit = query.number("limit", 1, LIMIT_MAX, LIMIT)?;
        let wrong = || Problem::new(ApiCode::InvalidParameter, "no cursor of ours").field("cursor");
        let after = match query.text("cursor") {
            None => None,
            Some(text) => {
                let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| !bytes.is_empty()).ok_or_else(wrong)?;
                Some(String::from_utf8(bytes).map_err(|_| wrong())?)
            }
        };
        Ok(Self { limit, after })
    }

    /// The page out of entries in the order of their ids, and the cursor of the next one if there is one.
    #[must_use]
    pub fn cut<T>(&self, entries: impl IntoIterator<Item = T>, id: impl Fn(&T) -> &str) -> (Vec<T>, Option<String>) {
        let mut rest = entries.into_iter().filter(|entry| self.after.as_deref().is_none_or(|after| id(entry) > after));
        let page: Vec<T> = rest.by_ref().take(self.limit).collect();
        let more = rest.next().is_some();
        let next = page.last().filter(|_| more).map(|last| BASE64_URL_SAFE_NO_PAD.encode(id(last)));
        (page, next)
    }

    /// The cursor of a page that begins after `place`.
    #[must_use]
    pub fn cursor(place: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(place)
    }
}

/// The one id in a path. What is no text is told like everything else.
pub struct PathId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => Err(Problem::new(ApiCode::InvalidParameter, "the path is not valid percent encoding of UTF-8")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Result<Page, Problem> {
        Page::read(&Query::read(Some(text), &["limit", "cursor"])?)
    }

    #[test]
    fn pages_follow_one_another_to_the_end_without_a_gap() {
        let all: Vec<String> = (0..7).map(|n| format!("id-{n}")).collect();
        let (mut seen, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let asked = cursor.as_ref().map_or("limit=3".to_owned(), |cursor| format!("limit=3&cursor={cursor}"));
            let (entries, next) = page(&asked).unwrap().cut(all.clone(), String::as_str);
            assert!(entries.len() <= 3);
            seen.extend(entries);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn refuses_limits_and_cursors_that_are_none() {
        assert_eq!(page("").unwrap(), Page { limit: 50, after: None });
        for text in ["limit=0", "limit=501", "limit=x", "cursor=", "cursor=!", "cursor=_w"] {
            assert_eq!(page(text).unwrap_err().code(), ApiCode::InvalidParameter, "{text}");
        }
    }
}
