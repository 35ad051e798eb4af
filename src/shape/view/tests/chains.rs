//! Chains of movements that must stay in one layer, with the layer they must become.

use crate::shape::{Expr, ResolveError, ShapeError, Symbols, UnsetSymbol, View};

type Result = std::result::Result<(), ShapeError>;

fn s(symbol: char) -> Expr {
    Expr::from(symbol)
}

/// Asserts the text of a view, which shows its layers.
#[track_caller]
fn shows(view: &View, text: &str) {
    assert_eq!(view.to_string(), text);
}

#[test]
fn permute_expand_slice_and_flip_are_strides() -> Result {
    let view = View::contiguous((4, 1, 'h', 8))
        .permute(&[3, 1, 0, 2])?
        .expand(1, 5)?
        .slice(0, 1, 7, 2)?
        .flip(2)?;
    shows(&view, "[3, 5, 4, h] * (2, 0, -8*h, 8) + 24*h + 1");
    let back = view.flip(2)?;
    shows(&back, "[3, 5, 4, h] * (2, 0, 8*h, 8) + 1");
    Ok(())
}

#[test]
fn a_split_merged_back_is_the_identity() -> Result {
    for dims in [
        View::contiguous((6, 5)),
        View::contiguous((s('n') * 6, 'd')),
    ] {
        let outer = dims.dims()[0].floor_div(3);
        let split = dims.split(0, outer, 3)?;
        assert!(split.is_contiguous(), "{split}");
        assert_eq!(split.merge(0, 2)?, dims);
        let columns = dims.permute(&[1, 0])?;
        assert_eq!(columns.split(1, outer, 3)?.merge(1, 2)?, columns);
    }
    Ok(())
}

#[test]
fn a_reshape_of_a_contiguous_view_is_contiguous() -> Result {
    let view = View::contiguous(('b', 's', 12)).reshape((s('b') * 's', 3, 2, 2))?;
    shows(&view, "[b*s, 3, 2, 2]");
    assert!(view.is_contiguous());
    assert!(view.is_identity(s('b') * 's' * 12));
    assert!(!view.is_identity(s('b') * 's' * 13));
    let flat = view.reshape(s('b') * 's' * 12)?;
    assert!(flat.is_contiguous());
    Ok(())
}

#[test]
fn padding_sliced_away_leaves_the_identity() -> Result {
    for n in [Expr::from(5), s('n'), s('p') + 's'] {
        let view = View::contiguous((3, n));
        let padded = view.pad(1, 2, s('q'))?;
        assert!(padded.single().is_some() && padded.is_masked());
        assert_eq!(padded.slice(1, 2, n + 2, 1)?.layers(), view.layers());
        let twice = padded.pad(0, 1, 1)?.slice(0, 1, 4, 1)?;
        assert_eq!(twice, padded);
    }
    Ok(())
}

#[test]
fn matmul_operands_are_strides() -> Result {
    // [m, k] x [k, n] over the space [m, n, k]; the right side also transposed.
    let a = View::contiguous(('m', 'k')).insert(1, 'n')?;
    shows(&a, "[m, n, k] * (k, 0, 1) + 0");
    let b = View::contiguous(('k', 'n'))
        .permute(&[1, 0])?
        .insert(0, 'm')?;
    shows(&b, "[m, n, k] * (0, 1, n) + 0");
    let transposed = View::contiguous(('n', 'k')).insert(0, 'm')?;
    shows(&transposed, "[m, n, k] * (0, k, 1) + 0");
    Ok(())
}

#[test]
fn heads_are_split_off_and_moved_in_one_layer() -> Result {
    let tokens = s('b') * 's';
    let heads = View::contiguous((tokens, s('h') * 'd'))
        .reshape(('b', 's', 'h', 'd'))?
        .permute(&[0, 2, 1, 3])?;
    shows(&heads, "[b, h, s, d] * (d*h*s, d, d*h, 1) + 0");
    // Columns of a fused projection: query heads, then the key's.
    let width = 4 * 64 + 2 * 64;
    let key = View::contiguous((tokens, width))
        .slice(1, 256, width, 1)?
        .reshape(('b', 's', 2, 64))?
        .permute(&[0, 2, 1, 3])?;
    shows(&key, "[b, 2, s, 64] * (384*s, 64, 384, 1) + 256");
    // Grouped heads: each key head serves two query heads.
    let grouped = key.insert(2, 2)?;
    shows(&grouped, "[b, 2, 2, s, 64] * (384*s, 64, 0, 384, 1) + 256");
    Ok(())
}

#[test]
fn a_symbolic_prefix_of_a_capacity_is_a_slice() -> Result {
    let used = s('p') + 's';
    let cache = View::contiguous((2, 4, 1024, 64)).slice(2, 0, used, 1)?;
    shows(
        &cache,
        "[2, 4, p + s, 64] * (262144, 65536, 64, 1) + 0 if -p - s + 1024 >= 0",
    );
    let heads = cache.insert(2, 3)?.permute(&[0, 1, 2, 4, 3])?;
    assert!(heads.single().is_some(), "{heads}");
    let flat = View::contiguous((1024, 4, 64))
        .slice(0, 0, used, 1)?
        .reshape((used, 256))?;
    assert!(flat.is_contiguous(), "{flat}");
    // The rows that are new in this execution.
    let new = View::contiguous(('c', 256))
        .slice(0, 'p', used, 1)?
        .reshape(('s', 4, 64))?;
    shows(&new, "[s, 4, 64] * (256, 64, 1) + 256*p if c - p - s >= 0");
    let windows = View::contiguous((4, 'c', 64)).slice(1, 'p', used, 1)?;
    let split = windows.reshape((2, 2, 's', 8, 8))?;
    assert!(split.single().is_some(), "{split}");
    Ok(())
}

#[test]
fn layers_merge_again_when_the_reason_for_them_is_gone() -> Result {
    let transposed = View::contiguous((4, 6)).permute(&[1, 0])?;
    let flat = transposed.reshape(24)?;
    assert_eq!(flat.layers().len(), 2);
    assert_eq!(flat.reshape((6, 4))?, transposed);
    // Row 2 of the transposed matrix, found through the flat one.
    let row = flat.slice(0, 8, 12, 1)?;
    shows(&row, "[4] * (6) + 2");
    Ok(())
}

#[test]
fn masks_move_through_reshape_and_permute() -> Result {
    let padded = View::contiguous((4, 6)).pad(0, 1, 2)?;
    let flat = padded.reshape(42)?;
    shows(&flat, "[42] * (1) + -6 {6..30}");
    assert_eq!(flat.reshape((7, 6))?, padded);
    let split = padded.permute(&[1, 0])?.reshape((2, 3, 7))?;
    shows(&split, "[2, 3, 7] * (3, 1, 6) + -6 {0..2, 0..3, 1..5}");
    let blocks = View::contiguous(s('n') * 4).pad(0, 4, 0)?;
    let blocks = blocks.split(0, s('n') + 1, 4)?;
    shows(&blocks, "[n + 1, 4] * (4, 1) + -4 {1..n + 1, 0..4}");
    // To the next multiple of 8, as blocks: the last block is not full, so there are two layers.
    let up = s('n').ceil_div(8);
    let full = View::contiguous('n').pad(0, 0, up * 8 - 'n')?;
    assert!(full.requirements().is_empty(), "{full}");
    let blocks = full.split(0, up, 8)?;
    assert_eq!(blocks.layers().len(), 2);
    assert_eq!(blocks.merge(0, 2)?, full);
    Ok(())
}

#[test]
fn windows_of_an_unmasked_axis_are_strides() -> Result {
    let windows = View::contiguous((2, 9)).unfold(1, 3, 2, 1)?;
    shows(&windows, "[2, 4, 3] * (9, 2, 1) + 0");
    let image = View::contiguous(('b', 3, 32, 32))
        .unfold(2, 3, 1, 1)?
        .unfold(3, 3, 1, 1)?;
    shows(
        &image,
        "[b, 3, 30, 30, 3, 3] * (3072, 1024, 32, 1, 32, 1) + 0",
    );
    let sequence = View::contiguous(('s', 16)).unfold(0, 4, 1, 1)?;
    shows(&sequence, "[s - 3, 16, 4] * (16, 1, 16) + 0 if s - 4 >= 0");
    Ok(())
}

#[test]
fn diagonals_are_strides() -> Result {
    let view = View::contiguous((3, 5, 4));
    shows(&view.diagonal(0, 1, 2)?, "[4, 3] * (1, 24) + 8");
    shows(&view.diagonal(0, 1, -1)?, "[4, 2] * (1, 24) + 20");
    Ok(())
}

#[test]
fn a_diagonal_of_a_flat_padded_matrix_keeps_both_masks() -> Result {
    let padded = View::contiguous((4, 4)).pad(0, 1, 2)?.pad(1, 2, 1)?;
    let diagonal = padded.reshape(49)?.slice(0, 0, 49, 8)?;
    assert_eq!(diagonal, padded.diagonal(0, 1, 0)?);
    shows(&diagonal, "[7] * (5) + -6 {2..5}");
    Ok(())
}

#[test]
fn nothing_and_nothing_but_padding_are_one_layer() -> Result {
    let nothing = View::contiguous((4, 6)).permute(&[1, 0])?.reshape(24)?;
    let nothing = nothing.slice(0, 3, 3, 1)?;
    shows(&nothing, "[0]");
    let padding = nothing.pad(0, 1, 2)?;
    shows(&padding, "[3] * (0) + 0 {0..0}");
    let padding = padding.insert(0, 2)?.reshape((3, 2))?;
    shows(&padding, "[3, 2] * (0, 0) + 0 {0..0, 0..0}");
    let scalar = nothing.pad(0, 1, 0)?.squeeze(0)?;
    assert_eq!(scalar.rank(), 0);
    let concrete = scalar.resolve(&Symbols::new()).expect("no symbols");
    assert_eq!(concrete.index(&[]), None);
    assert_eq!(concrete.max_index(), None);
    shows(&scalar.insert(0, 2)?, "[2] * (0) + 0 {0..0}");
    Ok(())
}

#[test]
fn composition_is_reading_a_copy() -> Result {
    let inner = View::contiguous((4, 'n')).permute(&[1, 0])?;
    let outer = View::contiguous(('n', 4)).permute(&[1, 0])?;
    let both = inner.compose(&outer);
    assert!(both.is_contiguous(), "{both}");
    let sliced = View::contiguous(('n', 4)).slice(1, 1, 3, 1)?;
    shows(&inner.compose(&sliced), "[n, 2] * (1, n) + n");
    Ok(())
}

#[test]
fn repeats_need_a_layer_only_where_they_wrap() -> Result {
    let view = View::contiguous(('n', 4));
    assert_eq!(view.repeat(0, 3)?.layers().len(), 2);
    assert_eq!(view.repeat(0, 1)?, view);
    let column = View::contiguous(('n', 1));
    shows(&column.repeat(1, 3)?, "[n, 3] * (1, 0) + 0");
    let tiled = View::contiguous((2, 3)).tile((2, 2))?;
    let read: Vec<_> = tiled
        .resolve(&Symbols::new())
        .expect("no symbols")
        .iter()
        .collect();
    let row = |first: usize| (0..6).map(move |c| Some(first + c % 3));
    let expected: Vec<_> = [0, 3, 0, 3].into_iter().flat_map(row).collect();
    assert_eq!(read, expected);
    Ok(())
}

#[test]
fn errors_say_what_is_wrong() {
    let view = View::contiguous((2, 3));
    let message = |result: std::result::Result<View, ShapeError>| {
        result.expect_err("this cannot be right").to_string()
    };
    assert_eq!(
        message(view.reshape((4, 2))),
        "cannot reshape [2, 3] (6 elements) to [4, 2] (8 elements)"
    );
    assert_eq!(
        message(view.slice(1, 0, 4, 1)),
        "cannot slice 0..4 with step 1 from axis 1 of [2, 3]"
    );
    assert_eq!(
        message(view.flip(2)),
        "axis 2 is out of range for [2, 3] of rank 2"
    );
    assert_eq!(
        message(view.permute(&[0, 0])),
        "[0, 0] is not a permutation of the 2 axes of [2, 3]"
    );
    assert_eq!(
        message(view.expand(0, 4)),
        "cannot expand axis 0 of [2, 3]: its size is not 1"
    );
    assert_eq!(
        message(view.squeeze(1)),
        "cannot squeeze axis 1 of [2, 3]: its size is not 1"
    );
    assert_eq!(
        message(view.pad(0, -1, 0)),
        "cannot pad axis 0 of [2, 3] by -1 before and 0 after"
    );
    assert_eq!(
        message(view.unfold(1, 4, 1, 1)),
        "cannot unfold axis 1 of [2, 3] into windows of 4 with step 1 and dilation 1"
    );
    assert_eq!(message(view.insert(0, -2)), "a size cannot be negative: -2");
    assert_eq!(message(view.tile(2)), "expected [2, 3], found [2]");
    for step in [0, i64::MIN] {
        assert!(view.slice(0, 0, 1, step).is_err());
    }
    assert!(view.diagonal(1, 1, 0).is_err());
    assert!(view.merge(1, 2).is_err());
    assert!(view.merge(0, usize::MAX).is_err());
    assert!(view.slice(0, 2, 1, 1).is_err());
    assert!(view.unfold(0, 0, 1, 1).is_err());
    assert!(View::contiguous('s').reshape(s('s') + 1).is_err());
}

#[test]
fn values_that_contradict_a_requirement_are_refused() -> Result {
    let view = View::contiguous(8).slice(0, 'p', s('p') + 's', 1)?;
    let mut symbols = Symbols::new();
    let unset = view.resolve(&symbols);
    assert!(matches!(
        unset,
        Err(ResolveError::Unset(UnsetSymbol { symbol: 'p' }))
    ));
    symbols.set('p', 5);
    symbols.set('s', 3);
    assert_eq!(view.resolve(&symbols).expect("it fits").dims(), [3]);
    symbols.set('s', 4);
    assert_eq!(
        view.resolve(&symbols).expect_err("9 > 8").to_string(),
        "`-p - s + 8` must not be negative, but is -1"
    );
    let guess = View::contiguous(('s', 4)).reshape(('t', 8))?;
    symbols.set('t', 2);
    assert!(guess.resolve(&symbols).is_ok());
    symbols.set('t', 3);
    assert!(guess.resolve(&symbols).is_err());
    Ok(())
}
