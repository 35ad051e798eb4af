//! The threads that native kernels are split over.
//!
//! One process-wide pool; a job is a function of a thread's number, run once by each of `n` threads (the caller is
//! number 0). Starting a job allocates nothing. When the pool is busy with another graph's job, the caller does all
//! the work itself: the split never changes results, so this is only slower.
//!
//! Between the kernels of an execution the workers spin, because waking a sleeping thread takes longer than many kernels do; when no job came
//! for [`PATIENCE`] they sleep, so an idle process uses no processor. The caller waits for the last
//! worker in the same way.
//!
//! Invariants: `Pool::job` is written by the pool's owner only, while `running` is 0, and read by those workers only
//! that `running` counts; a worker is counted from the change of `ticket` that starts its job until it has
//! finished with it.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How long a thread spins before it sleeps.
const PATIENCE: Duration = Duration::from_micros(40);

/// Turns of a spinning thread between two looks at the clock.
const TURNS: usize = 64;

/// A borrowed job, its lifetime erased while the workers have it.
type Work = &'static (dyn Fn(usize) + Sync);

/// Bits of a ticket that hold a job's number of threads; the others count jobs.
const THREAD_BITS: u32 = 16;

#[derive(Default)]
struct Pool {
    /// The number of the last job, and its number of threads in the lowest bits.
    ticket: AtomicU64,
    /// What the ticket's threads do.
    job: UnsafeCell<Option<Work>>,
    /// Workers that have not finished the job.
    running: AtomicUsize,
    panicked: AtomicBool,
    n_workers: AtomicUsize,
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
// the release of `ticket` and the acquisitions of it and of `running` order them.
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

/// Spins until `ready`; `false` if that took too long.
fn spin(ready: impl Fn() -> bool) -> bool {
    if ready() {
        return true;
    }
    let start = Instant::now();
    loop {
        for _ in 0..TURNS {
            std::hint::spin_loop();
            if ready() {
                return true;
            }
        }
        if start.elapsed() > PATIENCE {
            return false;
        }
    }
}

impl Pool {
    /// Waits for another ticket than `seen`.
    fn next_ticket(&self, seen: u64) -> u64 {
        let changed = || self.ticket.load(Ordering::SeqCst) != seen;
        if !spin(changed) {
            let mut bed = locked(&self.bed);
            // Either the owner sees this sleeper after it changed the ticket, or the sleeper sees the new ticket.
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            while !changed() {
                bed = self.start.wait(bed).unwrap_or_else(PoisonError::into_inner);
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
        self.ticket.load(Ordering::SeqCst)
    }

    fn worker(&self, number: usize, mut seen: u64) {
        loop {
            seen = self.next_ticket(seen);
            let n_threads = (seen & ((1 << THREAD_BITS) - 1)) as usize;
            if number >= n_threads {
                continue;
            }
            // SAFETY: this worker is counted in `running`, so nobody writes the job; it was written before the
            // ticket that was just read.
            let work = unsafe { *self.job.get() };
            let work = work.expect("a ticket comes after its job");
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(number)));
            if outcome.is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            let last = self.running.fetch_sub(1, Ordering::SeqCst) == 1;
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
            let (number, seen) = (n + 1, self.ticket.load(Ordering::SeqCst));
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

    /// Hands a job to the workers `1..n_threads`.
    fn start(&self, work: Work, n_threads: usize) {
        // SAFETY: the caller owns the pool and no worker is running, so nobody reads the job.
        unsafe { *self.job.get() = Some(work) };
        self.panicked.store(false, Ordering::Relaxed);
        self.running.store(n_threads - 1, Ordering::Relaxed);
        let count = (self.ticket.load(Ordering::Relaxed) >> THREAD_BITS).wrapping_add(1);
        let ticket = count << THREAD_BITS | n_threads as u64;
        self.ticket.store(ticket, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(locked(&self.bed));
            self.start.notify_all();
        }
    }

    /// Waits until no worker is running.
    fn join(&self) {
        let finished = || self.running.load(Ordering::SeqCst) == 0;
        if spin(finished) {
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

/// Waits for the workers even when the caller's own share panics: they hold a borrow of its stack.
struct Join(&'static Pool);

impl Drop for Join {
    fn drop(&mut self) {
        self.0.join();
    }
}

/// Calls `work(0)`, ..., `work(n - 1)` at once, where `n` is at most `n_threads` and is passed as second argument.
///
/// # Panics
/// If `work` panics on any thread.
pub fn broadcast(n_threads: usize, work: &(dyn Fn(usize, usize) + Sync)) {
    let n_threads = n_threads.min((1 << THREAD_BITS) - 1);
    if n_threads <= 1 {
        return work(0, 1);
    }
    let pool = POOL.get_or_init(Pool::default);
    let _owner = match pool.owner.try_lock() {
        Ok(owner) => owner,
        // A job panicked. `Join` has waited for its workers, so the pool is free again.
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return work(0, 1),
    };
    let n = pool.ensure_workers(n_threads - 1).min(n_threads - 1) + 1;
    if n == 1 {
        return work(0, 1);
    }
    let task = |number: usize| work(number, n);
    let task: &(dyn Fn(usize) + Sync) = &task;
    // SAFETY: the workers use `task` only while `running > 0`, and `Join` waits for 0 before this frame ends, on
    // unwinding too; so the borrow outlives every use.
    let task: Work = unsafe { std::mem::transmute(task) };
    let join = Join(pool);
    pool.start(task, n);
    task(0);
    drop(join);
    assert!(
        !pool.panicked.load(Ordering::Relaxed),
        "a worker thread panicked"
    );
}

/// Splits `0..n_units` over threads in pieces that are handed out as threads become free.
///
/// # Panics
/// If `work` panics on any thread.
pub fn for_each_range(
    n_threads: usize,
    n_units: usize,
    work: &(dyn Fn(std::ops::Range<usize>) + Sync),
) {
    const PIECES_PER_THREAD: usize = 4;
    let n_threads = n_threads.min(n_units);
    if n_threads <= 1 {
        if n_units > 0 {
            work(0..n_units);
        }
        return;
    }
    let piece = n_units.div_ceil(n_threads * PIECES_PER_THREAD);
    let next = AtomicUsize::new(0);
    broadcast(n_threads, &|_, _| {
        loop {
            let begin = next.fetch_add(piece, Ordering::Relaxed);
            if begin >= n_units {
                break;
            }
            work(begin..(begin + piece).min(n_units));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_done_exactly_once() {
        for (threads, units) in [(1, 5), (2, 1), (2, 1000), (4, 7), (3, 0)] {
            let counts: Vec<AtomicUsize> = (0..units).map(|_| AtomicUsize::new(0)).collect();
            for_each_range(threads, units, &|range| {
                for i in range {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                }
            });
            assert!(
                counts
                    .iter()
                    .all(|count| count.load(Ordering::Relaxed) == 1),
                "{threads} threads"
            );
        }
    }

    #[test]
    fn a_job_inside_a_job_runs_too() {
        let total = AtomicUsize::new(0);
        for_each_range(2, 4, &|outer| {
            for_each_range(2, 10, &|inner| {
                total.fetch_add(outer.len() * inner.len(), Ordering::Relaxed);
            });
        });
        assert_eq!(total.into_inner(), 40);
    }

    #[test]
    fn a_panic_of_a_worker_reaches_the_caller() {
        let result = std::panic::catch_unwind(|| {
            broadcast(2, &|number, n| assert!(number == 0 && n > 0 || n == 1))
        });
        // With one core's worth of luck the pool may be busy; then only thread 0 runs and nothing panics.
        if let Err(why) = result {
            assert!(
                why.downcast_ref::<&str>()
                    .is_some_and(|text| text.contains("worker"))
            );
        }
        broadcast(2, &|_, _| ());
    }

    #[test]
    fn after_a_panic_there_are_still_many_threads() {
        let _ = std::panic::catch_unwind(|| broadcast(2, &|_, n| assert!(n == 1, "many")));
        let most = AtomicUsize::new(0);
        for _ in 0..1000 {
            broadcast(2, &|_, n| {
                most.fetch_max(n, Ordering::Relaxed);
            });
            if most.load(Ordering::Relaxed) == 2 {
                break;
            }
            // Another test has the pool.
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(most.into_inner(), 2);
    }

    #[test]
    fn workers_without_a_job_sleep() {
        broadcast(2, &|_, _| ());
        let pool = POOL.get().expect("made by the first job");
        let asleep = || {
            let n_workers = pool.n_workers.load(Ordering::Relaxed);
            n_workers > 0 && pool.sleepers.load(Ordering::Relaxed) == n_workers
        };
        // Other tests have jobs for the pool meanwhile.
        let all_slept = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            asleep()
        });
        assert!(all_slept);
        // Sleeping workers are woken: otherwise this never returns.
        for_each_range(3, 10, &|_| ());
    }
}
