//! Serves the routes on a socket until told to stop, then lets requests in flight finish.
//!
//! Bounds what a client can hold: connections at once, time to say what it wants, time without
//! taking or giving a byte, heads of requests, streams of one connection.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto::Builder;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio::time::timeout_at;
use tower_service::Service;

use super::Shared;
use super::patient::Patient;
use super::router;
use super::tls::Tls;
use crate::config::Role;

/// A new connection says what it wants within this time, and ends its TLS handshake before.
const FIRST_REQUEST: Duration = Duration::from_secs(15);
/// The head of a further request has come this long after the answer before, at the latest. Longer
/// than clients keep idle connections (90 s), so that they are the ones to close.
const NEXT_REQUEST: Duration = Duration::from_secs(100);
/// A connection on which nothing can be written for so long is given up.
const WRITE_STALL: Duration = Duration::from_secs(60);
/// Most headers of a request, and longest head over HTTP/2 (bytes). Over HTTP/1 the bound is the
/// buffer of hyper (400 KiB); a smaller one would slow down uploads.
const HEAD_MAX_BYTES: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;
/// What HTTP/2 without TLS begins with, and no request of HTTP/1.
const PREFACE: &[u8; 3] = b"PRI";
/// Most requests at once on a connection of HTTP/2.
const STREAMS_MAX: u32 = 256;
/// Over HTTP/2 a silent client is asked this often whether it still lives, and has so long to answer.
const PING_EVERY: Duration = Duration::from_secs(45);
const PING_ANSWER: Duration = Duration::from_secs(20);
/// After a connection could not be taken (no more open files) the next one is tried this much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How the socket is served.
pub struct Listening {
    pub listener: TcpListener,
    /// None: plain HTTP.
    pub tls: Option<Tls>,
    /// Most connections at once; more wait to be taken.
    pub connections_max: usize,
    pub roles: Vec<Role>,
}

/// Returns when `stop` has come and all connections are done; the caller bounds the wait.
pub async fn serve(
    listening: Listening,
    shared: Shared,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let Listening { listener, tls, connections_max, roles } = listening;
    let router = router(shared, &roles);
    let room = Arc::new(Semaphore::new(connections_max));
    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let taken = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            taken = take(&listener, &room) => taken,
        };
        let (stream, peer, permit) = match taken {
            Ok(taken) => taken,
            Err(e) => {
                tracing::warn!(error = %e, "a connection was not taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let open = Open::count();
        let one = Connection { peer, router: router.clone(), stopped: stopped.clone() };
        let tls = tls.clone();
        connections.spawn(async move {
            let _held: (OwnedSemaphorePermit, Open) = (permit, open);
            match tls {
                None => one.serve_plain(stream).await,
                // In a box: what TLS needs is not to be in the tasks of connections without it.
                Some(tls) => Box::pin(one.serve_tls(stream, tls)).await,
            }
        });
    }
    drop(listener);
    stopping.send_replace(true);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// A connection as the metrics count it.
struct Open;

impl Open {
    fn count() -> Self {
        metrics::counter!("drivefs_connections_total").increment(1);
        metrics::gauge!("drivefs_connections").increment(1.0);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("drivefs_connections").decrement(1.0);
    }
}

fn refused(peer: SocketAddr, why: &str) {
    metrics::counter!("drivefs_tls_failures_total").increment(1);
    tracing::debug!(%peer, %why, "TLS handshake failed");
}

/// The next connection, once there is room for it.
async fn take(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // Small answers must not wait for the acknowledgement of the ones before.
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(error = %e, "TCP_NODELAY not set");
    }
    Ok((stream, peer, permit))
}

/// One connection and what is needed to answer on it.
struct Connection {
    peer: SocketAddr,
    router: Router,
    stopped: watch::Receiver<bool>,
}

impl Connection {
    async fn serve_plain(mut self, stream: TcpStream) {
        let until = Instant::now() + FIRST_REQUEST;
        let Some(builder) = self.builder_for(&stream, until).await else { return };
        self.serve(Patient::new(stream, WRITE_STALL), &builder, until).await;
    }

    async fn serve_tls(self, stream: TcpStream, tls: Tls) {
        match timeout(FIRST_REQUEST, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                let until = Instant::now() + FIRST_REQUEST;
                self.serve(Patient::new(stream, WRITE_STALL), &builder(), until).await;
            }
            Ok(Err(e)) => refused(self.peer, &e.to_string()),
            Err(_) => refused(self.peer, "the handshake took too long"),
        }
    }

    /// Looks at how the client begins; none when it says nothing or the server stops. A builder that
    /// takes both versions reads the first bytes by themselves, which doubles the buffer that every
    /// connection keeps.
    async fn builder_for(
        &mut self,
        stream: &TcpStream,
        until: Instant,
    ) -> Option<Builder<TokioExecutor>> {
        let mut word = [0; PREFACE.len()];
        let peeked = tokio::select! {
            peeked = timeout_at(until, stream.peek(&mut word)) => peeked.ok()?.ok()?,
            _ = self.stopped.wait_for(|stop| *stop) => return None,
        };
        match &word[..peeked] {
            [] => None,
            word if PREFACE.starts_with(word) => Some(builder()),
            _ => Some(builder().http1_only()),
        }
    }

    async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        builder: &Builder<TokioExecutor>,
        until: Instant,
    ) {
        let Self { peer, router, mut stopped } = self;
        let asked = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&asked);
        let answer = service_fn(move |request: hyper::Request<Incoming>| {
            noted.store(true, Ordering::Relaxed);
            let mut request: Request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            // A router is always ready.
            router.clone().call(request)
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), answer));
        let mut patience = pin!(tokio::time::sleep_until(until));
        let (mut waiting, mut stopping) = (true, false);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(e) = ended {
                        tracing::debug!(%peer, error = %e, "connection ended");
                    }
                    return;
                }
                () = &mut patience, if waiting => {
                    if !asked.load(Ordering::Relaxed) {
                        return;
                    }
                    waiting = false;
                }
                _ = stopped.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT_REQUEST)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_MAX_BYTES as u32)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER);
    builder
}
