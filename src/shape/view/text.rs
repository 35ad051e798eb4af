//! Text form of views: `[4, 3]` for a contiguous one, else the layers from the top down, joined by
//! ` <- `, each `[dims] * (strides) + offset {valid}`, and then the requirements:
//! `[2, s] * (s, 1) + 3 {0..2, 1..s} <- [24] if 24 - s >= 0`.
//!
//! A layer that changes nothing is its dims alone. Parsing what is displayed gives back the same
//! view.

use super::proof::Assumptions;
use super::{Layer, Ranges, View};
use crate::shape::error::List;
use crate::shape::{Dims, Expr, ParseError};
use smallvec::SmallVec;
use std::fmt;
use std::str::FromStr;

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, layer) in self.layers.iter().rev().enumerate() {
            f.write_str(if at > 0 { " <- " } else { "" })?;
            write!(f, "{layer}")?;
        }
        for (at, condition) in self.requirements().iter().enumerate() {
            f.write_str(if at > 0 { ", " } else { " if " })?;
            write!(f, "{condition} >= 0")?;
        }
        Ok(())
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", List(&self.dims))?;
        if self.is_contiguous() {
            return Ok(());
        }
        f.write_str(" * (")?;
        for (at, stride) in self.strides.iter().enumerate() {
            f.write_str(if at > 0 { ", " } else { "" })?;
            write!(f, "{stride}")?;
        }
        write!(f, ") + {}", self.offset)?;
        let Some(valid) = &self.valid else {
            return Ok(());
        };
        f.write_str(" {")?;
        for (at, (low, high)) in valid.iter().enumerate() {
            f.write_str(if at > 0 { ", " } else { "" })?;
            write!(f, "{low}..{high}")?;
        }
        f.write_str("}")
    }
}

impl FromStr for View {
    type Err = ParseError;

    /// Parses what [`Display`](fmt::Display) writes, with free white space. The text is taken at
    /// its word: nothing says that its indices lie inside some buffer.
    fn from_str(text: &str) -> Result<View, ParseError> {
        let whole = Piece { text, at: 0 };
        let (stack, conditions) = match whole.cut(" if ") {
            Some((stack, conditions)) => (stack, Some(conditions)),
            None => (whole, None),
        };
        let mut requirements = Assumptions::default();
        for condition in conditions.iter().flat_map(|list| list.split()) {
            let Some((e, rest)) = condition.cut(">=") else {
                return Err(condition.error("expected `... >= 0`"));
            };
            if rest.text.trim() != "0" || !requirements.insert(e.expr()?) {
                return Err(rest.error("expected `... >= 0`, where that is possible"));
            }
        }
        let mut layers = SmallVec::new();
        let mut rest = Some(stack);
        while let Some(piece) = rest {
            let (layer, below) = match piece.cut("<-") {
                Some((layer, below)) => (layer, Some(below)),
                None => (piece, None),
            };
            layers.push(layer.layer()?);
            rest = below;
        }
        layers.reverse();
        Ok(View {
            layers,
            requirements,
        })
    }
}

/// A part of a text that knows where it starts.
#[derive(Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Piece<'a> {
    fn error(self, message: &str) -> ParseError {
        ParseError {
            at: self.at,
            message: message.to_string(),
        }
    }

    /// The piece between two byte offsets.
    fn part(self, from: usize, to: usize) -> Piece<'a> {
        Piece {
            text: &self.text[from..to],
            at: self.at + from,
        }
    }

    /// What is before and after the first `separator`.
    fn cut(self, separator: &str) -> Option<(Piece<'a>, Piece<'a>)> {
        let at = self.text.find(separator)?;
        let after = at + separator.len();
        Some((self.part(0, at), self.part(after, self.text.len())))
    }

    fn trim(self) -> Piece<'a> {
        let start = self.text.len() - self.text.trim_start().len();
        let end = self.text.trim_end().len();
        self.part(start.min(end), end)
    }

    /// The parts between commas that are not in parentheses; none for white space.
    fn split(self) -> Vec<Piece<'a>> {
        let mut parts = Vec::new();
        let (mut depth, mut start) = (0usize, 0);
        for (at, c) in self.text.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    parts.push(self.part(start, at));
                    start = at + 1;
                }
                _ => {}
            }
        }
        let last = self.part(start, self.text.len());
        if !parts.is_empty() || !last.text.trim().is_empty() {
            parts.push(last);
        }
        parts
    }

    /// What is between `open` at the start and the `close` that belongs to it, and what follows.
    fn enclosed(self, open: char, close: char) -> Result<(Piece<'a>, Piece<'a>), ParseError> {
        let piece = self.trim();
        if !piece.text.starts_with(open) {
            return Err(piece.error(&format!("expected '{open}'")));
        }
        let mut depth = 0usize;
        for (at, c) in piece.text.char_indices() {
            if c == open {
                depth += 1;
            } else if c == close {
                depth -= 1;
            }
            if depth == 0 {
                return Ok((piece.part(1, at), piece.part(at + 1, piece.text.len())));
            }
        }
        Err(piece.error(&format!("expected a matching '{close}'")))
    }

    fn expr(self) -> Result<Expr, ParseError> {
        self.text.parse().map_err(|error: ParseError| ParseError {
            at: self.at + error.at,
            ..error
        })
    }

    fn exprs(self) -> Result<Dims, ParseError> {
        self.split().into_iter().map(Piece::expr).collect()
    }

    fn layer(self) -> Result<Layer, ParseError> {
        let (dims_piece, rest) = self.enclosed('[', ']')?;
        let dims = dims_piece.exprs()?;
        if dims.iter().any(|dim| matches!(dim.bounds().1, Some(..0))) {
            return Err(dims_piece.error("a size is negative"));
        }
        if rest.text.trim().is_empty() {
            return Ok(Layer::contiguous(dims));
        }
        let Some((_, strides)) = rest.cut("*").filter(|(gap, _)| gap.text.trim().is_empty()) else {
            return Err(rest.trim().error("expected '*' and the strides"));
        };
        let (strides, rest) = strides.enclosed('(', ')')?;
        let Some((_, rest)) = rest.cut("+").filter(|(gap, _)| gap.text.trim().is_empty()) else {
            return Err(rest.trim().error("expected '+' and the offset"));
        };
        let (offset, valid) = match rest.text.find('{') {
            Some(at) => (rest.part(0, at), Some(rest.part(at, rest.text.len()))),
            None => (rest, None),
        };
        let valid = valid.map(Piece::ranges).transpose()?;
        let layer = Layer {
            strides: strides.exprs()?,
            offset: offset.expr()?,
            valid,
            dims,
        };
        let n_ranges = layer.valid.as_ref().map_or(layer.dims.len(), Ranges::len);
        if layer.strides.len() != layer.dims.len() || n_ranges != layer.dims.len() {
            return Err(self.error("a layer needs a stride and a range for each size"));
        }
        Ok(layer)
    }

    fn ranges(self) -> Result<Ranges, ParseError> {
        let (list, rest) = self.enclosed('{', '}')?;
        if !rest.text.trim().is_empty() {
            return Err(rest.error("expected the end of the layer"));
        }
        let ranges = list.split().into_iter().map(|range| match range.cut("..") {
            Some((low, high)) => Ok((low.expr()?, high.expr()?)),
            None => Err(range.error("expected `low..high`")),
        });
        ranges.collect()
    }
}
