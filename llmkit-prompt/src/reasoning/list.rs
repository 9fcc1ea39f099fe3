use crate::parse;

/// The items of a list that a model was asked for. Unlike [`parse::list`], a single line is one item, whatever commas it has.
pub(super) fn list(text: &str) -> Vec<String> {
    let items = parse::list(text);
    let text = text.trim();
    if items.len() > 1 && !text.contains('\n') { vec![text.to_owned()] } else { items }
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn a_sentence_with_commas_is_one_item() {
        assert_eq!(list("First, count one, then the others."), ["First, count one, then the others."]);
        assert_eq!(list("1. One, or so\n2) Two"), ["One, or so", "Two"]);
        assert_eq!(list(""), [""; 0]);
    }
}
