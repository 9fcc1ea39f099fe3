/// The known name nearest to `name`, within a third of its letters (at least one edit, a swap of neighbours counting as one).
pub(crate) fn closest(name: &str, known: &[String]) -> Option<String> {
    let letters = name.chars().count();
    if letters > 200 {
        return None;
    }
    let allowed = (letters / 3).max(1);
    known
        .iter()
        .filter(|other| other.chars().count().abs_diff(letters) <= allowed)
        .map(|other| (strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase()), other))
        // A one-letter name is one edit away from every other.
        .filter(|(distance, other)| *distance <= allowed && *distance < other.chars().count())
        .min()
        .map(|(_, other)| other.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_suggested_and_a_far_one_is_not() {
        let known = ["question".to_owned(), "context".to_owned(), "x".to_owned()];
        assert_eq!(closest("questoin", &known).as_deref(), Some("question"));
        assert_eq!(closest("Context", &known).as_deref(), Some("context"));
        assert_eq!(closest("answer", &known), None);
        assert_eq!(closest("y", &known), None);
    }
}
