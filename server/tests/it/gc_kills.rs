//! The collection under load, with kill -9 of whoever it meets: no live byte goes.
//!
//! `DRIVEFS_GC_KILLS` says how often (8 unless told otherwise).

use std::path::Path;
use std::process::Child;
use std::process::Stdio;
use std::time::Duration;

use drivefs_core::id::NodeId;
use drivefs_core::wire::Change;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::Op;
use drivefs_core::wire::OpResult;
use serde_json::Value;
use serde_json::json;

use crate::process::EMAIL;
use crate::process::Running;
use crate::process::program;
use crate::process::run;
use crate::space::has;
use crate::world::PASSWORD;
use crate::world::Person;
use crate::world::body_of;
use crate::world::content_of;
use crate::world::create;
use crate::world::node_id;
use crate::world::noise;
use crate::world::op_key;
use crate::world::put;

/// Contents that come again and again: what is about to go is wanted.
const CONTENTS: u64 = 40;
/// Files of one writer.
const FILES_MAX: usize = 8;

#[derive(Clone)]
struct File {
    node: NodeId,
    called: String,
    version: u64,
    block: Vec<u8>,
}

/// What an op makes of the files.
#[derive(Clone)]
enum Deed {
    Made(File),
    Written(NodeId, Vec<u8>),
    Removed(NodeId),
}

/// A device that writes; what got no answer it asks for again.
struct Writer {
    number: u64,
    step: u64,
    files: Vec<File>,
    open: Option<(Op, Deed, Vec<u8>)>,
}

/// The server does not answer.
struct Gone;

async fn ask(person: &Person, path: &str, body: Vec<u8>) -> Result<Value, Gone> {
    let request = person.http.post(format!("{}{path}", person.url)).header("x-drivefs-wire", "1");
    let reply = request.bearer_auth(&person.token).body(body).send().await.map_err(|_| Gone)?;
    let status = reply.status().as_u16();
    let bytes = reply.bytes().await.map_err(|_| Gone)?;
    assert!(status == 200 || status == 503, "{path}: {status} {}", String::from_utf8_lossy(&bytes));
    if status == 503 {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_slice(&bytes).unwrap())
}

impl Writer {
    fn dice(&self) -> u64 {
        let bytes = noise(self.number << 40 | self.step, 2);
        u64::from(bytes[0]) << 8 | u64::from(bytes[1])
    }

    fn next(&mut self, person: &Person) -> (Op, Deed, Vec<u8>) {
        self.step += 1;
        let dice = self.dice();
        let block = noise(1_000 + dice % CONTENTS, 3_000);
        let content = content_of(&[&block]);
        let (change, deed) = match dice % 4 {
            0 | 1 if self.files.len() > FILES_MAX / 2 => {
                let file = self.files[dice as usize % self.files.len()].clone();
                let place = person.place(&file.called);
                (Change::Unlink { node: file.node, place, version: None }, Deed::Removed(file.node))
            }
            2 if !self.files.is_empty() => {
                let file = &self.files[dice as usize % self.files.len()];
                (put(file.node, file.version, content), Deed::Written(file.node, block.clone()))
            }
            _ => {
                let (node, called) = (node_id(), format!("f{}-{}", self.number, self.step));
                let change = create(node, person.place(&called), content);
                (change, Deed::Made(File { node, called, version: 1, block: block.clone() }))
            }
        };
        (Op { key: op_key(), change }, deed, block)
    }

    /// Until the server is gone.
    async fn work(mut self, person: Person) -> Self {
        loop {
            let (op, deed, block) = match self.open.take() {
                Some(open) => open,
                None => self.next(&person),
            };
            self.open = Some((op.clone(), deed.clone(), block.clone()));
            let Ok(version) = commit(&person, &op, &block).await else { return self };
            self.open = None;
            match deed {
                Deed::Made(file) => self.files.push(file),
                Deed::Removed(node) => {
                    self.files.retain(|f| f.node != node);
                    let empty = json!({ "ns": person.ns }).to_string().into_bytes();
                    if ask(&person, "/sync/v1/trash/empty", empty).await.is_err() {
                        return self;
                    }
                }
                Deed::Written(node, block) => {
                    let file = self.files.iter_mut().find(|f| f.node == node).unwrap();
                    (file.version, file.block) = (version, block);
                }
            }
        }
    }
}

/// As a client does it: asks whether the block is there, sends it if not, commits.
async fn commit(person: &Person, op: &Op, block: &[u8]) -> Result<u64, Gone> {
    let hash = drivefs_core::id::BlockHash::of(block);
    let missing = json!({ "ns": person.ns, "hashes": [hash] }).to_string().into_bytes();
    let mut send = ask(person, "/sync/v1/missing", missing).await?["missing"] != json!([]);
    loop {
        if send {
            let body = body_of(std::slice::from_ref(&block.to_vec()));
            ask(person, &format!("/sync/v1/packs?ns={}", person.ns), body).await?;
        }
        let request = json!({ "ns": person.ns, "ops": [op] }).to_string().into_bytes();
        let reply = ask(person, "/sync/v1/commit", request).await?;
        if reply.is_null() {
            continue;
        }
        match serde_json::from_value(reply["results"][0].clone()).unwrap() {
            OpResult::Done { version, .. } => return Ok(version),
            OpResult::Rejected { code: ErrorCode::MissingBlocks, .. } => send = true,
            other => panic!("{op:?}: {other:?}"),
        }
    }
}

fn begin_gc(data: &Path) -> Child {
    program()
        .args(["gc", "--grace", "0s", "--json", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_live_byte_goes_whoever_is_killed() {
    let kills = std::env::var("DRIVEFS_GC_KILLS").map_or(8, |n| n.parse::<u64>().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let add = ["user", "add", "--email", EMAIL, "--password-stdin"];
    assert!(run(dir.path(), &add, PASSWORD).status.success());
    assert!(run(dir.path(), &["policy", "--email", EMAIL, "--versions", "1"], "").status.success());
    let mut writers: Vec<Writer> =
        (0..2).map(|number| Writer { number, step: 0, files: Vec::new(), open: None }).collect();
    let (mut removed, mut whole) = (0, 0);
    for kill in 0..kills {
        let server = Running::start(dir.path());
        let person = Person::login(&server.url, EMAIL, PASSWORD, "laptop").await.unwrap();
        let working: Vec<_> =
            writers.drain(..).map(|w| tokio::spawn(w.work(person.clone()))).collect();
        let mut gc = begin_gc(dir.path());
        // From the midst of the first step to after the last.
        let dice = u64::from(noise(kill, 1)[0]);
        let end = tokio::time::Instant::now() + Duration::from_millis(40 + dice * 4);
        while tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(2)).await;
            if gc.try_wait().unwrap().is_some() {
                let out = gc.wait_with_output().unwrap();
                assert!(out.status.success(), "gc failed");
                removed += removed_by(&out.stdout);
                whole += 1;
                gc = begin_gc(dir.path());
            }
        }
        gc.kill().unwrap();
        gc.wait().unwrap();
        server.kill();
        for writer in working {
            writers.push(writer.await.unwrap());
        }
    }
    let server = Running::start(dir.path());
    let person = Person::login(&server.url, EMAIL, PASSWORD, "laptop").await.unwrap();
    let mut live = 0;
    let check = async |writers: &[Writer]| {
        let mut live = 0;
        for file in writers.iter().flat_map(|w| &w.files) {
            let open = writers.iter().filter_map(|w| w.open.as_ref());
            if open.clone().all(|(op, ..)| op.change.node() != file.node) {
                assert!(has(&person, &file.block).await, "{} is gone", file.called);
                live += 1;
            }
        }
        live
    };
    live += check(&writers).await;
    let out = begin_gc(dir.path()).wait_with_output().unwrap();
    assert!(out.status.success(), "gc failed");
    removed += removed_by(&out.stdout);
    live += check(&writers).await;
    let fsck = run(dir.path(), &["fsck"], "");
    assert!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stdout));
    let steps: u64 = writers.iter().map(|w| w.step).sum();
    println!(
        "{kills} kills, {steps} changes, {whole} whole runs, {removed} blocks removed, {live} looked at"
    );
    assert!(live > 4 && removed > 4, "{live} {removed}");
    assert_eq!(server.terminate(), 0);
}

fn removed_by(json: &[u8]) -> u64 {
    let report: Value = serde_json::from_slice(json).unwrap();
    let rounds = report["collect"].as_array().unwrap();
    rounds.iter().map(|round| round["removed"].as_u64().unwrap()).sum()
}
