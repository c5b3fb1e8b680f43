//! `/sync/v1`: the protocol of mounts. The bodies are `drivefs_core::wire`.

use std::convert::Infallible;

use axum::Extension;
use axum::Json;
use axum::extract::Query;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_LENGTH;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::response::Response;
use drivefs_core::id::NamespaceId;
use drivefs_core::wire::Account;
use drivefs_core::wire::BlocksRequest;
use drivefs_core::wire::ChangesReply;
use drivefs_core::wire::ChangesRequest;
use drivefs_core::wire::CommitReply;
use drivefs_core::wire::CommitRequest;
use drivefs_core::wire::EmptyReply;
use drivefs_core::wire::EmptyRequest;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::EventsReply;
use drivefs_core::wire::EventsRequest;
use drivefs_core::wire::GoneReply;
use drivefs_core::wire::GoneRequest;
use drivefs_core::wire::KeepReply;
use drivefs_core::wire::KeepRequest;
use drivefs_core::wire::ListReply;
use drivefs_core::wire::ListRequest;
use drivefs_core::wire::MissingReply;
use drivefs_core::wire::MissingRequest;
use drivefs_core::wire::PackReply;
use drivefs_core::wire::PastReply;
use drivefs_core::wire::PastRequest;
use drivefs_core::wire::PollReply;
use drivefs_core::wire::PollRequest;
use drivefs_core::wire::TrashReply;
use drivefs_core::wire::TrashRequest;
use drivefs_core::wire::VersionsReply;
use drivefs_core::wire::VersionsRequest;
use futures_util::StreamExt;
use serde::Deserialize;

use super::Shared;
use super::error::ApiError;
use super::json::Body;
use super::json::Raw;
use super::meter;
use super::openapi::Octets;
use super::openapi::Refused;
use crate::auth::Asker;

type Known = Extension<Asker>;

#[utoipa::path(
    get,
    path = "/sync/v1/account",
    tag = "sync",
    responses((status = 200, description = "Done", body = Account), Refused),
)]
pub async fn account(
    State(shared): State<Shared>,
    Extension(asker): Known,
) -> Result<Json<Account>, ApiError> {
    Ok(Json(shared.drive.account(asker).await?))
}

#[utoipa::path(
    post,
    path = "/sync/v1/missing",
    tag = "sync",
    request_body = MissingRequest,
    responses((status = 200, description = "Done", body = MissingReply), Refused),
)]
pub async fn missing(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(request): Body<MissingRequest>,
) -> Result<Json<MissingReply>, ApiError> {
    Ok(Json(shared.drive.missing(asker, request).await?))
}

#[derive(Deserialize)]
pub struct PacksQuery {
    ns: NamespaceId,
}

#[utoipa::path(
    post,
    path = "/sync/v1/packs",
    tag = "sync",
    request_body(content = Octets, content_type = "application/octet-stream"),
    params(("ns" = NamespaceId, Query, description = "Namespace whose owner gets the blocks")),
    responses((status = 200, description = "Done", body = PackReply), Refused),
)]
pub async fn packs(
    State(shared): State<Shared>,
    Extension(asker): Known,
    query: Result<Query<PacksQuery>, axum::extract::rejection::QueryRejection>,
    Raw(body): Raw,
) -> Result<Json<PackReply>, ApiError> {
    let Query(query) = query.map_err(|e| ApiError::new(ErrorCode::BadRequest, e.body_text()))?;
    meter::bytes_in(body.len());
    Ok(Json(shared.drive.upload(asker, query.ns, body).await?))
}

#[utoipa::path(
    post,
    path = "/sync/v1/blocks",
    tag = "sync",
    request_body = BlocksRequest,
    responses((status = 200, description = "Done"), Refused),
)]
pub async fn blocks(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(request): Body<BlocksRequest>,
) -> Result<Response, ApiError> {
    let answer = shared.drive.download(asker, request).await?;
    let len = answer.len;
    let pieces = answer.into_stream().map(|piece| {
        meter::bytes_out(piece.len());
        Ok::<_, Infallible>(piece)
    });
    let mut response = axum::body::Body::from_stream(pieces).into_response();
    let heads = response.headers_mut();
    heads.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Some(len) = len {
        heads.insert(CONTENT_LENGTH, len.into());
    }
    Ok(response)
}

#[utoipa::path(
    post,
    path = "/sync/v1/commit",
    tag = "sync",
    request_body = CommitRequest,
    responses((status = 200, description = "Done", body = CommitReply), Refused),
)]
pub async fn commit(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(request): Body<CommitRequest>,
) -> Result<Json<CommitReply>, ApiError> {
    Ok(Json(shared.drive.commit(asker, request).await?))
}

#[utoipa::path(
    post,
    path = "/sync/v1/changes",
    tag = "sync",
    request_body = ChangesRequest,
    responses((status = 200, description = "Done", body = ChangesReply), Refused),
)]
pub async fn changes(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(request): Body<ChangesRequest>,
) -> Result<Json<ChangesReply>, ApiError> {
    Ok(Json(shared.drive.changes(asker, request).await?))
}

#[utoipa::path(
    post,
    path = "/sync/v1/list",
    tag = "sync",
    request_body = ListRequest,
    responses((status = 200, description = "Done", body = ListReply), Refused),
)]
pub async fn list(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(request): Body<ListRequest>,
) -> Result<Json<ListReply>, ApiError> {
    Ok(Json(shared.drive.list(asker, request).await?))
}

#[utoipa::path(
    post,
    path = "/sync/v1/poll",
    tag = "sync",
    request_body = PollRequest,
    responses((status = 200, description = "Done", body = PollReply), Refused),
)]
pub async fn poll(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(request): Body<PollRequest>,
) -> Result<Json<PollReply>, ApiError> {
    Ok(Json(shared.drive.poll(asker, request).await?))
}

#[utoipa::path(
    post,
    path = "/sync/v1/versions",
    tag = "sync",
    request_body = VersionsRequest,
    responses((status = 200, description = "Done", body = VersionsReply), Refused),
)]
pub async fn versions(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(request): Body<VersionsRequest>,
) -> Result<Json<VersionsReply>, ApiError> {
    Ok(Json(shared.drive.versions(asker, request).await?))
}

#[utoipa::path(
    post,
    path = "/sync/v1/keep",
    tag = "sync",
    request_body = KeepRequest,
    responses((status = 200, description = "Done", body = KeepReply), Refused),
)]
pub async fn keep(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(request): Body<KeepRequest>,
) -> Result<Json<KeepReply>, ApiError> {
    Ok(Json(shared.drive.keep_version(asker, request).await?))
}

#[utoipa::path(
    post,
    path = "/sync/v1/events",
    tag = "sync",
    request_body = EventsRequest,
    responses((status = 200, description = "Done", body = EventsReply), Refused),
)]
pub async fn events(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(request): Body<EventsRequest>,
) -> Result<Json<EventsReply>, ApiError> {
    Ok(Json(shared.drive.events(asker, request).await?))
}

#[utoipa::path(
    post,
    path = "/sync/v1/past",
    tag = "sync",
    request_body = PastRequest,
    responses((status = 200, description = "Done", body = PastReply), Refused),
)]
pub async fn past(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(request): Body<PastRequest>,
) -> Result<Json<PastReply>, ApiError> {
    Ok(Json(shared.drive.past(asker, request).await?))
}

#[utoipa::path(
    post,
    path = "/sync/v1/gone",
    tag = "sync",
    request_body = GoneRequest,
    responses((status = 200, description = "Done", body = GoneReply), Refused),
)]
pub async fn gone(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(request): Body<GoneRequest>,
) -> Result<Json<GoneReply>, ApiError> {
    Ok(Json(shared.drive.gone(asker, request).await?))
}

#[utoipa::path(
    post,
    path = "/sync/v1/trash",
    tag = "sync",
    request_body = TrashRequest,
    responses((status = 200, description = "Done", body = TrashReply), Refused),
)]
pub async fn trash(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(request): Body<TrashRequest>,
) -> Result<Json<TrashReply>, ApiError> {
    Ok(Json(shared.drive.trash(asker, request).await?))
}

#[utoipa::path(
    post,
    path = "/sync/v1/trash/empty",
    tag = "sync",
    request_body = EmptyRequest,
    responses((status = 200, description = "Done", body = EmptyReply), Refused),
)]
pub async fn empty_trash(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(request): Body<EmptyRequest>,
) -> Result<Json<EmptyReply>, ApiError> {
    Ok(Json(shared.drive.empty_trash(asker, request).await?))
}
