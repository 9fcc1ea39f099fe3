/// The items of a bulleted or numbered list in `text`, one a line; the lines between are passed over. All lines where there is no list.
pub(super) fn list(text: &str) -> Vec<String> {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let items: Vec<String> = lines().filter_map(item).map(str::to_owned).collect();
    if items.is_empty() { lines().map(str::to_owned).collect() } else { items }
}

fn item(line: &str) -> Option<&str> {
    let rest = line.strip_prefix(['-', '*', '•', '–']).or_else(|| {
        let after = line
            .trim_start_matches(['(', '（'])
            .trim_start_matches(|character: char| character.is_ascii_digit());
        let number = line.len() - after.len();
        after.strip_prefix(['.', ')', '）', '、', ':']).filter(|_| number > 0)
    })?;
    let item = rest.trim();
    // `**bold**` and `1.5` begin no item.
    (!item.is_empty() && (rest.starts_with(char::is_whitespace) || !rest.is_ascii())).then_some(item)
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn items_are_found_in_every_usual_form() {
        assert_eq!(
            list("Here:\n1. One\n2) Two\n(3) Three\n- Four\n* Five"),
            ["One", "Two", "Three", "Four", "Five"]
        );
        assert_eq!(list("1、一"), ["一"]);
        assert_eq!(list("**bold**\n1.5 kg"), ["**bold**", "1.5 kg"]);
        assert_eq!(list(""), [""; 0]);
    }
}
