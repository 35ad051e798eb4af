//! Ops from their names and attributes.

use super::cursor::Cursor;
use super::{Call, check, limits, read_size};
use crate::blocks::SignMatrix;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::table::ROWS;
use crate::op::{
    ActivationScheme, AxisSet, BinaryOp, ConstantValue, KnownGradient, Literal, Op, PlanePart,
    Planes, ReduceOp, ScatterMode, UnaryOp,
};
use crate::shape::Expr;

/// What stands between `<` and `>`.
pub(super) enum Attributes<'a> {
    /// Numbers and words.
    Raw(&'a str),
    /// A string in quotes.
    Text(String),
}

impl<'a> Attributes<'a> {
    pub(super) fn read(line: &mut Cursor<'a>) -> Result<Attributes<'a>> {
        line.expect("<")?;
        if line.peek_is('"') {
            let text = line.string()?;
            line.expect(">")?;
            return Ok(Attributes::Text(text));
        }
        let raw = line.until('>')?;
        check::piece(raw).map_err(|what| line.fail(what))?;
        Ok(Attributes::Raw(raw.trim()))
    }
}

/// Ops that have no attributes.
const PLAIN: [Op; 14] = [
    Op::Unary(UnaryOp::Log2),
    Op::Unary(UnaryOp::Exp2),
    Op::Unary(UnaryOp::Sin),
    Op::Unary(UnaryOp::Sqrt),
    Op::Unary(UnaryOp::Recip),
    Op::Binary(BinaryOp::Add),
    Op::Binary(BinaryOp::Mul),
    Op::Binary(BinaryOp::Mod),
    Op::Binary(BinaryOp::LessThan),
    Op::Select,
    Op::Contiguous,
    Op::Detach,
    Op::StraightThrough,
    Op::PackSigns,
];

/// The op of a call, except kernels.
pub(super) fn build(call: &Call<'_>) -> Result<Op, String> {
    if let Some(op) = PLAIN.iter().find(|op| op.name() == call.name) {
        return match call.attributes {
            None => Ok(op.clone()),
            Some(_) => Err(format!("`{}` has no attributes", call.name)),
        };
    }
    let raw = match (&call.attributes, call.name) {
        (_, "custom") => return Err("a custom op is code, which no text holds".into()),
        (_, "kernel") => return Err("expected a step without steps of its own".into()),
        (Some(Attributes::Text(_)), name) => return Err(format!("`{name}` takes no string")),
        (Some(Attributes::Raw(raw)), _) => raw,
        (None, _) => "",
    };
    with_attributes(call, raw)
}

fn with_attributes(call: &Call<'_>, raw: &str) -> Result<Op, String> {
    Ok(match call.name {
        "input" => Op::Input {
            id: number(raw, limits::INPUT)?,
            ty: call.ty.clone(),
        },
        "constant" => Op::Constant(constant(call, raw)?),
        "iota" => Op::Iota { len: size(raw)? },
        "random" => random(call, raw)?,
        "sum_reduce" => Op::Reduce(ReduceOp::Sum, axes(raw)?),
        "max_reduce" => Op::Reduce(ReduceOp::Max, axes(raw)?),
        "gather" => Op::Gather { axis: axis(raw)? },
        "scatter" => scatter(raw)?,
        "cast" => Op::Cast(raw.parse().map_err(|e: crate::Error| e.to_string())?),
        "quantize" => Op::Quantize(raw.parse().map_err(|e: crate::Error| e.to_string())?),
        "dequantize" => Op::Dequantize(raw.parse().map_err(|e: crate::Error| e.to_string())?),
        "fake_quantize" => {
            let found = ActivationScheme::ALL.into_iter().find(|s| s.name() == raw);
            Op::FakeQuantize(
                found.ok_or_else(|| format!("expected a scheme of activations, found `{raw}`"))?,
            )
        }
        "known_gradient" => known_gradient(raw)?,
        "unpack_signs" => Op::UnpackSigns(number(raw, limits::SIGNS)?),
        "sign_matrix" => sign_matrix(raw)?,
        "pack_planes" => Op::PackPlanes(planes(raw)?),
        "unpack_planes" => unpack_planes(raw)?,
        name => {
            let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
            return Err(format!(
                "expected an op, found `{name}`; ops are: {}",
                names.join(", ")
            ));
        }
    })
}

fn number<T: std::str::FromStr + PartialOrd + std::fmt::Display>(
    text: &str,
    limit: T,
) -> Result<T, String> {
    let text = text.trim();
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| plain && *number < limit);
    number.ok_or_else(|| format!("expected a number below {limit}, found `{text}`"))
}

/// The name of a function, and its axes if it has some.
fn known_gradient(raw: &str) -> Result<Op, String> {
    let (name, rest) = raw.split_once(' ').unwrap_or((raw, ""));
    let axes = if rest.is_empty() {
        AxisSet::new()
    } else {
        axes(rest)?
    };
    let function = KnownGradient::parse(name, axes);
    let function = function.ok_or_else(|| {
        format!(
            "expected a function with a known gradient, like `tanh` or `softmax 0`, found `{raw}`"
        )
    })?;
    Ok(Op::KnownGradient(function))
}

fn axis(text: &str) -> Result<usize, String> {
    number(text, limits::RANK)
}

fn axes(raw: &str) -> Result<AxisSet, String> {
    check::commas(raw).into_iter().map(axis).collect()
}

/// A length: an expression that can be at least 0.
fn size(text: &str) -> Result<Expr, String> {
    let size = read_size(text)?;
    check::dims(&[size])?;
    Ok(size)
}

fn constant(call: &Call<'_>, raw: &str) -> Result<ConstantValue, String> {
    if let Some(expr) = raw.strip_prefix("size ") {
        return read_size(expr).map(ConstantValue::Size);
    }
    let literal = Literal::parse(call.ty.dtype, raw);
    let literal = literal.filter(|x| x.dtype() != DType::Bool || matches!(raw, "0" | "1"));
    let literal =
        literal.ok_or_else(|| format!("expected a number of {}, found `{raw}`", call.ty.dtype))?;
    Ok(ConstantValue::Literal(literal))
}

fn random(call: &Call<'_>, raw: &str) -> Result<Op, String> {
    let Some((seed, step)) = raw.split_once(',') else {
        return Err("expected `random<seed, step>`".into());
    };
    let seed = seed.trim();
    Ok(Op::Random {
        dims: call.ty.dims.clone(),
        seed: seed
            .parse()
            .map_err(|_| format!("expected a seed of 64 bits, found `{seed}`"))?,
        step: read_size(step)?,
    })
}

fn sign_matrix(raw: &str) -> Result<Op, String> {
    let parts: Vec<&str> = raw.split(',').map(str::trim).collect();
    let [rows, columns, bases, part] = parts[..] else {
        return Err(format!(
            "expected `sign_matrix<rows, columns, bases, part>`, found `{raw}`"
        ));
    };
    let size = |text| number(text, limits::SIGNS);
    let matrix = SignMatrix::new(size(rows)?, size(columns)?, size(bases)?);
    let matrix = matrix.map_err(|e| e.to_string())?;
    Ok(Op::SignMatrix(matrix, part.parse()?))
}

fn planes(raw: &str) -> Result<Planes, String> {
    let found = Planes::ALL
        .into_iter()
        .find(|planes| planes.n().to_string() == raw);
    found.ok_or_else(|| format!("expected 2 or 4 planes of bits, found `{raw}`"))
}

fn unpack_planes(raw: &str) -> Result<Op, String> {
    let words: Vec<&str> = raw.split(',').map(str::trim).collect();
    let parts = [PlanePart::Levels, PlanePart::Scales];
    let part = |name: &str| parts.into_iter().find(|part| part.name() == name);
    match words[..] {
        [k, n, name] if part(name).is_some() => {
            let part = part(name).expect("it was just found");
            Ok(Op::UnpackPlanes(
                number(k, limits::SIGNS)?,
                planes(n)?,
                part,
            ))
        }
        _ => Err(format!(
            "expected `unpack_planes<columns, planes, levels or scales>`, found `{raw}`"
        )),
    }
}

fn scatter(raw: &str) -> Result<Op, String> {
    let modes = [ScatterMode::Set, ScatterMode::Add, ScatterMode::Max];
    let found = raw.split_once(',').and_then(|(at, mode)| {
        let mode = modes.into_iter().find(|m| m.name() == mode.trim())?;
        Some((at, mode))
    });
    let Some((at, mode)) = found else {
        return Err(format!(
            "expected `scatter<axis, mode>` with `set`, `add` or `max`, found `{raw}`"
        ));
    };
    Ok(Op::Scatter {
        axis: axis(at)?,
        mode,
    })
}
