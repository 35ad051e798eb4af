//! The threads that native kernels are split over.
//!
//! One process-wide pool; a job is a function of a thread's number, run once by each of `n` threads (the caller is
//! number 0). Starting a job allocates nothing. When the pool is busy with another graph's job, the caller does all
//! the work itself: the split never changes results, so this is only slower.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

/// A borrowed job, its lifetime erased while the workers have it.
#[derive(Clone, Copy)]
struct Job {
    work: &'static (dyn Fn(usize) + Sync),
    n_threads: usize,
}

#[derive(Default)]
struct Board {
    job: Option<Job>,
    epoch: u64,
    running: usize,
    n_workers: usize,
    panicked: bool,
}

#[derive(Default)]
struct Pool {
    board: Mutex<Board>,
    start: Condvar,
    done: Condvar,
    /// Held by the thread whose job the pool works on.
    owner: Mutex<()>,
}

static POOL: OnceLock<Pool> = OnceLock::new();

fn locked(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Number of threads an execution uses when nobody says otherwise: `BB_THREADS`, else the machine's cores.
pub fn default_threads() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        crate::knobs::threads().unwrap_or_else(cores)
    })
}

fn worker(pool: &'static Pool, number: usize, mut seen: u64) {
    loop {
        let job = {
            let mut board = locked(&pool.board);
            while board.epoch == seen {
                board = pool
                    .start
                    .wait(board)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            seen = board.epoch;
            board.job.filter(|job| number < job.n_threads)
        };
        let Some(job) = job else { continue };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (job.work)(number)));
        let mut board = locked(&pool.board);
        board.panicked |= outcome.is_err();
        board.running -= 1;
        if board.running == 0 {
            pool.done.notify_one();
        }
    }
}

/// Starts workers until there are `wanted`; returns how many there are.
fn ensure_workers(pool: &'static Pool, board: &mut Board, wanted: usize) -> usize {
    while board.n_workers < wanted {
        let (number, epoch) = (board.n_workers + 1, board.epoch);
        let name = format!("brain-blitz-{number}");
        if std::thread::Builder::new()
            .name(name)
            .spawn(move || worker(pool, number, epoch))
            .is_err()
        {
            break;
        }
        board.n_workers += 1;
    }
    board.n_workers
}

/// Waits for the workers even when the caller's own share panics: they hold a borrow of its stack.
struct Join(&'static Pool);

impl Drop for Join {
    fn drop(&mut self) {
        let mut board = locked(&self.0.board);
        while board.running > 0 {
            board = self
                .0
                .done
                .wait(board)
                .unwrap_or_else(PoisonError::into_inner);
        }
        board.job = None;
    }
}

/// Calls `work(0)`, ..., `work(n - 1)` at once, where `n` is at most `n_threads` and is passed as second argument.
///
/// # Panics
/// If `work` panics on any thread.
pub fn broadcast(n_threads: usize, work: &(dyn Fn(usize, usize) + Sync)) {
    let pool = POOL.get_or_init(Pool::default);
    if n_threads <= 1 {
        return work(0, 1);
    }
    let _owner = match pool.owner.try_lock() {
        Ok(owner) => owner,
        // A job panicked. `Join` has waited for its workers, so the pool is free again.
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return work(0, 1),
    };
    let n = {
        let mut board = locked(&pool.board);
        ensure_workers(pool, &mut board, n_threads - 1).min(n_threads - 1) + 1
    };
    let task = |number: usize| work(number, n);
    let task: &(dyn Fn(usize) + Sync) = &task;
    // SAFETY: the workers use `task` only while `running > 0`, and `Join` waits for 0 before this frame ends, on
    // unwinding too; so the borrow outlives every use.
    let task: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(task) };
    {
        let mut board = locked(&pool.board);
        board.job = Some(Job {
            work: task,
            n_threads: n,
        });
        board.running = n - 1;
        board.panicked = false;
        board.epoch += 1;
        pool.start.notify_all();
    }
    let join = Join(pool);
    task(0);
    drop(join);
    assert!(!locked(&pool.board).panicked, "a worker thread panicked");
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
}
