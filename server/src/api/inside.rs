//! The routes without a socket: for a simulation, which is network and clock at once.

use axum::Router;
use axum::body::Body;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use drivefs_core::wire::WIRE_HEADER;
use drivefs_core::wire::WIRE_VERSION;
use tower_service::Service;

use super::Shared;
use super::router;
use crate::config::Role;

/// The door of a server that listens nowhere.
#[derive(Clone)]
pub struct Inside {
    router: Router,
}

impl Inside {
    pub fn new(shared: Shared, roles: &[Role]) -> Self {
        Self { router: router(shared, roles) }
    }

    /// Answers a request of the sync protocol: status and whole body.
    pub async fn answer(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Bytes,
    ) -> anyhow::Result<(u16, Bytes)> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(WIRE_HEADER, WIRE_VERSION)
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::from(body))?;
        // A router is always ready, and answers each request with a response.
        let Ok(response) = self.router.clone().call(request).await;
        let status = response.status().as_u16();
        Ok((status, to_bytes(response.into_body(), usize::MAX).await?))
    }
}
