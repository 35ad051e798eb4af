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
