//! Tiles and blocks of matrix products chosen by measurement, and the records of such choices.
//!
//! Before: a product with the usual tile, whose operands are cut as [`Blocks::of`] says. After: the same product with
//! the fastest [`Choice`] of some on this machine: tiles first, with their usual blocks; then, with the best tile, blocks
//! ([`candidates`]); then, with these, whose rows threads share. Measured once: records lie in files beside compiled
//! objects, one for each workload (the product, the target, the processor's model, the number of threads, the version of
//! this crate).
//!
//! [`LlvmCpu`](super::LlvmCpu) reads records and never measures; [`LlvmCpu::tuned`](super::LlvmCpu::tuned) measures what
//! there is no record of. Results have the same bits with any choice.
//!
//! Symbolic sizes are taken as [`TYPICAL`] when measuring. Deliberately absent: products inside of attention kernels,
//! which have their own loops; how products run together ([`super::gemm::tiled`]), which follows from sizes.

mod records;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use records::Records;

use super::cache::ObjectCache;
use super::gemm::ir::Contraction;
use super::gemm::{Blocks, Call, CompiledGemm, Gemm, Rhs, Side, Tile};
use super::jit::Jit;
use super::target::Target;
use crate::error::{Error, Result};
use crate::exec::pool;
use crate::shape::Symbols;
use crate::storage::AlignedBytes;

/// The value of symbols when a product is measured.
pub const TYPICAL: i64 = 128;

/// The largest operands and result together that are measured, in bytes.
const LARGEST: usize = 1 << 30;

/// How long a candidate is measured.
const LONG_ENOUGH: Duration = Duration::from_millis(40);

/// What a candidate must bring to be chosen instead of the default.
const WORTH: f64 = 0.97;

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The tile in registers.
    pub tile: Tile,
    /// How operands are cut; they fit the tile.
    pub blocks: Blocks,
}

impl Choice {
    /// What products have without a record.
    pub fn of(target: &Target) -> Choice {
        Choice::with(Tile::of(target))
    }

    /// A tile with its usual blocks.
    fn with(tile: Tile) -> Choice {
        Choice {
            tile,
            blocks: Blocks::of(tile),
        }
    }
}

/// What a compilation does about records.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Where they are.
    pub records: Records,
    /// Whether products without one are measured.
    pub measures: bool,
    /// Who is told how far that is.
    pub told: Option<Told>,
}

/// Somebody who is told how many products of how many were measured.
#[derive(Clone)]
pub struct Told(pub Arc<dyn Fn(usize, usize) + Send + Sync>);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}

/// The blocks that are measured with a tile: those of the choice first.
pub fn candidates(Choice { tile, blocks }: Choice) -> Vec<Blocks> {
    let (rows, columns) = (tile.rows as usize, tile.columns() as usize);
    let mut all = vec![blocks];
    for first in [Side::Lhs, Side::Rhs] {
        for (small, kc) in [(128, 256), (128, 512), (256, 256), (256, 384)] {
            let (mc, nc) = match first {
                Side::Lhs => (4096, small),
                Side::Rhs => (small, 4096),
            };
            let other = Blocks {
                mc: mc / rows * rows,
                kc,
                nc: nc / columns * columns,
                first,
                ..blocks
            };
            if !all.contains(&other) {
                all.push(other);
            }
        }
    }
    all
}

/// Measures a product and keeps the choice; nothing if there is no place for a record, or the product takes too much
/// memory. Symbols are taken as [`TYPICAL`].
///
/// # Errors
/// Failure of LLVM, no memory, or sizes that do not fit with these symbols.
pub fn tune(
    product: &Contraction,
    target: &Target,
    records: &Records,
    cache: &ObjectCache,
) -> Result<Option<Choice>> {
    if records.dir.is_none() {
        return Ok(None);
    }
    let compiled = CompiledGemm::new(product, target, cache)?;
    let Some(mut trial) = Trial::new(product, &compiled)? else {
        return Ok(None);
    };
    let jit = Arc::new(Jit::new()?);
    let mut gemms = Vec::new();
    for tile in Tile::all(target) {
        gemms.push(CompiledGemm::with_tile(product, target, tile, cache)?.link(&jit)?);
    }
    let tiles = Tile::all(target).into_iter().map(Choice::with).collect();
    let best = trial.best(&gemms, tiles);
    let with = |blocks: Blocks| Choice { blocks, ..best };
    let best = trial.best(&gemms, candidates(best).into_iter().map(with).collect());
    let with = |split| Choice {
        blocks: Blocks {
            split,
            ..best.blocks
        },
        ..best
    };
    let splits = [None, Some(Side::Lhs), Some(Side::Rhs)];
    let best = trial.best(&gemms, splits.map(with).to_vec());
    records.put(product, target, best);
    Ok(Some(best))
}

/// Memory and parameters to run a product with.
struct Trial {
    params: Vec<i64>,
    lhs: AlignedBytes,
    rhs: AlignedBytes,
    out: AlignedBytes,
}

impl Trial {
    /// Nothing for a product that takes too much memory.
    fn new(product: &Contraction, compiled: &CompiledGemm) -> Result<Option<Trial>> {
        let symbols: Symbols = ('a'..='z')
            .chain('A'..='Z')
            .map(|symbol| (symbol, TYPICAL))
            .collect();
        let value =
            |expr: &crate::shape::Expr| expr.eval(&symbols).map_err(|e| Error::msg(e.to_string()));
        let params: Result<Vec<i64>> = compiled.params().iter().map(value).collect();
        let mut out = 1;
        let dims = product.batch.iter().chain(&product.m).chain(&product.n);
        for (dim, stride) in dims.zip(&product.out_strides) {
            out += (value(dim)? - 1).max(0) * value(stride)?;
        }
        let mut sizes = vec![out.max(0) as usize * 4];
        for access in [&product.lhs, &product.rhs] {
            let view = access.view.resolve(&symbols);
            let view = view.map_err(|e| Error::msg(e.to_string()))?;
            let last = view.max_index().map_or(0, |last| last + 1);
            sizes.push(last * access.dtype.size());
        }
        if sizes
            .iter()
            .fold(0usize, |sum, &size| sum.saturating_add(size))
            > LARGEST
        {
            return Ok(None);
        }
        let filled = |len: usize| -> Result<AlignedBytes> {
            let mut bytes = AlignedBytes::try_zeroed(len)?;
            // A small number in every format; memory that was never written is not what weights are.
            bytes.as_mut_slice().fill(0x3c);
            Ok(bytes)
        };
        Ok(Some(Trial {
            params: params?,
            out: filled(sizes[0])?,
            lhs: filled(sizes[1])?,
            rhs: filled(sizes[2])?,
        }))
    }

    /// The fastest of some choices, or the first if no other is worth it. `gemms` are those of all tiles.
    fn best(&mut self, gemms: &[Gemm], all: Vec<Choice>) -> Choice {
        let mut times = vec![f64::INFINITY; all.len()];
        // Twice, so that a disturbance does not hit one candidate only.
        for _ in 0..2 {
            for (choice, time) in all.iter().zip(&mut times) {
                let gemm = gemms.iter().find(|gemm| gemm.tile() == choice.tile);
                let gemm = gemm.expect("there is code for all tiles");
                *time = time.min(self.time(&gemm.clone().with_blocks(choice.blocks)));
            }
        }
        let best = (0..all.len()).min_by(|&a, &b| times[a].total_cmp(&times[b]));
        let best = best.filter(|&best| times[best] < times[0] * WORTH);
        all[best.unwrap_or(0)]
    }

    /// The shortest time of a run.
    fn time(&mut self, gemm: &Gemm) -> f64 {
        let threads = pool::default_threads();
        let mut scratch = vec![0; gemm.scratch_bytes(gemm.sizes(&self.params), threads)];
        let (begin, mut best, mut runs) = (Instant::now(), f64::INFINITY, 0);
        while runs < 3 || begin.elapsed() < LONG_ENOUGH {
            let start = Instant::now();
            let call = Call {
                lhs: self.lhs.start(),
                rhs: Rhs::Raw(self.rhs.start()),
                out: self.out.start().cast(),
                params: &self.params,
                scratch: &mut scratch,
                threads,
            };
            // SAFETY: the buffers hold what the views and strides reach for these parameters; the caller's target
            // runs here.
            unsafe { gemm.run(call) };
            best = best.min(start.elapsed().as_secs_f64());
            runs += 1;
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::records::text_of;
    use super::*;
    use crate::compilers::llvm_cpu::LlvmCpu;
    use crate::dtype::DType;
    use crate::prelude::{Generic, Graph};
    use crate::shape::Expr;

    /// Compiles and runs a product; how many records there are then.
    fn records_after(folder: &Path, compiler: LlvmCpu) -> usize {
        let mut cx = Graph::new();
        let x = cx.input(('s', 40), DType::F32).set(vec![1.0; 50 * 40]);
        let w = cx.input((33, 40), DType::F32).set(vec![2.0; 33 * 40]);
        let y = x.matmul(w.transpose(0, 1)).retrieve();
        cx.set_dim('s', 50);
        let report = cx.compile((Generic, compiler.records_in(folder)), ());
        cx.execute();
        assert_eq!(y.data(), vec![80.0; 50 * 33]);
        let count = match std::fs::read_dir(folder) {
            Ok(entries) => entries.count(),
            Err(_) => 0,
        };
        let said = format!("{report:?}").contains("1 products in blocks of a record");
        assert_eq!(said, count == 1, "{report:?}");
        count
    }

    #[test]
    fn only_tuned_compilers_measure_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("records");
        assert_eq!(records_after(&inside, LlvmCpu::native()), 0);
        assert_eq!(records_after(&inside, LlvmCpu::tuned()), 1);
        let file = std::fs::read_dir(&inside).unwrap().next().unwrap();
        let path = file.unwrap().path();
        let made = std::fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(records_after(&inside, LlvmCpu::tuned()), 1);
        assert_eq!(records_after(&inside, LlvmCpu::native()), 1);
        let now = std::fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(now, made, "nothing was measured again");
    }

    /// A product of many blocks with the records of a folder: its bits, and how much scratch memory it takes.
    fn run_with(folder: &Path, compiler: LlvmCpu) -> (Vec<f32>, usize) {
        let (s, n, k) = (401, 333, 700);
        let numbers = |n: usize| (0..n).map(|i| (i * 37 % 83) as f32 / 40.0 - 1.0);
        let mut cx = Graph::new();
        let x = cx.input(('s', k), DType::F32);
        x.set(numbers(s * k).collect::<Vec<_>>());
        let w = cx.input((n, k), DType::F32);
        w.set(numbers(n * k).collect::<Vec<_>>());
        let y = x.matmul(w.transpose(0, 1)).retrieve();
        cx.set_dim('s', s);
        let report = cx.compile((Generic, compiler.records_in(folder)), ());
        cx.execute();
        let text = format!("{report:?}");
        assert!(text.contains("1 products in blocks of a record"), "{text}");
        (y.data(), cx.stats().scratch_bytes)
    }

    #[test]
    fn blocks_of_a_record_are_used_and_change_no_bit() {
        let folder = tempfile::tempdir().unwrap();
        let chosen = run_with(folder.path(), LlvmCpu::tuned());
        let record = std::fs::read_dir(&folder).unwrap().next().unwrap();
        let path = record.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let title = text.lines().take(2).collect::<Vec<_>>().join("\n");
        let tiles = Tile::all(&Target::native()).into_iter();
        let all = tiles.flat_map(|tile| {
            let blocks = candidates(Choice::with(tile)).into_iter();
            blocks.map(move |blocks| Choice { tile, blocks })
        });
        let all = all.map(|choice| {
            std::fs::write(&path, format!("{title}\n{}\n", text_of(choice))).unwrap();
            run_with(folder.path(), LlvmCpu::native())
        });
        let all: Vec<_> = all.collect();
        assert!(all.iter().all(|(bits, _)| *bits == chosen.0));
        assert!(all.iter().any(|(_, scratch)| *scratch != all[0].1));
    }

    #[test]
    fn what_cannot_be_tried_out_keeps_its_blocks() {
        let folder = tempfile::tempdir().unwrap();
        for symbol in ['s', 'ß'] {
            let mut cx = Graph::new();
            let x = cx.input((symbol, 40), DType::F32);
            x.set(vec![1.0; 50 * 40]);
            // No slice of this kind fits the size that symbols are tried out with.
            let end = Expr::from(100);
            let x = x.pad(0, 0, 50).slice_axis(0, 0, end - Expr::from(symbol));
            let w = cx.input((33, 40), DType::F32).set(vec![2.0; 33 * 40]);
            let y = x.matmul(w.transpose(0, 1)).retrieve();
            cx.set_dim(symbol, 50);
            cx.compile((Generic, LlvmCpu::tuned().records_in(folder.path())), ());
            cx.execute();
            assert_eq!(y.data(), vec![80.0; 50 * 33]);
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }
}
