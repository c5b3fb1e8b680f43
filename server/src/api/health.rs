//! For operators and their tools: is it alive, is it ready, what does it do.

use axum::extract::State;

use super::Shared;
use super::error::ApiError;

/// The process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// The process can serve: its database answers.
pub async fn readyz(State(shared): State<Shared>) -> Result<&'static str, ApiError> {
    shared.drive.check_ready().await?;
    Ok("ready\n")
}

/// Metrics as Prometheus reads them.
pub async fn metrics(State(shared): State<Shared>) -> String {
    shared.drive.gauge();
    shared.metrics.run_upkeep();
    shared.metrics.render()
}
