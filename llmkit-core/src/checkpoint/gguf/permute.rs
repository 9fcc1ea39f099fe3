/// Undoes llama.cpp's permutation of query and key rows, for weights `[heads * head_dim, row_len]` and biases (`row_len` 1).
///
/// Hugging Face rotates value `i` of a head together with value `i + head_dim / 2`; llama.cpp rotates neighbours, so its converter interleaves
/// the halves of each head: its row `2 i + j` is Hugging Face's row `j * head_dim / 2 + i`.
///
/// # Panics
/// If the rows do not divide evenly into heads of even size; the caller checks that.
pub(super) fn undo_interleaving(values: &[f32], heads: usize, row_len: usize) -> Vec<f32> {
    let rows = values.len() / row_len.max(1);
    assert!(heads > 0 && rows.is_multiple_of(2 * heads), "{rows} rows are not {heads} heads of even size");
    let head_dim = rows / heads;
    let mut out = Vec::with_capacity(values.len());
    for row in 0..rows {
        let (head, within) = (row / head_dim, row % head_dim);
        let (half, i) = (within / (head_dim / 2), within % (head_dim / 2));
        let from = head * head_dim + 2 * i + half;
        out.extend_from_slice(&values[from * row_len..(from + 1) * row_len]);
    }
    out
}

/// llama.cpp's permutation, the inverse of [`undo_interleaving`].
///
/// # Panics
/// As there.
pub(super) fn interleave(values: &[f32], heads: usize, row_len: usize) -> Vec<f32> {
    let rows = values.len() / row_len.max(1);
    assert!(heads > 0 && rows.is_multiple_of(2 * heads), "{rows} rows are not {heads} heads of even size");
    let head_dim = rows / heads;
    let mut out = Vec::with_capacity(values.len());
    for row in 0..rows {
        let (head, within) = (row / head_dim, row % head_dim);
        let from = head * head_dim + within % 2 * (head_dim / 2) + within / 2;
        out.extend_from_slice(&values[from * row_len..(from + 1) * row_len]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{interleave, undo_interleaving};

    #[test]
    fn interleaving_is_the_inverse() {
        let values: Vec<f32> = (0..48).map(|i| i as f32).collect();
        assert_eq!(interleave(&values, 2, 3)[3..6], [12., 13., 14.]);
        assert_eq!(undo_interleaving(&interleave(&values, 2, 3), 2, 3), values);
    }

    #[test]
    fn separates_the_halves_of_each_head() {
        // Two heads of four rows of two, interleaved: rows 0, 2, 1, 3 of each head.
        let stored = [0., 0., 2., 2., 1., 1., 3., 3., 10., 10., 12., 12., 11., 11., 13., 13.];
        let expected = [0., 0., 1., 1., 2., 2., 3., 3., 10., 10., 11., 11., 12., 12., 13., 13.];
        assert_eq!(undo_interleaving(&stored, 2, 2), expected);
        assert_eq!(undo_interleaving(&[5., 7., 6., 8.], 1, 1), [5., 6., 7., 8.]);
    }
}
