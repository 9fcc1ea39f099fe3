/// The longest name for which another is suggested, in bytes; a model may write any.
const LONGEST: usize = 64;

/// The one of `names` that was probably meant by `name`: within a third of its letters (at least one edit, a swap of neighbours counting as
/// one).
pub(super) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_lowercase();
    let allowed = (name.chars().count() / 3).max(1);
    names
        .into_iter()
        .filter(|other| other.len() <= LONGEST)
        .map(|other| (strsim::damerau_levenshtein(&name, &other.to_lowercase()), other))
        .filter(|(distance, other)| *distance <= allowed && *distance < other.chars().count())
        .min()
        .map(|(_, other)| other)
}
