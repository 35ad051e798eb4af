//! Limits on what a text may ask for, so that nothing downstream overflows or takes forever.

use super::limits;
use crate::shape::{Expr, Layer, View, numel};

/// Refuses a text whose expressions could be expensive.
pub(super) fn piece(text: &str) -> Result<(), String> {
    if text.len() > limits::PIECE {
        return Err(format!("more than {} bytes in one list", limits::PIECE));
    }
    let count = |signs: &[char]| text.chars().filter(|c| signs.contains(c)).count();
    if count(&['*']) > limits::PRODUCTS || count(&['/', '%']) > limits::PRODUCTS {
        let n = limits::PRODUCTS;
        return Err(format!("more than {n} products or divisions in one list"));
    }
    Ok(())
}

/// The parts between commas that are not in parentheses; none for white space.
pub(super) fn commas(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !parts.is_empty() || !text.trim().is_empty() {
        parts.push(&text[start..]);
    }
    parts
}

/// At least as many as the expression has terms.
fn n_terms(e: Expr) -> usize {
    if e.as_const().is_some() {
        return 1;
    }
    let text = e.to_string();
    1 + text.matches(" + ").count() + text.matches(" - ").count()
}

/// Refuses sizes that are negative, too many or too large to be multiplied out.
pub(super) fn dims(dims: &[Expr]) -> Result<(), String> {
    if dims.len() > limits::RANK {
        return Err(format!("more than {} dimensions", limits::RANK));
    }
    if let Some(dim) = dims.iter().find(|dim| matches!(dim.bounds().1, Some(..0))) {
        return Err(format!("a size cannot be negative: {dim}"));
    }
    let terms = dims
        .iter()
        .fold(1usize, |n, &dim| n.saturating_mul(n_terms(dim)));
    if terms > limits::TERMS {
        return Err("sizes with too many terms".into());
    }
    let n = dims.iter().filter_map(|dim| dim.as_const());
    let n = n.fold(1i128, |n, dim| n.saturating_mul(i128::from(dim).max(1)));
    if n >= limits::ELEMENTS {
        return Err("more elements than any memory holds".into());
    }
    Ok(())
}

/// Refuses layers of extreme sizes, strides or offsets.
pub(super) fn layers(view: &View) -> Result<(), String> {
    let small = |e: Expr, times: i128| {
        let value = i128::from(e.as_const().unwrap_or(0));
        value.saturating_mul(times).abs() < limits::ELEMENTS
    };
    for layer in view.layers() {
        dims(&layer.dims)?;
        let mut ok = small(layer.offset, 1);
        for (&stride, &dim) in layer.strides.iter().zip(&layer.dims) {
            ok &= small(stride, i128::from(dim.as_const().unwrap_or(1)).max(1));
        }
        if !ok {
            return Err("a view with a stride or an offset that no memory has".into());
        }
    }
    Ok(())
}

/// Whether every layer of the view stays inside what is below it, the last below being a buffer of `buffer`
/// elements. What depends on symbols is checked when executed.
pub(super) fn fits(view: &View, buffer: Expr) -> Result<(), String> {
    let mut below = buffer;
    for layer in view.layers() {
        let Some(range) = reach(layer) else {
            return Ok(());
        };
        let Some(n) = below.as_const() else {
            return Ok(());
        };
        let Some((low, high)) = range else {
            return Ok(());
        };
        if low < 0 || high >= i128::from(n) {
            return Err(format!("reads elements {low} to {high} of {n}"));
        }
        below = numel(&layer.dims);
    }
    Ok(())
}

/// The lowest and highest index that a layer reads; inside, `None` when it reads nothing; outside, when it has
/// symbols.
#[allow(clippy::option_option)]
fn reach(layer: &Layer) -> Option<Option<(i128, i128)>> {
    let (mut low, mut high) = (i128::from(layer.offset.as_const()?), 0i128);
    high += low;
    let mut nothing = false;
    for axis in 0..layer.dims.len() {
        let dim = layer.dims[axis].as_const()?;
        let (first, end) = layer.range(axis);
        let (first, end) = (
            first.as_const()?.clamp(0, dim),
            end.as_const()?.clamp(0, dim),
        );
        nothing |= first >= end;
        let stride = i128::from(layer.strides[axis].as_const()?);
        let (a, b) = (stride * i128::from(first), stride * (i128::from(end) - 1));
        low += a.min(b);
        high += a.max(b);
    }
    Some((!nothing).then_some((low, high)))
}
