//! TLS, and what a client that is slow, or one of too many, can hold.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use drivefs_server::app::Server;
use drivefs_server::config::Config;
use drivefs_server::config::TlsFiles;
use rcgen::CertifiedKey;
use rcgen::generate_simple_self_signed;

use crate::world::World;
use crate::world::http;

/// Writes a fresh certificate for localhost and its key; answers the certificate.
fn make_pair(dir: &Path) -> String {
    let made = generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let CertifiedKey { cert, signing_key } = made;
    fs::write(dir.join("key.pem"), signing_key.serialize_pem()).unwrap();
    fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    cert.pem()
}

fn files(dir: &Path) -> TlsFiles {
    TlsFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") }
}

/// A client that trusts this certificate alone.
fn trusting(pem: &str) -> reqwest::Client {
    http();
    let cert = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
    reqwest::Client::builder().tls_certs_only([cert]).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_taken_without_dropping_connections() {
    let pems = tempfile::tempdir().unwrap();
    let first = make_pair(pems.path());
    let world = World::with(|config| config.tls = Some(files(pems.path()))).await;
    let url = format!("https://localhost:{}/healthz", world.server.addr().port());
    let before = trusting(&first);
    let answer = before.get(&url).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    assert_eq!(answer.text().await.unwrap(), "ok\n");
    assert!(http().get(url.replace("https", "http")).send().await.is_err(), "no plain HTTP");

    // A key that does not fit, then nothing: the old pair stays in use.
    let key = fs::read(pems.path().join("key.pem")).unwrap();
    let second = make_pair(pems.path());
    let fitting = fs::read(pems.path().join("key.pem")).unwrap();
    fs::write(pems.path().join("key.pem"), key).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(trusting(&first).get(&url).send().await.is_ok());
    fs::write(pems.path().join("key.pem"), fitting).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while trusting(&second).get(&url).send().await.is_err() {
        assert!(Instant::now() < end, "the new certificate is not taken");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(trusting(&first).get(&url).send().await.is_err(), "new connections get the new one");
    assert!(before.get(&url).send().await.is_ok(), "the open connection goes on");
    world.server.stop().await.unwrap();
}

#[tokio::test]
async fn files_that_cannot_be_used_are_refused_with_the_reason() {
    let pems = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let refused = async || {
        let mut config = Config::local(data.path());
        config.tls = Some(files(pems.path()));
        Server::start(config).await.err().unwrap().to_string()
    };
    let missing = refused().await;
    assert!(missing.contains("cert.pem") && missing.contains("cannot read"), "{missing}");
    make_pair(pems.path());
    let key = fs::read_to_string(pems.path().join("key.pem")).unwrap();
    make_pair(pems.path());
    fs::write(pems.path().join("key.pem"), &key).unwrap();
    let mixed = refused().await;
    assert!(mixed.contains("is not the key of the certificate"), "{mixed}");
    fs::write(pems.path().join("key.pem"), "nothing").unwrap();
    let empty = refused().await;
    assert!(empty.contains("no private key"), "{empty}");
    fs::write(pems.path().join("cert.pem"), key).unwrap();
    let swapped = refused().await;
    assert!(swapped.contains("no certificate"), "{swapped}");
}

/// How long the server keeps a connection on which `said` was sent.
fn kept(world: &World, said: &[u8]) -> Duration {
    let mut stream = TcpStream::connect(world.server.addr()).unwrap();
    std::io::Write::write_all(&mut stream, said).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let started = Instant::now();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_and_says_nothing_whole_is_sent_away() {
    let world = World::new().await;
    let world = &world;
    std::thread::scope(|scope| {
        let silent = scope.spawn(move || kept(world, b""));
        let half = scope.spawn(move || kept(world, b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: "));
        for time in [silent.join().unwrap(), half.join().unwrap()] {
            assert!((14..30).contains(&time.as_secs()), "{time:?}");
        }
    });
    let endless =
        [b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: ".to_vec(), vec![b'x'; 600_000]].concat();
    let mut stream = TcpStream::connect(world.server.addr()).unwrap();
    let _ = std::io::Write::write_all(&mut stream, &endless);
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_the_first_bytes_tell_the_version_of_http() {
    let world = World::new().await;
    let of = |http: reqwest::Client| http.get(format!("{}/healthz", world.url())).send();
    assert_eq!(of(http()).await.unwrap().version(), reqwest::Version::HTTP_11);
    let second = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    assert_eq!(of(second).await.unwrap().version(), reqwest::Version::HTTP_2);
    // One byte that both begin with, and the rest later.
    let mut stream = TcpStream::connect(world.server.addr()).unwrap();
    std::io::Write::write_all(&mut stream, b"P").unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let rest = b"OST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    std::io::Write::write_all(&mut stream, rest).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait_their_turn() {
    let world = World::with(|config| config.connections_max = Some(2)).await;
    let held: Vec<_> = (0..2).map(|_| TcpStream::connect(world.server.addr()).unwrap()).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let url = format!("{}/healthz", world.url());
    let third = http().get(&url).timeout(Duration::from_millis(700)).send().await;
    assert!(third.unwrap_err().is_timeout());
    drop(held);
    let third = http().get(&url).timeout(Duration::from_secs(10)).send().await.unwrap();
    assert_eq!(third.status(), 200);
    world.server.stop().await.unwrap();
}
