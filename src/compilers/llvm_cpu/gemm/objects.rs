//! The machine code of a matrix product as object files, for running or reading it elsewhere than in this process.

use super::CompiledGemm;
use super::micro::Tile;

/// The code of a matrix product.
#[derive(Clone, Copy, Debug)]
pub struct Objects<'a> {
    /// Symbols of the packing functions of the left and the right operand, with the signature of `pack`'s `PackFn`:
    /// `fn(src, params, batch, row, rows, k, steps, dst)`.
    pub packs: [&'a str; 2],
    /// The object files that define them.
    pub pack_objects: [&'a [u8]; 2],
    /// Where what each of them is told begins in the values of [`CompiledGemm::params`]: its `params` point there.
    pub pack_params: [usize; 2],
    /// Rows, vectors and symbol of each micro-kernel, which has the signature of [`super::micro::MicroFn`].
    pub micros: &'a [(u32, u32, String)],
    /// The symbol of what widens kept panels, which has the signature of `widen`'s `WidenFn`: `fn(from, to, n)`.
    pub widen: &'a str,
    /// The object file that defines micro-kernels and widening.
    pub micro_object: &'a [u8],
    /// The register tile: panels of the left operand have its rows, those of the right one its columns.
    pub tile: Tile,
}

impl CompiledGemm {
    /// The object files and the functions in them.
    pub fn objects(&self) -> Objects<'_> {
        Objects {
            packs: self.packs.each_ref().map(|pack| &*pack.symbol),
            pack_objects: self.packs.each_ref().map(|pack| &*pack.object),
            pack_params: self.packs.each_ref().map(|pack| pack.first),
            micros: &self.micro.symbols,
            widen: &self.micro.widen,
            micro_object: &self.micro.object,
            tile: self.micro.tile,
        }
    }
}
