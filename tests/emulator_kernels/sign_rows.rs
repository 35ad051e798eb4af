//! Rows of numbers as kernels of signs read them: packed planes of bits, tables of sums, and the look-ups in these.

use brain_blitz::compilers::llvm_cpu::binary::lookups::{LANES, emit_lookup};
use brain_blitz::compilers::llvm_cpu::binary::planes::{emit_magnitudes, emit_pack_planes};
use brain_blitz::compilers::llvm_cpu::binary::tables::{
    OFFSET, TABLE_BYTES, emit_build, emit_largest,
};
use brain_blitz::compilers::llvm_cpu::target::Target;
use brain_blitz::op::Planes;
use brain_blitz::op::planes::{LANES as SUMS, add_magnitudes};

use crate::TARGETS;
use crate::avx512::{CpuModel, Emulator};
use crate::batch::{Arg, Batch, Place};
use crate::binary::{PANEL, noise};
use crate::object;

/// What calls must write, with words that say which, and where.
type Wanted = Vec<(String, Vec<u8>, Place)>;

/// Runs calls that `add` puts together for every target.
fn check(test: &str, add: impl Fn(&Target, &mut Batch) -> Wanted) {
    let Some(emulator) = Emulator::for_test(test) else {
        return;
    };
    let run = |(name, model): (&str, CpuModel)| {
        let target = Target::for_cpu(name).expect("a known target");
        let mut batch = Batch::default();
        let wanted = add(&target, &mut batch);
        let after = batch.run(&emulator, model).expect("the emulator runs");
        for (label, want, place) in wanted {
            assert_eq!(after.bytes(place), want, "{label} on {name}");
        }
    };
    TARGETS.into_iter().for_each(run);
}

/// Numbers of both signs between -4 and 4, many of them at an end of an interval.
fn numbers(n: usize) -> Vec<f32> {
    let bytes = noise(n, 9).into_iter();
    bytes.map(|byte| f32::from(byte as i8) / 32.0).collect()
}

fn bytes_of(x: &[f32]) -> &[u8] {
    bytemuck::cast_slice(x)
}

#[test]
fn planes_of_rows() {
    check("planes_of_rows", |target, batch| {
        let mut wanted = Wanted::new();
        let magnitudes = object(target, |context, module| {
            emit_magnitudes(context, module, "magnitudes");
        });
        batch.object("magnitudes", &magnitudes.expect("plain instructions"));
        for planes in Planes::ALL {
            let name = format!("pack_{}", planes.n());
            let pack = object(target, |context, module| {
                emit_pack_planes(context, module, &name, planes);
            });
            batch.object(&name, &pack.expect("plain instructions"));
            for words in [1, 3, 8] {
                let mut x = numbers(32 * words);
                (x[1], x[2], x[5], x[30]) = (-0.0, 0.0, 1e6, -1e6);
                // Numbers below 4 in magnitude are at both ends of every interval, and beyond the last ones.
                let factor = planes.levels() as f32 / 8.0;
                let label = format!("{words} words of {name}");
                batch.label(&label);
                let place = batch.input(bytes_of(&x));
                let sums = batch.output(4 * SUMS);
                let sixteens = Arg::Int(2 * words as i64);
                batch.call(
                    "magnitudes",
                    &[sixteens, Arg::Pointer(place), Arg::Pointer(sums)],
                );
                let mut lanes = [0.0; SUMS];
                add_magnitudes(&x, &mut lanes);
                wanted.push((format!("sums, {label}"), bytes_of(&lanes).to_vec(), sums));

                (x[3], x[4]) = (f32::NAN, f32::NEG_INFINITY);
                let place = batch.input(bytes_of(&x));
                let to = batch.input(&factor.to_le_bytes());
                let step = 4 * words;
                let bits = batch.output(planes.n() * step);
                batch.call(
                    &name,
                    &[
                        Arg::Int(words as i64),
                        Arg::Pointer(place),
                        Arg::Pointer(to),
                        Arg::Pointer(bits),
                        Arg::Int(step as i64),
                    ],
                );
                let codes: std::collections::BTreeSet<usize> =
                    x.iter().map(|x| planes.code(*x, factor)).collect();
                assert!(words < 8 || codes.len() == planes.levels(), "{codes:?}");
                let mut want = vec![0; planes.n() * step];
                planes.pack_codes((&x, factor), &mut want, step);
                wanted.push((label, want, bits));
            }
        }
        wanted
    });
}

/// Whole numbers of 8 bits; `most` makes all of them as large as they get.
fn whole(n: usize, most: bool) -> Vec<i32> {
    let byte = |byte: u8| i32::from(byte as i8).max(-127);
    match most {
        true => vec![-127; n],
        false => noise(n, 6).into_iter().map(byte).collect(),
    }
}

/// The tables of rows of numbers.
fn tables_of(q: &[i32]) -> Vec<u8> {
    let mut out = Vec::new();
    for four in q.chunks(4) {
        for part in [|q: i32| q & 15, |q: i32| q >> 4] {
            let offset = if part(16) == 1 { OFFSET } else { 0 };
            for choice in 0..16 {
                let set = (0..4).filter(|i| choice >> i & 1 == 1);
                let sum: i32 = set.map(|i| part(four[i])).sum();
                out.push((sum + offset) as u8);
            }
        }
    }
    out
}

#[test]
fn tables_of_bytes() {
    check("tables_of_bytes", |target, batch| {
        let mut wanted = Wanted::new();
        let largest = object(target, |context, module| {
            emit_largest(context, module, "largest");
        });
        batch.object("largest", &largest.expect("plain instructions"));
        let build = object(target, |context, module| {
            emit_build(context, module, "build");
        });
        batch.object("build", &build.expect("plain instructions"));
        for (eights, most) in [(2, false), (2, true), (10, false)] {
            let label = format!("{eights} bytes, {most}");
            batch.label(&label);
            let q = whole(8 * eights, most);
            let scaled = |q: &i32| 0.25 * *q as f32;
            let x: Vec<f32> = q.iter().map(scaled).collect();
            let place = batch.input(bytes_of(&x));
            let largest = batch.state(&[0; 4]);
            let sixteens = Arg::Int(eights as i64 / 2);
            batch.call(
                "largest",
                &[sixteens, Arg::Pointer(place), Arg::Pointer(largest)],
            );
            let size = x.iter().fold(0f32, |size, x| size.max(x.abs()));
            wanted.push((
                format!("largest, {label}"),
                size.to_le_bytes().into(),
                largest,
            ));
            let factor = batch.input(&4f32.to_le_bytes());
            let tables = batch.output(eights * TABLE_BYTES);
            let total = batch.state(&1000i32.to_le_bytes());
            batch.call(
                "build",
                &[
                    Arg::Int(eights as i64),
                    Arg::Pointer(place),
                    Arg::Pointer(factor),
                    Arg::Pointer(tables),
                    Arg::Pointer(total),
                ],
            );
            let sum = 1000 + q.iter().sum::<i32>();
            wanted.push((format!("tables, {label}"), tables_of(&q), tables));
            wanted.push((format!("total, {label}"), sum.to_le_bytes().into(), total));
        }
        wanted
    });
}

/// A row of whole numbers by a panel of signs, through tables: one byte of columns, an odd number of them, and more than words
/// hold before they are taken apart; numbers as large as they get, all of them chosen.
#[test]
fn lookups_in_tables() {
    check("lookups_in_tables", |target, batch| {
        let mut wanted = Wanted::new();
        let kernel = object(target, |context, module| {
            emit_lookup(context, module, "lookup", LANES);
        });
        batch.object("lookup", &kernel.expect("plain instructions"));
        for (bytes, most) in [
            (1, false),
            (37, false),
            (515, false),
            (512, true),
            (513, true),
        ] {
            for add in [false, true] {
                let label = format!("{bytes} bytes, {most} {add}");
                batch.label(&label);
                let q = whole(8 * bytes, most);
                let panel = match most {
                    true => vec![0xff; PANEL * bytes],
                    false => noise(PANEL * bytes, 4),
                };
                let sign =
                    |n: usize, k: usize| i32::from(panel[k / 8 * PANEL + n] >> (k % 8) & 1) * 2 - 1;
                let scales: Vec<f32> = (0..PANEL).map(|n| (n as f32 % 5.0 - 2.0).exp2()).collect();
                let y = |n: usize| {
                    let sum: i32 = (0..q.len()).map(|k| sign(n, k) * q[k]).sum();
                    let before = if add { 3.0 } else { 0.0 };
                    (before + sum as f32 * 0.5 * scales[n]) * -2.0
                };
                let want: Vec<f32> = (0..PANEL).map(y).collect();
                let mut facts = 0.5f32.to_le_bytes().to_vec();
                facts.extend(q.iter().sum::<i32>().to_le_bytes());
                let out = batch.state(bytes_of(&[3.0; PANEL]));
                let [tables, panel, scales, size, facts] = [
                    &tables_of(&q),
                    &panel,
                    &bytes_of(&scales).to_vec(),
                    &(-2f32).to_le_bytes().to_vec(),
                    &facts,
                ]
                .map(|bytes| Arg::Pointer(batch.input(bytes)));
                let args = [
                    Arg::Int(bytes as i64),
                    tables,
                    panel,
                    Arg::Pointer(out),
                    scales,
                    size,
                    facts,
                    Arg::Int(i64::from(add)),
                ];
                batch.call("lookup", &args);
                wanted.push((label, bytes_of(&want).to_vec(), out));
            }
        }
        wanted
    });
}
