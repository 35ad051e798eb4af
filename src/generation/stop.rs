//! Ending a text at given strings.
//!
//! ```text
//! stop at "\n\n":   "Yes." "\n" "\nUser"   ->   "Yes." "" -- and the end
//! ```
//!
//! Text comes in pieces, and a stop string may lie across several. What could still become one is held back, so that no part of
//! a stop string is ever given out. A text ends with the first stop string that is complete; of several that are complete at
//! the same character, the longest counts. So the result does not depend on how the text was cut into pieces.
//!
//! Deliberately absent: tokens. Control tokens have no text, so no string stops at them; a session knows those that end a text.

use crate::error::{Error, Result};

/// Strings that end a text, and what was held back of it.
///
/// ```
/// use brain_blitz::generation::stop::StopStrings;
/// let mut stop = StopStrings::new(vec!["END".into()])?;
/// assert_eq!(stop.push("one E"), ("one ".to_owned(), false));
/// assert_eq!(stop.push("N"), (String::new(), false));
/// assert_eq!(stop.push("DED"), (String::new(), true));
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    strings: Vec<String>,
    held: String,
    ended: bool,
}

impl StopStrings {
    /// Ends a text at any of these; with none, at nothing.
    ///
    /// # Errors
    /// If one is empty.
    pub fn new(strings: Vec<String>) -> Result<StopStrings> {
        if strings.iter().any(String::is_empty) {
            return Err(Error::msg("an empty stop string ends every text at once"));
        }
        Ok(StopStrings {
            strings,
            ..StopStrings::default()
        })
    }

    /// Takes the next piece; gives what is certain to belong to the text, and whether the text has ended. Nothing comes
    /// after its end.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        if self.strings.is_empty() {
            return (piece.to_owned(), false);
        }
        let mut sure = String::new();
        for letter in piece.chars() {
            if self.ended {
                break;
            }
            self.held.push(letter);
            match self.length_of_a_match() {
                Some(length) => {
                    self.ended = true;
                    sure.push_str(&self.held[..self.held.len() - length]);
                    self.held.clear();
                }
                None => {
                    let keep = self.length_of_a_beginning();
                    sure.extend(self.held.drain(..self.held.len() - keep));
                }
            }
        }
        (sure, self.ended)
    }

    /// What was held back, when the text ended in another way. The next text begins.
    pub fn finish(&mut self) -> String {
        self.ended = false;
        std::mem::take(&mut self.held)
    }

    /// Bytes of the longest stop string that the held text ends with.
    fn length_of_a_match(&self) -> Option<usize> {
        let ends = |stop: &&String| self.held.ends_with(stop.as_str());
        self.strings.iter().filter(ends).map(String::len).max()
    }

    /// Bytes of the longest end of the held text that a stop string begins with.
    fn length_of_a_beginning(&self) -> usize {
        let starts = self.held.char_indices().map(|(at, _)| &self.held[at..]);
        let mut starts = starts.filter(|end| self.strings.iter().any(|stop| stop.starts_with(end)));
        starts.next().map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stops(strings: &[&str]) -> StopStrings {
        StopStrings::new(strings.iter().map(|&s| s.to_owned()).collect()).unwrap()
    }

    /// The definition, on the whole text: the first end of a stop string, the longest of those that end there.
    fn cut<'a>(text: &'a str, strings: &[String]) -> (&'a str, bool) {
        let ends = |end: usize| {
            let found = strings.iter().filter(|s| text[..end].ends_with(s.as_str()));
            found.map(String::len).max().map(|n| &text[..end - n])
        };
        let bounds = text.char_indices().map(|(at, c)| at + c.len_utf8());
        match bounds.into_iter().find_map(ends) {
            Some(kept) => (kept, true),
            None => (text, false),
        }
    }

    #[test]
    fn the_first_that_is_complete_counts() {
        let mut both = stops(&["abc", "b"]);
        assert_eq!(both.push("xabc"), ("xa".to_owned(), true));
        let mut same = stops(&["c", "abc"]);
        assert_eq!(same.push("xabc"), ("x".to_owned(), true));
        let mut none = stops(&[]);
        assert_eq!(none.push("a"), ("a".to_owned(), false));
    }

    #[test]
    fn what_is_held_back_comes_at_the_end() {
        let mut stop = stops(&["aab"]);
        assert_eq!(stop.push("xaaa"), ("xa".to_owned(), false));
        assert_eq!(stop.finish(), "aa");
        assert_eq!(stop.finish(), "");
        assert_eq!(stop.push("aab?"), (String::new(), true));
        assert_eq!(stop.push("more"), (String::new(), true));
        assert!(StopStrings::new(vec![String::new()]).is_err());
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            text in "[abé]{0,24}",
            strings in proptest::collection::vec("[abé]{1,4}", 0..4),
            cuts in proptest::collection::vec(0_usize..24, 0..6),
        ) {
            let letters: Vec<char> = text.chars().collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(letters.len())).collect();
            cuts.extend([0, letters.len()]);
            cuts.sort_unstable();
            let mut stop = StopStrings::new(strings.clone()).unwrap();
            let (mut found, mut ended) = (String::new(), false);
            let (expected, ends) = cut(&text, &strings);
            for pair in cuts.windows(2) {
                let piece: String = letters[pair[0]..pair[1]].iter().collect();
                let (sure, end) = stop.push(&piece);
                found.push_str(&sure);
                ended = end;
                prop_assert!(expected.starts_with(&found), "{found:?} of {expected:?}");
            }
            if !ended {
                found.push_str(&stop.finish());
            }
            prop_assert_eq!((found.as_str(), ended), (expected, ends));
        }
    }
}
