//! What operators see of requests: metrics by route, and ids in answers and log lines.

use std::process::Stdio;

use crate::process::program;
use crate::process::run;
use crate::world::PASSWORD;
use crate::world::Person;
use crate::world::World;
use crate::world::http;
use crate::world::noise;

async fn metrics(url: &str) -> String {
    http().get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn every_request_counts_by_its_route_and_never_by_its_path() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    alice.file("file", &noise(1, 1000)).await;
    let gone = alice.call::<()>(reqwest::Method::DELETE, "/auth/v1/tokens/secretname", Vec::new());
    assert_eq!(gone.await.unwrap_err().status, 404);
    http().get(format!("{}/secretpath", world.url())).send().await.unwrap();
    let text = metrics(&world.url()).await;
    for line in [
        "drivefs_requests_total{route=\"/sync/v1/commit\",status=\"200\"}",
        "drivefs_requests_total{route=\"/auth/v1/tokens/{name}\",status=\"404\"}",
        "drivefs_requests_total{route=\"other\",status=\"404\"}",
        "drivefs_request_seconds_bucket{route=\"/sync/v1/packs\",le=\"0.001\"}",
        "drivefs_requests_in_flight{route=\"/metrics\"} 1",
        "drivefs_requests_in_flight{route=\"/sync/v1/commit\"}",
        "drivefs_writes_waiting",
        "drivefs_group_commit_seconds_bucket",
        "drivefs_database_bytes ",
        "drivefs_disk_free_bytes ",
        "drivefs_in_use{what=\"cores\"}",
        "drivefs_connections",
        "drivefs_logins_total{outcome=\"ok\"}",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    assert!(!text.contains("secret"), "no path, no name");
}

#[tokio::test]
async fn a_sane_request_id_comes_back_and_another_is_replaced() {
    let world = World::new().await;
    let answered = async |id: Option<&str>| {
        let request = http().get(format!("{}/nowhere", world.url()));
        let request = match id {
            Some(id) => request.header("x-request-id", id),
            None => request,
        };
        let response = request.send().await.unwrap();
        response.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(answered(Some("abc-1.2_3")).await, "abc-1.2_3");
    for bad in [None, Some("with space"), Some("\"quoted\""), Some(&*"x".repeat(65))] {
        let id = answered(bad).await;
        assert_eq!(id.len(), 32, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_id_is_on_the_log_lines_of_a_request_wherever_its_work_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let add = ["user", "add", "--email", "alice@example.com", "--password-stdin"];
    assert!(run(dir.path(), &add, PASSWORD).status.success());
    let log = dir.path().join("log");
    let mut child = program()
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(dir.path())
        .env("RUST_LOG", "drivefs=debug,info")
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap();
    let alice = Person::login(url, "alice@example.com", PASSWORD, "laptop").await.unwrap();
    let block = noise(1, 1000);
    alice.file("file", &block).await;
    // Damage is told by a line from a thread that computes.
    let pack = crate::fsck::packs(dir.path()).remove(0);
    crate::fsck::flip(&pack, 300);
    let hash = drivefs_core::id::BlockHash::of(&block).to_string();
    let body = serde_json::json!({ "ns": alice.ns, "blocks": [{ "hash": hash }] }).to_string();
    let request = alice.http.post(format!("{url}/sync/v1/blocks")).bearer_auth(&alice.token);
    let request = request.header("x-drivefs-wire", "1").header("x-request-id", "told-by-test");
    assert_eq!(request.body(body).send().await.unwrap().status(), 500);
    child.kill().unwrap();
    child.wait().unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    let lines: Vec<_> = log.lines().filter(|l| l.contains("told-by-test")).collect();
    for part in ["damaged block", "request failed", "status=500"] {
        assert!(lines.iter().any(|l| l.contains(part)), "{part}: {log}");
    }
    assert!(lines.iter().all(|l| l.contains("/sync/v1/blocks")), "{lines:?}");
}
