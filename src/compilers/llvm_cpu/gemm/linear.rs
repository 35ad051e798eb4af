//! Views as linear forms of their coordinates.
//!
//! Before: layers, each of which unravels the linear index of the one above into coordinates.
//! After: one sum `start + Σ steps[axis] * coordinate[axis]` for the element's index, and one for
//! each coordinate that has to lie in a range for the element not to be padding. No division is
//! left, and the sums fall apart into the contributions of batch, rows and k. Windows of a padded
//! image, for example, are two layers, and one form with two masks.
//!
//! That is exact where no coordinate of a lower layer can overflow into its neighbour, which has
//! to be provable for all values of the symbols; [`linear`] returns `None` elsewhere.

use crate::shape::{Dims, Expr, Layer, View};

/// `start + Σ steps[axis] * coordinate[axis]` over the logical axes of a view.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    /// The value where all coordinates are 0.
    pub start: Expr,
    /// What one step along each axis adds.
    pub steps: Dims,
}

/// Elements are padding unless `low <= form < high`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    /// A coordinate of some layer.
    pub form: Form,
    /// The first valid value.
    pub low: Expr,
    /// The first value that is too large.
    pub high: Expr,
}

/// A view without layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Index of the buffer's element.
    pub index: Form,
    /// All must hold.
    pub masks: Vec<Mask>,
}

/// The linear form of a view, if it provably has one.
pub fn linear(view: &View) -> Option<Linear> {
    let dims = view.dims();
    let unit = |axis: usize| Form {
        start: Expr::from(0),
        steps: (0..dims.len())
            .map(|other| Expr::from(i64::from(axis == other)))
            .collect(),
    };
    let mut coordinates: Vec<Form> = (0..dims.len()).map(unit).collect();
    let mut masks = Vec::new();
    let mut layers = view.layers().iter().rev().peekable();
    loop {
        let layer = layers.next().expect("a view has at least one layer");
        add_masks(layer, &coordinates, &mut masks);
        let index = index(layer, &coordinates, dims.len());
        match layers.peek() {
            None => return Some(Linear { index, masks }),
            Some(below) => coordinates = unravel(&index, dims, &below.dims)?,
        }
    }
}

fn add_masks(layer: &Layer, coordinates: &[Form], masks: &mut Vec<Mask>) {
    let ranges = layer.valid.iter().flatten();
    for ((form, &(low, high)), &dim) in coordinates.iter().zip(ranges).zip(&layer.dims) {
        if !low.is_zero() || high != dim {
            masks.push(Mask {
                form: form.clone(),
                low,
                high,
            });
        }
    }
}

/// The linear index of a layer's coordinates.
fn index(layer: &Layer, coordinates: &[Form], rank: usize) -> Form {
    let mut index = Form {
        start: layer.offset,
        steps: Dims::from_elem(Expr::from(0), rank),
    };
    for (form, &stride) in coordinates.iter().zip(&layer.strides) {
        index.start += form.start * stride;
        for (step, &own) in index.steps.iter_mut().zip(&form.steps) {
            *step += own * stride;
        }
    }
    index
}

/// The coordinates of a row-major linear index in `into`, where `dims` are the logical dims.
fn unravel(index: &Form, dims: &[Expr], into: &[Expr]) -> Option<Vec<Form>> {
    let mut stride = Expr::from(1);
    let mut strides = vec![stride; into.len()];
    for axis in (0..into.len()).rev() {
        strides[axis] = stride;
        stride *= into[axis];
    }
    let mut rest = index.clone();
    let mut coordinates = Vec::new();
    for (&size, stride) in into.iter().zip(strides) {
        let take = |value: &mut Expr| {
            if size.is_one() {
                return Expr::from(0);
            }
            let (quotient, remainder) = value.div_poly(stride);
            *value = remainder;
            quotient
        };
        let start = take(&mut rest.start);
        let steps = rest.steps.iter_mut().map(take).collect();
        coordinates.push(Form { start, steps });
    }
    let exact = rest.start.is_zero() && rest.steps.iter().all(|step| step.is_zero());
    let inside = coordinates
        .iter()
        .zip(into)
        .all(|(form, &size)| stays_inside(form, dims, size));
    (exact && inside).then_some(coordinates)
}

/// Whether a form is provably in `0..size` for all coordinates in `dims`.
fn stays_inside(form: &Form, dims: &[Expr], size: Expr) -> bool {
    let mut last = form.start;
    for (&step, &dim) in form.steps.iter().zip(dims) {
        last += step * (dim - 1);
    }
    form.start.is_nonnegative()
        && form.steps.iter().all(|step| step.is_nonnegative())
        && (size - 1 - last).is_nonnegative()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Symbols;

    /// Compares with the view, element by element.
    fn check(view: &View, symbols: &Symbols) -> Linear {
        let linear = linear(view).unwrap_or_else(|| panic!("no form of {view}"));
        let concrete = view.resolve(symbols).unwrap();
        let number = |expr: Expr| expr.eval(symbols).unwrap();
        let dims = concrete.dims().to_vec();
        concrete.for_each_index(|at, expected| {
            let mut rest = at;
            let mut coordinate = vec![0i64; dims.len()];
            for axis in (0..dims.len()).rev() {
                coordinate[axis] = (rest % dims[axis]) as i64;
                rest /= dims[axis];
            }
            let value = |form: &Form| {
                let steps = form.steps.iter().zip(&coordinate);
                number(form.start) + steps.map(|(&s, c)| number(s) * c).sum::<i64>()
            };
            let valid = |m: &Mask| (number(m.low)..number(m.high)).contains(&value(&m.form));
            let got = linear
                .masks
                .iter()
                .all(valid)
                .then(|| value(&linear.index) as usize);
            assert_eq!(got, expected, "{view} at {coordinate:?}");
        });
        linear
    }

    fn windows(height: Expr, step: i64, padding: i64) -> View {
        let image = View::contiguous((2, 3, height, 7));
        let image = image
            .pad(2, padding, padding)
            .unwrap()
            .pad(3, padding, padding)
            .unwrap();
        image
            .unfold(2, 3, step, 1)
            .unwrap()
            .unfold(3, 3, step, 1)
            .unwrap()
    }

    #[test]
    fn windows_of_padded_images_are_linear() {
        for step in [1, 2, 3] {
            let linear = check(&windows(9.into(), step, 1), &Symbols::new());
            assert_eq!(linear.masks.len(), 2);
            assert!(
                check(&windows(9.into(), step, 0), &Symbols::new())
                    .masks
                    .is_empty()
            );
        }
    }

    #[test]
    fn symbolic_sizes_are_linear_too() {
        for height in [3, 4, 9] {
            let symbols = [('h', height)].into_iter().collect();
            assert_eq!(check(&windows('h'.into(), 1, 1), &symbols).masks.len(), 2);
        }
    }

    #[test]
    fn one_layer_is_its_own_form() {
        let view = View::contiguous((4, 5))
            .pad(0, 1, 2)
            .unwrap()
            .permute(&[1, 0])
            .unwrap();
        check(&view, &Symbols::new());
        check(&view.flip(1).unwrap(), &Symbols::new());
        check(&View::contiguous(()), &Symbols::new());
    }

    #[test]
    fn a_reshape_that_overflows_is_not_linear() {
        let view = View::contiguous((4, 5)).permute(&[1, 0]).unwrap();
        let view = view.reshape((2, 10)).unwrap();
        assert!(view.layers().len() > 1);
        assert_eq!(linear(&view), None);
    }
}
