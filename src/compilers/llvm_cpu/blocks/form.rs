//! Forms of blocks: what kernels have to know of a type, and how its weights lie in panels.
//!
//! A number of a block is `s (u - offset) + m`: `u` has a few bits, `s` is an `f16` of the block, times a small integer of
//! its own for every group of 32 numbers or half of one where the type has such; so is `m`, where there is one.
//!
//! A *panel* has [`COLUMNS`] rows of weights, one per lane. The panels of a matrix lie in three regions one after the other,
//! so that every vector is aligned, and each region is read from its beginning to its end.
//!
//! | region | for each panel and | bytes |
//! |---|---|---|
//! | numbers | group of 32, plane | `[bits][16 columns][4] u8` |
//! | factors | group (half) | `[16 columns] i8` of `s`, then of `m` |
//! | scales | block | `[16 columns] f16` of `s`, then of `m` |
//!
//! The 32 numbers of a group are eight *fours* of neighbours. A plane of `b` bits has `b` vectors of 32-bit lanes; four `p`
//! lies in vector `p % b`, each of its bytes `p / b * b` bits up. Where a bit is all there is ([`Form::is_signs`]), the bytes of
//! all columns lie next to each other instead, `[4][16 columns] u8`, for [`lookup`](super::lookup) has bytes as lanes.

use crate::blocks::BlockType;
use crate::compilers::llvm_cpu::target::Target;
use crate::op::ActivationScheme;

/// Numbers in a group of activations.
pub const GROUP: usize = 32;

/// Rows of weights in a panel.
pub const COLUMNS: usize = 16;

/// What has integer factors of its own beside the block's scale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Factors {
    /// Nothing.
    None,
    /// Every group.
    Groups,
    /// Every half of a group.
    Halves,
}

/// Some bits of every number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plane {
    /// How many: 1, 2, 4 or 8.
    pub bits: usize,
    /// Which bit of the number the lowest of them is.
    pub at: usize,
}

/// What kernels have to know of a type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    /// Groups of 32 in a block.
    pub groups: usize,
    /// The numbers' bits.
    pub planes: &'static [Plane],
    /// What is subtracted from numbers.
    pub offset: i32,
    /// What has integer factors.
    pub factors: Factors,
    /// Whether there is an `m`.
    pub has_min: bool,
}

const ONE: &[Plane] = &[Plane { bits: 1, at: 1 }];
const TWO: &[Plane] = &[Plane { bits: 2, at: 0 }];
const THREE: &[Plane] = &[Plane { bits: 2, at: 0 }, Plane { bits: 1, at: 2 }];
const FOUR: &[Plane] = &[Plane { bits: 4, at: 0 }];
const FIVE: &[Plane] = &[Plane { bits: 4, at: 0 }, Plane { bits: 1, at: 4 }];
const SIX: &[Plane] = &[Plane { bits: 4, at: 0 }, Plane { bits: 2, at: 4 }];
const EIGHT: &[Plane] = &[Plane { bits: 8, at: 0 }];

impl Form {
    /// A type's form, if it has kernels.
    pub fn of(ty: BlockType) -> Option<Form> {
        use BlockType as T;
        use Factors::{Groups, Halves, None as Plain};
        let form = |groups, planes, offset, factors, has_min| Form {
            groups,
            planes,
            offset,
            factors,
            has_min,
        };
        Some(match ty {
            // A bit is worth 2, less 1.
            T::Q1_0 => form(4, ONE, 1, Plain, false),
            T::Q2_0 => form(2, TWO, 1, Plain, false),
            T::TQ1_0 | T::TQ2_0 => form(8, TWO, 1, Plain, false),
            T::Q4_0 => form(1, FOUR, 8, Plain, false),
            T::Q4_1 => form(1, FOUR, 0, Plain, true),
            T::Q5_0 => form(1, FIVE, 16, Plain, false),
            T::Q5_1 => form(1, FIVE, 0, Plain, true),
            T::Q8_0 | T::IQ4_NL => form(1, EIGHT, 128, Plain, false),
            T::Q2_K => form(8, TWO, 0, Halves, true),
            T::Q3_K => form(8, THREE, 4, Halves, false),
            T::Q4_K => form(8, FOUR, 0, Groups, true),
            T::Q5_K => form(8, FIVE, 0, Groups, true),
            T::Q6_K => form(8, SIX, 32, Halves, false),
            _ => return None,
        })
    }

    /// The largest number, its offset not subtracted.
    pub fn largest(&self) -> i32 {
        let bits = |plane: &Plane| ((1 << plane.bits) - 1) << plane.at;
        self.planes.iter().map(bits).sum()
    }

    /// Fours whose sums are scaled together.
    pub fn unit(&self) -> usize {
        match self.factors {
            Factors::Halves => 4,
            _ => 8,
        }
    }

    /// Whether numbers have one bit and a scale for each block, nothing else.
    pub fn is_signs(&self) -> bool {
        self.planes == ONE && self.is_plain()
    }

    /// Whether the four of a group that somebody asks for while a kernel runs is a vector of its own.
    pub fn has_whole_fours(&self) -> bool {
        self.planes == EIGHT && self.groups == 1 && self.is_plain()
    }

    /// Whether numbers have nothing but a scale for each block.
    fn is_plain(&self) -> bool {
        self.factors == Factors::None && !self.has_min
    }

    /// Groups of which products are added up as whole numbers: all of a block, if activations have one scale there.
    pub fn summed(&self, scheme: ActivationScheme) -> usize {
        let block = self.groups * GROUP;
        match self.is_plain() && scheme.group(block).is_multiple_of(block) {
            true => self.groups,
            false => 1,
        }
    }

    /// Bytes of the numbers of a group, for all columns.
    pub fn number_bytes(&self) -> usize {
        let bits: usize = self.planes.iter().map(|plane| plane.bits).sum();
        bits * 4 * COLUMNS
    }

    /// Vectors of factors of a group: of scales, then as many of minima.
    pub fn n_factors(&self) -> usize {
        let each = match self.factors {
            Factors::None => 0,
            Factors::Groups => 1,
            Factors::Halves => 2,
        };
        each * self.n_scales()
    }

    /// Vectors of scales of a block.
    pub fn n_scales(&self) -> usize {
        1 + usize::from(self.has_min)
    }

    /// Bytes of a panel of `blocks` blocks in each region.
    pub fn panel_bytes(&self, blocks: usize) -> [usize; 3] {
        let groups = blocks * self.groups;
        [
            groups * self.number_bytes(),
            groups * self.n_factors() * COLUMNS,
            blocks * self.n_scales() * 2 * COLUMNS,
        ]
    }
}

/// How whole numbers are multiplied.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dots {
    /// `vpdpbusd`: four products of an unsigned and a signed byte, added to an `i32`.
    Vnni,
    /// `vpmaddubsw`: sums of two such products in `i16`, added up as long as they fit, then `vpmaddwd`.
    Pairs,
    /// `vpmaddwd`: both as words, for bytes that use all bits, of which `i16` holds no sum of two products; an `i32` holds those
    /// of a group even if all its activations were outliers, `32 * 255 * 16319`.
    Words,
    /// Whatever LLVM makes of widening, multiplying and adding.
    Plain,
}

impl Dots {
    /// What a target multiplies numbers of a form with.
    pub fn of(target: &Target, form: &Form) -> Dots {
        let has_vnni = target.has("avx512vnni") && target.has("avx512vl") || target.has("avxvnni");
        match target.lanes() >= 8 {
            true if has_vnni => Dots::Vnni,
            true if form.largest() == 255 => Dots::Words,
            true => Dots::Pairs,
            false => Dots::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_take_hardly_more_than_rows() {
        for ty in BlockType::all() {
            let Some(form) = Form::of(ty) else { continue };
            assert_eq!(form.groups * GROUP, ty.block_len(), "{ty}");
            let rows = COLUMNS * 9 * ty.block_bytes();
            let panel: usize = form.panel_bytes(9).iter().sum();
            // Trits in two bits each, factors of four bits and levels of a table in eight.
            let most = match ty {
                BlockType::TQ1_0 => 1.25,
                BlockType::Q2_K => 1.2,
                BlockType::IQ4_NL => 1.9,
                _ => 1.05,
            };
            assert!(panel >= rows && panel as f64 <= most * rows as f64, "{ty}");
        }
    }
}
