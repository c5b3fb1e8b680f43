//! The HTTP door of clients: all routes on this screen.
//!
//! Knows no rules of the drive; turns requests into use cases and their errors into answers.

mod auth;
mod callback;
mod error;
mod files;
mod gate;
mod health;
mod inside;
mod json;
mod meter;
mod openapi;
mod patient;
mod serve;
mod sync;
mod table;
mod tls;
mod trace;

pub use callback::Link;
pub use inside::Inside;
pub use meter::install as install_metrics;
pub use openapi::text as openapi_text;
pub use serve::Listening;
pub use serve::serve;
pub use table::Access;
pub use table::ROUTES;
pub use table::Route;
pub use tls::Tls;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::middleware::Next;
use axum::middleware::from_fn;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::delete;
use axum::routing::get;
use axum::routing::post;
use drivefs_core::limits::JSON_BODY_MAX_BYTES;
use drivefs_core::limits::PACK_BODY_MAX_BYTES;
use drivefs_core::limits::POLL_SECS_MAX;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::config::Role;
use crate::drive::Drive;

/// Longest time for a request, but for long polls.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// Largest body of requests that carry a few fields (bytes).
const SMALL_BODY_MAX_BYTES: usize = 256 * 1024;

/// What handlers share. Layers and routes each have their own clone of it, for every request.
#[derive(Clone)]
pub struct Shared {
    pub drive: Arc<Drive>,
    pub metrics: PrometheusHandle,
}

pub fn router(shared: Shared, roles: &[Role]) -> Router {
    let small = || DefaultBodyLimit::max(SMALL_BODY_MAX_BYTES);
    let json = || DefaultBodyLimit::max(JSON_BODY_MAX_BYTES);
    let packs = || DefaultBodyLimit::max(PACK_BODY_MAX_BYTES);
    let known = from_fn_with_state(shared.clone(), gate::known_asker);
    let mut routes = Router::new();
    if roles.contains(&Role::Api) {
        let api = Router::new()
            .route("/auth/v1/logout", post(auth::logout).layer(small()))
            .route("/auth/v1/tokens", get(auth::list_tokens).post(auth::make_token).layer(small()))
            .route("/auth/v1/tokens/{name}", delete(auth::revoke_token))
            .route("/sync/v1/account", get(sync::account))
            .route("/sync/v1/missing", post(sync::missing).layer(json()))
            .route("/sync/v1/commit", post(sync::commit).layer(json()))
            .route("/sync/v1/changes", post(sync::changes).layer(small()))
            .route("/sync/v1/list", post(sync::list).layer(small()))
            .route("/sync/v1/versions", post(sync::versions).layer(small()))
            .route("/sync/v1/keep", post(sync::keep).layer(small()))
            .route("/sync/v1/events", post(sync::events).layer(small()))
            .route("/sync/v1/past", post(sync::past).layer(small()))
            .route("/sync/v1/gone", post(sync::gone).layer(small()))
            .route("/sync/v1/trash", post(sync::trash).layer(small()))
            .route("/sync/v1/trash/empty", post(sync::empty_trash).layer(small()))
            .route_layer(known.clone())
            .route("/auth/v1/login", post(auth::login).layer(small()))
            .route_layer(from_fn(timed));
        routes = routes.merge(api);
    }
    if roles.contains(&Role::Blocks) {
        let blocks = Router::new()
            .route("/sync/v1/packs", post(sync::packs).layer(packs()))
            .route("/sync/v1/blocks", post(sync::blocks).layer(json()))
            .route_layer(known.clone())
            .route_layer(from_fn(timed));
        routes = routes.merge(blocks);
    }
    if roles.contains(&Role::Notify) {
        let notify = Router::new()
            .route("/sync/v1/poll", post(sync::poll).layer(small()))
            .route_layer(known)
            .route_layer(from_fn(timed_poll));
        routes = routes.merge(notify);
    }
    // Some roles have no routes here, and a layer on none is an error.
    if routes.has_routes() {
        routes = routes.route_layer(from_fn(gate::wire_version));
    }
    if roles.contains(&Role::Api) {
        // `callback::PATH`, in words for whoever reads routes.
        let stored = Router::new().route("/internal/v1/uploads/stored", post(callback::stored));
        routes = routes.merge(stored.layer(small()));
    }
    // Clients of the file API know no version of the sync protocol.
    let known = from_fn_with_state(shared.clone(), gate::known_file_asker);
    let files = files::routes(roles);
    if files.has_routes() {
        routes = routes.merge(files.route_layer(known));
    }
    if roles.contains(&Role::Notify) {
        routes = routes.merge(files::longpolls());
    }
    let health = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::document))
        .route_layer(from_fn(timed));
    routes
        .merge(health)
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(from_fn(meter::measure))
        .layer(from_fn(trace::identify))
        .with_state(shared)
}

async fn timed(request: Request, next: Next) -> Response {
    within(REQUEST_TIMEOUT, request, next).await
}

/// Long polls bound their own wait; this bounds the sending of the request.
async fn timed_poll(request: Request, next: Next) -> Response {
    within(REQUEST_TIMEOUT + Duration::from_secs(POLL_SECS_MAX), request, next).await
}

async fn within(longest: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(longest, next.run(request)).await {
        Ok(response) => response,
        Err(_) => error::timed_out(),
    }
}
