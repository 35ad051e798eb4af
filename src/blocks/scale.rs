//! Blocks of other numbers by changing nothing but their scales.

use half::f16;

use super::{BlockType, half_at, put_half};

impl BlockType {
    /// Whether [`BlockType::scale`] knows the type: `F32`, and blocks with [scales of `f16`](BlockType::scale_offsets).
    pub fn can_scale(self) -> bool {
        self == BlockType::F32 || !self.scale_offsets().is_empty()
    }

    /// Multiplies the numbers of `blocks` by `factor`, up to the rounding of their scales; codes stay as they are. A scale that
    /// would not be finite stays as it is.
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
    /// If the type [cannot be scaled](BlockType::can_scale), or `blocks` are no whole number of blocks.
    pub fn scale(self, blocks: &mut [u8], factor: f32) {
        assert!(self.can_scale(), "{self} has no scales of f16");
        let bytes = self.block_bytes();
        assert!(
            blocks.len().is_multiple_of(bytes),
            "{self}: {} bytes are no whole blocks",
            blocks.len()
        );
        for block in blocks.chunks_exact_mut(bytes) {
            if let (BlockType::F32, Ok(number)) = (self, <[u8; 4]>::try_from(&*block)) {
                let number = f32::from_le_bytes(number) * factor;
                block.copy_from_slice(&number.to_le_bytes());
            }
            for &at in self.scale_offsets() {
                let scale = half_at(block, at) * factor;
                if f16::from_f32(scale).is_finite() {
                    put_half(block, at, scale);
                }
            }
        }
    }
}
