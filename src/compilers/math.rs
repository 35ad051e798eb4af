//! How exactly elementary functions are computed.
//!
//! [`Math::Exact`] is the default: what the reference computes, or better. The other two are for models that do not
//! need that: they replace six functions in `F32`, wherever a graph has them (in softmax, in activations, in norms), by
//! a look into a table or by a short polynomial. Sums and products stay as they are.
//!
//! The largest errors, against the real value, over all numbers:
//!
//! | function | error | [`Math::Lut`] | [`Math::Approx`] |
//! |---|---|---|---|
//! | `exp` | relative | `6.5e-5` | `1.1e-4` |
//! | `sigmoid` | relative | `6.5e-5` | `1.1e-4` |
//! | `tanh` | absolute | `1.3e-4` | `1.4e-4` |
//! | `gelu` | absolute | `2e-5` | `3.5e-5` |
//! | `gelu_tanh` | absolute | `2e-5` | `2.5e-5` |
//! | `rsqrt` | relative | `2.5e-6` | `5e-6` |
//!
//! Results too small for a normal `f32` may be a few of the smallest steps off in `exp`, and zero in `sigmoid`. `exp` is
//! exact at 0 and at both infinities; `sigmoid` and `tanh` stay within their ranges, and `tanh` ends at 0.9999 or 1;
//! `gelu` is exactly `x` or 0 far from 0 (0 at `-inf`, where the formula has no value). `rsqrt` of 0 is an infinity, of
//! what is below NaN. NaN stays NaN. These bounds are what the tests of `llvm_cpu::approx` check.
//!
//! A look into a table is one or two instructions with AVX-512, where tables are about as fast as polynomials, and faster
//! for gelu. With AVX2 it is seven, and elsewhere a load per element: there polynomials are faster for every function,
//! and `tanh` and `rsqrt` by tables are slower than exact ones.
//!
//! Not replaced: `exp2`, `log`, `sin`, `erf` on its own, and anything in `F64` or computed in 16 bits.

use crate::error::{Error, Result};

/// How functions are computed that have no instruction: see [`crate::compilers::math`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Math {
    /// To the last bits.
    #[default]
    Exact,
    /// With tables of 32 entries.
    Lut,
    /// With short polynomials.
    Approx,
}

impl Math {
    /// All modes.
    pub const ALL: [Math; 3] = [Math::Exact, Math::Lut, Math::Approx];

    /// The name that [`str::parse`] knows.
    pub const fn name(self) -> &'static str {
        match self {
            Math::Exact => "exact",
            Math::Lut => "lut",
            Math::Approx => "approx",
        }
    }
}

impl std::fmt::Display for Math {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Math {
    type Err = Error;

    fn from_str(text: &str) -> Result<Math> {
        let named = |math: &Math| math.name() == text;
        Math::ALL.into_iter().find(named).ok_or_else(|| {
            let names = Math::ALL.map(Math::name).join(", ");
            Error::msg(format!("modes of mathematics are {names}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_told_them() {
        for math in Math::ALL {
            assert_eq!(math.to_string().parse::<Math>().unwrap(), math);
        }
        let error = "fast".parse::<Math>().unwrap_err().to_string();
        assert!(error.ends_with("exact, lut, approx"), "{error}");
    }
}
