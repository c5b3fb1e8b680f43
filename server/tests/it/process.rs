//! The binary itself: its output, exit codes, signals, and what survives kill -9.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use drivefs_core::wire::Op;
use drivefs_core::wire::OpResult;

use crate::model::Replica;
use crate::world::PASSWORD;
use crate::world::Person;
use crate::world::create;
use crate::world::node_id;
use crate::world::noise;
use crate::world::op_key;

pub const EMAIL: &str = "alice@example.com";

pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drivefs-server"));
    command.env_remove("DRIVEFS_MASTER_KEY").env("RUST_LOG", "warn");
    command
}

pub fn run(data: &Path, args: &[&str], input: &str) -> Output {
    let mut child = program()
        .args(args)
        .arg("--data")
        .arg(data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A server process; killed when dropped.
pub struct Running {
    child: Child,
    pub url: String,
}

impl Running {
    pub fn start(data: &Path) -> Self {
        let mut child = program()
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, url }
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn terminate(mut self) -> i32 {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_operators_commands_work_beside_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let server = Running::start(data);
    let add = ["user", "add", "--email", EMAIL, "--password-stdin", "--quota", "1GiB"];
    let out = run(data, &add, "correct horse battery\n");
    assert_eq!(text(&out.stdout), "added alice@example.com (quota 1073741824 bytes)\n");
    let twice = run(data, &add, PASSWORD);
    assert_eq!(twice.status.code(), Some(1));
    assert!(text(&twice.stderr).contains("already"));
    let short = run(data, &["user", "add", "--email", "b@b", "--password-stdin"], "short");
    assert!(text(&short.stderr).contains("at least 8"));
    let wrong = run(data, &["user", "add", "--email", "alice", "--password-stdin"], PASSWORD);
    assert_eq!(wrong.status.code(), Some(2));

    let alice = Person::login(&server.url, EMAIL, PASSWORD, "laptop").await.unwrap();
    assert_eq!(alice.account.quota_bytes, 1 << 30);
    let mount = run(data, &["mount", "add", "--email", EMAIL, "--path", "/team"], "");
    let ns = text(&mount.stdout).trim().parse().unwrap();
    assert_eq!(alice.changes(1, 10).await.unwrap().nodes[0].mount, Some(ns));

    let list = run(data, &["user", "list", "--json"], "");
    let rows: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(rows[0]["email"], EMAIL);
    let passwd = ["user", "passwd", "--email", EMAIL, "--password-stdin"];
    assert!(run(data, &passwd, "another password").status.success());
    assert!(Person::login(&server.url, EMAIL, PASSWORD, "x").await.is_err());
    assert!(Person::login(&server.url, EMAIL, "another password", "x").await.is_ok());
    assert!(run(data, &["user", "disable", "--email", EMAIL], "").status.success());
    assert_eq!(alice.account().await.unwrap_err().status, 401);
    let unknown = run(data, &["user", "disable", "--email", "no@body"], "");
    assert_eq!(unknown.status.code(), Some(1));

    let second = run(data, &["serve", "--listen", "127.0.0.1:0"], "");
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("already serves"));
    let open = run(data, &["serve", "--listen", "0.0.0.0:0"], "");
    assert_eq!(open.status.code(), Some(2));
    assert!(text(&open.stderr).contains("--insecure"));
    assert_eq!(server.terminate(), 0);
}

#[tokio::test]
async fn a_stop_answers_the_poll_under_way_and_exits_with_0() {
    let dir = tempfile::tempdir().unwrap();
    let add = ["user", "add", "--email", EMAIL, "--password-stdin"];
    assert!(run(dir.path(), &add, PASSWORD).status.success());
    let server = Running::start(dir.path());
    let alice = Person::login(&server.url, EMAIL, PASSWORD, "laptop").await.unwrap();
    let polling = tokio::spawn({
        let (alice, ns) = (alice.clone(), alice.ns);
        let body = serde_json::json!({ "cursors": [{ "ns": ns, "seq": 1 }], "timeout_secs": 60 });
        async move { alice.post::<serde_json::Value>("/sync/v1/poll", &body).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let code = tokio::task::spawn_blocking(move || server.terminate()).await.unwrap();
    assert_eq!(code, 0);
    assert_eq!(polling.await.unwrap().unwrap()["changed"], serde_json::json!([]));
}

#[tokio::test]
async fn another_master_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    assert_eq!(server.terminate(), 0);
    let out = program()
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(dir.path())
        .env("DRIVEFS_MASTER_KEY", "0".repeat(64))
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("not the one"), "{}", text(&out.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let add = ["user", "add", "--email", EMAIL, "--password-stdin"];
    assert!(run(dir.path(), &add, PASSWORD).status.success());
    let mut acknowledged: Vec<(Op, OpResult)> = Vec::new();
    for round in 0..4u64 {
        let server = Running::start(dir.path());
        let alice = Person::login(&server.url, EMAIL, PASSWORD, "laptop").await.unwrap();
        let (count, mut counted) = tokio::sync::watch::channel(0);
        let writing = tokio::spawn({
            let alice = alice.clone();
            async move {
                let mut done = Vec::new();
                for i in 0.. {
                    let block = noise(round * 1000 + i, 2000);
                    let body = crate::world::body_of(std::slice::from_ref(&block));
                    let url = format!("{}/sync/v1/packs?ns={}", alice.url, alice.ns);
                    let content = crate::world::content_of(&[&block]);
                    let node = node_id();
                    let place = alice.place(&node.to_string());
                    let op = Op { key: op_key(), change: create(node, place, content) };
                    let ops = serde_json::json!({ "ns": alice.ns, "ops": [op] });
                    let commit = format!("{}/sync/v1/commit", alice.url);
                    let send = |url: String, body: Vec<u8>| {
                        let request = alice.http.post(url).header("x-drivefs-wire", "1");
                        request.bearer_auth(&alice.token).body(body).send()
                    };
                    let Ok(reply) = send(url, body).await else { break };
                    let Ok(_) = reply.bytes().await else { break };
                    let Ok(reply) = send(commit, ops.to_string().into_bytes()).await else { break };
                    let Ok(bytes) = reply.bytes().await else { break };
                    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                    let result = serde_json::from_value(value["results"][0].clone()).unwrap();
                    done.push((op, result));
                    count.send_replace(done.len());
                }
                done
            }
        });
        // Some are done, however slow this machine is; then at another moment each time.
        counted.wait_for(|done| *done >= 4).await.expect("the writer lives");
        tokio::time::sleep(Duration::from_millis(70 * round)).await;
        tokio::task::spawn_blocking(move || server.kill()).await.unwrap();
        acknowledged.extend(writing.await.unwrap());
    }
    assert!(acknowledged.len() >= 16, "only {} commits", acknowledged.len());
    let server = Running::start(dir.path());
    let alice = Person::login(&server.url, EMAIL, PASSWORD, "laptop").await.unwrap();
    let mut replica = Replica::default();
    replica.pull(&alice, 100).await;
    for (op, first) in acknowledged {
        assert!(matches!(first, OpResult::Done { version: 1, .. }), "{first:?}");
        assert!(!replica.nodes[&op.change.node()].deleted);
        let again = alice.commit_ops(vec![op]).await.unwrap();
        assert_eq!(again.results, [first], "the retry gets the first answer");
    }
}
