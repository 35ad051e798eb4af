//! A stream of tokens as training data for language models: windows of it, and the same moved on by one.
//!
//! ```text
//! tokens  a b c d e f g h i      length 4
//! sample  inputs a b c d   targets b c d e      the target of a position is the token after it
//! ```
//!
//! In sequence, windows lie side by side and cover the stream once an epoch, without the last tokens where they do
//! not fill a window. At random, an epoch is as many windows as asked for, each starting anywhere, drawn anew in each
//! epoch from seed, epoch and index.

use super::Dataset;
use super::draw::{Purpose, below};
use crate::array::{Array, Data};
use crate::error::{Error, Result};

/// Windows of a stream of tokens: inputs and targets, `[length]` each.
///
/// ```
/// use brain_blitz::train::data::{Dataset, TextDataset};
/// let data = TextDataset::new(0..9, 4)?;
/// assert_eq!(data.len(), 2);
/// let window = data.sample(1, 0)?;
/// assert_eq!(window[0].to_i32(), [4, 5, 6, 7]);
/// assert_eq!(window[1].to_i32(), [5, 6, 7, 8]);
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TextDataset {
    tokens: Vec<i32>,
    length: usize,
    random: Option<Random>,
}

#[derive(Clone, Copy, Debug)]
struct Random {
    windows: usize,
    seed: u64,
}

impl TextDataset {
    /// The windows of `length` tokens in sequence.
    ///
    /// # Errors
    /// If `length` is 0, there are fewer than `length + 1` tokens, or one does not fit `i32`.
    pub fn new(tokens: impl IntoIterator<Item = u32>, length: usize) -> Result<TextDataset> {
        let token = |token: u32| {
            let wide = |_| Error::msg(format!("token {token} does not fit i32"));
            i32::try_from(token).map_err(wide)
        };
        let tokens = tokens.into_iter().map(token);
        let tokens = tokens.collect::<Result<Vec<i32>>>()?;
        if length == 0 || tokens.len() <= length {
            return Err(Error::msg(format!(
                "{} tokens have no window of {length} tokens with the token after it",
                tokens.len()
            )));
        }
        Ok(TextDataset {
            tokens,
            length,
            random: None,
        })
    }

    /// `windows` windows an epoch, each starting anywhere.
    pub fn random(self, windows: usize, seed: u64) -> TextDataset {
        TextDataset {
            random: Some(Random { windows, seed }),
            ..self
        }
    }

    /// The number of tokens in the stream.
    pub fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    fn start(&self, index: usize, epoch: u64) -> usize {
        match self.random {
            None => index * self.length,
            Some(Random { seed, .. }) => {
                let starts = (self.tokens.len() - self.length) as u64;
                below(Purpose::Window, seed, epoch, index as u64, starts) as usize
            }
        }
    }
}

impl Dataset for TextDataset {
    fn len(&self) -> usize {
        match self.random {
            None => (self.tokens.len() - 1) / self.length,
            Some(Random { windows, .. }) => windows,
        }
    }

    fn sample(&self, index: usize, epoch: u64) -> Result<Vec<Array>> {
        if index >= self.len() {
            let len = self.len();
            return Err(Error::msg(format!("window {index} of {len}")));
        }
        let start = self.start(index, epoch);
        let window = |start: usize| {
            let tokens = self.tokens[start..start + self.length].to_vec();
            Array::new(vec![self.length], Data::I32(tokens))
        };
        Ok(vec![window(start), window(start + 1)])
    }
}
