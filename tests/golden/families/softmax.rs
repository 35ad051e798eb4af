//! The part of torch's activations that normalises along an axis.

use brain_blitz::hl_ops::Axes;

use crate::call::Call;
use crate::outcome::Family;

/// The axis given; torch takes axis 0 of a number alone, which has none here.
fn axes(c: &Call<'_>) -> Axes {
    match c.x().rank() {
        0 => Axes::All,
        _ => Axes::List([c.int(0, "dim", 0)].into_iter().collect()),
    }
}

pub const FAMILY: Family = Family {
    ops: &[
        ("softmax", |c| c.x().softmax(axes(c)).into()),
        ("log_softmax", |c| c.x().log_softmax(axes(c)).into()),
        ("nn.functional.softmin", |c| {
            (-c.x()).softmax(axes(c)).into()
        }),
    ],
    excluded: &[],
    n_cases: 46,
    rtol: 1e-5,
};
