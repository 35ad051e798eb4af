//! What this machine can do at best, as measured by code that does nothing else.
//!
//! - [`Limits::fma`]: chains of fused multiply-adds in registers, which touch no memory, give the most floating-point
//!   operations a second that any kernel can reach;
//! - [`Limits::read`]: sums over memory much larger than the caches give the most bytes a second that any kernel
//!   which reads its operands once can reach.
//!
//! Both kernels are compiled like all others, for the same target, and run on the same thread pool, so that a kernel's
//! figure divided by the limit says how much of the machine it uses. Each figure is the best of several rounds: a
//! limit is what is possible, and a shared machine only ever takes away from it.
//!
//! Deliberately absent: caches, latencies, and anything that decides how code is generated. Nothing in this module
//! changes what a compiler does.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValue, BasicValueEnum};
use memmap2::{Advice, MmapMut};

use super::emit::{BUILT, Emit};
use super::jit::{Jit, compile_module};
use super::target::Target;
use crate::error::{Error, Result};
use crate::exec::pool;

/// `fn(rounds, io)`: `io` holds the two factors, then room for one float per lane of each chain.
type FmaFn = unsafe extern "C" fn(rounds: i64, io: *mut f32);

/// `fn(from, bytes, sum)`: adds up 4-byte words; `bytes` is a multiple of [`GRAIN`].
type ReadFn = unsafe extern "C" fn(from: *const u8, bytes: i64, sum: *mut u32);

const FMA: &str = "limit_fma";
const READ: [&str; 2] = ["limit_read_one", "limit_read_four"];

/// Bytes of memory that [`Limits::read`] goes over.
const MEMORY: usize = 512 << 20;

/// Places in memory that one thread reads in turn. Which is faster depends on the machine: one place is easily read
/// ahead of, several keep more requests in flight.
const STREAMS: [usize; 2] = [1, 4];

/// Bytes that one thread reads from each stream in turn.
const PIECE: usize = 128;

/// How far ahead of its use memory is asked for, in bytes.
const AHEAD: i64 = 1024;

/// What a thread's share of memory is a multiple of.
const GRAIN: usize = STREAMS[1] * PIECE;

/// How many times each limit is measured.
const ROUNDS: usize = 8;

/// About how long one measurement of multiply-adds takes.
const LENGTH: Duration = Duration::from_millis(20);

/// Independent chains: more than the latency times the number of units of any machine in sight, and no more than there
/// are registers.
fn chains(target: &Target) -> u32 {
    match target.lanes() {
        16 => 24,
        _ => 12,
    }
}

/// The machine's limits, ready to be measured any number of times.
pub struct Limits {
    fma: FmaFn,
    read: [ReadFn; 2],
    lanes: usize,
    chains: usize,
    memory: Option<MmapMut>,
    /// Keeps the code alive.
    _jit: Jit,
}

/// The most 32-bit floating-point operations a second on `n_threads` threads; a fused multiply-add counts as two.
///
/// # Errors
/// Failure of LLVM.
pub fn fma_peak(n_threads: usize) -> Result<f64> {
    Ok(Limits::new(&Target::native())?.fma(n_threads))
}

/// The most bytes a second that `n_threads` threads read from main memory.
///
/// # Errors
/// Failure of LLVM, or too little memory.
pub fn read_bandwidth(n_threads: usize) -> Result<f64> {
    Limits::new(&Target::native())?.read(n_threads)
}

impl Limits {
    /// Compiles the kernels for a target, which has to run here.
    ///
    /// # Errors
    /// Failure of LLVM, or a target that does not run on this machine.
    pub fn new(target: &Target) -> Result<Limits> {
        if !target.can_run_here() {
            return Err(Error::msg(format!(
                "this machine cannot run code for {target}"
            )));
        }
        let object = compile_module(target, |context, module| {
            emit_fma(context, module, target);
            for (name, streams) in READ.iter().zip(STREAMS) {
                emit_read(context, module, target, (name, streams));
            }
            Ok(())
        })?;
        let jit = Jit::new()?;
        jit.add_object(&object)?;
        // SAFETY: `emit_fma` wrote a function of this type under this name.
        let fma = unsafe { std::mem::transmute::<*const (), FmaFn>(jit.address(FMA)?) };
        let [one, four] = READ.map(|name| jit.address(name));
        // SAFETY: `emit_read` wrote functions of this type under these names.
        let read = [one?, four?].map(|at| unsafe { std::mem::transmute::<*const (), ReadFn>(at) });
        Ok(Limits {
            fma,
            read,
            lanes: target.lanes() as usize,
            chains: chains(target) as usize,
            memory: None,
            _jit: jit,
        })
    }

    /// The most 32-bit floating-point operations a second; a fused multiply-add counts as two.
    pub fn fma(&self, n_threads: usize) -> f64 {
        let per_round = 2 * self.lanes * self.chains;
        // So many rounds that one measurement takes about `LENGTH`.
        let mut rounds = 1 << 10;
        while self.run_fma(n_threads, rounds).0 < LENGTH {
            rounds *= 2;
        }
        let rate = |_| {
            let (time, threads) = self.run_fma(n_threads, rounds);
            (threads * per_round) as f64 * rounds as f64 / time.as_secs_f64()
        };
        (0..ROUNDS).map(rate).fold(0.0, f64::max)
    }

    /// Time and number of threads of one measurement.
    fn run_fma(&self, n_threads: usize, rounds: i64) -> (Duration, usize) {
        let threads = AtomicUsize::new(0);
        let start = Instant::now();
        pool::broadcast(n_threads, &|_, _| {
            let mut io = [0f32; 2 + 16 * 24];
            io[..2].copy_from_slice(black_box(&[0.999, 0.001]));
            // SAFETY: `io` has two factors and room for the most lanes and chains there are.
            unsafe { (self.fma)(rounds, io.as_mut_ptr()) };
            black_box(&io);
            // A worker that comes too late for the job does nothing.
            threads.fetch_add(1, Ordering::Relaxed);
        });
        (start.elapsed(), threads.into_inner())
    }

    /// The most bytes a second that are read from main memory. Its 512 MiB are kept for the next call.
    ///
    /// # Errors
    /// Too little memory.
    pub fn read(&mut self, n_threads: usize) -> Result<f64> {
        if self.memory.is_none() {
            self.memory = Some(memory(MEMORY)?);
        }
        let memory = self.memory.as_deref().expect("just made");
        let rate = |round: usize| {
            let start = Instant::now();
            black_box(self.sum(self.read[round % 2], memory, n_threads));
            memory.len() as f64 / start.elapsed().as_secs_f64()
        };
        Ok((0..ROUNDS).map(rate).fold(0.0, f64::max))
    }

    /// The sum of 4-byte words, in shares that go to whatever thread is free. The length is a multiple of [`GRAIN`].
    fn sum(&self, read: ReadFn, memory: &[u8], n_threads: usize) -> u32 {
        let sum = AtomicU32::new(0);
        pool::for_each_range(n_threads, memory.len() / GRAIN, &|grains| {
            let share = &memory[grains.start * GRAIN..grains.end * GRAIN];
            let mut part = 0;
            // SAFETY: the share is a multiple of `GRAIN` bytes, and `part` can be written.
            unsafe { read(share.as_ptr(), share.len() as i64, &mut part) };
            sum.fetch_add(part, Ordering::Relaxed);
        });
        sum.into_inner()
    }
}

/// Written memory, in huge pages where the system has some: otherwise the limit is that of looking up pages.
fn memory(bytes: usize) -> Result<MmapMut> {
    let failed = |e: std::io::Error| Error::msg(format!("cannot get {bytes} bytes: {e}"));
    let mut map = MmapMut::map_anon(bytes).map_err(failed)?;
    // Without huge pages the figure is lower, not wrong.
    let _ = map.advise(Advice::HugePage);
    // Pages that nobody wrote to share one page of zeros.
    map.fill(1);
    Ok(map)
}

/// `x = x * a + b` in every chain, `rounds` times.
fn emit_fma<'c>(context: &'c Context, module: &Module<'c>, target: &Target) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, FMA, &[int, ptr]);
    let (io, lanes) = (e.pointer_argument(1), target.lanes());
    let factor = |index| e.splat(e.load(e.f32(), e.at(e.f32(), io, e.int(index)), 4), lanes);
    let (a, b) = (factor(0), factor(1));
    let place = |chain: u32| e.at(e.f32(), io, e.int((2 + chain * lanes).into()));
    let starts = (0..chains(target)).map(|chain| e.load(e.vector(lanes), place(chain), 4));
    let ends = e.carry(
        (e.int(0), e.int_argument(0), 1),
        starts.collect(),
        |_, values| values.iter().map(|&x| e.fma(x, a, b)).collect(),
    );
    for (chain, end) in ends.into_iter().enumerate() {
        e.store(end, place(chain as u32), 4);
    }
    e.finish();
}

/// The sum of 4-byte words, so many places in turn.
fn emit_read<'c>(
    context: &'c Context,
    module: &Module<'c>,
    target: &Target,
    (name, streams): (&str, usize),
) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[ptr, int, ptr]);
    let (byte, word) = (e.context.i8_type(), e.context.i32_type());
    // Also for a target of one lane: this measures the memory.
    let lanes = target.lanes().max(4);
    let kind = word.vec_type(lanes);
    let loads = PIECE as i64 / i64::from(4 * lanes);
    let count = e.int(streams as i64);
    let share = e
        .builder
        .build_int_signed_div(e.int_argument(1), count, "")
        .expect(BUILT);
    let base = |stream| e.at(byte, e.pointer_argument(0), e.mul(share, e.int(stream)));
    let bases: Vec<_> = (0..streams as i64).map(base).collect();
    let zeros = vec![kind.const_zero().as_basic_value_enum(); streams];
    let sums = e.carry((e.int(0), share, PIECE as i64), zeros, |at, sums| {
        let stream = |(&base, &sum): (_, &BasicValueEnum<'c>)| {
            let piece = e.at(byte, base, at);
            (0..PIECE as i64)
                .step_by(64)
                .for_each(|line| e.prefetch(piece, AHEAD + line, 3));
            (0..loads).fold(sum, |sum, load| {
                let from = e.at(byte, piece, e.int(load * i64::from(4 * lanes)));
                let value = e.load(kind, from, 4).into_vector_value();
                e.builder
                    .build_int_add(sum.into_vector_value(), value, "")
                    .expect(BUILT)
                    .into()
            })
        };
        bases.iter().zip(sums).map(stream).collect()
    });
    let mut total = word.const_zero();
    for (sum, lane) in sums
        .iter()
        .flat_map(|sum| (0..lanes).map(move |lane| (*sum, lane)))
    {
        let lane = e.extract(sum, lane).into_int_value();
        total = e.builder.build_int_add(total, lane, "").expect(BUILT);
    }
    e.store(total, e.pointer_argument(2), 4);
    e.finish();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compilers::llvm_cpu::gemm::asm::hot_loop;
    use crate::compilers::llvm_cpu::jit::assembly;

    #[test]
    fn the_chains_stay_in_registers_and_read_no_memory() {
        for (name, register) in [
            ("x86-64-v3", "ymm"),
            ("x86-64-v4", "zmm"),
            ("znver4", "zmm"),
        ] {
            let target = Target::for_cpu(name).unwrap();
            let text = assembly(&target, |context, module| {
                emit_fma(context, module, &target);
                Ok(())
            });
            let inner = hot_loop(&text.unwrap(), FMA).unwrap();
            assert_eq!(
                inner.fused(register),
                chains(&target) as usize,
                "{}",
                inner.text
            );
            let addresses = inner.text.lines().filter(|line| line.contains("(%"));
            assert_eq!(addresses.count(), 0, "{}", inner.text);
        }
    }

    #[test]
    fn reading_visits_every_word_once_on_any_number_of_threads() {
        for name in ["native", "x86-64-v3", "scalar"] {
            let target = Target::for_cpu(name).unwrap();
            if !target.can_run_here() {
                continue;
            }
            let limits = Limits::new(&target).unwrap();
            let words: Vec<u32> = (0..GRAIN as u32 * 5 / 4).map(|i| i * i + 1).collect();
            let expected = words.iter().fold(0u32, |sum, &word| sum.wrapping_add(word));
            for threads in 1..4 {
                for read in limits.read {
                    let sum = limits.sum(read, bytemuck::cast_slice(&words), threads);
                    assert_eq!(sum, expected, "{name} {threads}");
                }
            }
        }
    }

    #[test]
    fn multiply_adds_are_really_done() {
        let limits = Limits::new(&Target::native()).unwrap();
        let mut io = [0f32; 2 + 16 * 24];
        io[..2].copy_from_slice(&[0.5, 1.0]);
        // SAFETY: `io` has two factors and room for the most lanes and chains there are.
        unsafe { (limits.fma)(3, io.as_mut_ptr()) };
        let used = limits.lanes * limits.chains;
        assert!(io[2..2 + used].iter().all(|&x| x == 1.75));
    }

    #[test]
    fn a_target_that_does_not_run_here_is_an_error() {
        let cannot = Target::known_names().map(|name| Target::for_cpu(name).unwrap());
        for target in cannot.filter(|target| !target.can_run_here()) {
            assert!(Limits::new(&target).is_err(), "{target}");
        }
    }
}
