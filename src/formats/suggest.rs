//! "Did you mean": the names nearest to one that is not there.

/// The names that a message shows at most.
const SHOWN: usize = 3;
/// Longer names are not compared: edit distance is quadratic in the length.
const LONGEST: usize = 256;

/// ` (did you mean a, b?)` for the candidates nearest to `wanted`, or nothing when none is near.
pub(super) fn did_you_mean<'a>(
    wanted: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    if wanted.len() > LONGEST {
        return String::new();
    }
    let furthest = wanted.len() / 4 + 1;
    let mut near: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| (distance(wanted, candidate), candidate))
        .filter(|&(distance, _)| distance <= furthest)
        .collect();
    near.sort_unstable();
    let names: Vec<String> = near
        .iter()
        .take(SHOWN)
        .map(|(_, name)| super::quote(name))
        .collect();
    match names.is_empty() {
        true => String::new(),
        false => format!(" (did you mean {}?)", names.join(", ")),
    }
}

/// How far apart two names are: their edit distance, or one when one ends in the other after a dot (a missing or extra
/// prefix such as `model.` is the commonest difference between two exports).
fn distance(a: &str, b: &str) -> usize {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    if !short.is_empty()
        && long
            .strip_suffix(short)
            .is_some_and(|prefix| prefix.ends_with('.'))
    {
        return 1;
    }
    edit_distance(a.as_bytes(), b.as_bytes())
}

/// Levenshtein's distance, with one row of the table in memory.
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, byte) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(byte != other);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distances() {
        assert_eq!(edit_distance(b"kitten", b"sitting"), 3);
        assert_eq!(edit_distance(b"", b"abc"), 3);
        assert_eq!(edit_distance(b"same", b"same"), 0);
    }

    #[test]
    fn nearest_first_and_only_near() {
        let names = [
            "model.norm.weight",
            "model.form.weight",
            "unrelated",
            "norm.weight",
        ];
        assert_eq!(
            did_you_mean("model.norms.weight", names),
            r#" (did you mean "model.norm.weight", "model.form.weight"?)"#
        );
        assert_eq!(
            did_you_mean("lm.norm.weight", ["norm.weight"]),
            r#" (did you mean "norm.weight"?)"#
        );
        assert_eq!(did_you_mean("zzzz", names), "");
    }
}
