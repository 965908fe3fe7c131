//! Reading a body: bounded in bytes and in time.
//!
//! Invariant: nothing of a body over the limit is kept once that is known, by its length header or by
//! what came. Deliberately absent: content encodings; a compressed body has no bound.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;

use super::limits::{Gauge, Limits, Share};
use super::problem::{ApiCode, Problem};

/// A body, and its share of the memory that bodies may take.
pub struct Whole {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Given back when the body is no longer needed.
    pub share: Share,
}

/// The whole body.
pub async fn read(headers: &HeaderMap, body: Body, limits: &Limits, bodies: &Gauge) -> Result<Whole, Problem> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Problem::new(ApiCode::UnsupportedMediaType, "send the body without a Content-Encoding"));
    }
    match tokio::time::timeout(limits.read_timeout, collect(headers, body, limits, bodies.share())).await {
        Ok(collected) => collected,
        Err(_) => Err(Problem::new(ApiCode::BodyTimeout, format!("the body must arrive within {} ms", limits.read_timeout.as_millis()))),
    }
}

async fn collect(headers: &HeaderMap, mut body: Body, limits: &Limits, mut share: Share) -> Result<Whole, Problem> {
    let bytes_max = limits.body_bytes_max;
    if announced(headers).is_some_and(|length| length > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::new(ApiCode::BodyUnreadable, error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        // Who is still sending is heard out after the answer (`unread.rs`).
        if bytes.len() + data.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        if !share.grow(data.len(), limits.bodies_bytes_max) {
            return Err(Problem::new(ApiCode::TooBusy, "too much is being sent at once"));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Whole { bytes, share })
}

/// How long a body says it is.
pub fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(ApiCode::BodyTooLarge, format!("a body has at most {bytes_max} bytes"))
}
