//! The pool: who works on what, and when workers sleep.

use super::*;

#[test]
fn every_unit_is_done_exactly_once() {
    for (threads, units) in [
        (1, 5),
        (2, 1),
        (2, 1000),
        (4, 7),
        (3, 0),
        (5, 163),
        (20, 33),
    ] {
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

/// The first unit that each of two threads does; `None` if one came late.
fn first_units(n_units: usize) -> Option<[usize; 2]> {
    let begun = [false; 2].map(AtomicBool::new);
    let firsts = [usize::MAX; 2].map(AtomicUsize::new);
    let is_late = AtomicBool::new(false);
    let is_set = |first: &AtomicUsize| first.load(Ordering::SeqCst) != usize::MAX;
    let begin = |number: usize| begun[number].store(true, Ordering::SeqCst);
    for_each_range_after(2, n_units, &begin, &|number, range| {
        assert!(begun[number].load(Ordering::SeqCst), "work before `begin`");
        let (none, order) = (usize::MAX, Ordering::SeqCst);
        let _ = firsts[number].compare_exchange(none, range.start, order, order);
        // Nobody goes on to the other's share before both have their first piece.
        let waiting = Instant::now();
        while !firsts.iter().all(is_set) && !is_late.load(Ordering::SeqCst) {
            is_late.fetch_or(
                waiting.elapsed() > Duration::from_millis(100),
                Ordering::SeqCst,
            );
            std::thread::yield_now();
        }
    });
    (!is_late.into_inner()).then(|| firsts.map(AtomicUsize::into_inner))
}

#[test]
fn each_thread_begins_with_its_own_neighbouring_units() {
    // Pieces of 4: the second half begins with a whole one.
    let firsts = (0..1000).find_map(|_| first_units(100));
    assert_eq!(firsts, Some([0, 52]));
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

/// Runs `work` on two threads that are both there; `false` if other tests have the pool all the time.
fn on_both(work: impl Fn(usize) + Sync) -> bool {
    (0..1000).any(|_| {
        let came = AtomicUsize::new(0);
        broadcast(2, &|number, n| {
            came.fetch_add(1, Ordering::SeqCst);
            let waiting = Instant::now();
            while n == 2 && came.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
                // A worker that comes late is no error.
                if number == 0 && waiting.elapsed() > Duration::from_millis(100) {
                    came.fetch_add(2, Ordering::SeqCst);
                }
            }
            if came.load(Ordering::SeqCst) == 2 {
                work(number);
            }
        });
        std::thread::sleep(Duration::from_millis(1));
        came.load(Ordering::SeqCst) == 2
    })
}

#[test]
fn two_threads_work_at_the_same_time() {
    let seen = [AtomicUsize::new(0), AtomicUsize::new(0)];
    assert!(on_both(|number| {
        seen[number].fetch_add(1, Ordering::Relaxed);
    }));
    assert_eq!(seen.map(AtomicUsize::into_inner), [1, 1]);
}

#[test]
fn a_panic_of_a_worker_reaches_the_caller_and_spoils_nothing() {
    for panicking in [1, 0] {
        let result = std::panic::catch_unwind(|| {
            on_both(|number| assert!(number != panicking, "on purpose"))
        });
        let why = result.expect_err("one of both panicked");
        let text = why.downcast_ref::<&str>().copied();
        let expected = ["on purpose", "a worker thread panicked"][panicking];
        assert_eq!(text, Some(expected));
    }
    assert!(on_both(|_| ()));
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
