//! Scalar constants with a number format, comparable and hashable by their bits.

use crate::array::{Array, Data};
use crate::dtype::DType;
use half::{bf16, f16};

/// One number of a format. Equality and hash are those of the bits, so `0.0` and `-0.0` differ and a NaN equals itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Literal {
    dtype: DType,
    bits: u64,
}

impl Literal {
    /// The number `value`, rounded to `dtype` (integers are cut towards zero and saturate).
    pub fn new(dtype: DType, value: f64) -> Literal {
        let bits = match dtype {
            DType::F32 => u64::from((value as f32).to_bits()),
            DType::F64 => value.to_bits(),
            DType::F16 => u64::from(f16::from_f64(value).to_bits()),
            DType::BF16 => u64::from(bf16::from_f64(value).to_bits()),
            DType::I32 => u64::from((value as i32) as u32),
            DType::U8 => u64::from(value as u8),
            DType::Bool => u64::from(value != 0.0),
        };
        Literal { dtype, bits }
    }

    /// A literal from its bit pattern (the low [`DType::size`] bytes).
    pub fn from_bits(dtype: DType, bits: u64) -> Literal {
        let mask = if dtype.size() == 8 {
            u64::MAX
        } else {
            (1 << (8 * dtype.size())) - 1
        };
        Literal {
            dtype,
            bits: bits & mask,
        }
    }

    /// The number format.
    pub fn dtype(self) -> DType {
        self.dtype
    }

    /// The bit pattern, zero-extended.
    pub fn bits(self) -> u64 {
        self.bits
    }

    /// The value; exact for every format.
    pub fn as_f64(self) -> f64 {
        match self.dtype {
            DType::F32 => f64::from(f32::from_bits(self.bits as u32)),
            DType::F64 => f64::from_bits(self.bits),
            DType::F16 => f16::from_bits(self.bits as u16).to_f64(),
            DType::BF16 => bf16::from_bits(self.bits as u16).to_f64(),
            DType::I32 => f64::from(self.bits as u32 as i32),
            DType::U8 | DType::Bool => self.bits as f64,
        }
    }

    /// The value as an array of no dimensions.
    pub fn to_array(self) -> Array {
        let data = match self.dtype {
            DType::F32 => Data::F32(vec![f32::from_bits(self.bits as u32)]),
            DType::F64 => Data::F64(vec![f64::from_bits(self.bits)]),
            DType::F16 => Data::F16(vec![f16::from_bits(self.bits as u16)]),
            DType::BF16 => Data::BF16(vec![bf16::from_bits(self.bits as u16)]),
            DType::I32 => Data::I32(vec![self.bits as u32 as i32]),
            DType::U8 => Data::U8(vec![self.bits as u8]),
            DType::Bool => Data::Bool(vec![self.bits as u8]),
        };
        Array::new(Vec::new(), data)
    }

    /// The literal that an array of one element holds; `None` for any other array.
    pub fn from_array(array: &Array) -> Option<Literal> {
        if array.len() != 1 {
            return None;
        }
        let mut bits = [0u8; 8];
        let bytes = array.bytes();
        bits[..bytes.len()].copy_from_slice(bytes);
        Some(Literal {
            dtype: array.dtype(),
            bits: u64::from_le_bytes(bits),
        })
    }
}

impl std::fmt::Display for Literal {
    /// Numbers that print and parse back exactly; a NaN is written with its bits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.as_f64();
        match self.dtype {
            _ if value.is_nan() => write!(f, "0x{:x}", self.bits),
            DType::I32 | DType::Bool => write!(f, "{value}"),
            DType::F32 => write!(f, "{:?}", value as f32),
            _ => write!(f, "{value:?}"),
        }
    }
}

impl Literal {
    /// Parses what [`Display`](std::fmt::Display) prints, for a known format.
    pub fn parse(dtype: DType, text: &str) -> Option<Literal> {
        if let Some(hex) = text.strip_prefix("0x") {
            return u64::from_str_radix(hex, 16)
                .ok()
                .map(|bits| Literal::from_bits(dtype, bits));
        }
        if dtype == DType::F32 {
            // Through f32, so that no double rounding changes the bits.
            return text
                .parse::<f32>()
                .ok()
                .map(|x| Literal::from_bits(dtype, u64::from(x.to_bits())));
        }
        text.parse::<f64>().ok().map(|x| Literal::new(dtype, x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_print_and_parse_back_to_the_same_bits() {
        for dtype in DType::ALL {
            for value in [
                0.0,
                -0.0,
                1.0,
                -1.5,
                0.1,
                1e30,
                -1e-40,
                f64::INFINITY,
                f64::NAN,
                3.0e9,
            ] {
                let literal = Literal::new(dtype, value);
                assert_eq!(
                    Literal::parse(dtype, &literal.to_string()),
                    Some(literal),
                    "{dtype} {value}"
                );
            }
        }
    }

    #[test]
    fn a_literal_survives_the_way_through_an_array() {
        for dtype in DType::ALL {
            let literal = Literal::new(dtype, 1.0);
            assert_eq!(Literal::from_array(&literal.to_array()), Some(literal));
        }
    }
}
