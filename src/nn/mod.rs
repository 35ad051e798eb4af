//! Layers of neural networks, one module a file, and whole models in [`models`].
//!
//! A layer is a plain struct of parameter handles: constructing it adds inputs to the graph, `forward` records ops.
//! Sizes may be known at run time or symbolic. Parameters are found by dotted name through [`Module`]; their data
//! comes from a checkpoint or from an initializer.
//!
//! A parameter may be stored in `BF16` or `F16`; layers cast to `F32` where they read it, so compilers can fold the
//! conversion into the read and the wide copy never lies in memory.
//!
//! This layer names no compiler and reads no files.

pub mod activation;
pub mod attention;
pub mod batch_norm;
pub mod binary;
pub mod binary_conv;
pub mod cfc;
pub mod conv;
pub mod dropout;
pub mod embedding;
pub mod feed_forward;
pub mod group_norm;
pub mod gru;
pub mod init;
pub mod linear;
pub mod low_bit;
pub mod lstm;
pub mod models;
pub mod module;
pub mod multi_head;
pub mod norm;
mod ops;
pub mod pool;
pub mod recurrent;
pub mod rnn;
pub mod rope;
pub mod sequential;
pub mod transformer;
pub mod transformer_layers;

pub use activation::Activation;
pub use attention::{CacheConfig, CacheType, KvCache, Mask, ScoreRule, Steps};
pub use batch_norm::BatchNorm;
pub use binary::BinaryLinear;
pub use binary_conv::BinaryConv2d;
pub use cfc::{Cfc, CfcConfig};
pub use conv::{Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d};
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use feed_forward::{GatedMlp, Mlp};
pub use group_norm::{GroupNorm, InstanceNorm};
pub use gru::Gru;
pub use init::Init;
pub use linear::Linear;
pub use low_bit::{LowBit, SignInputs};
pub use lstm::Lstm;
pub use module::{Layer, Module, Parameters, Visitor};
pub use multi_head::{AttentionConfig, MultiHeadAttention, QkNorm};
pub use norm::{LayerNorm, RmsNorm};
pub use ops::soft_cap;
pub use pool::{AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, MaxPool};
pub use recurrent::RecurrentConfig;
pub use rnn::Rnn;
pub use rope::{Rope, RopeConfig, RopePairs, RopeScaling};
pub use sequential::Sequential;
pub use transformer::TransformerBlock;
pub use transformer_layers::{
    PackedAttention, TransformerConfig, TransformerDecoder, TransformerDecoderLayer,
    TransformerEncoder, TransformerEncoderLayer,
};
