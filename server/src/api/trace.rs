//! Every request has an id: the client's, if it sent a sane one, else one of ours. It is on every
//! log line of the request, and goes back in the answer.

use std::time::Instant;

use axum::extract::MatchedPath;
use axum::extract::Request;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use crate::host;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken from a client (bytes).
const ID_MAX_BYTES: usize = 64;

/// Runs the request within a span that carries its id.
pub async fn identify(request: Request, next: Next) -> Response {
    let given = request.headers().get(&HEADER).and_then(|v| v.to_str().ok()).filter(|v| is_sane(v));
    let id = given.map_or_else(|| format!("{:032x}", host::random::<u128>()), str::to_owned);
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str);
    // Of the highest level, so that no filter takes the id off the lines that remain.
    let span = tracing::error_span!("request", id = %id, method = %request.method(), route);
    let started = Instant::now();
    let mut response = async {
        let response = next.run(request).await;
        let status = response.status().as_u16();
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if status >= 500 {
            tracing::warn!(status, ms, "answered");
        } else {
            tracing::debug!(status, ms, "answered");
        }
        response
    }
    .instrument(span)
    .await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

/// What cannot break a log line or another system's header.
fn is_sane(id: &str) -> bool {
    (1..=ID_MAX_BYTES).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::is_sane;

    #[test]
    fn only_ids_that_can_stand_in_a_log_line_are_taken() {
        for good in ["a", "0189-aB_c.d", &"x".repeat(64)] {
            assert!(is_sane(good), "{good}");
        }
        for bad in ["", "a b", "a\"b", "a\nb", "ä", &"x".repeat(65)] {
            assert!(!is_sane(bad), "{bad:?}");
        }
    }
}
