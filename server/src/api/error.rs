//! The one place where errors become HTTP answers: `{"error": {code, message, hint}}`.

use axum::Json;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::IntoResponse;
use axum::response::Response;
use drivefs_core::wire::ErrorBody;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::ErrorInfo;

use crate::drive::DriveError;

/// An error on its way out.
#[derive(Debug)]
pub struct ApiError {
    pub code: ErrorCode,
    pub message: String,
    pub hint: Option<String>,
    pub retry_after_secs: Option<u64>,
}

impl ApiError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, retry_after_secs: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<DriveError> for ApiError {
    fn from(e: DriveError) -> Self {
        let retry_after_secs = match e {
            DriveError::TooManyLogins { retry_after_secs } => Some(retry_after_secs),
            _ => None,
        };
        let code = e.code();
        let hint = e.hint().map(str::to_owned);
        let message = if code == ErrorCode::Internal {
            // Logged here once; the inside is the operator's, not the client's.
            tracing::error!(error = %e, "request failed");
            "the server failed to do this; its log says why".to_owned()
        } else {
            e.to_string()
        };
        Self { code, message, hint, retry_after_secs }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = ErrorInfo { code: self.code, message: self.message, hint: self.hint };
        let mut response = (status_of(self.code), Json(ErrorBody { error })).into_response();
        if let Some(secs) = self.retry_after_secs {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        response
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest | ErrorCode::UnsupportedWireVersion => StatusCode::BAD_REQUEST,
        ErrorCode::BadCredentials | ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::QuotaExceeded | ErrorCode::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::MissingBlocks => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::CursorExpired | ErrorCode::CursorLost => StatusCode::GONE,
        ErrorCode::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::BeingRestored | ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub async fn no_route() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "this server has no such address")
}

pub async fn no_method() -> Response {
    let error = ApiError::new(ErrorCode::BadRequest, "this address does not take this method");
    let mut response = error.into_response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

pub fn timed_out() -> Response {
    ApiError::new(ErrorCode::Unavailable, "the request took too long")
        .hint("try again; what it changed, if anything, is told to a retry with the same keys")
        .into_response()
}
