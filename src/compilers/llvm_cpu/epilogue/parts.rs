//! A kernel of products and a map, taken apart.
//!
//! A kernel's steps are a flat list. [`parts_of`] finds the sums of products in it and makes a kernel of each, and one
//! of the rest, which reads them. The rest becomes a map over the points of the product in the product's order:
//!
//! ```text
//! rest:  result[d] = f(product[V d], bias[B d], ...)      V: one element of the product for each d
//! tile:  result[V' p] = f(product[p], bias[B V' p], ...)  p: batch, m, n;  V' the inverse of V
//! ```

use crate::compilers::llvm_cpu::attention::{From, Part, extract, is_row_major, sum_of_products};
use crate::compilers::llvm_cpu::contraction::contraction_of;
use crate::compilers::llvm_cpu::fusion::reduces;
use crate::compilers::llvm_cpu::gemm::ir::Contraction;
use crate::compilers::llvm_cpu::gemm::tiled::MOST;
use crate::compilers::llvm_cpu::ir::{Nest, Scalar};
use crate::compilers::llvm_cpu::lower::tile::{TileNest, can_lower};
use crate::compilers::llvm_cpu::nest::nest_of;
use crate::compilers::llvm_cpu::windows::Windows;
use crate::op::Kernel;
use crate::shape::{Dims, Expr, View, numel, same_size};

/// A kernel of products and what is made of them.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The products, equal but for their operands.
    pub products: Vec<Part>,
    /// Each of them as a matrix product.
    pub product: Contraction,
    /// What reads them; its operands from parts are the products in order.
    pub rest: Part,
    /// The same as loops.
    pub nest: Nest,
    /// The same over the points of the product.
    pub tile: TileNest,
}

/// Takes a kernel apart; `None` if it is not of this form.
pub fn parts_of(kernel: &Kernel) -> Option<Parts> {
    let steps = &kernel.steps;
    let sums: Vec<usize> = (0..steps.len())
        .filter(|&at| reduces(&steps[at].op))
        .collect();
    let last = steps.len() - 1;
    let is_sum = |&at: &usize| at != last && sum_of_products(kernel, at).is_some();
    if sums.is_empty() || sums.len() > MOST || !sums.iter().all(is_sum) {
        return None;
    }
    let products: Vec<Part> = sums.iter().map(|&at| extract(kernel, at, &[])).collect();
    let alike = |part: &Part| part.kernel == products[0].kernel;
    let product = contraction_of(&products[0].kernel).filter(is_row_major)?;
    if Windows::ready(&product).is_some() || !products.iter().all(alike) {
        return None;
    }
    let rest = extract(kernel, last, &sums);
    let nest = nest_of(&rest.kernel).ok()?;
    let of_products = |(input, from): (usize, &From)| (*from == From::Part).then_some(input);
    let tiles: Vec<usize> = rest
        .operands
        .iter()
        .enumerate()
        .filter_map(of_products)
        .collect();
    let tile = tile_of(&nest, &product, tiles)?;
    let complete = tile.tiles.len() == products.len() && can_lower(&tile);
    complete.then_some(Parts {
        products,
        product,
        rest,
        nest,
        tile,
    })
}

/// A map over its result's points as one over the points of a product, which some of its inputs are.
fn tile_of(nest: &Nest, product: &Contraction, tiles: Vec<usize>) -> Option<TileNest> {
    let mut loads = nest.body.iter().filter_map(|node| match node {
        Scalar::Load(access) => Some(&nest.loads[*access]),
        _ => None,
    });
    let seen = loads.clone().find(|load| tiles.contains(&load.input))?;
    let same = loads.all(|load| !tiles.contains(&load.input) || load.view == seen.view);
    let gathers = |node: &Scalar| matches!(node, Scalar::Gather { .. });
    if !same || nest.body.iter().any(gathers) {
        return None;
    }
    let (out, n_rows) = inverse(&seen.view, &nest.space, product)?;
    let mut moved = nest.clone();
    for access in &mut moved.loads {
        access.view = access.view.compose(&out);
    }
    moved.space = out.dims().iter().copied().collect();
    Some(TileNest {
        nest: moved,
        n_rows,
        tiles,
        out,
    })
}

/// The elements of a result of dims `result`, which sees a product through `view`, in the order of the product; `None`
/// if it does not see every element once. With it, how many of the view's dims are of rows.
fn inverse(view: &View, result: &Dims, product: &Contraction) -> Option<(View, usize)> {
    let rows: Dims = product.batch.iter().chain(&product.m).copied().collect();
    let all: Dims = rows.iter().chain(&product.n).copied().collect();
    let layer = view.single()?;
    let known = layer.valid.is_none()
        && layer.offset.is_zero()
        && *view.dims() == result[..]
        && same_size(numel(result), numel(&all));
    if !known {
        return None;
    }
    // From the innermost axis of the product outwards; axes of size one may be anywhere.
    let mut order: Vec<usize> = Vec::new();
    let mut stride = Expr::from(1);
    let axes = (0..result.len()).rev();
    let (ones, mut left): (Vec<usize>, Vec<usize>) = axes.partition(|&axis| result[axis].is_one());
    while !left.is_empty() {
        let next = left
            .iter()
            .position(|&axis| layer.strides[axis] == stride)?;
        let axis = left.remove(next);
        order.push(axis);
        stride *= result[axis];
    }
    order.extend(ones);
    order.reverse();
    let inverse = View::contiguous(result.clone()).permute(&order).ok()?;
    // The result's dims, if rows and columns can be told apart in them, else the product's.
    let columns = numel(&product.n);
    let dims = inverse.dims();
    if let Some(n_rows) = (0..dims.len()).find(|&at| numel(&dims[at..]) == columns) {
        return Some((inverse, n_rows));
    }
    let inverse = inverse.reshape(all).ok()?;
    inverse.single().is_some().then_some((inverse, rows.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::compilers::llvm_cpu::ir::Access;
    use crate::dtype::DType;

    fn dims(sizes: &[i64]) -> Dims {
        sizes.iter().map(|&size| Expr::from(size)).collect()
    }

    /// A product with rows and columns of these dims, of which only the sizes matter.
    fn product(m: &[i64], n: &[i64]) -> Contraction {
        let access = Access {
            input: 0,
            dtype: DType::F32,
            view: View::contiguous(dims(&[])),
        };
        Contraction {
            batch: dims(&[]),
            m: dims(m),
            n: dims(n),
            k: dims(&[1]),
            lhs: access.clone(),
            rhs: access,
            out_strides: dims(&[]),
            dtype: DType::F32,
        }
    }

    #[test]
    fn a_view_through_its_inverse_is_the_product() {
        let view = View::contiguous(dims(&[2, 3, 4])).permute(&[1, 0, 2]);
        let (view, result) = (view.expect("a permutation"), dims(&[3, 2, 4]));
        for (m, n, n_rows) in [
            (&[2, 3][..], &[4][..], 2),
            (&[6], &[4], 2),
            (&[2], &[12], 1),
        ] {
            let (there, found) = inverse(&view, &result, &product(m, n)).expect("a bijection");
            assert!(!there.is_contiguous(), "{there}");
            assert!(view.compose(&there).is_identity(24.into()), "{there}");
            assert_eq!(found, n_rows, "{m:?} {n:?}");
        }
        // A row of six ends within a row of the result.
        assert_eq!(inverse(&view, &result, &product(&[4], &[6])), None);
    }

    #[test]
    fn a_flat_result_is_seen_in_rows() {
        let flat = View::contiguous(dims(&[24]));
        let (there, n_rows) =
            inverse(&flat, &dims(&[24]), &product(&[4], &[6])).expect("all of it");
        assert_eq!((there.dims(), n_rows), (&dims(&[4, 6])[..], 1));
    }

    #[test]
    fn broadcasts_windows_and_parts_have_no_inverse() {
        let whole = View::contiguous(dims(&[2, 4]));
        let of = |view: &View, result: &[i64]| inverse(view, &dims(result), &product(&[2], &[4]));
        assert!(of(&whole, &[2, 4]).is_some());
        let wide = whole.insert(0, 3).expect("an axis");
        assert_eq!(of(&wide, &[3, 2, 4]), None);
        let part = whole.slice(1, 1, 4, 1).expect("a part");
        assert_eq!(of(&part, &[2, 3]), None);
        let flipped = whole.flip(1).expect("an axis");
        assert_eq!(of(&flipped, &[2, 4]), None);
    }
}
