//! Numbers of one block format as those of another, a piece at a time.

use crate::blocks::BlockType;
use crate::error::{Error, Result};

/// Elements of a piece: a multiple of every block's length, and small enough for a cache.
const PIECE: usize = 1 << 16;

/// Hands on the numbers in `bytes`, which are of type `from`, each plus `add`, as blocks of type `to`. What is to stay as it
/// is goes through untouched.
///
/// # Errors
/// If one of the types has no code here, a number does not fit `to`, or `emit` fails.
pub(super) fn recode(
    bytes: &[u8],
    from: BlockType,
    to: BlockType,
    add: f32,
    emit: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    if from == to && add == 0.0 {
        return emit(bytes);
    }
    let piece_bytes = PIECE / from.block_len() * from.block_bytes();
    let (mut numbers, mut blocks) = (Vec::new(), Vec::new());
    for (at, piece) in bytes.chunks(piece_bytes).enumerate() {
        numbers.resize(piece.len() / from.block_bytes() * from.block_len(), 0.0);
        from.dequantize(piece, &mut numbers)?;
        if add != 0.0 {
            numbers.iter_mut().for_each(|x| *x += add);
        }
        blocks.resize(numbers.len() / to.block_len() * to.block_bytes(), 0);
        let failed = |error| Error::msg(format!("from element {} on: {error}", at * PIECE));
        to.quantize(&numbers, &mut blocks).map_err(failed)?;
        emit(&blocks)?;
    }
    Ok(())
}
