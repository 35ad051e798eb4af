//! Running graphs.
//!
//! [`Executable`] is a graph made ready: a [`schedule`], a memory plan ([`memory`]) and the buffers. Each step runs
//! native code where a compiler has put some, and the op's reference `eval` otherwise, so any graph runs at any
//! stage of compilation. [`mod@reference`] evaluates a whole graph with nothing but `eval`: the definition that
//! everything else is tested against.
//!
//! [`profile`] tells where the time goes. This layer names no compiler.

mod affected;
mod calls;
pub mod cores;
pub mod finite;
pub mod forecast;
mod in_place;
pub mod memory;
mod packed;
mod packed_file;
mod packed_wait;
pub mod pool;
mod prepared;
pub mod profile;
pub mod reference;
mod run;
mod scatter;
pub mod schedule;
mod sizes;
mod updates;

pub use run::Executable;

use crate::error::Result;
use crate::graph::Graph;
use crate::graph::Inner;
use crate::graph::state::Recorder;
use crate::knobs;

impl Graph {
    /// Computes every kept value and updates every state.
    ///
    /// # Panics
    /// With the message of [`Graph::try_execute`].
    #[track_caller]
    pub fn execute(&mut self) {
        match self.try_execute() {
            Ok(done) => done,
            Err(e) => e.raise(),
        };
    }

    /// Computes every kept value and updates every state. Results are never stale: every execution computes from the
    /// inputs' current data and the symbols' current values.
    ///
    /// # Errors
    /// An input without data or of another size than its type says, a symbol without value or with an impossible
    /// one, an index out of range: each naming the op and the line that recorded it.
    pub fn try_execute(&mut self) -> Result<()> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        make_current(inner)?;
        let program = inner.program.as_mut().expect("just made");
        program.run(&inner.dag, &mut inner.state)?;
        profile::tell(&inner.dag, &mut inner.state);
        Ok(())
    }

    /// Does now what executions would do before their first step: lays memory out, and brings weights into the order
    /// that compiled kernels read them in, which takes a while for large models. Nothing is computed.
    ///
    /// # Errors
    /// As [`Graph::try_execute`], but for those that only values show.
    pub fn try_prepare(&mut self) -> Result<()> {
        self.prepare(true)
    }

    /// As [`Graph::try_prepare`], but does only what the first execution would. Of many weights in blocks that leaves
    /// most to the ones behind it ([`Stats::packings_waiting`](crate::graph::state::Stats)).
    ///
    /// # Errors
    /// As there.
    pub fn try_prepare_first(&mut self) -> Result<()> {
        self.prepare(false)
    }

    fn prepare(&mut self, all: bool) -> Result<()> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        make_current(inner)?;
        let program = inner.program.as_mut().expect("just made");
        program.prepare(&inner.dag, &mut inner.state, all)
    }
}

/// Makes the program of the graph as it is now, unless it is there.
fn make_current(inner: &mut Inner) -> Result<()> {
    let version = inner.dag.version();
    let current = inner
        .program
        .as_ref()
        .is_some_and(|program| program.version() == version);
    if !current {
        inner.program = Some(Box::new(Executable::new(&inner.dag)?));
        if inner.state.recorder.is_none() && knobs::debug_level() >= 2 {
            inner.state.recorder = Some(Recorder::new(true));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::prelude::*;

    /// `state[row] = value`, as an in-place update.
    fn update(cx: &mut Graph, state: GraphTensor, value: f32) -> GraphTensor {
        let row = cx.input((1, 2), DType::I32).set([[1, 1]]);
        let values = cx.input((1, 2), DType::F32).set([[value, value]]);
        state.scatter(0, row, values)
    }

    #[test]
    fn a_second_execution_sees_the_new_input() {
        let mut cx = Graph::new();
        let x = cx.tensor::<R1<2>>().set([1.0, 2.0]);
        let y = (x * 3.0).retrieve();
        cx.execute();
        assert_eq!(y.data(), [3.0, 6.0]);
        x.set([10.0, 20.0]);
        cx.execute();
        assert_eq!(y.data(), [30.0, 60.0]);
    }

    #[test]
    fn rows_of_a_state_are_written_in_place() {
        let mut cx = Graph::new();
        let state = cx.input((3, 2), DType::F32).set_zeros();
        let new = update(&mut cx, state, 5.0);
        state.assign(new);
        cx.execute();
        assert_eq!(state.data(), [0.0, 0.0, 5.0, 5.0, 0.0, 0.0]);
        assert_eq!(cx.stats().state_bytes_written, 8);
        assert_eq!(cx.stats().arena_bytes, 0);
    }

    #[test]
    fn a_failed_execution_leaves_no_state_partly_written() {
        let mut cx = Graph::new();
        let state = cx.input((3, 2), DType::F32).set_zeros();
        let rows = cx.input((2, 2), DType::I32).set([[0, 0], [3, 3]]);
        let values = cx.input((2, 2), DType::F32).set([[1.0; 2]; 2]);
        let new = state.scatter(0, rows, values);
        state.assign(new);
        let error = cx.try_execute().expect_err("row 3 of 3").to_string();
        assert!(error.contains("index 3 is out of range"), "{error}");
        assert_eq!(state.data(), [0.0; 6]);
        rows.set([[0, 0], [2, 2]]);
        cx.execute();
        assert_eq!(state.data(), [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn a_state_that_another_state_gets_is_not_written_too_early() {
        let mut cx = Graph::new();
        let a = cx.input((3, 2), DType::F32).set_zeros();
        let b = cx.input((3, 2), DType::F32).set_zeros();
        let new = update(&mut cx, a, 7.0);
        a.assign(new);
        b.assign(a);
        cx.execute();
        assert_eq!(a.data(), [0.0, 0.0, 7.0, 7.0, 0.0, 0.0]);
        assert_eq!(b.data(), [0.0; 6]);
        cx.execute();
        assert_eq!(b.data(), [0.0, 0.0, 7.0, 7.0, 0.0, 0.0]);
    }

    #[test]
    fn a_state_that_is_read_later_in_the_step_keeps_its_old_value_until_then() {
        let mut cx = Graph::new();
        let state = cx.input((3, 2), DType::F32).set_zeros();
        let new = update(&mut cx, state, 1.0);
        state.assign(new);
        let both = (new.sum(..) * 10.0 + state.sum(..)).retrieve();
        cx.execute();
        assert_eq!(both.data(), [20.0]);
        cx.execute();
        assert_eq!(both.data(), [22.0]);
    }

    #[test]
    fn a_graph_and_its_handles_go_to_another_thread() {
        fn build() -> (Graph, GraphTensor<R1<2>>, GraphTensor<R1<2>>) {
            let mut cx = Graph::new();
            let x = cx.tensor::<R1<2>>();
            (cx, x, (x + 1.0).retrieve())
        }
        let (mut cx, x, y) = build();
        let moved = std::thread::spawn(move || {
            x.set([1.0, 2.0]);
            cx.execute();
            cx
        });
        let mut cx = moved.join().expect("the thread ran");
        assert_eq!(y.data(), [2.0, 3.0]);
        cx.compile(Generic, ());
        cx.execute();
        assert_eq!(y.data(), [2.0, 3.0]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut cx = Graph::new();
        let x = cx.input(('s', 2), DType::F32);
        let y = (x * 2.0).retrieve();
        let error = |cx: &mut Graph| cx.try_execute().expect_err("it cannot run").to_string();
        assert!(error(&mut cx).contains("has no data"));
        x.set(vec![1.0; 6]);
        assert!(error(&mut cx).contains("symbol `s` has no value"));
        cx.set_dim('s', 4);
        assert!(error(&mut cx).contains("6 numbers, but the sizes"));
        cx.set_dim('s', 3);
        cx.execute();
        assert_eq!(y.data(), [2.0; 6]);
        let other = Graph::new().tensor::<R1<2>>();
        let panic = std::panic::catch_unwind(|| other.dims()).expect_err("its graph is gone");
        let text = panic.downcast_ref::<String>().expect("a message");
        assert!(text.contains("graph was dropped"), "{text}");
        let mut second = Graph::new();
        let z = second.input(('s', 2), DType::F32);
        let panic = std::panic::catch_unwind(|| y + z).expect_err("two graphs");
        let text = panic.downcast_ref::<String>().expect("a message");
        assert!(text.contains("two different graphs"), "{text}");
    }

    #[test]
    fn a_slice_that_does_not_fit_is_an_error_and_no_read_outside() {
        let mut cx = Graph::new();
        let x = cx.input(4, DType::F32).set([1.0, 2.0, 3.0, 4.0]);
        let y = (x.slice_axis(0, 0, Expr::from('n')) * 1.0).retrieve();
        cx.set_dim('n', 5);
        let error = cx.try_execute().expect_err("5 of 4 elements").to_string();
        assert!(error.contains("must not be negative"), "{error}");
        cx.set_dim('n', 2);
        cx.execute();
        assert_eq!(y.data(), [1.0, 2.0]);
    }

    /// A graph and handles of it, from a function that owned them.
    fn made() -> (Graph, GraphTensor<R1<2>>, GraphTensor<R1<2>>) {
        let mut cx = Graph::new();
        let x = cx.tensor::<R1<2>>();
        let y = (x * 2.0 + 1.0).retrieve();
        (cx, x, y)
    }

    #[test]
    fn handles_stay_valid_when_the_graph_moves_to_other_threads() {
        let (mut cx, x, y) = made();
        let worker = std::thread::spawn(move || {
            x.set([1.0, 2.0]);
            let z = (y + x).retrieve();
            cx.compile(Generic, ());
            cx.execute();
            (Box::new(cx), z)
        });
        let (mut cx, z) = worker.join().expect("the worker does not panic");
        assert_eq!((y.data(), z.data()), (vec![3.0, 5.0], vec![4.0, 7.0]));
        std::thread::scope(|scope| {
            scope.spawn(|| x.set([3.0, 4.0]));
        });
        cx.execute();
        assert_eq!((y.data(), z.data()), (vec![7.0, 9.0], vec![10.0, 13.0]));
    }
}
