//! Numbers of one block format as those of another, a piece at a time.

use crate::blocks::{BlockErrors, BlockType};
use crate::error::Result;

/// Elements of a piece: a multiple of every block's length, and small enough for a cache.
const PIECE: usize = 1 << 16;
/// Rows of a piece of whole rows, at least: threads share them.
const ROWS: usize = 64;

/// What becomes of a tensor's numbers.
#[derive(Clone, Copy)]
pub(super) struct Recoding<'a> {
    pub(super) from: BlockType,
    pub(super) to: BlockType,
    /// What is added to every number.
    pub(super) add: f32,
    /// How errors count, if not all the same.
    pub(super) errors: Option<&'a BlockErrors<'a>>,
    /// Threads that share a search over scales.
    pub(super) n_threads: usize,
}

impl Recoding<'_> {
    /// Hands on the numbers in `bytes`, of which the first is element `first` of the tensor, as blocks of the new type. What is to
    /// stay as it is goes through untouched.
    ///
    /// # Errors
    /// If one of the types has no code here, a number does not fit the new one, or `emit` fails.
    pub(super) fn run(
        &self,
        first: usize,
        bytes: &[u8],
        emit: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let Recoding { from, to, add, .. } = *self;
        if from == to && add == 0.0 {
            return emit(bytes);
        }
        let length = self.row().map_or(PIECE, |row| ROWS.max(PIECE / row) * row);
        let piece_bytes = length / from.block_len() * from.block_bytes();
        let (mut numbers, mut blocks) = (Vec::new(), Vec::new());
        for (at, piece) in bytes.chunks(piece_bytes).enumerate() {
            numbers.resize(piece.len() / from.block_bytes() * from.block_len(), 0.0);
            from.dequantize(piece, &mut numbers)?;
            if add != 0.0 {
                numbers.iter_mut().for_each(|x| *x += add);
            }
            blocks.resize(numbers.len() / to.block_len() * to.block_bytes(), 0);
            self.encode(first + at * length, &numbers, &mut blocks)?;
            emit(&blocks)?;
        }
        Ok(())
    }

    /// The length of rows, where only whole ones are encoded.
    fn row(&self) -> Option<usize> {
        let errors = self.errors.filter(|errors| errors.feeds_back())?;
        Some(errors.columns())
    }

    /// Stores a piece; a search over scales of a whole one is shared by threads, which a single row is too short for.
    fn encode(&self, first: usize, numbers: &[f32], blocks: &mut [u8]) -> Result<()> {
        let Some(errors) = self.errors.filter(|_| self.to.block_len() > 1) else {
            return self.to.quantize_from(first, numbers, blocks);
        };
        if self.n_threads == 1 || numbers.len() < PIECE {
            return errors.quantize(first, numbers, blocks);
        }
        let unit = self.row().unwrap_or(self.to.block_len());
        let share = (numbers.len() / unit).div_ceil(self.n_threads).max(1);
        let len = share * unit;
        let bytes = len / self.to.block_len() * self.to.block_bytes();
        let done: Vec<Result<()>> = std::thread::scope(|scope| {
            let shares = numbers
                .chunks(len)
                .zip(blocks.chunks_mut(bytes))
                .enumerate();
            let tasks = shares.map(|(n, (numbers, blocks))| {
                let first = first + n * len;
                scope.spawn(move || errors.quantize(first, numbers, blocks))
            });
            let tasks: Vec<_> = tasks.collect();
            let tasks = tasks.into_iter();
            tasks
                .map(|task| task.join().expect("encoding does not panic"))
                .collect()
        });
        done.into_iter().collect()
    }
}
