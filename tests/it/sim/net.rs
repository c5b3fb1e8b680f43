//! The network between devices and server: requests wait in it until the world says what becomes
//! of them. They can be lost, doubled, overtaken, or arrive when nobody waits for them any more.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use drivefs::remote::Answer;
use drivefs::remote::Request;
use drivefs::remote::Transport;
use drivefs_core::id::NodeId;
use drivefs_core::limits::CHANGES_ROWS_MAX;
use drivefs_core::wire::Change;
use drivefs_core::wire::ChangesRequest;
use drivefs_core::wire::CommitReply;
use drivefs_core::wire::CommitRequest;
use drivefs_core::wire::OpResult;
use drivefs_server::app::Inside;
use tokio::sync::oneshot;

use super::machine::Actor;
use super::machine::Machine;
use super::stall;

/// What a client makes of it.
type Outcome = Result<Answer, String>;

/// A request as it lies in the network.
#[derive(Clone)]
struct Letter {
    device: usize,
    method: &'static str,
    path: String,
    token: Option<String>,
    body: Bytes,
}

enum Leg {
    Going(Letter),
    Coming(Outcome),
}

/// Something on its way.
struct Parcel {
    number: u64,
    device: usize,
    leg: Leg,
    /// Who waits for it, if somebody still does.
    to: Option<oneshot::Sender<Outcome>>,
}

/// What becomes of a parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Arrives,
    /// It is lost and the client is told so by its connection.
    Lost,
    /// It arrives, and once more later.
    Doubled,
    /// The client gives up on it; it arrives later all the same.
    Late,
}

/// A content that the server said it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    pub node: NodeId,
    pub version: u64,
    pub content: Vec<u8>,
}

/// What a client asks for, page by page, when it is not filling.
const PAGE_ROWS: u32 = 500;

/// The network of one world.
pub struct Net {
    pub machine: Arc<Machine>,
    /// How many in a thousand are lost of those requests that the world's thread waits for.
    pub lost: AtomicU32,
    /// Rows of a page of changes where a client asks for an ordinary one of `PAGE_ROWS`; 0: as asked.
    pub page_rows: AtomicU32,
    server: Mutex<Option<Arc<Inside>>>,
    parcels: Mutex<Vec<Parcel>>,
    /// Ends of connections whose client is dead: closing them would wake it.
    graves: Mutex<Vec<oneshot::Sender<Outcome>>>,
    next: Mutex<u64>,
    acknowledged: Mutex<Vec<Acknowledged>>,
    /// All that happened.
    log: Mutex<Vec<String>>,
}

/// One process's connection.
pub struct Wire {
    pub net: Arc<Net>,
    pub device: usize,
    /// Closed when the process has died.
    pub boot: u64,
    pub boots: Arc<AtomicU64>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Net {
    pub fn new(machine: Arc<Machine>) -> Arc<Self> {
        Arc::new(Self {
            machine,
            lost: AtomicU32::new(0),
            page_rows: AtomicU32::new(0),
            server: Mutex::default(),
            parcels: Mutex::default(),
            graves: Mutex::default(),
            next: Mutex::default(),
            acknowledged: Mutex::default(),
            log: Mutex::default(),
        })
    }

    pub fn note(&self, line: String) {
        lock(&self.log).push(line);
    }

    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.log))
    }

    pub fn server(&self) -> Option<Arc<Inside>> {
        lock(&self.server).clone()
    }

    pub fn set_server(&self, server: Option<Arc<Inside>>) {
        *lock(&self.server) = server;
    }

    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        lock(&self.acknowledged).clone()
    }

    /// Numbers of what is on its way, oldest first.
    pub fn waiting(&self) -> Vec<u64> {
        lock(&self.parcels).iter().map(|p| p.number).collect()
    }

    /// The device of a parcel, and whether it is a request.
    pub fn about(&self, number: u64) -> (usize, bool) {
        let parcels = lock(&self.parcels);
        let parcel = parcels.iter().find(|p| p.number == number).expect("it is on its way");
        (parcel.device, matches!(parcel.leg, Leg::Going(_)))
    }

    /// The server is gone, and with it all connections.
    pub fn hang_up(&self) {
        for parcel in lock(&self.parcels).iter_mut() {
            if matches!(parcel.leg, Leg::Going(_)) {
                continue;
            }
            parcel.leg = Leg::Coming(Err("the server hung up".into()));
        }
    }

    /// A device is gone: its requests may still arrive, nobody waits for their answers.
    pub fn forget(&self, device: usize) {
        let mut graves = lock(&self.graves);
        for parcel in lock(&self.parcels).iter_mut().filter(|p| p.device == device) {
            graves.extend(parcel.to.take());
        }
    }

    /// Makes pages shorter, so that what belongs together is cut apart as in a large drive.
    fn shorten(&self, path: &str, body: Vec<u8>) -> Bytes {
        let rows = self.page_rows.load(Ordering::SeqCst);
        if path != "/sync/v1/changes" || rows == 0 {
            return body.into();
        }
        let mut request: ChangesRequest = serde_json::from_slice(&body).expect("a request");
        if request.limit < CHANGES_ROWS_MAX {
            request.limit = request.limit / PAGE_ROWS * rows;
        }
        serde_json::to_vec(&request).expect("serialises").into()
    }

    fn put(&self, device: usize, leg: Leg, to: Option<oneshot::Sender<Outcome>>) {
        let mut next = lock(&self.next);
        *next += 1;
        let parcel = Parcel { number: *next, device, leg, to };
        lock(&self.parcels).push(parcel);
    }

    /// Takes a parcel one leg further.
    pub async fn carry(&self, number: u64, fate: Fate) {
        let parcel = {
            let mut parcels = lock(&self.parcels);
            let at = parcels.iter().position(|p| p.number == number).expect("it is on its way");
            parcels.remove(at)
        };
        let Parcel { device, leg, to, .. } = parcel;
        match (leg, fate) {
            (Leg::Coming(outcome), Fate::Arrives | Fate::Doubled | Fate::Late) => {
                self.tell(device, to, outcome);
            }
            (Leg::Coming(_), Fate::Lost) => {
                self.tell(device, to, Err("the answer was lost".into()));
            }
            (Leg::Going(_), Fate::Lost) => {
                self.tell(device, to, Err("the request was lost".into()));
            }
            (Leg::Going(letter), Fate::Late) => {
                self.tell(device, to, Err("no answer in time".into()));
                self.put(device, Leg::Going(letter), None);
            }
            (Leg::Going(letter), Fate::Arrives | Fate::Doubled) => {
                let outcome = self.serve(&letter).await;
                self.put(device, Leg::Coming(outcome), to);
                if fate == Fate::Doubled {
                    self.put(device, Leg::Going(letter), None);
                }
            }
        }
    }

    fn tell(&self, device: usize, to: Option<oneshot::Sender<Outcome>>, outcome: Outcome) {
        self.machine.enter(Actor::Device(device));
        if let Some(to) = to {
            // The one who asked may have stopped waiting.
            let _ = to.send(outcome);
        }
    }

    /// Lets the server answer.
    async fn serve(&self, letter: &Letter) -> Outcome {
        let server = self.server().ok_or_else(|| "no server".to_owned())?;
        let before = self.machine.enter(Actor::Server);
        let answer = server
            .door()
            .answer(letter.method, &letter.path, letter.token.as_deref(), letter.body.clone())
            .await;
        // What the server does behind the answer's back is its own.
        stall::stalled().await;
        self.machine.enter(before);
        if self.machine.is_dead(Actor::Server) {
            self.note(format!("  {} {}: the server dies", letter.device, letter.path));
            return Err("the server died".into());
        }
        let (status, body) = answer.expect("the server answers");
        self.note_answer(letter, status, &body);
        Ok(Answer { status, body })
    }

    fn note_answer(&self, letter: &Letter, status: u16, body: &Bytes) {
        let mut what = String::new();
        if letter.path == "/sync/v1/commit" && status == 200 {
            let request: CommitRequest = serde_json::from_slice(&letter.body).expect("a commit");
            let reply: CommitReply = serde_json::from_slice(body).expect("a reply");
            for (op, result) in request.ops.into_iter().zip(reply.results) {
                what.push_str(&format!("\n    {} -> {result:?}", shown(&op.change)));
                let Change::Put { node, content, .. } = op.change else { continue };
                if let OpResult::Done { version, .. } = result {
                    lock(&self.acknowledged).push(Acknowledged {
                        node,
                        version,
                        content: content.0,
                    });
                }
            }
        }
        self.note(format!(
            "  {} {} {} ({} bytes, {}) -> {status} ({} bytes, {}){what}",
            letter.device,
            letter.method,
            letter.path,
            letter.body.len(),
            &blake3::hash(&letter.body).to_hex()[..8],
            body.len(),
            if letter.path == "/sync/v1/blocks" { "blocks".into() } else { short(body) },
        ));
    }
}

/// Block answers hold what the server's own keys make of it; all others are the same every time.
fn short(body: &Bytes) -> String {
    blake3::hash(body).to_hex()[..8].to_owned()
}

fn shown(change: &Change) -> String {
    let text = match change {
        Change::Put { node, create, base_version, content, .. } => {
            let hash = blake3::hash(&content.0).to_hex();
            format!("put {node} {create:?} on {base_version}: {}", &hash[..8])
        }
        other => format!("{other:?}"),
    };
    text.chars().take(240).collect()
}

impl Wire {
    fn is_dead(&self) -> bool {
        self.boots.load(Ordering::SeqCst) != self.boot
            || self.net.machine.is_dead(Actor::Device(self.device))
    }
}

impl Transport for Wire {
    fn send(&self, request: Request) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let (net, device) = (self.net.clone(), self.device);
        let mut body = Vec::new();
        request.body.iter().for_each(|piece| body.extend_from_slice(piece));
        let letter = Letter {
            device,
            method: request.method,
            body: net.shorten(&request.path, body),
            path: request.path,
            token: request.token,
        };
        if stall::is_elsewhere() {
            // The world's thread waits for this one: it cannot lie around.
            let dead = self.is_dead();
            let lost = net.machine.one_in_a_thousand() < net.lost.load(Ordering::SeqCst);
            return Box::pin(async move {
                if dead || lost {
                    net.note(format!("  {device} {} is lost at once", letter.path));
                    return Err("the request was lost".into());
                }
                net.serve(&letter).await
            });
        }
        if self.is_dead() {
            return Box::pin(pending());
        }
        let (to, outcome) = oneshot::channel();
        net.put(device, Leg::Going(letter), Some(to));
        Box::pin(async move { outcome.await.unwrap_or_else(|_| Err("cut".into())) })
    }
}

/// The server without a network in between.
pub struct Direct(pub Arc<Net>);

impl Transport for Direct {
    fn send(&self, request: Request) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let net = self.0.clone();
        Box::pin(async move {
            let server = net.server().ok_or_else(|| "no server".to_owned())?;
            let before = net.machine.enter(Actor::Server);
            let mut body = Vec::new();
            request.body.iter().for_each(|piece| body.extend_from_slice(piece));
            let (status, body) = server
                .door()
                .answer(request.method, &request.path, request.token.as_deref(), body.into())
                .await
                .expect("the server answers");
            net.machine.enter(before);
            Ok::<_, String>(Answer { status, body })
        })
    }
}
