//! Rows of weights as a panel for [`super::tile`].

use half::f16;

use super::dot::Dots;
use super::ir::GROUP;
use super::tile::{COLUMNS, block_bytes};
use crate::blocks::BlockType;

/// Lays `rows` (at most [`COLUMNS`], each of `blocks` blocks, one after the other) out as a panel; what is missing is 0
/// with scale 0.
///
/// # Panics
/// If a slice is too short.
pub fn pack(ty: BlockType, dots: Dots, rows: &[u8], blocks: usize, panel: &mut [u8]) {
    let (step, words) = (ty.block_bytes(), dots.has_words());
    let size = block_bytes(words);
    let n_rows = (rows.len() / (blocks * step).max(1)).min(COLUMNS);
    if n_rows < COLUMNS {
        panel[..blocks * size].fill(0);
    }
    for column in 0..n_rows {
        let row = &rows[column * blocks * step..][..blocks * step];
        let row = row.chunks_exact(step).zip(panel.chunks_exact_mut(size));
        for (block, target) in row {
            let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
            let (numbers, scales) = target.split_at_mut(size - 4 * COLUMNS);
            scales[4 * column..][..4].copy_from_slice(&scale.to_le_bytes());
            let whole = numbers_of(ty, dots, block);
            match words {
                false => put(numbers, column, &whole),
                true => put(
                    numbers,
                    column,
                    bytemuck::cast_slice(&whole.map(|x| i16::from(x as i8))),
                ),
            }
        }
    }
}

/// Groups of four bytes of a column.
fn put(numbers: &mut [u8], column: usize, bytes: &[u8]) {
    let groups = bytes
        .chunks_exact(4)
        .zip(numbers.chunks_exact_mut(4 * COLUMNS));
    for (four, group) in groups {
        group[4 * column..][..4].copy_from_slice(four);
    }
}

/// The numbers of a block, with [`Dots::offset`].
fn numbers_of(ty: BlockType, dots: Dots, block: &[u8]) -> [u8; GROUP] {
    let mut out = [0; GROUP];
    match ty {
        BlockType::Q8_0 => {
            let flip = if dots.offset(ty) == 0 { 0 } else { 0x80 };
            out.iter_mut()
                .zip(&block[2..34])
                .for_each(|(o, b)| *o = b ^ flip);
        }
        BlockType::Q4_0 => {
            let less = if dots.offset(ty) == 0 { 8 } else { 0u8 };
            let (low, high) = out.split_at_mut(GROUP / 2);
            for ((l, h), b) in low.iter_mut().zip(high).zip(&block[2..18]) {
                (*l, *h) = ((b & 15).wrapping_sub(less), (b >> 4).wrapping_sub(less));
            }
        }
        other => unreachable!("{other} has no kernels"),
    }
    out
}
