//! JSON bodies, with our own errors for what does not fit.

use axum::body::Bytes;
use axum::extract::FromRequest;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use drivefs_core::wire::ErrorCode;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::host;

/// Bodies from this length on are parsed on a blocking thread (bytes).
const PARSE_HERE_BYTES: usize = 128 * 1024;

/// A request body as `T`.
pub struct Body<T>(pub T);

/// A request body as it came, within the route's limit.
pub struct Raw(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        Bytes::from_request(request, state).await.map(Self).map_err(|rejection| {
            let text = rejection.body_text();
            match rejection.into_response().status() {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    ApiError::new(ErrorCode::TooLarge, "the body is over the limit of this address")
                }
                _ => ApiError::new(ErrorCode::BadRequest, text),
            }
        })
    }
}

impl<T: DeserializeOwned + Send + 'static, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Raw(bytes) = Raw::from_request(request, state).await?;
        if bytes.len() < PARSE_HERE_BYTES {
            return parse(&bytes).map(Self);
        }
        host::blocking(move || parse(&bytes))
            .await
            .map_err(|e| ApiError::new(ErrorCode::Internal, e.to_string()))?
            .map(Self)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|e| {
        ApiError::new(ErrorCode::BadRequest, format!("the body is not what is expected: {e}"))
    })
}
