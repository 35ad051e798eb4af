//! Identities of `cast`.

use smallvec::smallvec;

use super::super::sweep::{Operands, Seen, Sweep};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::NodeIndex;
use crate::op::Op;

/// Whether every number of `from` is one of `to`, with its sign of zero.
fn fits(from: DType, to: DType) -> bool {
    match from {
        DType::Bool => true,
        DType::U8 => to != DType::Bool,
        DType::F16 | DType::BF16 => matches!(to, DType::F32 | DType::F64),
        DType::F32 | DType::I32 => to == DType::F64,
        DType::F64 => false,
    }
}

/// Whether casting `from` → `through` → `to` is casting `from` → `to`. The first step must lose nothing; and 16-bit
/// formats are rounded from `f32`, or from `f64`, which can differ when the number has more than 16 bits.
fn may_skip(from: DType, through: DType, to: DType) -> bool {
    let narrow = matches!(to, DType::F16 | DType::BF16);
    let wide = matches!(from, DType::F32 | DType::I32);
    fits(from, through) && (from == to || !(narrow && wide))
}

/// A cast to the operand's own format, or after a cast that lost nothing.
pub(super) fn cast(sweep: &mut Sweep, id: NodeIndex, operands: &Operands) -> Result<Option<Seen>> {
    let Op::Cast(to) = sweep.dag.node(id).op else {
        return Ok(None);
    };
    let through = sweep.ty(operands[0].0).dtype;
    if through == to {
        return Ok(Some(operands[0].clone()));
    }
    if !matches!(sweep.op(operands[0].0), Op::Cast(_)) {
        return Ok(None);
    }
    let Some(source) = sweep
        .operands_through(&operands[0])
        .map(|mut s| s.remove(0))
    else {
        return Ok(None);
    };
    let from = sweep.ty(source.0).dtype;
    if !may_skip(from, through, to) {
        return Ok(None);
    }
    if from == to {
        return Ok(Some(source));
    }
    sweep.add(Op::Cast(to), smallvec![source], id).map(Some)
}

/// Rows of a table that is widened first: only the rows are.
pub(super) fn gathered(
    sweep: &mut Sweep,
    id: NodeIndex,
    operands: &Operands,
) -> Result<Option<Seen>> {
    let Op::Gather { axis } = sweep.dag.node(id).op else {
        return Ok(None);
    };
    let Op::Cast(to) = *sweep.op(operands[0].0) else {
        return Ok(None);
    };
    let table = sweep.operands_through(&operands[0]);
    let Some(table) = table.map(|mut s| s.remove(0)) else {
        return Ok(None);
    };
    if sweep.ty(table.0).dtype.size() >= to.size() {
        return Ok(None);
    }
    let rows = smallvec![table, operands[1].clone()];
    let rows = sweep.add(Op::Gather { axis }, rows, id)?;
    sweep.add(Op::Cast(to), smallvec![rows], id).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::{Array, Data};
    use half::{bf16, f16};

    /// Arrays that hold every number of the 16-bit formats, and those of the wider ones where rounding is delicate.
    fn numbers(dtype: DType) -> Array {
        let data = match dtype {
            DType::F16 => Data::F16((0..=u16::MAX).map(f16::from_bits).collect()),
            DType::BF16 => Data::BF16((0..=u16::MAX).map(bf16::from_bits).collect()),
            DType::Bool => Data::Bool(vec![0, 1]),
            DType::U8 => Data::U8((0..=u8::MAX).collect()),
            DType::I32 => Data::I32((0..1 << 20).map(|i: i32| i.wrapping_mul(4093)).collect()),
            DType::F32 => {
                let bits = (0..1u32 << 20).map(|i| i.wrapping_mul(4093));
                Data::F32(bits.map(f32::from_bits).collect())
            }
            DType::F64 => {
                let bits = (0..1u64 << 16).map(|i| i.wrapping_mul(0x0001_2345_6789_abcd));
                Data::F64(bits.map(f64::from_bits).collect())
            }
        };
        let n = crate::each_dtype!(&data, v => v.len());
        Array::new(vec![n], data)
    }

    #[test]
    fn a_skipped_cast_changes_no_bit_of_any_number() {
        let mut n_skipped = 0;
        for from in DType::ALL {
            let x = numbers(from);
            for through in DType::ALL.into_iter().filter(|&t| t != from) {
                let widened = x.cast(through);
                for to in DType::ALL
                    .into_iter()
                    .filter(|&to| may_skip(from, through, to))
                {
                    let (long, short) = (widened.cast(to), x.cast(to));
                    let same = |(a, b): (f64, f64)| {
                        a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
                    };
                    let all_same = long.to_f64().into_iter().zip(short.to_f64()).all(same);
                    assert!(all_same, "{from} -> {through} -> {to}");
                    n_skipped += 1;
                }
            }
        }
        assert_eq!(n_skipped, 6 * 7 + 5 * 7 + 2 * 2 * 7 + 2 * 5);
    }
}
