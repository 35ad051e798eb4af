//! Tests that need to record any op, and to look inside.

mod random;
mod rules;

use crate::array::Array;

/// Whether two arrays hold the same bits, any NaN being equal to any other. Every format fits `f64` exactly.
fn same_bits(a: &Array, b: &Array) -> bool {
    let same = |(x, y): (f64, f64)| x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
    a.dims() == b.dims()
        && a.dtype() == b.dtype()
        && a.to_f64().into_iter().zip(b.to_f64()).all(same)
}
