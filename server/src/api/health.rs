//! For operators and their tools: is it alive, is it ready, what does it do.

use axum::extract::State;

use super::Shared;
use super::error::ApiError;
use super::openapi::Refused;

/// The process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "health",
    responses((status = 200, description = "Done", body = String)),
    security(()),
)]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// The process can serve: its database answers.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses((status = 200, description = "Done", body = String), Refused),
    security(()),
)]
pub async fn readyz(State(shared): State<Shared>) -> Result<&'static str, ApiError> {
    shared.drive.check_ready().await?;
    Ok("ready\n")
}

/// Metrics as Prometheus reads them.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses((status = 200, description = "Done", body = String)),
    security(()),
)]
pub async fn metrics(State(shared): State<Shared>) -> String {
    shared.drive.gauge();
    shared.metrics.run_upkeep();
    shared.metrics.render()
}
