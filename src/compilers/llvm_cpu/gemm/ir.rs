//! What a matrix product is, independent of how it is computed.
//!
//! `out[batch, m, n] = Σ_k lhs[batch, m, k] * rhs[batch, n, k]`, where each of batch, m, n and k
//! stands for any number of dims (also none), the operands are views, so that transposes,
//! broadcasts, windows and padding need no copy, and the output has any strides.
//!
//! Each output element is `fma(lhs, rhs, sum)` over k in row-major order, in f32, from zero.

use std::fmt::{self, Write};

use super::stored::{Stored, unit};
use crate::compilers::llvm_cpu::ir::Access;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::{Dims, Expr, same_size};

/// A matrix product over views.
#[derive(Clone, Debug, PartialEq)]
pub struct Contraction {
    /// Dims both operands have and the output keeps.
    pub batch: Dims,
    /// Dims of the left operand that the output keeps.
    pub m: Dims,
    /// Dims of the right operand that the output keeps.
    pub n: Dims,
    /// Dims both operands have and the sum removes.
    pub k: Dims,
    /// The left operand; its view's dims are `batch ++ m ++ k`.
    pub lhs: Access,
    /// The right operand; its view's dims are `batch ++ n ++ k`. Of `U8` it is blocks whose numbers the view counts
    /// ([`Stored`]).
    pub rhs: Access,
    /// Distance of neighbours in the output buffer, in elements, for each of `batch ++ m ++ n`.
    pub out_strides: Dims,
    /// What the output's elements are; only `F32` can be compiled.
    pub dtype: DType,
}

impl Contraction {
    /// Checks ranks, sizes and dtypes.
    ///
    /// # Errors
    /// A view whose dims are not what the fields say, or a dtype there is no kernel for.
    pub fn check(&self) -> Result<()> {
        let fail = |what: String| {
            Err(Error::Message(format!(
                "cannot lower a matrix product: {what}"
            )))
        };
        for (name, access, kept) in [("lhs", &self.lhs, &self.m), ("rhs", &self.rhs, &self.n)] {
            let expected = self.batch.iter().chain(kept).chain(&self.k);
            let dims = access.view.dims();
            if dims.len() != expected.clone().count()
                || !expected.zip(dims).all(|(&a, &b)| same_size(a, b))
            {
                return fail(format!(
                    "{name} is {}, which is not batch, kept, k",
                    access.view
                ));
            }
            match Stored::of(access) {
                Stored::Number(DType::F32 | DType::F16 | DType::BF16) => {}
                Stored::Number(other) => return fail(format!("{name} is of {}", other.name())),
                Stored::Q8_0 if name == "rhs" => {
                    let unit = unit(access, &self.batch, kept, &self.k);
                    if unit.is_none() {
                        return fail(format!("blocks seen through {}", access.view));
                    }
                }
                Stored::Q8_0 => return fail("the left operand is in blocks".into()),
            }
        }
        if self.dtype != DType::F32 {
            return fail(format!("the output is of {}", self.dtype.name()));
        }
        if self.out_strides.len() != self.batch.len() + self.m.len() + self.n.len() {
            return fail("the output needs one stride for each of batch, m, n".into());
        }
        Ok(())
    }

    /// Whether the right operand is in blocks.
    pub fn reads_blocks(&self) -> bool {
        Stored::of(&self.rhs) == Stored::Q8_0
    }

    /// The same product with the operands exchanged: useful where the output is contiguous along m
    /// but not along n, or where it is the left operand that is constant.
    pub fn swapped(&self) -> Contraction {
        let (batch, m) = (self.batch.len(), self.m.len());
        let mut out_strides: Dims = self.out_strides[..batch].iter().copied().collect();
        out_strides.extend_from_slice(&self.out_strides[batch + m..]);
        out_strides.extend_from_slice(&self.out_strides[batch..batch + m]);
        Contraction {
            batch: self.batch.clone(),
            m: self.n.clone(),
            n: self.m.clone(),
            k: self.k.clone(),
            lhs: self.rhs.clone(),
            rhs: self.lhs.clone(),
            out_strides,
            dtype: self.dtype,
        }
    }
}

impl fmt::Display for Contraction {
    /// `f32[2 | 3 | 4 | 5] = lhs 0 f32 ..., rhs 1 bf16 ...`: equal text, equal code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |dims: &Dims| {
            let mut text = String::new();
            for (index, dim) in dims.iter().enumerate() {
                let comma = if index > 0 { ", " } else { "" };
                write!(text, "{comma}{dim}").expect("writing to a string");
            }
            text
        };
        let [batch, m, n, k] = [&self.batch, &self.m, &self.n, &self.k].map(list);
        write!(
            f,
            "{}[{batch} | {m} | {n} | {k}] * ({})",
            self.dtype.name(),
            list(&self.out_strides)
        )?;
        for (name, access) in [("lhs", &self.lhs), ("rhs", &self.rhs)] {
            write!(
                f,
                ", {name} {} {} {}",
                access.input,
                access.dtype.name(),
                access.view
            )?;
        }
        Ok(())
    }
}

/// A dim and the distance between its neighbours.
pub type Step = (Expr, Expr);

/// Merges neighbouring dims that are walked as one, and drops those of size 1.
///
/// The result addresses the same elements by the same row-major linear index; no entries mean that
/// the index is always 0.
pub fn collapse(dims: &[Expr], strides: &[Expr]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (&dim, &stride) in dims.iter().zip(strides).filter(|(dim, _)| !dim.is_one()) {
        match steps.last_mut() {
            Some((size, outer)) if *outer == stride * dim => {
                (*size, *outer) = (*size * dim, stride);
            }
            _ => steps.push((dim, stride)),
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(list: &[(i64, i64)]) -> Vec<Step> {
        list.iter()
            .map(|&(dim, stride)| (dim.into(), stride.into()))
            .collect()
    }

    fn collapsed(list: &[(i64, i64)]) -> Vec<Step> {
        let (dims, strides): (Vec<Expr>, Vec<Expr>) = steps(list).into_iter().unzip();
        collapse(&dims, &strides)
    }

    #[test]
    fn dims_walked_as_one_are_merged() {
        assert_eq!(collapsed(&[(2, 12), (3, 4), (4, 1)]), steps(&[(24, 1)]));
        assert_eq!(
            collapsed(&[(2, 24), (3, 4), (4, 1)]),
            steps(&[(2, 24), (12, 1)])
        );
        assert_eq!(collapsed(&[(2, 12), (1, 99), (3, 4)]), steps(&[(6, 4)]));
        assert_eq!(collapsed(&[(3, 1), (4, 3)]), steps(&[(3, 1), (4, 3)]));
        assert_eq!(collapsed(&[(3, 0), (4, 0)]), steps(&[(12, 0)]));
        assert_eq!(collapsed(&[(1, 5), (1, 7)]), []);
    }

    #[test]
    fn symbolic_dims_merge_too() {
        let (s, p) = (Expr::from('s'), Expr::from('p'));
        let merged = collapse(&[s, p, 8.into()], &[p * 8, 8.into(), 1.into()]);
        assert_eq!(merged, [(s * p * 8, 1.into())]);
    }
}
