//! Scaled dot-product attention with grouped key heads, and the key-value cache.
//!
//! Query head `h` of `n` reads key head `h / (n / n_kv)`. Keys are not repeated in memory: query heads of one group are
//! an axis of their own, along which keys and values are broadcast views.
//!
//! A cache may keep its rows in 16 bits, or in blocks of 8. New rows are rounded when they are written, and every query, those of
//! the same step too, reads the rounded ones: what a step gives does not depend on how the rows before it came into the cache.
//! Products read them where they are, without a copy in `F32`, and sum in `F32`.
//!
//! Blocks are those of ggml's Q8_0: 32 numbers along a head with a scale, rounded as ggml does. A head whose width is no
//! multiple of 32 has zeros behind it.
//!
//! Deliberately absent: caches of fewer bits, and caches that forget rows outside of a window.

use super::ops;
use crate::blocks::BlockType;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, GraphTensor};
use crate::shape::Expr;

/// Which keys a query sees. Query `i` of a step stands at position `start + i`.
#[derive(Clone, Copy, Debug)]
pub enum Mask {
    /// All of them.
    None,
    /// Those at its own position and before.
    Causal,
    /// The last so many at its own position and before.
    SlidingWindow(usize),
    /// Those that a tensor says, which broadcasts to `[.., heads, s, t]`: booleans that are true for keys that are seen, or
    /// numbers that are added to the scores (-inf hides a key).
    Given(GraphTensor),
}

/// The rows of one step in a sequence: `rows` new ones after `start` that came before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Steps {
    /// Position of the first new row.
    pub start: Expr,
    /// Number of new rows.
    pub rows: Expr,
}

impl Steps {
    /// Position after the last new row: the length of the sequence.
    pub fn end(&self) -> Expr {
        self.start + self.rows
    }
}

/// What happens between the products of queries with keys and the weights on the values.
#[derive(Clone, Copy, Debug)]
pub struct ScoreRule {
    /// Factor of the products.
    pub scale: f64,
    /// `cap * tanh(score / cap)`, after scaling.
    pub soft_cap: Option<f64>,
    /// Which scores count.
    pub mask: Mask,
}

impl ScoreRule {
    /// Scaled by `1 / sqrt(width)`, not capped, all keys seen (Vaswani et al. 2017).
    pub fn scaled(width: usize) -> ScoreRule {
        ScoreRule {
            scale: 1.0 / (width as f64).sqrt(),
            soft_cap: None,
            mask: Mask::None,
        }
    }

    /// Attention of queries `[.., heads, s, d]` over keys and values `[.., kv_heads, t, d]`, which stand at positions
    /// `0..t`; `start` is the first query's position. Gives `[.., heads, s, d]`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{Mask, ScoreRule};
    /// let mut cx = Graph::new();
    /// let q = cx.input((1, 2, 1), DType::F32).set([[[0.0], [0.0]]]);
    /// let v = cx.input((1, 2, 1), DType::F32).set([[[1.0], [3.0]]]);
    /// let rule = ScoreRule { scale: 1.0, soft_cap: None, mask: Mask::Causal };
    /// let y = rule.attend(q, q, v, 0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If `kv_heads` does not divide `heads`, or shapes do not fit.
    #[track_caller]
    pub fn attend(
        &self,
        queries: GraphTensor,
        keys: GraphTensor,
        values: GraphTensor,
        start: impl Into<Expr>,
    ) -> GraphTensor {
        let dims = queries.dims();
        let head_axis = dims.len() - 3;
        let (heads, kv_heads) = (dims[head_axis], keys.dims()[head_axis]);
        let group = heads.floor_div(kv_heads);
        let grouped = |x: GraphTensor| {
            let mut dims = x.dims();
            let axis = dims.len() - 3;
            dims[axis] = group;
            dims.insert(axis, kv_heads);
            x.reshape(dims)
        };
        let queries = grouped(queries); // [.., kv, group, s, d]
        let (keys, values) = (keys.unsqueeze(-3), values.unsqueeze(-3)); // [.., kv, 1, t, d]

        let scores = queries.matmul(keys.transpose(-1, -2)) * self.scale;
        let scores = match self.soft_cap {
            Some(cap) => ops::soft_cap(scores, cap),
            None => scores,
        };
        let scores = match self.mask {
            Mask::Given(mask) if mask.rank() < 3 => mask_scores(scores, mask),
            Mask::Given(mask) if mask.dims()[mask.rank() - 3].is_one() => {
                mask_scores(scores, mask.unsqueeze(-3))
            }
            Mask::Given(mask) => mask_scores(scores, grouped(mask)),
            _ => self.hide_by_position(scores, start.into()),
        };
        let out = scores.softmax(-1).matmul(values);
        let width = out.dims()[out.rank() - 1];
        let mut dims = dims;
        let last = dims.len() - 1;
        dims[last] = width;
        out.reshape(dims)
    }

    /// Scores `[.., s, t]` with -inf where a key's position is not seen from a query's.
    #[track_caller]
    fn hide_by_position(&self, scores: GraphTensor, start: Expr) -> GraphTensor {
        let dims = scores.dims();
        let (s, t) = (dims[dims.len() - 2], dims[dims.len() - 1]);
        let query = ops::iota(scores, s) + GraphTensor::size(scores.graph, start);
        let (query, key) = (query.unsqueeze(1), ops::iota(scores, t));
        let causal = || key.lt(query + 1);
        match self.mask {
            Mask::Causal => mask_scores(scores, causal()),
            Mask::SlidingWindow(n) => mask_scores(scores, causal() & query.lt(key + n)),
            Mask::None | Mask::Given(_) => scores,
        }
    }
}

/// Scores with -inf where `mask` is false, or with the numbers of `mask` added.
#[track_caller]
fn mask_scores(scores: GraphTensor, mask: GraphTensor) -> GraphTensor {
    match mask.dtype() {
        DType::Bool => mask.where_(scores, f32::NEG_INFINITY),
        _ => scores + mask,
    }
}

/// The number format that a [`KvCache`] keeps its rows in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum CacheType {
    /// Rows as they were computed.
    #[default]
    F32,
    /// Half the memory, numbers rounded to 11 bits; beyond 65504 they become infinite.
    F16,
    /// Half the memory, numbers rounded to 8 bits, of any size.
    BF16,
    /// About a quarter of the memory: whole numbers of 8 bits, 32 with a scale in `F16`. What is not finite, or beyond 8
    /// million, cannot be kept: executing fails.
    Q8_0,
}

impl CacheType {
    /// All types, in declaration order.
    pub const ALL: [CacheType; 4] = [
        CacheType::F32,
        CacheType::F16,
        CacheType::BF16,
        CacheType::Q8_0,
    ];

    /// `f32`, `f16`, `bf16`, `q8_0`.
    pub const fn name(self) -> &'static str {
        match self {
            CacheType::Q8_0 => "q8_0",
            _ => self.dtype().name(),
        }
    }

    /// The format of what is kept: of blocks, bytes.
    pub const fn dtype(self) -> DType {
        match self {
            CacheType::F32 => DType::F32,
            CacheType::F16 => DType::F16,
            CacheType::BF16 => DType::BF16,
            CacheType::Q8_0 => DType::U8,
        }
    }

    /// Bytes of a row of `width` numbers.
    pub fn row_bytes(self, width: usize) -> usize {
        self.row_len(width) * self.dtype().size()
    }

    /// Elements of a row of `width` numbers.
    fn row_len(self, width: usize) -> usize {
        self.blocks().map_or(width, |ty| {
            width.div_ceil(ty.block_len()) * ty.block_bytes()
        })
    }

    /// The type of its blocks.
    fn blocks(self) -> Option<BlockType> {
        (self == CacheType::Q8_0).then_some(BlockType::Q8_0)
    }
}

impl std::fmt::Display for CacheType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for CacheType {
    type Err = Error;

    fn from_str(text: &str) -> Result<CacheType> {
        let named = |ty: &CacheType| ty.name() == text;
        CacheType::ALL.into_iter().find(named).ok_or_else(|| {
            let names = CacheType::ALL.map(CacheType::name).join(", ");
            Error::msg(format!("types of caches are {names}"))
        })
    }
}

/// How many positions a [`KvCache`] has room for, and in which format. A number stands for as many in `F32`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheConfig {
    /// The most positions.
    pub capacity: usize,
    /// The format of its rows.
    pub ty: CacheType,
}

impl From<usize> for CacheConfig {
    fn from(capacity: usize) -> CacheConfig {
        CacheConfig {
            capacity,
            ty: CacheType::default(),
        }
    }
}

/// Keys and values of the positions so far, kept in the graph's state from one execution to the next.
#[derive(Clone, Copy, Debug)]
pub struct KvCache {
    /// `[kv_heads, capacity, d]`, or rows of blocks.
    keys: GraphTensor,
    /// The same.
    values: GraphTensor,
    ty: CacheType,
}

impl KvCache {
    /// An empty cache.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{CacheConfig, CacheType, KvCache, Steps};
    /// let mut cx = Graph::new();
    /// let config = CacheConfig { capacity: 4, ty: CacheType::F16 };
    /// let cache = KvCache::new(&mut cx, 1, config, 2);
    /// let rows = cx.input((1, 's', 2), DType::F32);
    /// let steps = Steps { start: 'p'.into(), rows: 's'.into() };
    /// let (keys, _) = cache.append(rows, rows, steps);
    /// keys.retrieve();
    /// for (p, row) in [[1.0, 2.0], [0.5, 1.0001]].into_iter().enumerate() {
    ///     rows.set(row.to_vec());
    ///     cx.set_dim('p', p);
    ///     cx.set_dim('s', 1);
    ///     cx.execute();
    /// }
    /// assert_eq!(keys.data(), [1.0, 2.0, 0.5, 1.0], "rounded, and in F32 again");
    /// ```
    #[track_caller]
    pub fn new(
        cx: &mut Graph,
        kv_heads: usize,
        config: impl Into<CacheConfig>,
        width: usize,
    ) -> KvCache {
        let CacheConfig { capacity, ty } = config.into();
        let mut cache = |name| {
            let input = cx.input((kv_heads, capacity, ty.row_len(width)), ty.dtype());
            input.set_zeros().set_name(name)
        };
        KvCache {
            keys: cache("key_cache"),
            values: cache("value_cache"),
            ty,
        }
    }

    /// Writes the new rows `F32 [kv_heads, s, d]` at their positions and gives all rows so far, `F32 [kv_heads, end, d]`,
    /// as the cache has them. Only the new rows are written to memory. To be called once for a cache: it defines the
    /// graph's next state.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn append(
        &self,
        keys: GraphTensor,
        values: GraphTensor,
        steps: Steps,
    ) -> (GraphTensor, GraphTensor) {
        let dims = keys.dims();
        let (heads, rows, width) = (dims[0], dims[1], dims[2]);
        let index = ops::iota(keys, rows) + GraphTensor::size(keys.graph, steps.start);
        let write = |state: GraphTensor, rows: GraphTensor| {
            let index = index.insert_axis(1, state.dims()[2]).insert_axis(0, heads);
            let new = state.scatter(1, index, self.stored(rows));
            state.assign(new);
            self.numbers(new.slice_axis(1, 0, steps.end()), width, rows.dtype())
        };
        (write(self.keys, keys), write(self.values, values))
    }

    /// Rows as the cache keeps them.
    #[track_caller]
    fn stored(&self, rows: GraphTensor) -> GraphTensor {
        match self.ty.blocks() {
            Some(ty) => {
                let width = rows.dims()[2];
                let whole = width.ceil_div(ty.block_len() as i64) * ty.block_len() as i64;
                rows.pad(2, 0, whole - width).quantize(ty)
            }
            None => cast(rows, self.ty.dtype()),
        }
    }

    /// Rows of `width` numbers of a format, from what the cache keeps.
    #[track_caller]
    fn numbers(&self, stored: GraphTensor, width: Expr, dtype: DType) -> GraphTensor {
        match self.ty.blocks() {
            Some(ty) => stored.dequantize(ty).slice_axis(2, 0, width),
            None => cast(stored, dtype),
        }
    }
}

/// The same numbers in another format, if they have another.
#[track_caller]
fn cast(x: GraphTensor, to: DType) -> GraphTensor {
    if x.dtype() == to { x } else { x.cast(to) }
}
