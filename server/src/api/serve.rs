//! Serves the routes on a socket until told to stop, then lets requests in flight finish.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;

use super::Shared;
use super::router;
use crate::config::Role;

/// Returns when `stop` has come and all connections are done; the caller bounds the wait.
pub async fn serve(
    listener: TcpListener,
    shared: Shared,
    roles: Vec<Role>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    // Small answers must not wait for the acknowledgement of the ones before.
    let listener = listener.tap_io(|stream| {
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!(error = %e, "TCP_NODELAY not set");
        }
    });
    let router = router(shared, &roles).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}
