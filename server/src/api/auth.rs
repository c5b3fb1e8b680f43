//! `/auth/v1`: login, logout, tokens.

use std::net::SocketAddr;

use axum::Extension;
use axum::Json;
use axum::extract::ConnectInfo;
use axum::extract::Path;
use axum::extract::State;
use axum::http::StatusCode;
use drivefs_core::wire::LoginReply;
use drivefs_core::wire::LoginRequest;
use drivefs_core::wire::TokenList;
use drivefs_core::wire::TokenReply;
use drivefs_core::wire::TokenRequest;

use super::Shared;
use super::error::ApiError;
use super::json::Body;
use super::openapi::Refused;
use crate::auth::Asker;

#[utoipa::path(
    post,
    path = "/auth/v1/login",
    tag = "auth",
    request_body = LoginRequest,
    responses((status = 200, description = "Done", body = LoginReply), Refused),
    security(()),
)]
pub async fn login(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Body(request): Body<LoginRequest>,
) -> Result<Json<LoginReply>, ApiError> {
    Ok(Json(shared.drive.login(request, peer.ip()).await?))
}

#[utoipa::path(
    post,
    path = "/auth/v1/logout",
    tag = "auth",
    responses((status = 204, description = "Done"), Refused),
)]
pub async fn logout(
    State(shared): State<Shared>,
    Extension(asker): Extension<Asker>,
) -> Result<StatusCode, ApiError> {
    shared.drive.logout(asker).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    get,
    path = "/auth/v1/tokens",
    tag = "auth",
    responses((status = 200, description = "Done", body = TokenList), Refused),
)]
pub async fn list_tokens(
    State(shared): State<Shared>,
    Extension(asker): Extension<Asker>,
) -> Result<Json<TokenList>, ApiError> {
    Ok(Json(shared.drive.list_tokens(asker).await?))
}

#[utoipa::path(
    post,
    path = "/auth/v1/tokens",
    tag = "auth",
    request_body = TokenRequest,
    responses((status = 200, description = "Done", body = TokenReply), Refused),
)]
pub async fn make_token(
    State(shared): State<Shared>,
    Extension(asker): Extension<Asker>,
    Body(request): Body<TokenRequest>,
) -> Result<Json<TokenReply>, ApiError> {
    Ok(Json(shared.drive.make_token(asker, request).await?))
}

#[utoipa::path(
    delete,
    path = "/auth/v1/tokens/{name}",
    tag = "auth",
    params(("name" = String, Path, description = "Name of the device or token")),
    responses((status = 204, description = "Done"), Refused),
)]
pub async fn revoke_token(
    State(shared): State<Shared>,
    Extension(asker): Extension<Asker>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    shared.drive.revoke_token(&asker, name).await?;
    Ok(StatusCode::NO_CONTENT)
}
