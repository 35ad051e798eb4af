//! Products of signs: kernels that count bits, and those that add sums of bytes, of every height and kind of result.
//!
//! Scales and sizes are powers of two, so there is one right result.

use brain_blitz::compilers::llvm_cpu::binary::counts::{
    Form, Output, TABLES, emit_count, heights, lanes, splat,
};
use brain_blitz::compilers::llvm_cpu::binary::planes;
use brain_blitz::compilers::llvm_cpu::binary::sums::{self, emit_sum_add, emit_sum_tables};
use brain_blitz::compilers::llvm_cpu::target::Target;
use brain_blitz::op::Planes;

use crate::TARGETS;
use crate::avx512::Emulator;
use crate::batch::{Arg, Batch, Place};
use crate::object;

/// Rows of a panel.
pub const PANEL: usize = 64;

/// Bytes that look random.
pub fn noise(n: usize, seed: usize) -> Vec<u8> {
    let byte = |i: usize| (((i + 1) * (2 * seed + 151) * 2_654_435_761) >> 13) as u8;
    (0..n).map(byte).collect()
}

/// Which of the first `columns` bits of a row, and of a panel's row, differ.
fn count(x: &[u8], panel: &[u8], row: usize, columns: usize) -> usize {
    let bit = |byte: u8, k: usize| byte >> (k % 8) & 1;
    (0..columns)
        .filter(|&k| bit(x[k / 8], k) != bit(panel[k / 8 * PANEL + row], k))
        .count()
}

/// What a kernel takes for columns and rows, how far results of rows lie apart, and the results for these counts.
fn expected(
    (rows, output): (usize, Output),
    columns: usize,
    counts: &[usize],
) -> (Vec<u8>, Vec<u8>, usize, Vec<u8>) {
    match output {
        Output::Numbers | Output::Planes(_) => {
            let scales: Vec<f32> = (0..PANEL).map(|n| (n as f32 % 5.0 - 2.0).exp2()).collect();
            let sizes: Vec<f32> = (0..rows).map(|i| -(i as f32).exp2()).collect();
            let lines = output.lines();
            let of_plane = |at: usize, plane: usize| {
                let count = counts[(at / PANEL * lines + plane) * PANEL + at % PANEL];
                (1 << plane) as f32 * (columns as f32 - 2.0 * count as f32)
            };
            let whole = |at: usize| (0..lines).map(|plane| of_plane(at, plane)).sum::<f32>();
            let y = |at: usize| whole(at) * scales[at % PANEL] * sizes[at / PANEL];
            let y: Vec<f32> = (0..rows * PANEL).map(y).collect();
            let [scales, sizes, y] =
                [&scales, &sizes, &y].map(|x| bytemuck::cast_slice(x).to_vec());
            (scales, sizes, PANEL, y)
        }
        Output::Bits => {
            // Around the counts of the first row.
            let limits = (0..PANEL).map(|n| (counts[n] + n % 3).saturating_sub(1) as u16);
            let (limits, flips): (Vec<u16>, u64) = (limits.collect(), 0xf0f0_1234_5678_9abc);
            let bit = |at: usize| u64::from(counts[at] < usize::from(limits[at % PANEL]));
            let word = |i: usize| (0..PANEL).fold(flips, |all, n| all ^ bit(i * PANEL + n) << n);
            let want = (0..rows).flat_map(|i| word(i).to_le_bytes()).collect();
            let limits = bytemuck::cast_slice(&limits).to_vec();
            (limits, flips.to_le_bytes().to_vec(), 8, want)
        }
    }
}

/// A call of a kernel that counts: rows of noise, or of bits that all differ. Gives what it must write, and where.
fn add_count(
    batch: &mut Batch,
    (symbol, form): (&str, Form),
    (rows, output): (usize, Output),
    (columns, differs): (usize, bool),
) -> (Vec<u8>, Place) {
    batch.label(format!("{symbol}, {columns} columns"));
    let bytes = columns.div_ceil(8);
    let lines = rows * output.lines();
    let (x, panel) = match differs {
        true => (vec![0xff; lines * bytes], vec![0; PANEL * bytes]),
        false => (noise(lines * bytes, 1), noise(PANEL * bytes, columns)),
    };
    let rows_of_x: Vec<&[u8]> = (0..lines).map(|i| &x[i * bytes..(i + 1) * bytes]).collect();
    let counts = |i: usize| (0..PANEL).map(move |n| (i, n));
    let counts: Vec<usize> = (0..lines)
        .flat_map(counts)
        .map(|(i, n)| count(rows_of_x[i], &panel, n, columns))
        .collect();
    let repeated = match form {
        Form::Table => x.clone(),
        Form::Popcount => {
            let mut words = vec![0; 4 * x.len()];
            splat(&x, &mut words);
            words
        }
    };
    let (by_column, by_row, step, want) = expected((rows, output), columns, &counts);
    let [x, panel, by_column, by_row] =
        [&repeated, &panel, &by_column, &by_row].map(|bytes| batch.input(bytes));
    let tables = batch.input(TABLES.0.as_flattened());
    let out = batch.output(want.len());
    let args = [
        Arg::Int(bytes as i64),
        Arg::Pointer(x),
        Arg::Int((output.lines() * bytes * form.width()) as i64),
        Arg::Pointer(panel),
        Arg::Pointer(out),
        Arg::Int(step as i64),
        Arg::Pointer(by_column),
        Arg::Pointer(by_row),
        Arg::Int(columns as i64),
        Arg::Int(0),
        Arg::Pointer(tables),
        Arg::Int(columns as i64),
    ];
    batch.call(symbol, &args);
    (want, out)
}

#[test]
fn counts_of_bits() {
    let Some(emulator) = Emulator::for_test("counts_of_bits") else {
        return;
    };
    for (name, model) in TARGETS {
        let target = Target::for_cpu(name).expect("a known target");
        let form = Form::of(&target);
        // Both forms are run, each where it is chosen.
        let has_instruction = name != "x86-64-v4";
        assert_eq!(form == Form::Popcount, has_instruction, "{name}");
        let (mut batch, mut wanted) = (Batch::default(), Vec::new());
        let mut kinds = Vec::new();
        for &rows in heights(&target) {
            kinds.extend([Output::Numbers, Output::Bits].map(|output| (rows, output)));
        }
        for planes in Planes::ALL {
            let rows = planes::heights(&target, planes).into_iter();
            kinds.extend(rows.map(|rows| (rows, Output::Planes(planes))));
        }
        for (rows, output) in kinds {
            let symbol = format!("count_{rows}_{}", output.name());
            let kernel = object(&target, |context, module| {
                let form = (form, lanes(&target));
                emit_count(context, module, &symbol, form, (rows, output));
            });
            batch.object(&symbol, &kernel.expect("no special instructions"));
            // With and without a byte that is not full; one step before and after counters are emptied.
            for columns in [0, 1, 37, 64, 248, 249, 504, 2056] {
                for differs in [false, true] {
                    let kernel = (&symbol[..], form);
                    let case = (columns, differs);
                    let (want, place) = add_count(&mut batch, kernel, (rows, output), case);
                    wanted.push((format!("{symbol} {case:?} on {name}"), want, place));
                }
            }
        }
        let after = batch.run(&emulator, model).expect("the emulator runs");
        for (label, want, place) in wanted {
            assert_eq!(after.bytes(place), want, "{label}");
        }
    }
}

/// A call that makes tables of some bytes of columns, then one that adds their sums; what the sums must be, and where.
fn add_sums(batch: &mut Batch, bytes: usize, most: bool, widens: bool) -> (Vec<u8>, Place) {
    batch.label(format!("sums of {bytes} bytes"));
    let (columns, rows) = (8 * bytes, sums::ROWS);
    let q: Vec<i16> = match most {
        true => vec![-127; columns * rows],
        false => {
            let noise = noise(columns * rows, 3);
            noise
                .iter()
                .map(|byte| (*byte as i8).max(-127).into())
                .collect()
        }
    };
    let panel = if most {
        vec![0; PANEL * bytes]
    } else {
        noise(PANEL * bytes, 4)
    };
    // In 16 bits, sums of three times 64 columns may be there already.
    let before: Vec<i16> = vec![if most { 3 * 64 * 127 } else { -5 }; PANEL * rows];
    let wide: Vec<i32> = (0..PANEL * rows).map(|i| i as i32 * 4099).collect();
    let sum = |at: usize| {
        let (n, i) = (at / rows, at % rows);
        let sign = |k: usize| i32::from(panel[k / 8 * PANEL + n] >> (k % 8) & 1) * 2 - 1;
        let terms = (0..columns).map(|k| sign(k) * i32::from(q[k * rows + i]));
        i32::from(before[at]) + terms.sum::<i32>()
    };
    let sums: Vec<i32> = (0..PANEL * rows).map(sum).collect();
    let q = batch.input(bytemuck::cast_slice(&q));
    let tables = batch.output(2 * bytes * 16 * rows * 2);
    let panel = batch.input(&panel);
    let narrow = batch.state(bytemuck::cast_slice(&before));
    let wide_place = batch.state(bytemuck::cast_slice(&wide));
    let fours = Arg::Int(2 * bytes as i64);
    batch.call("tables", &[fours, Arg::Pointer(q), Arg::Pointer(tables)]);
    let args = [
        Arg::Int(bytes as i64),
        Arg::Pointer(panel),
        Arg::Pointer(tables),
        Arg::Pointer(narrow),
        Arg::Pointer(wide_place),
    ];
    batch.call(if widens { "add_wide" } else { "add" }, &args);
    match widens {
        true => {
            let all: Vec<i32> = sums.iter().zip(&wide).map(|(a, b)| a + b).collect();
            (bytemuck::cast_slice(&all).to_vec(), wide_place)
        }
        false => {
            let all: Vec<i16> = sums
                .iter()
                .map(|sum| i16::try_from(*sum).unwrap())
                .collect();
            (bytemuck::cast_slice(&all).to_vec(), narrow)
        }
    }
}

#[test]
fn sums_of_bytes() {
    let Some(emulator) = Emulator::for_test("sums_of_bytes") else {
        return;
    };
    for (name, model) in TARGETS {
        let target = Target::for_cpu(name).expect("a known target");
        let (mut batch, mut wanted) = (Batch::default(), Vec::new());
        let tables = object(&target, |context, module| {
            emit_sum_tables(context, module, "tables");
        });
        batch.object("tables", &tables.expect("no special instructions"));
        for (symbol, widens) in [("add", false), ("add_wide", true)] {
            let kernel = object(&target, |context, module| {
                emit_sum_add(context, module, symbol, widens);
            });
            batch.object(symbol, &kernel.expect("no special instructions"));
            for (bytes, most) in [
                (1, false),
                (3, false),
                (sums::BYTES, false),
                (sums::BYTES, true),
            ] {
                let (want, place) = add_sums(&mut batch, bytes, most, widens);
                wanted.push((format!("{symbol} {bytes} {most} on {name}"), want, place));
            }
        }
        let after = batch.run(&emulator, model).expect("the emulator runs");
        for (label, want, place) in wanted {
            assert_eq!(after.bytes(place), want, "{label}");
        }
    }
}
