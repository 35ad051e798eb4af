//! How the work of a matrix product is cut: blocks that fit the caches, parts for threads.
//!
//! Nothing here changes results: an output element is one sequential sum however it is cut.

use super::micro::Tile;

/// The sizes of a matrix product in one execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Independent products.
    pub batch: usize,
    /// Rows of the output.
    pub m: usize,
    /// Columns of the output.
    pub n: usize,
    /// Products summed per element.
    pub k: usize,
}

/// One of the operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The left one.
    Lhs,
    /// The right one.
    Rhs,
}

impl Side {
    /// The one that this is not.
    pub fn other(self) -> Side {
        match self {
            Side::Lhs => Side::Rhs,
            Side::Rhs => Side::Lhs,
        }
    }
}

/// How the operands are cut into blocks that are packed at once.
///
/// Of the two operands one is packed first, in blocks as large as L3 allows; then blocks of the other, which fit L2,
/// meet it one after the other. While two blocks meet, a panel of one of them stays in L1 and those of the other pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Rows of the left operand: a multiple of the tile's rows.
    pub mc: usize,
    /// Steps of K.
    pub kc: usize,
    /// Rows of the right operand: a multiple of the tile's columns.
    pub nc: usize,
    /// The operand that is packed first.
    pub first: Side,
    /// The operand whose panels stay in L1.
    pub stays: Side,
    /// The operand whose rows are shared out to threads; nothing for what costs least.
    pub split: Option<Side>,
}

/// The number of multiply-adds that another thread must have to do to be worth waking.
const WORK_PER_THREAD: usize = 1 << 20;

/// What packing an element costs, in multiply-adds of the micro-kernel.
const PACK_COST: usize = 32;

/// The most of anything in a block.
const MOST: usize = 1 << 14;

/// Rows or columns of an operand that is packed first, at most: with `kc` steps, a fraction of L3.
const MANY: usize = 4096;

impl Blocks {
    /// The blocks for a tile.
    ///
    /// Vectors of 16 have tiles so wide that a panel of the right operand fills L1 alone, so the left one's stays;
    /// with narrower vectors it is the left one's panels that pass, as they are the smaller ones.
    pub fn of(tile: Tile) -> Blocks {
        let (rows, columns) = (tile.rows as usize, tile.columns() as usize);
        match tile.lanes {
            16 => Blocks {
                mc: MANY / rows * rows,
                kc: 512,
                nc: 128 / columns * columns,
                first: Side::Lhs,
                stays: Side::Lhs,
                split: None,
            },
            _ => Blocks {
                mc: 144 / rows * rows,
                kc: 256,
                nc: MANY / columns * columns,
                first: Side::Rhs,
                stays: Side::Rhs,
                split: None,
            },
        }
    }

    /// Whether products can be cut like this with a tile.
    pub fn fits(self, tile: Tile) -> bool {
        let (rows, columns) = (tile.rows as usize, tile.columns() as usize);
        let whole = |size: usize, unit: usize| size.is_multiple_of(unit);
        let sizes = [self.mc, self.kc, self.nc];
        let possible = sizes.iter().all(|size| (1..=MOST).contains(size));
        possible && whole(self.mc, rows) && whole(self.nc, columns)
    }

    /// The steps of K in a block: about as many in each.
    pub fn steps(self, k: usize) -> usize {
        let count = k.div_ceil(self.kc).max(1);
        k.div_ceil(count).next_multiple_of(4).min(self.kc).max(1)
    }

    /// The blocks for one product. With few rows or columns of the operand that meets the other in small blocks, it is
    /// better packed first, whole, and the other one in small blocks.
    pub fn fit(self, sizes: Sizes, tile: Tile) -> Blocks {
        let (rows, columns) = (tile.rows as usize, tile.columns() as usize);
        let kc = self.steps(sizes.k);
        let small = |unit: usize| (256 / unit).max(1) * unit;
        match self.first {
            Side::Lhs if sizes.n <= self.nc && sizes.m > sizes.n => Blocks {
                mc: self.mc.min(small(rows)),
                kc,
                first: Side::Rhs,
                ..self
            },
            Side::Rhs if sizes.m <= self.mc && sizes.n > sizes.m => Blocks {
                nc: self.nc.min(small(columns)),
                kc,
                first: Side::Lhs,
                ..self
            },
            _ => Blocks { kc, ..self },
        }
    }
}

/// Memory one thread works in, in floats; every piece is a multiple of 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// A packed block of the left operand.
    pub lhs: usize,
    /// A packed block of the right operand.
    pub rhs: usize,
    /// One tile of the output.
    pub tile: usize,
}

impl Scratch {
    /// What is needed for blocks of a product; a right operand in panels of floats needs no copy.
    pub fn of(blocks: Blocks, sizes: Sizes, tile: Tile, rhs_is_ready: bool) -> Scratch {
        let (rows, columns) = (tile.rows as usize, tile.columns() as usize);
        let k = sizes.k.min(blocks.kc);
        let block = |count: usize, most: usize, width: usize| {
            (count.min(most).next_multiple_of(width) * k).next_multiple_of(16)
        };
        Scratch {
            lhs: block(sizes.m, blocks.mc, rows),
            rhs: if rhs_is_ready {
                0
            } else {
                block(sizes.n, blocks.nc, columns)
            },
            tile: (rows * columns).next_multiple_of(16),
        }
    }

    /// All of it.
    pub fn floats(self) -> usize {
        self.lhs + self.rhs + self.tile
    }
}

/// Into how many parts batch, m and n are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Parts of the batch.
    pub batch: usize,
    /// Parts of m, cut between tiles.
    pub m: usize,
    /// Parts of n, cut between tiles.
    pub n: usize,
}

impl Parts {
    /// The cut into at most `threads` parts whose largest is the cheapest, along the rows of one operand only if `split`
    /// says so.
    pub fn of(
        sizes: Sizes,
        tile: Tile,
        threads: usize,
        rhs_is_packed: bool,
        split: Option<Side>,
    ) -> Parts {
        let (rows, columns) = (tile.rows as usize, tile.columns() as usize);
        let (m, n) = (sizes.m.div_ceil(rows), sizes.n.div_ceil(columns));
        let work = sizes.batch.saturating_mul(sizes.m).saturating_mul(sizes.n);
        let useful = work.saturating_mul(sizes.k) / WORK_PER_THREAD;
        let threads = threads.min(useful).max(1);
        let cost = |parts: &Parts| {
            let batch = sizes.batch.div_ceil(parts.batch);
            let (m, n) = (m.div_ceil(parts.m) * rows, n.div_ceil(parts.n) * columns);
            let packed = m + if rhs_is_packed { 0 } else { n };
            (batch * (m * n + PACK_COST * packed), parts.count())
        };
        let mut best = Parts {
            batch: 1,
            m: 1,
            n: 1,
        };
        for batch in 1..=threads.min(sizes.batch.max(1)) {
            for m in 1..=(threads / batch).min(m.max(1)) {
                let (m, threads) = match split {
                    None => (m, threads),
                    Some(Side::Lhs) => (m, batch * m),
                    Some(Side::Rhs) => (1, threads),
                };
                let n = (threads / batch / m).clamp(1, n.max(1));
                let parts = Parts { batch, m, n };
                if cost(&parts) < cost(&best) {
                    best = parts;
                }
            }
        }
        best
    }

    /// The number of parts.
    pub fn count(self) -> usize {
        self.batch * self.m * self.n
    }

    /// Part `index` of the product, as ranges of batch, m and n.
    pub fn part(self, index: usize, sizes: Sizes, tile: Tile) -> [std::ops::Range<usize>; 3] {
        let cut = |size: usize, unit: usize, parts: usize, part: usize| {
            let units = size.div_ceil(unit);
            let at = |part: usize| (units * part / parts * unit).min(size);
            at(part)..at(part + 1)
        };
        [
            cut(sizes.batch, 1, self.batch, index % self.batch),
            cut(
                sizes.m,
                tile.rows as usize,
                self.m,
                index / self.batch % self.m,
            ),
            cut(
                sizes.n,
                tile.columns() as usize,
                self.n,
                index / self.batch / self.m,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILE: Tile = Tile {
        rows: 6,
        vectors: 2,
        lanes: 8,
    };

    #[test]
    fn parts_cover_everything_once() {
        for (batch, m, n) in [
            (1, 7, 129),
            (3, 1, 1),
            (2, 100, 100),
            (0, 5, 5),
            (1, 0, 5),
            (5, 13, 40),
        ] {
            let splits = [None, Some(Side::Lhs), Some(Side::Rhs)];
            for (threads, split) in (1..9).flat_map(|t| splits.map(|split| (t, split))) {
                let sizes = Sizes {
                    batch,
                    m,
                    n,
                    k: 100_000,
                };
                let parts = Parts::of(sizes, TILE, threads, false, split);
                assert!((1..=threads).contains(&parts.count()), "{parts:?}");
                assert!(split != Some(Side::Lhs) || parts.n == 1, "{parts:?}");
                assert!(split != Some(Side::Rhs) || parts.m == 1, "{parts:?}");
                let mut seen = vec![0; batch * m * n];
                for index in 0..parts.count() {
                    let [b, m_range, n_range] = parts.part(index, sizes, TILE);
                    for (b, i) in b.flat_map(|b| m_range.clone().map(move |i| (b, i))) {
                        n_range.clone().for_each(|j| seen[(b * m + i) * n + j] += 1);
                    }
                }
                assert!(seen.iter().all(|&count| count == 1), "{sizes:?} {parts:?}");
            }
        }
    }

    #[test]
    fn blocks_of_k_are_about_equal() {
        for tile in [TILE, Tile { lanes: 16, ..TILE }] {
            let blocks = Blocks::of(tile);
            for k in [0, 1, 5, 64, 256, 257, 300, 512, 513, 1000, 1024, 2304] {
                let steps = blocks.steps(k);
                assert!((1..=blocks.kc).contains(&steps), "{k}: {steps}");
                let count = k.div_ceil(steps);
                assert_eq!(count, k.div_ceil(blocks.kc), "no more blocks than needed");
                assert!(
                    k <= 64 || k - (count - 1) * steps > steps / 2,
                    "{k}: the last of {steps} is short"
                );
            }
        }
    }

    #[test]
    fn threads_are_used_where_there_is_work() {
        let parts = |batch, m, n, k| {
            let sizes = Sizes { batch, m, n, k };
            Parts::of(sizes, TILE, 4, false, None).count()
        };
        assert_eq!(parts(1, 512, 512, 512), 4);
        assert_eq!(parts(1, 4, 4096, 512), 4);
        assert_eq!(parts(8, 12, 16, 4096), 4);
        assert_eq!(parts(1, 6, 16, 4096), 1, "one tile is not cut");
        assert_eq!(parts(1, 96, 96, 96), 1, "not worth it");
    }
}
