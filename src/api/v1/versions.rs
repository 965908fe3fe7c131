//! Versions of objects: `ETag` in answers, `If-Match` in updates.
//!
//! Invariant: who changes an object says which version of it they saw; if it is another one by now they hear 412, and nothing is
//! lost. Deliberately absent: `If-Match: *` and lists of versions; they would say "whatever it is".

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

use crate::api::problem::{ApiCode, Problem};

/// The version that the request says it saw.
///
/// # Errors
/// It says none, or not as we said it.
pub fn wanted(headers: &HeaderMap) -> Result<u64, Problem> {
    let mut given = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = given.next() else {
        return Err(Problem::new(ApiCode::PreconditionRequired, "send If-Match with the ETag of the object that you saw"));
    };
    let broken = || Problem::new(ApiCode::PreconditionFailed, "If-Match is no single ETag that we gave");
    if given.next().is_some() {
        return Err(broken());
    }
    let text = value.to_str().map_err(|_| broken())?.trim();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(|text| text.parse().ok()).ok_or_else(broken)
}

/// The same where the request may say none.
///
/// # Errors
/// It says one, and not as we said it.
pub fn wanted_if_any(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    headers.contains_key(header::IF_MATCH).then(|| wanted(headers)).transpose()
}

/// A conflict, as the answer to an update that said which version it saw.
#[must_use]
pub fn refused(problem: Problem) -> Problem {
    if problem.code() == ApiCode::Conflict {
        return Problem::new(ApiCode::PreconditionFailed, "the object was changed by somebody else: read it again");
    }
    problem
}

/// The answer with the version of the object in it.
#[must_use]
pub fn tagged(mut response: Response, version: u64) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_tag_as_we_gave_it() {
        let mut headers = HeaderMap::new();
        assert_eq!(wanted(&headers).unwrap_err().code(), ApiCode::PreconditionRequired);
        headers.insert(header::IF_MATCH, "\"7\"".parse().unwrap());
        assert_eq!(wanted(&headers).unwrap(), 7);
        headers.append(header::IF_MATCH, "\"8\"".parse().unwrap());
        assert_eq!(wanted(&headers).unwrap_err().code(), ApiCode::PreconditionFailed);
        for text in ["7", "*", "\"\"", "W/\"7\"", "\"7\",\"8\""] {
            headers.insert(header::IF_MATCH, text.parse().unwrap());
            assert_eq!(wanted(&headers).unwrap_err().code(), ApiCode::PreconditionFailed, "{text}");
        }
    }
}
