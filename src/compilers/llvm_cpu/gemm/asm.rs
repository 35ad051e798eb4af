//! Questions about assembly text (AT&T syntax), for tests of code quality here and in `tests/`.

/// A piece of a function that jumps back to its own beginning.
pub struct HotLoop {
    /// Its instructions, one a line.
    pub text: String,
}

impl HotLoop {
    /// The number of packed fused multiply-adds on registers of a kind, such as `zmm`.
    pub fn fused(&self, register: &str) -> usize {
        self.count(is_fused, register)
    }

    /// The number of lines that are wanted and name registers of a kind.
    pub fn count(&self, is_wanted: impl Fn(&str) -> bool, register: &str) -> usize {
        let register = format!("%{register}");
        let lines = self.text.lines();
        lines
            .filter(|line| is_wanted(line) && line.contains(&register))
            .count()
    }

    /// The number of instructions that touch the stack.
    pub fn spills(&self) -> usize {
        self.text
            .lines()
            .filter(|l| l.contains("(%rsp") || l.contains("(%rbp"))
            .count()
    }

    /// The number of calls.
    pub fn calls(&self) -> usize {
        self.text
            .lines()
            .filter(|l| l.trim_start().starts_with("call"))
            .count()
    }
}

/// Whether a line is a packed fused multiply-add of `f32`.
pub fn is_fused(line: &str) -> bool {
    let instruction = line.split_whitespace().next();
    instruction.is_some_and(|i| i.starts_with("vfmadd") && i.ends_with("ps"))
}

/// The loop of function `symbol` with the most fused multiply-adds; `None` if it has none.
pub fn hot_loop(assembly: &str, symbol: &str) -> Option<HotLoop> {
    hot_loop_of(assembly, symbol, is_fused)
}

/// The loop of function `symbol` with the most lines that are wanted; `None` if it has none.
pub fn hot_loop_of(
    assembly: &str,
    symbol: &str,
    is_wanted: impl Fn(&str) -> bool,
) -> Option<HotLoop> {
    let label = format!("{symbol}:");
    let body = assembly
        .lines()
        .skip_while(|line| !line.starts_with(&label));
    let body: Vec<_> = body
        .take_while(|line| !line.starts_with(".Lfunc_end"))
        .collect();
    let starts = body
        .iter()
        .enumerate()
        .filter(|(_, line)| line.starts_with(".LBB"));
    let loops = starts.filter_map(|(start, line)| {
        let name = line
            .split(':')
            .next()
            .expect("split yields at least one piece");
        let jump = |line: &&str| {
            line.trim_start().starts_with('j') && line.split_whitespace().nth(1) == Some(name)
        };
        let length = body[start..].iter().position(jump)?;
        Some(HotLoop {
            text: body[start..=start + length].join("\n"),
        })
    });
    let weight = |l: &HotLoop| l.text.lines().filter(|line| is_wanted(line)).count();
    // Of nested loops the innermost has the same weight in fewer lines.
    loops
        .filter(|l| weight(l) > 0)
        .max_by_key(|l| (weight(l), std::cmp::Reverse(l.text.lines().count())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "f:
.LBB0_1:
	vmovaps	%zmm1, 64(%rsp)
	jne	.LBB0_1
.LBB0_2:                                # =>This Loop Header
	vfmadd231ps	%zmm1, %zmm2, %zmm3
	vfmadd231ss	%xmm1, %xmm2, %xmm3
	vmovups	(%rsp), %zmm4                   # 64-byte Reload
	callq	g
	jl	.LBB0_2
	retq
.Lfunc_end0:
";

    #[test]
    fn finds_the_loop_and_what_is_in_it() {
        let inner = hot_loop(TEXT, "f").unwrap();
        assert_eq!((inner.fused("zmm"), inner.fused("ymm")), (1, 0));
        assert_eq!(inner.count(|line| line.contains("vmovups"), "zmm"), 1);
        assert_eq!((inner.spills(), inner.calls()), (1, 1));
        assert!(hot_loop(TEXT, "g").is_none());
    }
}
