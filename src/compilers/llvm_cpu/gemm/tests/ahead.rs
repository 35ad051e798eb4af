//! What is asked for while a block is multiplied, so that packing finds it in a cache.

use std::sync::Mutex;

use super::check::{Case, check_run, data, linked, product, targets};
use super::dense;
use crate::compilers::llvm_cpu::gemm::ahead::Next;
use crate::compilers::llvm_cpu::gemm::{Blocks, Side};
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::shape::View;

/// What was asked for: addresses and numbers of cache lines.
static ASKED: Mutex<Vec<(usize, i64)>> = Mutex::new(Vec::new());

extern "C" fn record(from: *const u8, lines: i64) {
    ASKED.lock().unwrap().push((from as usize, lines));
}

#[test]
fn every_row_of_the_next_block_is_asked_for_once() {
    let (rows, steps) = (100, 64);
    let contraction = product(
        (2, 5, rows, steps),
        dense((2, 5, steps)),
        dense((2, rows, steps)),
    );
    let (gemm, _) = linked(&contraction, &Target::native());
    let (place, _) = gemm.ahead.as_ref().expect("steps are neighbours");
    let base = vec![0f32; 2 * rows * steps];
    let next = Next {
        from: base.as_ptr().cast(),
        batch: 1,
        n: 3..rows,
        k: 16..64,
    };
    (0..7).for_each(|part| next.ask((place, record), &[], part, 7));
    let asked = std::mem::take(&mut *ASKED.lock().unwrap());
    assert_eq!(asked.len(), rows - 3);
    for (row, (from, lines)) in (3..rows).zip(asked) {
        let first = base.as_ptr().wrapping_add((rows + row) * steps + 16) as usize;
        assert_eq!(from, first);
        let lines_of = |at: usize| at / 64;
        assert_eq!(
            lines as usize,
            lines_of(first + 48 * 4 - 1) - lines_of(first) + 1
        );
    }
}

/// Columns that are neighbours are long pieces, which nobody needs to ask for.
#[test]
fn only_rows_of_neighbouring_steps_are_asked_for() {
    let columns = View::contiguous((64, 100)).permute(&[1, 0]).unwrap();
    let contraction = product(((), 5, 100, 64), dense((5, 64)), (DType::F32, columns));
    assert!(linked(&contraction, &Target::native()).0.ahead.is_none());
}

#[test]
fn the_next_block_is_asked_for_while_this_one_is_multiplied() {
    static COUNT: Mutex<usize> = Mutex::new(0);
    extern "C" fn count(_: *const u8, _: i64) {
        *COUNT.lock().unwrap() += 1;
    }
    let (m, n, k) = (140, 300, 520);
    let contraction = product(((), m, n, k), dense((m, k)), dense((n, k)));
    let case = Case::fixed("asking", contraction);
    let data = data(&case);
    for target in targets() {
        let mut gemm = linked(&case.contraction, &target);
        gemm.0.ahead.as_mut().expect("steps are neighbours").1 = count;
        let blocks = gemm.0.blocks();
        gemm.0 = gemm.0.with_blocks(Blocks {
            first: Side::Lhs,
            kc: 260,
            nc: 96,
            ..blocks
        });
        *COUNT.lock().unwrap() = 0;
        check_run(&case, &data, &gemm, (1, false));
        // Every row in both blocks of K, but those that are packed at the start.
        assert_eq!(*COUNT.lock().unwrap(), 2 * n - 96, "{target:?}");
        check_run(&case, &data, &gemm, (1, true));
        assert_eq!(
            *COUNT.lock().unwrap(),
            2 * n - 96,
            "panels are read as they are"
        );
    }
}
