//! One table for each family of ops.

pub mod activation;
pub mod binary_math;
pub mod compare_logic;
pub mod conv_pool;
pub mod creation;
pub mod index;
pub mod linalg;
pub mod loss;
pub mod nn;
pub mod norm_attn;
pub mod reduction;
pub mod shape;
pub mod softmax;
pub mod unary_math;

use crate::outcome::{Build, Family};

/// All tables, each with the family that its cases have in the files.
#[allow(
    dead_code,
    reason = "not every test that includes this one looks ops up"
)]
const ALL: &[(&str, &Family)] = &[
    ("activation", &activation::FAMILY),
    ("binary_math", &binary_math::FAMILY),
    ("compare_logic", &compare_logic::FAMILY),
    ("conv_pool", &conv_pool::FAMILY),
    ("creation", &creation::FAMILY),
    ("index", &index::FAMILY),
    ("linalg", &linalg::FAMILY),
    ("loss", &loss::FAMILY),
    ("nn", &nn::FAMILY),
    ("norm_attn", &norm_attn::FAMILY),
    ("reduction", &reduction::FAMILY),
    ("shape", &shape::FAMILY),
    ("activation", &softmax::FAMILY),
    ("unary_math", &unary_math::FAMILY),
];

/// The mapping of an op: that of its family, or of any other that has it.
#[allow(
    dead_code,
    reason = "not every test that includes this one looks ops up"
)]
pub fn find(family: &str, op: &str) -> Option<(&'static Family, Build)> {
    let own = ALL.iter().filter(|(name, _)| *name == family);
    let others = ALL.iter().filter(|(name, _)| *name != family);
    let mut found = own.chain(others);
    found.find_map(|(_, table)| Some((*table, table.build(op)?)))
}
