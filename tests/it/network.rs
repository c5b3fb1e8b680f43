//! A network between a device and the server that can be cut, and that loses or delays commits.

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// What becomes of what passes.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Weather {
    Fair,
    /// Nothing passes.
    Cut,
    /// Commits reach the server, their answers are lost.
    LosesAnswers,
    /// Commits stay on the way until the weather changes.
    HoldsCommits,
}

/// One device's way to the server.
pub struct Network {
    addr: SocketAddr,
    state: Arc<State>,
}

struct State {
    weather: AtomicU8,
    /// Commits whose answer was lost, and that were held.
    lost: AtomicU64,
    held: AtomicU64,
    over: AtomicBool,
}

impl State {
    fn is(&self, weather: Weather) -> bool {
        self.weather.load(Ordering::SeqCst) == weather as u8
    }
}

impl Network {
    /// A way to the server at `server` (`http://ADDRESS`).
    pub fn to(server: &str) -> Self {
        let server: SocketAddr = server.trim_start_matches("http://").parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            weather: AtomicU8::new(Weather::Fair as u8),
            lost: AtomicU64::new(0),
            held: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.over.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), false) = (stream, shared.is(Weather::Cut)) else { continue };
                let Ok(server) = TcpStream::connect(server) else { continue };
                connect(&shared, client, server);
            }
        });
        Self { addr, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn set(&self, weather: Weather) {
        self.state.weather.store(weather as u8, Ordering::SeqCst);
    }

    /// Commits whose answers were lost so far.
    pub fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::SeqCst)
    }

    /// Commits that were held so far.
    pub fn held(&self) -> u64 {
        self.state.held.load(Ordering::SeqCst)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        self.set(Weather::Cut);
        // Wakes the listener, which then ends; if that fails, the process ends it.
        let _ = TcpStream::connect(self.addr);
    }
}

fn connect(state: &Arc<State>, client: TcpStream, server: TcpStream) {
    let commit = Arc::new(AtomicBool::new(false));
    let twin = |s: &TcpStream| s.try_clone().expect("a second handle");
    let (up_from, up_to, up_state, up_commit) =
        (twin(&client), twin(&server), state.clone(), commit.clone());
    thread::spawn(move || up(&up_state, up_from, up_to, &up_commit));
    let state = state.clone();
    thread::spawn(move || down(&state, server, client, &commit));
}

/// Requests.
fn up(state: &State, mut from: TcpStream, mut to: TcpStream, commit: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    // A request begins with a piece of its own: the client waits for each answer.
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let piece = &buffer[..n];
        if piece.starts_with(b"POST ") {
            let is_commit = piece.starts_with(b"POST /sync/v1/commit");
            commit.store(is_commit, Ordering::SeqCst);
            if is_commit && state.is(Weather::HoldsCommits) {
                state.held.fetch_add(1, Ordering::SeqCst);
                while state.is(Weather::HoldsCommits) {
                    thread::sleep(Duration::from_millis(2));
                }
            }
        }
        if state.is(Weather::Cut) || to.write_all(piece).is_err() {
            break;
        }
    }
    close(&from);
    // A commit that was passed on is done, also when the client is gone.
    if !commit.load(Ordering::SeqCst) || state.is(Weather::Cut) {
        close(&to);
    }
}

/// Answers.
fn down(state: &State, mut from: TcpStream, mut to: TcpStream, commit: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if commit.load(Ordering::SeqCst) && state.is(Weather::LosesAnswers) {
            state.lost.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if state.is(Weather::Cut) || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    close(&from);
    close(&to);
}

fn close(stream: &TcpStream) {
    // It may be closed by its other end.
    let _ = stream.shutdown(Shutdown::Both);
}
