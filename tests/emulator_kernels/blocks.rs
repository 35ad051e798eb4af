//! Products with weights in blocks: activations rounded by one kernel, multiplied by panels of every form by others.
//!
//! Activations are whole numbers with a scale of 1, and weights small whole numbers times a power of two, so every order of
//! additions gives the same bits, and any wrong product shows.

use brain_blitz::blocks::BlockType;
use brain_blitz::compilers::llvm_cpu::blocks::activations::{RowForm, emit_round, record_bytes};
use brain_blitz::compilers::llvm_cpu::blocks::form::{COLUMNS, Dots, Form, GROUP};
use brain_blitz::compilers::llvm_cpu::blocks::lookup::{
    self, KERNELS, TABLE_BYTES, emit_lookup, emit_tables,
};
use brain_blitz::compilers::llvm_cpu::blocks::panel::pack;
use brain_blitz::compilers::llvm_cpu::blocks::tile::{emit_tile, heights};
use brain_blitz::compilers::llvm_cpu::blocks::turn::{self, emit_turn};
use brain_blitz::compilers::llvm_cpu::target::Target;
use brain_blitz::op::ActivationScheme;
use half::f16;

use crate::avx512::Emulator;
use crate::batch::{Arg, Batch, Place};
use crate::{TARGETS, object};

/// Blocks in a row of weights.
const BLOCKS: usize = 2;

/// Rows of weights, and the numbers that they are: whole ones times 2^-6.
fn weights(ty: BlockType, panels: usize) -> (Vec<u8>, Vec<f32>) {
    let n = panels * COLUMNS * BLOCKS;
    let mut bytes: Vec<u8> = (0..n * ty.block_bytes())
        .map(|i| (i * 151 % 256) as u8 ^ (i / 256) as u8)
        .collect();
    for block in bytes.chunks_exact_mut(ty.block_bytes()) {
        for &at in ty.scale_offsets() {
            block[at..at + 2].copy_from_slice(&f16::from_f32(1.0 / 64.0).to_le_bytes());
        }
    }
    let mut numbers = vec![0.0; n * ty.block_len()];
    ty.dequantize(&bytes, &mut numbers)
        .expect("a type with a decoder");
    (bytes, numbers)
}

/// A row of whole numbers up to 127, which every group reaches, and perhaps an outlier in each.
fn activations(k: usize, phase: usize, scheme: ActivationScheme) -> Vec<f32> {
    let mut x: Vec<f32> = (0..k)
        .map(|i| ((i * 73 + phase * 31) % 255) as f32 - 127.0)
        .collect();
    x.iter_mut().step_by(GROUP).for_each(|x| *x = -127.0);
    if scheme == ActivationScheme::A8G32Outlier {
        for (group, x) in x.chunks_exact_mut(GROUP).enumerate() {
            x[(9 + 5 * group) % GROUP] = 3000.0 - 6500.0 * (phase % 2) as f32;
        }
    }
    x
}

/// Rows of weights in panels: the regions of all.
fn packed(ty: BlockType, bytes: &[u8], panels: usize) -> [Vec<u8>; 3] {
    let form = Form::of(ty).expect("a type with kernels");
    let mut regions = [const { Vec::new() }; 3];
    for bytes in bytes.chunks(bytes.len() / panels) {
        let mut panel = form.panel_bytes(BLOCKS).map(|bytes| vec![0; bytes]);
        let to = panel.each_mut().map(|region| &mut region[..]);
        pack(ty, bytes, BLOCKS, to);
        for (all, region) in regions.iter_mut().zip(panel) {
            all.extend(region);
        }
    }
    regions
}

/// What multiplies.
#[derive(Clone, Copy, Debug)]
enum Product<'a> {
    /// A kernel of that name.
    Tile(&'a str),
    /// Kernels that make tables and look products of so many panels up.
    LookUp(&'a str, &'a str, usize),
}

impl Product<'_> {
    fn panels(self) -> usize {
        match self {
            Product::Tile(_) => 1,
            Product::LookUp(_, _, panels) => panels,
        }
    }
}

/// Adds the calls that multiply some rows by a panel; gives what they must compute, and where that will be.
fn add(
    batch: &mut Batch,
    (ty, scheme): (BlockType, ActivationScheme),
    (round, product): (&str, Product<'_>),
    (dots, rows): (Dots, usize),
) -> (Vec<f32>, Place) {
    let panels = product.panels();
    let (bytes, w) = weights(ty, panels);
    let k = BLOCKS * ty.block_len();
    let regions = packed(ty, &bytes, panels);
    batch.label(format!("{product:?} of {ty}"));
    let x: Vec<Vec<f32>> = (0..rows).map(|row| activations(k, row, scheme)).collect();
    let of_record = record_bytes(k / GROUP, dots);
    // Tables lie behind their record.
    let each = match product {
        Product::Tile(_) => of_record,
        Product::LookUp(..) => of_record + k / GROUP * TABLE_BYTES,
    };
    let behind = |record: Place| record.parts(64).nth(of_record / 64).expect("tables");
    let groups = || Arg::Int((k / GROUP) as i64);
    let records = batch.output(rows * each);
    for (x, record) in x.iter().zip(records.parts(each)) {
        let from = batch.input(bytemuck::cast_slice(x));
        let places = [from, record].map(Arg::Pointer);
        batch.call(round, &[vec![groups()], places.into()].concat());
    }
    let [numbers, factors, scales] = regions.map(|region| batch.input(&region));
    let out = batch.output(4 * rows * panels * COLUMNS);
    let blocks = Arg::Int(BLOCKS as i64);
    match product {
        Product::Tile(tile) => {
            let places = [numbers, factors, scales].map(Arg::Pointer);
            let rows = [Arg::Pointer(records), Arg::Int(each as i64)];
            let to = [Arg::Pointer(out), Arg::Int(COLUMNS as i64)];
            let args = [vec![blocks], places.into(), rows.into(), to.into()];
            batch.call(tile, &args.concat());
        }
        Product::LookUp(tables, lookup, _) => {
            for record in records.parts(each) {
                let places = [record, behind(record)].map(Arg::Pointer);
                batch.call(tables, &[vec![groups()], places.into()].concat());
            }
            let places = [numbers, scales, records, behind(records)].map(Arg::Pointer);
            let to = [Arg::Int(each as i64), Arg::Pointer(out)];
            let width = Arg::Int((panels * COLUMNS) as i64);
            let args = [vec![blocks], places.into(), to.into(), vec![width]];
            batch.call(lookup, &args.concat());
        }
    }
    let dot = |x: &[f32], w: &[f32]| -> f32 {
        let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
        terms.sum::<f64>() as f32
    };
    let want = x.iter().flat_map(|x| w.chunks(k).map(move |w| dot(x, w)));
    (want.collect(), out)
}

/// All types, with activations that share scales in groups, and in blocks where it makes a difference.
fn cases() -> Vec<(BlockType, ActivationScheme)> {
    let types = BlockType::all().filter(|ty| Form::of(*ty).is_some());
    let schemes = |ty: BlockType| {
        let mut both = vec![ActivationScheme::A8G32, ActivationScheme::for_weights(ty)];
        both.dedup();
        both.into_iter().map(move |scheme| (ty, scheme))
    };
    let cases: Vec<_> = types.flat_map(schemes).collect();
    assert_eq!(cases.len(), 15 + 4);
    cases
}

/// Kernels for a target, and what they must compute.
struct Kernels<'a> {
    target: &'a Target,
    name: &'a str,
    batch: Batch,
    wanted: Vec<(String, Vec<f32>, Place)>,
    /// How many take instructions that the emulator does not have.
    left_out: usize,
}

impl Kernels<'_> {
    fn add(&mut self, ty: BlockType, scheme: ActivationScheme) {
        let form = Form::of(ty).expect("a type with kernels");
        let (target, dots) = (self.target, Dots::of(self.target, &form));
        let summed = form.summed(scheme);
        let row = RowForm::of(&form, dots, summed);
        let has_outliers = scheme == ActivationScheme::A8G32Outlier;
        let round = format!("round_{ty}_{}", scheme.name());
        let rounding = object(target, |context, module| {
            emit_round(context, module, &round, scheme, row);
        });
        self.batch.object(
            &round,
            &rounding.expect("rounding takes no special instructions"),
        );
        for &rows in heights(target, dots, summed) {
            let tile = format!("tile_{ty}_{}_{rows}", scheme.name());
            let form = (form, dots, target.lanes());
            let kernel = object(target, |context, module| {
                emit_tile(context, module, &tile, form, (rows, summed, has_outliers));
            });
            let Some(kernel) = kernel else {
                self.left_out += 1;
                continue;
            };
            self.batch.object(&tile, &kernel);
            let product = (round.as_str(), Product::Tile(&tile));
            let (want, place) = add(&mut self.batch, (ty, scheme), product, (dots, rows));
            self.wanted
                .push((format!("{tile} on {}", self.name), want, place));
        }
        if lookup::fits(target, &form, summed) {
            self.add_lookups((ty, scheme, dots), &round);
        }
    }

    fn add_lookups(
        &mut self,
        (ty, scheme, dots): (BlockType, ActivationScheme, Dots),
        round: &str,
    ) {
        let target = self.target;
        for (rows, panels) in KERNELS {
            let [tables, look_up] = ["tables", "look_up"].map(|of| format!("{of}_{rows}_{panels}"));
            let kernels = object(target, |context, module| {
                emit_tables(context, module, &tables);
                emit_lookup(context, module, &look_up, target.lanes(), (rows, panels));
            });
            let Some(kernels) = kernels else {
                self.left_out += 1;
                continue;
            };
            self.batch.object(&look_up, &kernels);
            let product = (round, Product::LookUp(&tables, &look_up, panels));
            let (want, place) = add(&mut self.batch, (ty, scheme), product, (dots, rows));
            self.wanted
                .push((format!("{look_up} on {}", self.name), want, place));
        }
    }
}

#[test]
fn products_with_blocks_of_every_type() {
    let Some(emulator) = Emulator::for_test("products_with_blocks_of_every_type") else {
        return;
    };
    for (name, model) in TARGETS {
        let target = Target::for_cpu(name).expect("a known target");
        let mut kernels = Kernels {
            target: &target,
            name,
            batch: Batch::default(),
            wanted: Vec::new(),
            left_out: 0,
        };
        for (ty, scheme) in cases() {
            kernels.add(ty, scheme);
        }
        // It would convert scales by an instruction for half precision; its other ones are those of `znver4`.
        let heights = heights(&target, Dots::Vnni, 1).len();
        let all = cases().len() * heights + KERNELS.len();
        let counts = if name == "sapphirerapids" {
            (all, 0)
        } else {
            (0, all)
        };
        assert_eq!((kernels.left_out, kernels.wanted.len()), counts, "{name}");
        if kernels.wanted.is_empty() {
            continue;
        }
        let after = kernels
            .batch
            .run(&emulator, model)
            .expect("the emulator runs");
        for (label, want, place) in kernels.wanted {
            assert_eq!(after.floats(place), want, "{label}");
        }
    }
}

/// Rows that are turned into panels are those that are written word by word.
#[test]
fn rows_of_blocks_are_turned_into_panels() {
    let Some(emulator) = Emulator::for_test("rows_of_blocks_are_turned_into_panels") else {
        return;
    };
    for (name, model) in TARGETS {
        let target = Target::for_cpu(name).expect("a known target");
        let (mut batch, mut wanted) = (Batch::default(), Vec::new());
        for ty in BlockType::all().filter(|ty| turn::fits(&target, *ty)) {
            let form = Form::of(ty).expect("a type with kernels");
            let symbol = format!("turn_{ty}");
            let kernel = object(&target, |context, module| {
                emit_turn(context, module, &symbol, ty);
            });
            // Scales are loaded by an instruction for half precision there.
            let Some(kernel) = kernel else {
                assert_eq!(name, "sapphirerapids", "{symbol} was left out");
                continue;
            };
            batch.object(&symbol, &kernel);
            batch.label(format!("{symbol} on {name}"));
            let (bytes, _) = weights(ty, 1);
            let rows = batch.input(&bytes);
            let [numbers, _, scales] = form.panel_bytes(BLOCKS);
            let places = [numbers, scales].map(|bytes| batch.output(bytes));
            let args = [
                Arg::Int(BLOCKS as i64),
                Arg::Pointer(rows),
                Arg::Int((BLOCKS * ty.block_bytes()) as i64),
                Arg::Pointer(rows),
                Arg::Pointer(places[0]),
                Arg::Pointer(places[1]),
            ];
            batch.call(&symbol, &args);
            let [numbers, _, scales] = packed(ty, &bytes, 1);
            wanted.push((ty, [numbers, scales], places));
        }
        if wanted.is_empty() {
            continue;
        }
        assert_eq!(wanted.len(), 4, "{name}");
        let after = batch.run(&emulator, model).expect("the emulator runs");
        for (ty, want, places) in wanted {
            assert_eq!(
                places.map(|place| after.bytes(place)),
                want,
                "{ty} on {name}"
            );
        }
    }
}
