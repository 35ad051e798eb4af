//! The threads that native kernels are split over.
//!
//! One process-wide pool; a job is a function of a thread's number, run by the caller (number 0) and by those of its
//! `n` threads that come before the caller is done. So a job hands out its work in pieces, and nobody waits for
//! a thread that the system does not run. Starting a job allocates nothing. When the pool is busy with
//! another graph's job, the caller does all the work itself: the split never changes results, so this is only slower.
//!
//! Between the kernels of an execution the workers spin, because waking a sleeping thread takes longer than many
//! kernels do. When no execution was under way for `PATIENCE`, or one had no job for `LONGEST`, they sleep, so
//! an idle process uses no processor. The caller waits
//! for workers that have a piece in the same way.
//!
//! Invariants: `Pool::job` is written by the pool's owner only, while the board is closed and nobody is active. A worker reads
//! it after it has made itself active on an open board, and the owner closes the board and waits for the active ones before the
//! job ends.

use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How long a thread spins before it sleeps.
const PATIENCE: Duration = Duration::from_micros(40);

/// How long a thread spins while an execution goes on without it.
const LONGEST: Duration = Duration::from_millis(1);

/// Turns of a spinning thread between two looks at the clock.
const TURNS: usize = 64;

/// Looks at the clock before a spinning thread offers its processor to others.
const ROUNDS: usize = 2;

/// A borrowed job, its lifetime erased while the workers have it.
type Work = &'static (dyn Fn(usize) + Sync);

/// What everybody sees of a job, in one word: its number (32 bits), how many threads may come (16 bits; none when the
/// board is closed) and how many workers are active (16 bits).
#[derive(Clone, Copy)]
struct Board(u64);

impl Board {
    const MOST: usize = u16::MAX as usize;
    const OPEN: u64 = 0xffff << 16;

    fn open(number: u64, n_threads: usize) -> Board {
        Board((number & 0xffff_ffff) << 32 | (n_threads as u64) << 16)
    }

    fn number(self) -> u64 {
        self.0 >> 32
    }

    fn n_threads(self) -> usize {
        (self.0 >> 16 & 0xffff) as usize
    }

    fn n_active(self) -> u64 {
        self.0 & 0xffff
    }
}

#[derive(Default)]
struct Pool {
    /// A [`Board`].
    board: AtomicU64,
    /// What the board's threads do.
    job: UnsafeCell<Option<Work>>,
    panicked: AtomicBool,
    n_workers: AtomicUsize,
    /// Executions that have work for several threads.
    sessions: AtomicUsize,
    /// Number of sessions so far.
    n_sessions: AtomicUsize,
    /// Workers that sleep or are about to.
    sleepers: AtomicUsize,
    /// Whether the caller sleeps or is about to.
    caller_sleeps: AtomicBool,
    /// Held to fall asleep and to wake others.
    bed: Mutex<()>,
    start: Condvar,
    done: Condvar,
    /// Held by the thread whose job the pool works on.
    owner: Mutex<()>,
}

// SAFETY: all fields but `job` are `Sync`, and accesses to `job` are kept apart as the invariants in the header say:
// all changes of `board` order them.
unsafe impl Sync for Pool {}

static POOL: OnceLock<Pool> = OnceLock::new();

fn locked(bed: &Mutex<()>) -> MutexGuard<'_, ()> {
    bed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Number of threads an execution uses when nobody says otherwise: `BB_THREADS`, else what
/// [`cores::usable`](super::cores::usable) says.
pub fn default_threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| crate::knobs::threads().unwrap_or_else(super::cores::usable))
}

/// Spins until `ready`; `false` if nobody was `busy` for `PATIENCE`, or it took longer than `LONGEST`.
fn spin(ready: impl Fn() -> bool, busy: impl Fn() -> bool) -> bool {
    if ready() {
        return true;
    }
    let start = Instant::now();
    let mut last_busy = start;
    for round in 0.. {
        for _ in 0..TURNS {
            std::hint::spin_loop();
            if ready() {
                return true;
            }
        }
        let now = Instant::now();
        if busy() {
            last_busy = now;
        }
        if now - last_busy > PATIENCE || now - start > LONGEST {
            break;
        }
        // The thread that is waited for may be waiting for this one's processor.
        if round >= ROUNDS {
            std::thread::yield_now();
        }
    }
    false
}

impl Pool {
    fn board(&self) -> Board {
        Board(self.board.load(Ordering::SeqCst))
    }

    /// Waits for a job after number `seen` that worker `number` may come to.
    fn wait_for_job(&self, number: usize, seen: u64) {
        let is_there = || {
            let board = self.board();
            board.number() != seen && number < board.n_threads()
        };
        let is_busy = || self.sessions.load(Ordering::Relaxed) > 0;
        loop {
            let session = self.n_sessions.load(Ordering::SeqCst);
            if spin(is_there, is_busy) {
                return;
            }
            let mut bed = locked(&self.bed);
            // Either the owner sees this sleeper after it opened the board, or the sleeper sees the open board; the
            // same holds for the beginning of a session.
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            while !is_there() && self.n_sessions.load(Ordering::SeqCst) == session {
                bed = self.start.wait(bed).unwrap_or_else(PoisonError::into_inner);
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Wakes all workers, which look for the reason.
    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(locked(&self.bed));
            self.start.notify_all();
        }
    }

    /// Makes a worker active if the board is open for it; the number of the job.
    fn join(&self, number: usize, seen: u64) -> Option<u64> {
        let enter = |word: u64| {
            let board = Board(word);
            (board.number() != seen && number < board.n_threads()).then_some(word + 1)
        };
        let entered = self
            .board
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter);
        entered.ok().map(|word| Board(word).number())
    }

    fn worker(&self, number: usize, mut seen: u64) {
        loop {
            self.wait_for_job(number, seen);
            let Some(job) = self.join(number, seen) else {
                continue;
            };
            seen = job;
            // SAFETY: this worker is active, so nobody writes the job; it was written before the board was opened.
            let work = unsafe { *self.job.get() };
            let work = work.expect("a board is opened after its job was written");
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(number)));
            if outcome.is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            let last = Board(self.board.fetch_sub(1, Ordering::SeqCst)).n_active() == 1;
            if last && self.caller_sleeps.load(Ordering::SeqCst) {
                drop(locked(&self.bed));
                self.done.notify_one();
            }
        }
    }

    /// Starts workers until there are `wanted`; returns how many there are.
    fn ensure_workers(&'static self, wanted: usize) -> usize {
        let mut n = self.n_workers.load(Ordering::Relaxed);
        while n < wanted {
            let (number, seen) = (n + 1, self.board().number());
            let name = format!("brain-blitz-{number}");
            let thread = std::thread::Builder::new().name(name);
            if thread.spawn(move || self.worker(number, seen)).is_err() {
                break;
            }
            n += 1;
            self.n_workers.store(n, Ordering::Relaxed);
        }
        n
    }

    /// Offers a job to the workers `1..n_threads`.
    fn open(&self, work: Work, n_threads: usize) {
        // SAFETY: the caller owns the pool, the board is closed and no worker is active, so nobody reads the job.
        unsafe { *self.job.get() = Some(work) };
        self.panicked.store(false, Ordering::Relaxed);
        let board = Board::open(self.board().number() + 1, n_threads);
        self.board.store(board.0, Ordering::SeqCst);
        self.wake();
    }

    /// Lets no more workers come, and waits until none is active.
    fn close(&self) {
        self.board.fetch_and(!Board::OPEN, Ordering::SeqCst);
        let finished = || self.board().n_active() == 0;
        if spin(finished, || false) {
            return;
        }
        let mut bed = locked(&self.bed);
        self.caller_sleeps.store(true, Ordering::SeqCst);
        while !finished() {
            bed = self.done.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.caller_sleeps.store(false, Ordering::SeqCst);
    }
}

/// While this lives, workers stay awake for up to `LONGEST` between two jobs.
pub struct Session(());

impl Session {
    /// Wakes the workers there are, so that they are awake when the first job comes.
    pub fn begin() -> Session {
        let pool = POOL.get_or_init(Pool::default);
        pool.sessions.fetch_add(1, Ordering::Relaxed);
        pool.n_sessions.fetch_add(1, Ordering::SeqCst);
        pool.wake();
        Session(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(pool) = POOL.get() {
            pool.sessions.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Waits for the workers even when the caller's own share panics: they hold a borrow of its stack.
struct Close(&'static Pool);

impl Drop for Close {
    fn drop(&mut self) {
        self.0.close();
    }
}

thread_local! {
    static JOBS: Cell<u64> = const { Cell::new(0) };
}

/// How many jobs the calling thread has had for several threads so far, for those who count them.
pub fn jobs() -> u64 {
    JOBS.get()
}

/// Calls `work(0)`, and at the same time `work(1)`, ..., `work(n - 1)` on those of the other threads that come before
/// `work(0)` returns; `n` is at most `n_threads` and is passed as second argument.
///
/// # Panics
/// If `work` panics on any thread.
pub fn broadcast(n_threads: usize, work: &(dyn Fn(usize, usize) + Sync)) {
    let n_threads = n_threads.min(Board::MOST);
    if n_threads <= 1 {
        return work(0, 1);
    }
    JOBS.set(JOBS.get() + 1);
    let pool = POOL.get_or_init(Pool::default);
    let _owner = match pool.owner.try_lock() {
        Ok(owner) => owner,
        // A job panicked. `Close` has waited for its workers, so the pool is free again.
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return work(0, 1),
    };
    let n = pool.ensure_workers(n_threads - 1).min(n_threads - 1) + 1;
    if n == 1 {
        return work(0, 1);
    }
    let task = |number: usize| work(number, n);
    let task: &(dyn Fn(usize) + Sync) = &task;
    // SAFETY: only active workers use `task`, and `Close` waits until there are none, and lets no more come, before
    // this frame ends, on unwinding too; so the borrow outlives every use.
    let task: Work = unsafe { std::mem::transmute(task) };
    let close = Close(pool);
    pool.open(task, n);
    task(0);
    drop(close);
    assert!(
        !pool.panicked.load(Ordering::Relaxed),
        "a worker thread panicked"
    );
}

/// Splits `0..n_units` over threads. Each has a share of neighbouring units, which it does in pieces from the first on, so that
/// it walks through memory as far as it can and meets the same data at the next execution; then it helps others.
///
/// # Panics
/// If `work` panics on any thread.
pub fn for_each_range(
    n_threads: usize,
    n_units: usize,
    work: &(dyn Fn(std::ops::Range<usize>) + Sync),
) {
    for_each_range_after(n_threads, n_units, &|_| (), &|_, range| work(range));
}

/// As [`for_each_range`], and each thread first calls `begin` with its number, below `n_threads`, which `work` gets too: for
/// what a thread makes sooner itself than another one could hand it over. A thread may begin and find nothing left.
///
/// # Panics
/// If `begin` or `work` panics on any thread.
pub fn for_each_range_after(
    n_threads: usize,
    n_units: usize,
    begin: &(dyn Fn(usize) + Sync),
    work: &(dyn Fn(usize, std::ops::Range<usize>) + Sync),
) {
    // Many, so that a thread that the machine holds up leaves the rest to the others.
    const PIECES_PER_THREAD: usize = 16;
    let n_threads = n_threads.min(n_units);
    if n_threads <= 1 {
        if n_units > 0 {
            begin(0);
            work(0, 0..n_units);
        }
        return;
    }
    let piece = n_units.div_ceil(n_threads * PIECES_PER_THREAD);
    let n_shares = n_threads.min(Share::MOST);
    // Whole pieces, so that what code does with several units at once stays together.
    let share = n_units.div_ceil(n_shares).next_multiple_of(piece);
    let shares: [Share; Share::MOST] =
        std::array::from_fn(|i| Share(AtomicUsize::new((i * share).min(n_units))));
    broadcast(n_threads, &|number, _| {
        begin(number);
        for i in 0..n_shares {
            let mine = (number + i) % n_shares;
            let end = ((mine + 1) * share).min(n_units);
            loop {
                let first = shares[mine].0.fetch_add(piece, Ordering::Relaxed);
                if first >= end {
                    break;
                }
                work(number, first..(first + piece).min(end));
            }
        }
    });
}

/// The first unit of a share that nobody has taken, on a line of the cache of its own.
#[repr(align(64))]
struct Share(AtomicUsize);

impl Share {
    /// Shares that a call has at most; more threads begin in the same ones.
    const MOST: usize = 16;
}

#[cfg(test)]
mod tests;
