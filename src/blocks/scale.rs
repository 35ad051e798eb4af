//! Blocks of other numbers by changing nothing but their scales.

use half::f16;

use super::{BlockType, half_at, put_half};

impl BlockType {
    /// Multiplies the numbers of `blocks` by `factor`, up to the rounding of their `f16` scales; codes stay as they are. A scale
    /// that would not be finite stays as it is, as do blocks without [such scales](BlockType::scale_offsets).
    ///
    /// ```
    /// use brain_blitz::blocks::BlockType;
    /// let mut blocks = [0; 18];
    /// BlockType::Q4_0.quantize(&[-4.0; 32], &mut blocks)?;
    /// BlockType::Q4_0.scale(&mut blocks, 1.25);
    /// let mut numbers = [0.0; 32];
    /// BlockType::Q4_0.dequantize(&blocks, &mut numbers)?;
    /// assert_eq!(numbers, [-5.0; 32]);
    /// # Ok::<(), brain_blitz::Error>(())
    /// ```
    ///
    /// # Panics
    /// If `blocks` are no whole number of blocks.
    pub fn scale(self, blocks: &mut [u8], factor: f32) {
        assert!(
            blocks.len().is_multiple_of(self.block_bytes()),
            "{self}: {} bytes are no whole blocks",
            blocks.len()
        );
        for block in blocks.chunks_exact_mut(self.block_bytes()) {
            for &at in self.scale_offsets() {
                let scale = half_at(block, at) * factor;
                if f16::from_f32(scale).is_finite() {
                    put_half(block, at, scale);
                }
            }
        }
    }
}
