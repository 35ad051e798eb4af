//! A text in windows: what is fed, and what is to be predicted.
//!
//! ```text
//! text a b c d e f, context 4, stride 2      with <bos>                      without
//! first window                               <bos> a b c   -> A B C D        a b c d -> B C D E
//! second window                              <bos> c d e   -> c d E F        c d e f -> d e F
//! ```
//!
//! Every window is fed on its own, `context` tokens at most. With a begin-of-text token each window starts with it, and the
//! text's first token is predicted from it alone; without one, the text's first token is fed and not predicted. A window starts
//! `stride` tokens after the one before. Only what no window before it predicted is counted (in capitals above), so that
//! every token counts once: with a stride as long as the context, windows do not overlap and the first tokens of each have
//! little before them; a shorter one costs more and gives them at least `context - stride` tokens. The last window may
//! be shorter.

use crate::error::{Error, Result};

/// What is fed and what is to be predicted from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Window {
    /// What is fed.
    pub inputs: Vec<u32>,
    /// After each input, the token that follows.
    pub targets: Vec<u32>,
    /// The first of `targets` that counts.
    pub counted_from: usize,
}

/// The windows of a text.
#[derive(Clone, Debug)]
pub struct Windows<'a> {
    ids: &'a [u32],
    bos: Option<u32>,
    context: usize,
    stride: usize,
    /// The first token that the next window predicts.
    start: usize,
    /// What windows so far have predicted.
    end: usize,
}

impl<'a> Windows<'a> {
    /// The windows of a text without begin-of-text token; `bos` is put in front of each.
    ///
    /// ```
    /// use brain_blitz::generation::evaluate::Windows;
    /// let mut windows = Windows::new(&[7, 8, 9], Some(2), 2, 1)?;
    /// assert_eq!(windows.n_counted(), 3);
    /// let second = windows.nth(1).unwrap();
    /// assert_eq!((second.inputs, second.targets), (vec![2, 8], vec![8, 9]));
    /// assert_eq!(second.counted_from, 1);
    /// # Ok::<(), brain_blitz::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the context is empty, the stride is not from 1 to the context, or there is nothing to predict.
    pub fn new(
        ids: &'a [u32],
        bos: Option<u32>,
        context: usize,
        stride: usize,
    ) -> Result<Windows<'a>> {
        if !(1..=context).contains(&stride) {
            return Err(Error::msg(format!(
                "a stride of {stride} tokens is not from 1 to the context of {context}"
            )));
        }
        let first = usize::from(bos.is_none());
        if ids.len() <= first {
            return Err(Error::msg("the text has no tokens to predict"));
        }
        Ok(Windows {
            ids,
            bos,
            context,
            stride,
            start: first,
            end: first,
        })
    }

    /// How many tokens are counted in all.
    pub fn n_counted(&self) -> usize {
        self.ids.len() - usize::from(self.bos.is_none())
    }
}

impl Iterator for Windows<'_> {
    type Item = Window;

    fn next(&mut self) -> Option<Window> {
        if self.end == self.ids.len() {
            return None;
        }
        let end = self.ids.len().min(self.start.saturating_add(self.context));
        let targets = &self.ids[self.start..end];
        let inputs = match self.bos {
            Some(bos) => [&[bos], &targets[..targets.len() - 1]].concat(),
            None => self.ids[self.start - 1..end - 1].to_vec(),
        };
        let window = Window {
            inputs,
            targets: targets.to_vec(),
            counted_from: self.end - self.start,
        };
        self.start = self.start.saturating_add(self.stride);
        self.end = end;
        Some(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_headers_example() {
        let text = [1, 2, 3, 4, 5, 6];
        let windows = |bos| -> Vec<_> {
            let all = Windows::new(&text, bos, 4, 2).unwrap();
            all.map(|w| (w.inputs, w.targets, w.counted_from)).collect()
        };
        assert_eq!(
            windows(Some(9)),
            [
                (vec![9, 1, 2, 3], vec![1, 2, 3, 4], 0),
                (vec![9, 3, 4, 5], vec![3, 4, 5, 6], 2)
            ]
        );
        assert_eq!(
            windows(None),
            [
                (vec![1, 2, 3, 4], vec![2, 3, 4, 5], 0),
                (vec![3, 4, 5], vec![4, 5, 6], 2)
            ]
        );
        assert!(Windows::new(&text, None, 4, 0).is_err());
        assert!(Windows::new(&text, None, 4, 5).is_err());
        assert!(Windows::new(&text[..1], None, 4, 4).is_err());
        assert!(Windows::new(&text[..1], Some(9), 4, 4).is_ok());
    }

    proptest! {
        #[test]
        fn every_token_counts_once_and_in_order(
            len in 2_u32..60,
            context in 1_usize..12,
            stride in 1_usize..12,
            bos: bool,
        ) {
            let stride = stride.min(context);
            let ids: Vec<u32> = (0..len).collect();
            let windows = Windows::new(&ids, bos.then_some(99), context, stride).unwrap();
            let n = windows.n_counted();
            let mut counted = Vec::new();
            for window in windows {
                prop_assert_eq!(window.inputs.len(), window.targets.len());
                prop_assert!(window.inputs.len() <= context);
                prop_assert!(window.counted_from < window.targets.len());
                prop_assert!(counted.is_empty() || window.counted_from >= context - stride);
                for (input, target) in window.inputs.iter().zip(&window.targets) {
                    prop_assert!(*input == 99 || input + 1 == *target);
                }
                counted.extend_from_slice(&window.targets[window.counted_from..]);
            }
            prop_assert_eq!(counted.len(), n);
            prop_assert_eq!(&counted[..], &ids[ids.len() - n..]);
        }
    }
}
