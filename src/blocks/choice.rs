//! Which type a matrix gets where a whole model is asked for in one, as llama.cpp's files have it.
//!
//! | matrix | type |
//! |---|---|
//! | the output layer, which is the embedding where a model has no other | see [`BlockType::of_output_layer`] |
//! | rows that are no whole blocks | see [`BlockType::fitting`] |
//! | all others | the one that was asked for |

use super::BlockType;

impl BlockType {
    /// The type of the output layer in a file of this type. An error there changes all predictions at once, so blocks of
    /// fewer than eight bits become `Q6_K`, which is llama.cpp's rule, and those of fewer than three `Q8_0`.
    ///
    /// ```
    /// use brain_blitz::blocks::BlockType;
    /// assert_eq!(BlockType::Q4_0.of_output_layer(), BlockType::Q6_K);
    /// assert_eq!(BlockType::Q8_0.of_output_layer(), BlockType::Q8_0);
    /// assert_eq!(BlockType::TQ2_0.of_output_layer(), BlockType::Q8_0);
    /// ```
    pub fn of_output_layer(self) -> BlockType {
        let bits = self.bits_per_weight();
        match self.block_len() > 1 && bits < 8.0 {
            true if bits < 3.0 => BlockType::Q8_0,
            true => BlockType::Q6_K,
            false => self,
        }
    }

    /// The type of the embedding in a file of this type; `has_output` says whether the model has another output layer. An
    /// embedding that is none stays of this type, but in 8 bits where that has fewer than three.
    pub fn of_embedding(self, has_output: bool) -> BlockType {
        match has_output && self.bits_per_weight() >= 3.0 {
            true => self,
            false => self.of_output_layer(),
        }
    }

    /// The type nearest to this one whose blocks fit rows of `row` numbers: smaller blocks of at least as many bits, or
    /// `F16`.
    ///
    /// ```
    /// use brain_blitz::blocks::BlockType;
    /// assert_eq!(BlockType::Q4_K.fitting(576), BlockType::Q5_0);
    /// assert_eq!(BlockType::Q6_K.fitting(576), BlockType::Q8_0);
    /// ```
    pub fn fitting(self, row: usize) -> BlockType {
        let smaller = match self {
            BlockType::Q6_K => BlockType::Q8_0,
            BlockType::Q4_K => BlockType::Q5_0,
            _ => BlockType::Q4_0,
        };
        let mut candidates = [self, smaller].into_iter();
        let fits = |ty: &BlockType| row.is_multiple_of(ty.block_len());
        candidates.find(fits).unwrap_or(BlockType::F16)
    }
}
