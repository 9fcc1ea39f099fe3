//! Which of two versions is newer.

use std::cmp::Ordering;

/// Compares versions part by part: numbers by their value, before words; a prompt without a version is the oldest. What follows a `-` makes
/// a version older than the one without it, as in Semantic Versioning.
pub(super) fn compare(a: Option<&str>, b: Option<&str>) -> Ordering {
    let (Some(a), Some(b)) = (a, b) else { return a.is_some().cmp(&b.is_some()) };
    let (a_main, a_rest) = split(a);
    let (b_main, b_rest) = split(b);
    parts(a_main, b_main).then_with(|| match (a_rest, b_rest) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => parts(a, b),
    })
}

fn split(version: &str) -> (&str, Option<&str>) {
    let version = version.strip_prefix('v').unwrap_or(version);
    version.split_once('-').map_or((version, None), |(main, rest)| (main, Some(rest)))
}

fn parts(a: &str, b: &str) -> Ordering {
    let mut a = a.split('.');
    let mut b = b.split('.');
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            // 1.0 and 1 are the same; 1.1 is newer than 1.
            (Some(part), None) => {
                if part.parse() != Ok(0_u64) {
                    return Ordering::Greater;
                }
            }
            (None, Some(part)) => {
                if part.parse() != Ok(0_u64) {
                    return Ordering::Less;
                }
            }
            (Some(a), Some(b)) => {
                let order = match (a.parse::<u64>(), b.parse::<u64>()) {
                    (Ok(a), Ok(b)) => a.cmp(&b),
                    (Ok(_), Err(_)) => Ordering::Less,
                    (Err(_), Ok(_)) => Ordering::Greater,
                    (Err(_), Err(_)) => a.cmp(b),
                };
                if order != Ordering::Equal {
                    return order;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let ordered = [
            None,
            Some("0.9"),
            Some("1"),
            Some("1.2.0-rc.1"),
            Some("1.2.0"),
            Some("1.10"),
            Some("v2"),
            Some("10"),
        ];
        for pair in ordered.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare(Some("1.0"), Some("1")), Ordering::Equal);
    }
}
