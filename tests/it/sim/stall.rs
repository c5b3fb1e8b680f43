//! Knowing when nothing can go on by itself any more: the moment at which a world decides what
//! happens next.
//!
//! All tasks of a world run on one thread. When they all wait, the runtime is about to put the
//! thread to sleep, and says so.

use std::cell::Cell;
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::task::Waker;

use tokio::runtime::Builder;
use tokio::runtime::Runtime;

thread_local! {
    static WAITING: RefCell<Option<Waker>> = const { RefCell::new(None) };
    static STALLED: Cell<bool> = const { Cell::new(false) };
}

/// A runtime of one thread on which `stalled` works.
pub fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .on_thread_park(|| {
            if let Some(waker) = WAITING.take() {
                STALLED.set(true);
                waker.wake();
            }
        })
        .build()
        .expect("a runtime")
}

/// Returns when all tasks wait for something that only a decision of the world brings.
pub async fn stalled() {
    STALLED.set(false);
    poll_fn(|context| {
        if STALLED.get() {
            return Poll::Ready(());
        }
        WAITING.set(Some(context.waker().clone()));
        Poll::Pending
    })
    .await;
}

thread_local! {
    static ELSEWHERE: Cell<bool> = const { Cell::new(false) };
}

/// True on a thread for which the world waits.
pub fn is_elsewhere() -> bool {
    ELSEWHERE.get()
}

/// Runs what blocks the world's thread. That thread waits: still only one runs at a time.
pub fn wait_elsewhere(work: Pin<&mut (dyn Future<Output = ()> + Send)>) {
    let hosts = super::hosts();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            super::live_on(hosts);
            ELSEWHERE.set(true);
            runtime().block_on(async {
                work.await;
                stalled().await;
            });
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}
