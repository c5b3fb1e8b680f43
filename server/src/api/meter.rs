//! Metrics of requests. Labels are routes and codes, never names of users or files.

use std::sync::OnceLock;
use std::time::Instant;

use axum::extract::MatchedPath;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_exporter_prometheus::PrometheusHandle;

/// Upper bounds of the latency histogram (seconds).
const LATENCY_BOUNDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// Upper bounds of the group commit histogram (jobs).
const GROUP_BOUNDS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// The process's recorder; made once, whatever the number of servers in the process.
pub fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let matcher = |name: &str| metrics_exporter_prometheus::Matcher::Full(name.into());
            let recorder = PrometheusBuilder::new()
                .set_buckets_for_metric(matcher("drivefs_request_seconds"), &LATENCY_BOUNDS)
                .and_then(|b| {
                    b.set_buckets_for_metric(matcher("drivefs_group_commit_jobs"), &GROUP_BOUNDS)
                })
                .and_then(|b| {
                    let name = matcher("drivefs_group_commit_seconds");
                    b.set_buckets_for_metric(name, &LATENCY_BOUNDS)
                })
                .expect("the bounds are not empty")
                .build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another metrics recorder is in place; /metrics stays empty");
            }
            handle
        })
        .clone()
}

/// Counts and times every request by route and status, and tells how many are under way.
pub async fn measure(request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let mut under_way = UnderWay::begin(route);
    let response = next.run(request).await;
    under_way.status = response.status().as_u16().to_string();
    response
}

/// A request that is being answered; ends when it is dropped, also when its client goes away.
struct UnderWay {
    route: String,
    status: String,
    started: Instant,
}

impl UnderWay {
    fn begin(route: String) -> Self {
        metrics::gauge!("drivefs_requests_in_flight", "route" => route.clone()).increment(1.0);
        Self { route, status: "gone".to_owned(), started: Instant::now() }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let (route, status) = (self.route.clone(), std::mem::take(&mut self.status));
        metrics::gauge!("drivefs_requests_in_flight", "route" => route.clone()).decrement(1.0);
        metrics::counter!("drivefs_requests_total", "route" => route.clone(), "status" => status)
            .increment(1);
        metrics::histogram!("drivefs_request_seconds", "route" => route)
            .record(self.started.elapsed().as_secs_f64());
    }
}

pub fn bytes_in(bytes: usize) {
    metrics::counter!("drivefs_block_bytes_in_total").increment(bytes as u64);
}

pub fn bytes_out(bytes: usize) {
    metrics::counter!("drivefs_block_bytes_out_total").increment(bytes as u64);
}
