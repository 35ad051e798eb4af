//! Records of how products are computed, one file for each workload.
//!
//! Before: a [`Choice`] that was measured. After: the same in another process on such a machine. A record that is
//! damaged, or says something impossible, is none.

use std::path::{Path, PathBuf};

use super::Choice;
use crate::atomic;
use crate::compilers::llvm_cpu::cache::Key;
use crate::compilers::llvm_cpu::gemm::ir::Contraction;
use crate::compilers::llvm_cpu::gemm::{Blocks, Side, Tile};
use crate::compilers::llvm_cpu::machine::cpu_model;
use crate::compilers::llvm_cpu::target::Target;
use crate::exec::pool;
use crate::knobs;

/// The first line of a record.
const TITLE: &str = concat!("brain-blitz tiles and blocks ", env!("CARGO_PKG_VERSION"));

/// Where records are.
#[derive(Clone, Debug)]
pub struct Records {
    pub(super) dir: Option<PathBuf>,
}

impl Records {
    /// Beside compiled objects, if those are kept.
    pub fn from_knobs() -> Records {
        Records {
            dir: knobs::cache_folder(),
        }
    }

    /// In a folder, which is created when something is put into it.
    pub fn in_dir(dir: &Path) -> Records {
        Records {
            dir: Some(dir.to_path_buf()),
        }
    }

    /// What was chosen for a product, if it was.
    pub fn get(&self, product: &Contraction, target: &Target) -> Option<Choice> {
        let workload = workload(product, target);
        let text = std::fs::read_to_string(self.path(&workload)?).ok()?;
        let mut lines = text.lines();
        let is_it = lines.next() == Some(TITLE) && lines.next() == Some(workload.as_str());
        parse(lines.next().filter(|_| is_it)?, target)
    }

    /// Keeps a choice, or does nothing if it cannot.
    pub fn put(&self, product: &Contraction, target: &Target, choice: Choice) {
        let workload = workload(product, target);
        let Some(path) = self.path(&workload) else {
            return;
        };
        let text = format!("{TITLE}\n{workload}\n{}\n", text_of(choice));
        let folder = path.parent().expect("the path has a folder");
        if std::fs::create_dir_all(folder).is_ok() {
            // Without a record it is measured again.
            let _ = atomic::write_bytes(&path, text.as_bytes());
        }
    }

    fn path(&self, workload: &str) -> Option<PathBuf> {
        let name = format!("{}.blocks", Key::of(&[workload.as_bytes()]));
        Some(self.dir.as_ref()?.join(name))
    }
}

/// Everything that a choice depends on, in a line.
fn workload(product: &Contraction, target: &Target) -> String {
    let (cpu, threads) = (cpu_model(target), pool::default_threads());
    let target = (target.name(), target.features());
    format!(
        "{product}; {} {}; {cpu}, {threads} threads",
        target.0, target.1
    )
    .replace('\n', " ")
}

pub(super) fn text_of(Choice { tile, blocks }: Choice) -> String {
    let name = |side| match side {
        Side::Lhs => "lhs",
        Side::Rhs => "rhs",
    };
    let Blocks { mc, kc, nc, .. } = blocks;
    format!(
        "{} {} {mc} {kc} {nc} {} {} {}",
        tile.rows,
        tile.vectors,
        name(blocks.first),
        name(blocks.stays),
        blocks.split.map_or("any", name)
    )
}

fn parse(line: &str, target: &Target) -> Option<Choice> {
    let words: Vec<&str> = line.split(' ').collect();
    let [rows, vectors, mc, kc, nc, first, stays, split] = words[..] else {
        return None;
    };
    let side = |word| match word {
        "lhs" => Some(Side::Lhs),
        "rhs" => Some(Side::Rhs),
        _ => None,
    };
    let tile = Tile {
        rows: rows.parse().ok()?,
        vectors: vectors.parse().ok()?,
        lanes: target.lanes(),
    };
    let blocks = Blocks {
        mc: mc.parse().ok()?,
        kc: kc.parse().ok()?,
        nc: nc.parse().ok()?,
        first: side(first)?,
        stays: side(stays)?,
        split: match split {
            "any" => None,
            word => Some(side(word)?),
        },
    };
    let fits = Tile::all(target).contains(&tile) && blocks.fits(tile);
    fits.then_some(Choice { tile, blocks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compilers::llvm_cpu::ir::Access;
    use crate::compilers::llvm_cpu::tune::candidates;
    use crate::dtype::DType;
    use crate::shape::{Dims, Expr, IntoDims, View};

    /// `[s, 40]` times `[n, 40]` transposed.
    fn product(n: i64) -> Contraction {
        let access = |input, dims: [Expr; 2]| Access {
            input,
            dtype: DType::F32,
            view: View::contiguous(Dims::from_iter(dims)),
        };
        Contraction {
            batch: ().into_dims(),
            m: 's'.into_dims(),
            n: n.into_dims(),
            k: 40.into_dims(),
            lhs: access(0, ['s'.into(), 40.into()]),
            rhs: access(1, [n.into(), 40.into()]),
            out_strides: (n, 1).into_dims(),
            dtype: DType::F32,
        }
    }

    #[test]
    fn a_record_is_read_back_for_its_workload_only() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::in_dir(folder.path());
        for target in ["native", "x86-64-v3", "scalar"].map(|name| Target::for_cpu(name).unwrap()) {
            for tile in Tile::all(&target) {
                for blocks in candidates(Choice::with(tile)) {
                    let choice = Choice { tile, blocks };
                    records.put(&product(33), &target, choice);
                    assert_eq!(records.get(&product(33), &target), Some(choice));
                }
            }
            assert_eq!(records.get(&product(34), &target), None);
        }
    }

    #[test]
    fn what_is_damaged_or_impossible_is_no_record() {
        let folder = tempfile::tempdir().unwrap();
        let (records, target) = (Records::in_dir(folder.path()), Target::native());
        let choice = Choice::of(&target);
        let (tile, good) = (choice.tile, choice.blocks);
        records.put(&product(33), &target, choice);
        let path = records.path(&workload(&product(33), &target)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(records.get(&product(33), &target).is_some());
        let impossible = [
            Blocks { mc: 0, ..good },
            Blocks {
                mc: good.mc + 1,
                ..good
            },
            Blocks {
                nc: good.nc + 1,
                ..good
            },
            Blocks { kc: 0, ..good },
            Blocks {
                kc: 1 << 40,
                ..good
            },
            Blocks {
                nc: (1 << 40) * tile.columns() as usize,
                ..good
            },
        ];
        let replaced = |other| text.replace(&text_of(choice), &text_of(other));
        let damaged = impossible.map(|blocks| replaced(Choice { tile, blocks }));
        let unknown = Tile {
            rows: tile.rows + 100,
            ..tile
        };
        let cut = [
            replaced(Choice {
                tile: unknown,
                blocks: good,
            }),
            text[..text.len() / 2].to_string(),
            text.replace("any\n", "all\n"),
        ];
        for bad in damaged.iter().chain(&cut).filter(|bad| **bad != text) {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(records.get(&product(33), &target), None, "{bad}");
        }
    }
}
