//! Programs that try to reach memory that is not theirs, or results that are not of now.
#![cfg(feature = "llvm-backend")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use brain_blitz::error::Result;
use brain_blitz::op::{
    Kernel, KernelCall, KernelInput, KernelStep, NativeCode, Op, TensorType, UnaryOp, Work,
};
use brain_blitz::prelude::*;
use brain_blitz::shape::{RUN, Symbols, View};

#[path = "support/odd.rs"]
mod odd;
use odd::Odd;

/// Native code that only looks at its calls.
#[derive(Debug, Default)]
struct Probe {
    /// Threads for which scratch memory was asked.
    asked: AtomicUsize,
    ran: AtomicUsize,
}

impl NativeCode for Probe {
    fn name(&self) -> &str {
        "probe"
    }

    fn prepare(&self, _: &Symbols, n_threads: usize, _: &mut Vec<i64>) -> Result<Work> {
        self.asked.store(n_threads, Ordering::Relaxed);
        Ok(Work {
            n_threads,
            scratch_bytes: 64 * n_threads,
            ..Work::default()
        })
    }

    fn depends_on(&self, _: char) -> bool {
        false
    }

    // SAFETY: nothing is read or written.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        assert!(call.work.n_threads <= self.asked.load(Ordering::Relaxed));
        self.ran.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn code_key(&self) -> u64 {
        0
    }
}

/// `sqrt` of `n` numbers as a kernel that was compiled.
fn sqrt_kernel(n: usize, probe: Arc<Probe>) -> Op {
    let ty = TensorType::new(n, DType::F32);
    let step = KernelStep {
        op: Op::Unary(UnaryOp::Sqrt),
        inputs: vec![(KernelInput::Operand(0), View::contiguous(n))],
        ty: ty.clone(),
    };
    let kernel = Kernel::new("sqrt".into(), vec![step], vec![ty]);
    // SAFETY: the probe accesses no buffer.
    Op::Kernel(Arc::new(unsafe { kernel.with_code(probe) }))
}

#[test]
fn scratch_memory_grows_with_the_number_of_threads() {
    let mut cx = Graph::new();
    let probe = Arc::new(Probe::default());
    let x = cx.input(4, DType::F32).set_zeros();
    cx.record(sqrt_kernel(4, probe.clone()), &[x]).retrieve();
    for n_threads in [1, 3, 2] {
        cx.set_threads(n_threads);
        cx.execute();
    }
    assert_eq!(probe.ran.load(Ordering::Relaxed), 3);
}

#[test]
fn native_code_never_gets_less_than_a_whole_buffer() {
    let mut cx = Graph::new();
    let probe = Arc::new(Probe::default());
    let x = cx.input(1, DType::F32).set([9.0]);
    let y = cx.record(sqrt_kernel(4, probe.clone()), &[x.expand(4)]);
    y.retrieve();
    cx.execute();
    assert_eq!(y.data(), [3.0; 4]);
    assert_eq!(probe.ran.load(Ordering::Relaxed), 0);
}

#[test]
fn a_kernel_whose_steps_read_outside_is_not_compiled() {
    let mut cx = Graph::new();
    let Op::Kernel(kernel) = sqrt_kernel(4, Arc::default()) else {
        unreachable!("made as a kernel")
    };
    let small = TensorType::new(1, DType::F32);
    let kernel = Kernel::new("sqrt".into(), kernel.steps().to_vec(), vec![small]);
    let x = cx.input(1, DType::F32).set([9.0]);
    cx.record(Op::Kernel(kernel.into()), &[x]).retrieve();
    let error = cx.try_compile(<(Generic, LlvmCpu)>::default(), ());
    let error = error.expect_err("4 of 1 elements").to_string();
    assert!(error.contains("larger buffer"), "{error}");
}

#[test]
fn sizes_that_follow_the_number_of_the_execution() {
    let mut cx = Graph::new();
    let y = (cx.arange(Expr::from(RUN)) + 1).retrieve();
    for run in 0..5 {
        cx.execute();
        assert_eq!(y.array().to_i32(), (1..=run).collect::<Vec<i32>>());
    }
}

#[test]
fn a_slice_that_moves_with_the_executions_ends_at_the_end() {
    let mut cx = Graph::new();
    let x = cx.input(2, DType::F32).set([1.0, 2.0]);
    let run = Expr::from(RUN);
    let y = (x.slice_axis(0, run, run + 1) * 2.0).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    assert_eq!(y.data(), [2.0]);
    cx.execute();
    assert_eq!(y.data(), [4.0]);
    cx.try_execute().expect_err("there is no third element");
}

#[test]
fn sizes_that_no_number_can_hold() {
    let mut cx = Graph::new();
    let x = cx.input(4, DType::F32).set_zeros();
    let s = Expr::from('s');
    (x.slice_axis(0, s, s + 1) * 2.0).retrieve();
    cx.set_dim('s', usize::MAX);
    cx.try_execute().expect_err("no such element");
}

#[test]
fn results_together_larger_than_the_address_space() {
    let mut cx = Graph::new();
    let n = 1usize << 58;
    let kept: Vec<_> = (0..9)
        .map(|i| {
            (cx.arange(1).cast(DType::F64) + f64::from(i))
                .expand(n)
                .contiguous()
        })
        .collect();
    kept.iter().for_each(|y| {
        y.retrieve();
    });
    let error = cx.try_execute().expect_err("too large").to_string();
    assert!(error.contains("memory"), "{error}");
}

#[test]
fn an_index_in_misaligned_shared_memory() {
    let mut cx = Graph::new();
    let state = cx.input(3, DType::F32).set_zeros();
    let index = cx.input(1, DType::I32);
    index.try_set_shared(Odd::new(&[0; 4])).expect("4 bytes");
    let one = cx.input(1, DType::F32).set([1.0]);
    state.assign(state.scatter(0, index, one));
    cx.execute();
    assert_eq!(state.data(), [1.0, 0.0, 0.0]);
}

/// Memory that becomes shorter.
struct Shrinking(AtomicBool, Vec<u8>);

impl AsRef<[u8]> for Shrinking {
    fn as_ref(&self) -> &[u8] {
        match self.0.load(Ordering::Relaxed) {
            true => &[],
            false => &self.1,
        }
    }
}

/// Code that shortens an operand while an execution is under way.
#[derive(Debug)]
struct Shorten(Arc<Shrinking>);

impl std::fmt::Debug for Shrinking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shrinking")
    }
}

impl brain_blitz::op::CustomOp for Shorten {
    fn name(&self) -> &str {
        "shorten"
    }

    fn key(&self) -> String {
        String::new()
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<TensorType, String> {
        Ok(inputs[0].clone())
    }

    fn eval(
        &self,
        inputs: &[brain_blitz::array::Array],
    ) -> Result<brain_blitz::array::Array, String> {
        self.0.0.store(true, Ordering::Relaxed);
        Ok(inputs[0].clone())
    }
}

#[test]
fn shared_memory_that_changes_its_length() {
    let mut cx = Graph::new();
    let probe = Arc::new(Probe::default());
    let memory = Arc::new(Shrinking(AtomicBool::new(false), vec![0; 16]));
    let x = cx.input(4, DType::F32);
    x.try_set_shared(memory.clone()).expect("16 bytes");
    let one = cx.input(1, DType::F32).set([1.0]);
    cx.custom(Arc::new(Shorten(memory)), &[one]).retrieve();
    cx.record(sqrt_kernel(4, probe.clone()), &[x]).retrieve();
    cx.try_execute().expect_err("the memory became too short");
    assert_eq!(probe.ran.load(Ordering::Relaxed), 0);
}

#[test]
fn a_result_has_the_sizes_of_its_execution() {
    let mut cx = Graph::new();
    let x = cx.input('s', DType::F32).set(vec![1.0; 3]);
    let y = (x + 1.0).retrieve();
    cx.set_dim('s', 3);
    cx.execute();
    cx.set_dim('s', 5);
    assert_eq!(y.data(), [2.0; 3]);
    let error = x.try_array().expect_err("3 numbers for 5").to_string();
    assert!(error.contains("3 numbers"), "{error}");
}

#[test]
fn after_a_failed_execution_there_is_no_result() {
    let mut cx = Graph::new();
    let data = cx.input(2, DType::F32).set([1.0, 2.0]);
    let index = cx.input(1, DType::I32).set([1]);
    let y = (data * 2.0).retrieve();
    data.gather(0, index).retrieve();
    cx.execute();
    assert_eq!(y.data(), [2.0, 4.0]);
    index.set([7]);
    data.set([5.0, 6.0]);
    cx.try_execute().expect_err("index 7");
    y.try_array().expect_err("nothing was computed to the end");
    index.set([0]);
    cx.execute();
    assert_eq!(y.data(), [10.0, 12.0]);
}

#[test]
fn what_nothing_needs_asks_for_no_symbol() {
    let mut cx = Graph::new();
    let x = cx.input(4, DType::F32).set_zeros();
    let _unused = x.slice_axis(0, 0, Expr::from('n')) * 2.0;
    let y = (x + 1.0).retrieve();
    cx.execute();
    assert_eq!(y.data(), [1.0; 4]);
}

#[test]
fn the_last_assignment_counts_through_any_handle() {
    let mut cx = Graph::new();
    let state = cx.input((3, 1), DType::F32).set_zeros();
    let flat = state.reshape(3);
    flat.assign(flat + 7.0);
    let index = cx.input((1, 1), DType::I32).set([[0]]);
    let one = cx.input((1, 1), DType::F32).set([[1.0]]);
    state.assign(state.scatter(0, index, one));
    cx.execute();
    assert_eq!(state.data(), [1.0, 0.0, 0.0]);
}

#[test]
fn keeping_what_is_gone_spoils_nothing() {
    let mut cx = Graph::new();
    let x = cx.input(2, DType::F32).set([1.0, 2.0]);
    let inner = x * 2.0;
    let y = (inner + 1.0).retrieve();
    let unused = x.sqrt();
    cx.compile(Generic, ());
    cx.try_compile(Generic, unused).expect_err("it is gone");
    cx.compile(Generic, ());
    cx.execute();
    assert_eq!(y.data(), [3.0, 5.0]);
}

#[test]
fn views_of_a_text_stay_inside_at_any_size() {
    let text = "%0 = input<0> : f32[2]\n%1 = exp2(%0 {[n] * (1) + 0}) : f32[n]\nout %1\n";
    let mut cx = Graph::from_text(text).expect("a graph");
    cx.inputs()[0].set([1.0, 2.0]);
    let y = cx.outputs()[0];
    for compiled in [false, true] {
        cx.set_dim('n', 1 << 20);
        cx.try_execute().expect_err("2 elements are no million");
        cx.set_dim('n', 2);
        cx.execute();
        assert_eq!(y.data(), [2.0, 4.0]);
        if !compiled {
            cx.compile(<(Generic, LlvmCpu)>::default(), ());
        }
    }
}

#[test]
fn recording_and_compiling_again_for_another_target() {
    let mut cx = Graph::new();
    let x = cx.input((8, 16), DType::F32).set(vec![0.5; 128]);
    let w = cx.input((16, 8), DType::F32).set(vec![2.0; 128]);
    let product = x.matmul(w).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    let more = (product.permute([1, 0]).matmul(x) + 1.0).retrieve();
    more.try_array().expect_err("not computed yet");
    cx.execute();
    assert_eq!(product.data(), [16.0; 64]);
    assert_eq!(more.data(), [65.0; 128]);
    cx.compile((Generic, LlvmCpu::scalar()), more);
    cx.compile((Generic, LlvmCpu::native()), ());
    x.set(vec![1.0; 128]);
    cx.execute();
    assert_eq!(product.data(), [32.0; 64]);
    assert_eq!(more.data(), [257.0; 128]);
}

#[test]
fn products_of_no_rows_columns_or_steps() {
    let mut cx = Graph::new();
    let (x, w) = (
        cx.input(('b', 'm', 'k'), DType::F32),
        cx.input(('b', 'k', 'n'), DType::F32),
    );
    let y = (x.matmul(w) + 1.0).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    for bits in 0..16usize {
        let [b, m, n, k] = [0, 1, 2, 3].map(|i| if bits >> i & 1 == 0 { 7 } else { 0 });
        for (symbol, size) in [('b', b), ('m', m), ('n', n), ('k', k)] {
            cx.set_dim(symbol, size);
        }
        x.set(vec![1.0; b * m * k]);
        w.set(vec![1.0; b * k * n]);
        cx.execute();
        assert_eq!(y.data(), vec![k as f32 + 1.0; b * m * n], "{b} {m} {n} {k}");
    }
}

#[test]
fn values_kept_beside_a_state_that_is_updated_in_place() {
    for compiled in [false, true] {
        let mut cx = Graph::new();
        let state = cx.input((3, 2), DType::F32).set(vec![1.0; 6]);
        let index = cx.input((1, 2), DType::I32).set([[1, 1]]);
        let rows = cx.input((1, 2), DType::F32).set([[5.0, 6.0]]);
        let new = state.scatter(0, index, rows);
        state.assign(new).retrieve();
        let old = (state * 1.0).slice_axis(0, 1, 2).retrieve();
        let seen = new.permute([1, 0]).retrieve();
        let copy = (new * 1.0).sum(..).retrieve();
        if compiled {
            cx.compile(<(Generic, LlvmCpu)>::default(), ());
        }
        cx.execute();
        assert_eq!(old.data(), [1.0, 1.0], "{compiled}");
        assert_eq!(seen.data(), [1.0, 5.0, 1.0, 1.0, 6.0, 1.0], "{compiled}");
        assert_eq!(copy.data(), [15.0], "{compiled}");
        assert_eq!(state.data(), [1.0, 1.0, 5.0, 6.0, 1.0, 1.0], "{compiled}");
        state.set(vec![9.0; 6]);
        assert_eq!(old.data(), [1.0, 1.0], "{compiled}");
        // Where the new value has its own place it can still be read.
        let seen = seen.try_array().map(|array| array.to_f32()[0]);
        assert!(seen.map_or(true, |first| first == 1.0), "{compiled}");
        cx.execute();
        assert_eq!(old.data(), [9.0, 9.0], "{compiled}");
    }
}

#[test]
fn many_graphs_at_once() {
    let run = |scale: f32| {
        let mut cx = Graph::new();
        cx.set_threads(3);
        let x = cx.input((64, 300), DType::F32).set(vec![scale; 64 * 300]);
        let y = (x.matmul(x.permute([1, 0])) + x.sum(1).insert_axis(1, 64)).retrieve();
        cx.compile(<(Generic, LlvmCpu)>::default(), ());
        for _ in 0..20 {
            cx.execute();
            let want = 300.0 * scale * scale + 300.0 * scale;
            assert!(y.data().iter().all(|y| (y - want).abs() < 1e-2), "{want}");
        }
    };
    std::thread::scope(|scope| {
        for i in 1..5 {
            scope.spawn(move || run(i as f32 * 0.125));
        }
    });
}

#[test]
fn an_index_out_of_range_in_machine_code_is_an_error() {
    let mut cx = Graph::new();
    cx.set_threads(2);
    let table = cx.input((5, 64), DType::F32).set(vec![1.0; 320]);
    let index = cx.input((1000, 64), DType::I32);
    let y = (table.gather(0, index) * 2.0).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    for bad in [-1, 5, i32::MIN, i32::MAX] {
        let mut numbers = vec![4; 64_000];
        index.set(numbers.clone());
        cx.execute();
        assert_eq!(y.data(), vec![2.0; 64_000]);
        numbers[40_000] = bad;
        index.set(numbers);
        let error = cx.try_execute().expect_err("no such row").to_string();
        assert!(
            error.contains(&format!("index {bad} is out of range")),
            "{error}"
        );
    }
}

#[test]
fn a_value_in_the_place_of_a_state_is_gone_when_that_is_set() {
    let mut cx = Graph::new();
    let state = cx.input(3, DType::F32).set(vec![1.0; 3]);
    let index = cx.input(1, DType::I32).set([1]);
    let row = cx.input(1, DType::F32).set([5.0]);
    let new = state.scatter(0, index, row).retrieve();
    state.assign(new);
    cx.execute();
    assert_eq!(new.data(), [1.0, 5.0, 1.0]);
    state.set(vec![9.0; 3]);
    let error = new.try_array().expect_err("other data").to_string();
    assert!(error.contains("set since"), "{error}");
    cx.execute();
    assert_eq!(new.data(), [9.0, 5.0, 9.0]);
}
