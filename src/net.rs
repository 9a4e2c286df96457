//! The network thread of this process. It owns the tokio runtime and never touches PostgreSQL; the main thread never
//! blocks on a future: it waits on its latch, and on an eventfd that finished work signals.
#![allow(unsafe_code)]

mod event_fd;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{self, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use bridge_core::ErrorKind;
use bridge_core::aside::Aside;
use bridge_core::config::{AllowedHosts, Network};
use bridge_core::memory::{MemoryLimit, SendMemory};
use bridge_core::snowflake::all_said;
use futures::FutureExt;
use once_cell::sync::OnceCell;
use pgrx::{check_for_interrupts, pg_guard, pg_sys};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::error::{Error, Result};
use crate::{client, guc, memory};
pub use event_fd::EventFd;

/// What a process that ends still gives the work it waited for, to abort its statement in Snowflake and to close its session.
/// PostgreSQL has forgotten the process by then, so that nobody waits for it but the end of the server.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Longest time between two looks for an interrupt; a backend that looks less often holds up `DROP DATABASE` of others.
const TICK: Duration = Duration::from_millis(100);

static THREAD: OnceCell<Thread> = OnceCell::new();
/// The work that the main thread waits for.
static AWAITED: Mutex<Option<AbortHandle>> = Mutex::new(None);
/// The work that [`spawn`] has begun, and some that has ended.
static BEGUN: Mutex<Vec<AbortHandle>> = Mutex::new(Vec::new());
static AT_EXIT: Once = Once::new();

struct Thread {
    runtime: Handle,
    wake: Arc<EventFd>,
}

/// The thread of this process, started on first use: a thread does not survive the postmaster's fork.
fn thread() -> Result<&'static Thread> {
    THREAD.get_or_try_init(|| {
        start().map_err(|error| {
            Error::Core(
                bridge_core::Error::new(ErrorKind::Internal, "cannot start the network thread")
                    .with_source(error),
            )
        })
    })
}

/// Threads that read, encrypt and look up names for the network thread: enough for the files that are on their way at once, and
/// some for names that nobody answers.
const HELPERS: usize = 32;

fn start() -> std::io::Result<Thread> {
    let wake = Arc::new(EventFd::new()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(HELPERS)
        .build()?;
    let handle = runtime.handle().clone();
    with_signals_blocked(|| {
        std::thread::Builder::new()
            .name("snowflake net".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
    })?;
    Ok(Thread {
        runtime: handle,
        wake,
    })
}

/// A new thread inherits the mask. Signals belong to the main thread: PostgreSQL's handlers, its latch among them, may
/// run nowhere else.
fn with_signals_blocked<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: plain system calls on live, initialised signal sets.
    let _before = unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        let mut before = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        SignalMask(before)
    };
    work()
}

/// The mask that a thread had, and has again when this is dropped, also by a panic.
struct SignalMask(libc::sigset_t);

impl Drop for SignalMask {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut());
        }
    }
}

/// How files are written while rows are read, and interrupts are served meanwhile.
pub const ASIDE: Aside = Aside {
    start: Some(start_thread),
    check: || {
        check_for_interrupts!();
    },
    without_signals: |work| with_signals_blocked(work),
    give_back: memory::give_back,
};

/// Starts a thread for work that has nothing to do with the server.
fn start_thread(work: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
    with_signals_blocked(|| {
        std::thread::Builder::new()
            .name("snowflake files".to_owned())
            .spawn(work)
    })
    .map(drop)
}

/// Starts `work` on the network thread, which goes on to its own end or to that of the process, see [`end_all_within`].
///
/// # Errors
/// If the thread cannot be started.
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let work = thread()?.runtime.spawn(work);
    let mut begun = lock(&BEGUN);
    begun.retain(|other| !other.is_finished());
    begun.push(work.abort_handle());
    Ok(())
}

/// Has the network thread do something after a time and its grace, unless what this returns is dropped before. The grace
/// begins when this process sees that the time is over: after a halt of it, or of the whole machine, that began before, there
/// is all of it. Nothing where there is no such thread yet.
pub fn after(
    time: Duration,
    grace: Duration,
    act: impl FnOnce() + Send + 'static,
) -> Option<impl Drop> {
    let thread = THREAD.get()?;
    let task = thread.runtime.spawn(async move {
        tokio::time::sleep(time).await;
        tokio::time::sleep(grace).await;
        act();
    });
    Some(AbortOnDrop(task.abort_handle()))
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What other threads use to wake this process's main thread out of [`sleep`].
///
/// # Errors
/// If the thread cannot be started.
pub fn waker() -> Result<Arc<EventFd>> {
    Ok(Arc::clone(&thread()?.wake))
}

/// Makes of a panic the error of the one piece of work that it happened in.
pub async fn guarded<T>(
    work: impl Future<Output = bridge_core::Result<T>>,
) -> bridge_core::Result<T> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            Err(bridge_core::Error::new(
                ErrorKind::Internal,
                "the network thread panicked; the server log of this process has the place",
            ))
        })
}

/// Runs `work` on the network thread and waits for it here, interruptibly: a cancel, a termination, a statement timeout or
/// the loss of the client ends the wait at once and the work with it.
///
/// # Errors
/// What `work` returns.
pub fn wait<T: Send + 'static>(
    work: impl Future<Output = bridge_core::Result<T>> + Send + 'static,
) -> Result<T> {
    let thread = thread()?;
    // SAFETY: a callback of this library, which stays loaded until the process has gone.
    AT_EXIT.call_once(|| unsafe { pg_sys::on_proc_exit(Some(at_exit), pg_sys::Datum::from(0)) });
    let (sender, receiver) = mpsc::channel();
    let wake = Arc::clone(&thread.wake);
    let _awaited = Awaited::new(thread.runtime.spawn(async move {
        // The receiver is gone only if the wait was interrupted.
        let _ = sender.send(guarded(work).await);
        wake.signal();
    }));
    client::watched(|| {
        loop {
            match receiver.try_recv() {
                Ok(result) => return Ok(result?),
                Err(TryRecvError::Empty) => {
                    sleep(TICK);
                }
                Err(TryRecvError::Disconnected) => {
                    return Err(bridge_core::Error::new(
                        ErrorKind::Internal,
                        "the network thread ended",
                    )
                    .into());
                }
            }
        }
    })
}

/// An ERROR unwinds the wait and ends its work by that. What ends the process unwinds nothing, and may come right after an
/// ERROR.
#[pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: i32, _argument: pg_sys::Datum) {
    let work = lock(&AWAITED).take();
    say_goodbye_within(LAST_WORDS, work.into_iter().collect(), async {});
}

/// Ends all that [`spawn`] has begun, and gives it and `last` a last moment of a process that ends: to abort statements in
/// Snowflake and to close sessions. Nothing is interrupted meanwhile.
pub fn end_all_within(limit: Duration, last: impl Future<Output = ()> + Send + 'static) {
    let begun = std::mem::take(&mut *lock(&BEGUN));
    say_goodbye_within(limit, begun, last);
}

fn say_goodbye_within(
    limit: Duration,
    work: Vec<AbortHandle>,
    last: impl Future<Output = ()> + Send + 'static,
) {
    let Some(thread) = THREAD.get() else {
        return;
    };
    let (sender, receiver) = mpsc::channel();
    thread.runtime.spawn(async move {
        work.iter().for_each(AbortHandle::abort);
        while !work.iter().all(AbortHandle::is_finished) {
            tokio::task::yield_now().await;
        }
        last.await;
        all_said().await;
        // Nobody waits any more after the limit.
        let _ = sender.send(());
    });
    let _ = receiver.recv_timeout(limit);
}

/// Aborts the work that is waited for when nobody waits any more.
struct Awaited;

impl Awaited {
    fn new(work: tokio::task::JoinHandle<()>) -> Self {
        *lock(&AWAITED) = Some(work.abort_handle());
        Self
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let Some(work) = lock(&AWAITED).take() {
            work.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why [`sleep`] has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// Another process has set the latch, or a signal.
    Latch,
    /// Only a thread of this process has signaled.
    Thread,
    /// The time is up.
    Time,
}

/// Waits for this process's latch, for [`EventFd::signal`], or for `timeout`, and serves interrupts: at the latest
/// every 100 ms, since a latch may be reset by others.
pub fn sleep(timeout: Duration) -> Woken {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).min(TICK);
        let woken = wait_once(left);
        ignore_cancel_between_transactions();
        check_for_interrupts!();
        if woken != Woken::Time || Instant::now() >= deadline {
            return woken;
        }
    }
}

/// Nothing runs then that a cancel could mean, as in a session that waits for its next statement; the ERROR would end a worker.
fn ignore_cancel_between_transactions() {
    // SAFETY: variables of this process, on its main thread.
    unsafe {
        if !pg_sys::IsTransactionState() {
            (&raw mut pg_sys::QueryCancelPending).write_volatile(0);
        }
    }
}

fn wait_once(timeout: Duration) -> Woken {
    let wake = THREAD.get().map(|thread| &thread.wake);
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    if wake.is_some() {
        events |= pg_sys::WL_SOCKET_READABLE;
    }
    // SAFETY: the main thread waits on its own latch and on a descriptor that lives as long as the process.
    let occurred = unsafe {
        let occurred = pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            wake.map_or(pg_sys::PGINVALID_SOCKET, |wake| wake.raw()),
            // A part of a millisecond would be no time at all.
            timeout
                .as_micros()
                .div_ceil(1_000)
                .try_into()
                .unwrap_or(i64::MAX),
            pg_sys::PG_WAIT_EXTENSION,
        );
        // One that is set after the time was up is for the next wait: nobody sets it again.
        if occurred & pg_sys::WL_LATCH_SET as i32 != 0 {
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
        occurred.unsigned_abs()
    };
    if occurred & pg_sys::WL_SOCKET_READABLE != 0
        && let Some(wake) = wake
    {
        wake.clear();
    }
    if occurred & pg_sys::WL_LATCH_SET != 0 {
        Woken::Latch
    } else if occurred & pg_sys::WL_SOCKET_READABLE != 0 {
        Woken::Thread
    } else {
        Woken::Time
    }
}

/// The memory for files on their way, of which a process has one. A changed setting begins anew; what is on its way then
/// ends in the memory it has.
fn send_memory() -> SendMemory {
    static SHARED: Mutex<Option<(MemoryLimit, SendMemory)>> = Mutex::new(None);
    let limit = guc::max_memory();
    let mut shared = lock(&SHARED);
    match &*shared {
        Some((made_for, memory)) if *made_for == limit => memory.clone(),
        _ => {
            let memory = SendMemory::new(limit);
            *shared = Some((limit, memory.clone()));
            memory
        }
    }
}

/// The network limits, as the settings are now.
///
/// # Errors
/// `22023` for a malformed `snowflake_bridge.allowed_hosts`.
pub fn limits() -> Result<Network> {
    Ok(Network {
        allowed_hosts: AllowedHosts::parse(&guc::allowed_hosts())?,
        allow_private_endpoints: guc::allow_private_endpoints(),
        ca_file: guc::ca_file(),
        connect_timeout: guc::connect_timeout(),
        stall_timeout: guc::stall_timeout(),
        statement_timeout: guc::statement_timeout(),
        // Fewer than drivers have: an upload is tried again later by itself, and holds no slot meanwhile.
        tries: 4,
        send_memory: send_memory(),
        ..Network::default()
    })
}
