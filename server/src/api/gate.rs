//! What every request passes: the protocol version, then who asks.

use axum::extract::Request;
use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::WIRE_HEADER;
use drivefs_core::wire::WIRE_VERSION;

use super::Shared;
use super::error::ApiError;
use super::files;
use crate::auth::Asker;
use crate::auth::token;

/// Refuses clients of another protocol version.
pub async fn wire_version(request: Request, next: Next) -> Response {
    let given = request.headers().get(WIRE_HEADER).and_then(|v| v.to_str().ok());
    if given.and_then(|v| v.trim().parse().ok()) == Some(WIRE_VERSION) {
        return next.run(request).await;
    }
    let hint = match given.and_then(|v| v.trim().parse::<u32>().ok()) {
        Some(version) if version > WIRE_VERSION => "upgrade the server".to_owned(),
        Some(_) => "upgrade the client".to_owned(),
        None => format!("send the header {WIRE_HEADER}: {WIRE_VERSION}"),
    };
    ApiError::new(
        ErrorCode::UnsupportedWireVersion,
        format!("this server speaks version {WIRE_VERSION} of the sync protocol"),
    )
    .hint(hint)
    .into_response()
}

/// Finds out who asks and hands it on as an extension.
pub async fn known_asker(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    match asker(&shared, token_of(&request)).await {
        Ok(asker) => {
            request.extensions_mut().insert(asker);
            next.run(request).await
        }
        Err(e) => e.into_response(),
    }
}

/// The same for the file API, whose clients expect another shape of refusal.
pub async fn known_file_asker(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    let style = files::style_of(request.uri().path(), request.headers());
    match asker(&shared, token_of(&request)).await {
        Ok(asker) => {
            request.extensions_mut().insert(asker);
            next.run(request).await
        }
        Err(e) => files::unauthorized(style, e),
    }
}

fn token_of(request: &Request) -> Option<String> {
    let header = request.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    header.and_then(token::from_header).map(str::to_owned)
}

async fn asker(shared: &Shared, token: Option<String>) -> Result<Asker, ApiError> {
    let Some(token) = token else {
        return Err(ApiError::new(ErrorCode::Unauthorized, "this address needs a token")
            .hint("send the header Authorization: Bearer dfs_..."));
    };
    Ok(shared.drive.asker(&token).await?)
}
