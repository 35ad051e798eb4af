//! Matrix products against the definition: bit for bit with one chain of fused multiply-adds per
//! element, and close to the sum in f64.

use std::io::Write;
use std::sync::Arc;

use half::{bf16, f16};
use memmap2::MmapOptions;

use super::super::ir::Contraction;
use super::super::packed::panel_dtype;
use super::super::stored::{BYTES, LEN};
use super::super::{Call, CompiledGemm, Gemm, Rhs};
use crate::blocks::BlockType;
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::ir::Access;
use crate::compilers::llvm_cpu::jit::Jit;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::shape::{Dims, Expr, IntoDims, Symbols, View};

/// A contraction, the values of its symbols and the lengths of its buffers.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) contraction: Contraction,
    symbols: Symbols,
    lhs_len: usize,
    rhs_len: usize,
    out_len: usize,
}

fn access(input: usize, dtype: DType, view: View) -> Access {
    Access { input, dtype, view }
}

fn row_major(dims: &Dims) -> Dims {
    let mut strides: Dims = dims.clone();
    let mut stride = Expr::from(1);
    for axis in (0..dims.len()).rev() {
        strides[axis] = stride;
        stride *= dims[axis];
    }
    strides
}

/// A product with a row-major output.
pub(super) fn product(
    (batch, m, n, k): (impl IntoDims, impl IntoDims, impl IntoDims, impl IntoDims),
    lhs: (DType, View),
    rhs: (DType, View),
) -> Contraction {
    let (batch, m, n, k) = (
        batch.into_dims(),
        m.into_dims(),
        n.into_dims(),
        k.into_dims(),
    );
    let out: Dims = batch.iter().chain(&m).chain(&n).copied().collect();
    Contraction {
        out_strides: row_major(&out),
        batch,
        m,
        n,
        k,
        lhs: access(0, lhs.0, lhs.1),
        rhs: access(1, rhs.0, rhs.1),
        dtype: DType::F32,
    }
}

fn size(dims: &Dims, symbols: &Symbols) -> usize {
    dims.iter()
        .map(|dim| dim.eval(symbols).unwrap() as usize)
        .product()
}

impl Case {
    pub(super) fn new(name: &'static str, contraction: Contraction, symbols: Symbols) -> Case {
        let len = |a: &Access| {
            a.view
                .resolve(&symbols)
                .unwrap()
                .max_index()
                .map_or(0, |i| i + 1)
        };
        let c = &contraction;
        let mut last = 0;
        let dims: Vec<_> = c.batch.iter().chain(&c.m).chain(&c.n).collect();
        let empty = dims.iter().any(|dim| dim.eval(&symbols).unwrap() == 0);
        for (dim, stride) in dims.iter().zip(&c.out_strides) {
            last += (dim.eval(&symbols).unwrap() - 1) * stride.eval(&symbols).unwrap();
        }
        let out_len = if empty { 0 } else { last as usize + 1 };
        let (lhs_len, rhs_len) = (len(&c.lhs), len(&c.rhs));
        Case {
            name,
            contraction,
            symbols,
            lhs_len,
            rhs_len,
            out_len,
        }
    }

    pub(super) fn fixed(name: &'static str, contraction: Contraction) -> Case {
        Case::new(name, contraction, Symbols::new())
    }
}

/// Values that are not all representable sums, of both signs, with some zeros.
fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 28 == 0 {
            0.0
        } else {
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        }
    };
    (0..len).map(next).collect()
}

/// Bytes behind which no memory is: touching anything after the last one ends the process.
struct Guarded {
    map: memmap2::Mmap,
    start: usize,
}

impl Guarded {
    fn new(bytes: &[u8]) -> Guarded {
        const PAGE: usize = 1 << 16;
        let mut file = tempfile::tempfile().unwrap();
        let start = bytes.len().next_multiple_of(PAGE) - bytes.len();
        file.write_all(&vec![0xff; start]).unwrap();
        file.write_all(bytes).unwrap();
        // SAFETY: nobody else knows the file. The mapping is a page longer than the file; that
        // page cannot be accessed, and `bytes` does not.
        let map = unsafe {
            MmapOptions::new()
                .len(start + bytes.len() + PAGE)
                .map(&file)
        };
        Guarded {
            map: map.unwrap(),
            start,
        }
    }

    fn as_ptr(&self) -> *const u8 {
        self.map[self.start..].as_ptr()
    }
}

/// A buffer as stored, and what its elements are worth.
fn stored(dtype: DType, values: &[f32]) -> (Guarded, Vec<f32>) {
    let half = |to: &dyn Fn(f32) -> (u16, f32)| {
        let (bits, worth): (Vec<_>, Vec<_>) = values.iter().map(|&v| to(v)).unzip();
        (
            bits.iter().flat_map(|b: &u16| b.to_ne_bytes()).collect(),
            worth,
        )
    };
    let (bytes, worth): (Vec<u8>, _) = match dtype {
        DType::F32 => (
            values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
            values.to_vec(),
        ),
        DType::BF16 => half(&|v| (bf16::from_f32(v).to_bits(), bf16::from_f32(v).to_f32())),
        DType::F16 => half(&|v| (f16::from_f32(v).to_bits(), f16::from_f32(v).to_f32())),
        DType::U8 => {
            let mut worth = values.to_vec();
            worth.resize(worth.len().next_multiple_of(LEN), 0.5);
            let mut bytes = vec![0; worth.len() / LEN * BYTES];
            BlockType::Q8_0.quantize(&worth, &mut bytes).unwrap();
            BlockType::Q8_0.dequantize(&bytes, &mut worth).unwrap();
            (bytes, worth)
        }
        other => panic!("no {other:?} in these tests"),
    };
    (Guarded::new(&bytes), worth)
}

/// Where nothing is written.
const UNTOUCHED: u32 = 0x7fc0_1234;

pub(super) struct Data {
    lhs: (Guarded, Vec<f32>),
    rhs: (Guarded, Vec<f32>),
    /// The output by the definition.
    pub(super) expected: Vec<u32>,
}

/// Row-major coordinates of a linear index.
fn unravel(mut index: usize, dims: &[usize]) -> Vec<usize> {
    let mut at = vec![0; dims.len()];
    for axis in (0..dims.len()).rev() {
        at[axis] = index % dims[axis];
        index /= dims[axis];
    }
    at
}

pub(super) fn data(case: &Case) -> Data {
    data_by(case, |a, b| {
        a.iter().zip(b).fold(0f32, |sum, (x, y)| x.mul_add(*y, sum))
    })
}

/// The operands, and the output by a definition of the sum of products.
pub(super) fn data_by(case: &Case, sum_of_products: impl Fn(&[f32], &[f32]) -> f32) -> Data {
    let c = &case.contraction;
    let lhs = stored(c.lhs.dtype, &values(case.lhs_len, 1));
    let rhs = stored(c.rhs.dtype, &values(case.rhs_len, 2));
    let mut expected = vec![UNTOUCHED; case.out_len];
    let sizes = [&c.batch, &c.m, &c.n, &c.k].map(|dims| size(dims, &case.symbols));
    let number = |dims: &Dims| -> Vec<usize> {
        dims.iter()
            .map(|dim| dim.eval(&case.symbols).unwrap() as usize)
            .collect()
    };
    // Both operands as contiguous matrices [batch * rows, k].
    let gather = |access: &Access, buffer: &[f32]| -> Vec<f32> {
        let view = access.view.resolve(&case.symbols).unwrap();
        view.iter()
            .map(|index| index.map_or(0.0, |index| buffer[index]))
            .collect()
    };
    let (a, b) = (gather(&c.lhs, &lhs.1), gather(&c.rhs, &rhs.1));
    let [batch, m, n, k] = sizes;
    let out_dims = [number(&c.batch), number(&c.m), number(&c.n)].concat();
    for index in 0..batch * m * n {
        let (i, j) = (index / n, index / (m * n) * n + index % n);
        let (a, b) = (&a[i * k..][..k], &b[j * k..][..k]);
        let sum = sum_of_products(a, b);
        let products = || a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y));
        let bound = products().map(f64::abs).sum::<f64>() * k as f64 * f64::from(f32::EPSILON);
        assert!((f64::from(sum) - products().sum::<f64>()).abs() <= bound);
        let strides = c
            .out_strides
            .iter()
            .map(|s| s.eval(&case.symbols).unwrap() as usize);
        let to: usize = unravel(index, &out_dims)
            .iter()
            .zip(strides)
            .map(|(c, s)| c * s)
            .sum();
        assert_eq!(
            expected[to], UNTOUCHED,
            "{}: the output overlaps itself",
            case.name
        );
        expected[to] = sum.to_bits();
    }
    Data { lhs, rhs, expected }
}

pub(super) fn linked(contraction: &Contraction, target: &Target) -> (Gemm, Vec<Expr>) {
    let jit = Arc::new(Jit::new().unwrap());
    let compiled = CompiledGemm::new(contraction, target, &ObjectCache::disabled()).unwrap();
    (compiled.link(&jit).unwrap(), compiled.params().to_vec())
}

pub(super) fn check_run(
    case: &Case,
    data: &Data,
    (gemm, exprs): &(Gemm, Vec<Expr>),
    how: (usize, bool),
) {
    let (threads, packed) = how;
    let params: Vec<_> = exprs
        .iter()
        .map(|expr| expr.eval(&case.symbols).unwrap())
        .collect();
    let sizes = gemm.sizes(&params);
    let mut scratch = vec![0xffu8; gemm.scratch_bytes(sizes, threads)];
    let mut out = vec![UNTOUCHED; case.out_len];
    let dtype = case.contraction.rhs.dtype;
    let n_bytes = gemm.panels_bytes(sizes, dtype);
    let mut panels = vec![[f32::NAN; 16]; n_bytes.div_ceil(64) + 1];
    let aligned = panels.as_ptr().cast::<f32>().align_offset(64);
    let panels = panels.as_flattened_mut()[aligned..].as_mut_ptr();
    let mut rhs = Rhs::Raw(data.rhs.0.as_ptr());
    if packed {
        // SAFETY: the buffer has as many elements as the view reads, and `panels` enough room.
        unsafe {
            let from = (data.rhs.0.as_ptr(), dtype);
            gemm.pack_all(from, sizes, &params, panels.cast(), threads);
        };
        rhs = Rhs::Packed(panels.cast(), panel_dtype(dtype));
    }
    let call = Call {
        lhs: data.lhs.0.as_ptr(),
        rhs,
        out: out.as_mut_ptr().cast(),
        params: &params,
        scratch: &mut scratch,
        threads,
    };
    // SAFETY: the buffers have as many elements as the views and strides reach.
    unsafe { gemm.run(call) };
    if out != data.expected {
        let at = out
            .iter()
            .zip(&data.expected)
            .position(|(a, b)| a != b)
            .unwrap();
        let (got, expected) = (f32::from_bits(out[at]), f32::from_bits(data.expected[at]));
        panic!(
            "{} {sizes:?} threads {threads} packed {packed}: element {at} is {got}, not {expected}",
            case.name
        );
    }
}

/// The output of [`Gemm::run_few`], unless that is not the way to compute a case.
pub(super) fn run_few(case: &Case, target: &Target, threads: usize) -> Option<Vec<u32>> {
    let data = data(case);
    let (gemm, exprs) = linked(&case.contraction, target);
    let value = |expr: &Expr| expr.eval(&case.symbols).unwrap();
    let params: Vec<_> = exprs.iter().map(value).collect();
    if !gemm.is_few(gemm.sizes(&params)) {
        return None;
    }
    let mut out = vec![UNTOUCHED; case.out_len];
    let (lhs, rhs) = (data.lhs.0.as_ptr(), data.rhs.0.as_ptr());
    let mut scratch = vec![UNTOUCHED; gemm.few_scratch_bytes(gemm.sizes(&params)).div_ceil(4)];
    // SAFETY: the buffers have as many elements as the views and strides reach.
    unsafe {
        let scratch = scratch.as_mut_ptr().cast();
        gemm.run_few(
            [lhs, rhs],
            out.as_mut_ptr().cast(),
            &params,
            scratch,
            threads,
        );
    }
    Some(out)
}

/// The output of [`Gemm::run_sums`], unless that is not the way to compute a case.
pub(super) fn run_sums(case: &Case, target: &Target, threads: usize) -> Option<Vec<u32>> {
    let data = data(case);
    let (gemm, exprs) = linked(&case.contraction, target);
    let value = |expr: &Expr| expr.eval(&case.symbols).unwrap();
    let params: Vec<_> = exprs.iter().map(value).collect();
    if !gemm.is_summed(gemm.sizes(&params)) {
        return None;
    }
    let mut out = vec![UNTOUCHED; case.out_len];
    let operands = [data.lhs.0.as_ptr(), data.rhs.0.as_ptr()];
    // SAFETY: the buffers have as many elements as the views and strides reach.
    unsafe { gemm.run_sums(operands, out.as_mut_ptr().cast(), &params, threads) };
    Some(out)
}

/// A sum of products in 16 partial sums, which are then added up pairwise.
pub(super) fn striped(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    for (k, (x, y)) in a.iter().zip(b).enumerate() {
        sums[k % 16] = x.mul_add(*y, sums[k % 16]);
    }
    for half in [8, 4, 2, 1] {
        (0..half).for_each(|i| sums[i] += sums[i + half]);
    }
    sums[0]
}

pub(super) fn targets() -> Vec<Target> {
    let names = ["native", "scalar", "x86-64", "x86-64-v3", "x86-64-v4"];
    let all = names.map(|name| Target::for_cpu(name).unwrap());
    all.into_iter().filter(Target::can_run_here).collect()
}

/// Every case on every target that runs here, with several numbers of threads.
pub(super) fn check_everywhere(cases: &[Case]) {
    for case in cases {
        let data = data(case);
        for target in targets() {
            let gemm = linked(&case.contraction, &target);
            for how in [(1, false), (2, false), (3, false), (1, true), (3, true)] {
                check_run(case, &data, &gemm, how);
            }
        }
    }
}
