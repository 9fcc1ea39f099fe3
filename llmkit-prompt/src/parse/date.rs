use std::sync::LazyLock;

use chrono::{Datelike, Days, NaiveDate, Weekday};
use regex::{Captures, Regex};

use super::excerpt;
use super::place::unreadable;
use crate::Result;

/// The date in `text`; see [`DateReader`] for what is read.
///
/// # Errors
/// As [`DateReader::read`].
///
/// ```
/// use llmkit_prompt::parse::date;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// assert_eq!(date("It is due on Tuesday, March 3rd, 2026.")?.to_string(), "2026-03-03");
/// assert_eq!(date("二〇二六年三月三日")?.to_string(), "2026-03-03");
/// assert!(date("03/04/2026").unwrap_err().to_string().contains("could be 2026-04-03 or 2026-03-04"));
/// # Ok(())
/// # }
/// ```
pub fn date(text: &str) -> Result<NaiveDate> {
    DateReader::new().read(text)
}

/// In which order numbers such as `3/4/2026` are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateOrder {
    /// 3 April.
    DayMonth,
    /// March 4.
    MonthDay,
}

/// Finds the one date that a text names.
///
/// Read are ISO 8601 and RFC 3339 (of a time the day, in its own zone), `March 3, 2026`, `3 March 2026`, `3-Mar-2026`,
/// `2026/3/3`, `3.3.2026`, `2026年3月3日` and the same in Chinese or wide numerals; with [`relative_to`](Self::relative_to) also today, tomorrow,
/// yesterday, `in 3 days`, `2 weeks ago`, `next Monday`, 今天, 明天, 后天, 昨天, 前天. A year has four digits. A
/// weekday before a date must be that date's.
///
/// `3/4/2026` can be two days and is an error unless an [order](Self::order) is given; `3/14/2026` cannot; with dots it is always day, month, year.
///
/// ```
/// use llmkit_prompt::parse::{DateOrder, DateReader};
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let reader = DateReader::new().order(DateOrder::DayMonth);
/// let april = reader.read("3/4/2026")?;
/// assert_eq!(april.to_string(), "2026-04-03");
/// assert_eq!(reader.relative_to(april).read("by next Monday")?.to_string(), "2026-04-06");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct DateReader {
    order: Option<DateOrder>,
    today: Option<NaiveDate>,
}

impl DateReader {
    /// A reader that takes no side in ambiguous dates and refuses relative ones.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `3/4/2026` in this order.
    pub fn order(mut self, order: DateOrder) -> Self {
        self.order = Some(order);
        self
    }

    /// Reads "tomorrow" and the like as seen from `day`.
    pub fn relative_to(mut self, day: NaiveDate) -> Self {
        self.today = Some(day);
        self
    }

    /// The date in `text`, which may stand in prose; several mentions of one day are one date.
    ///
    /// # Errors
    /// [`Error::Parse`](crate::Error::Parse) when there is none, or one that does not exist (February 30), could be two days, contradicts its weekday or is
    /// relative to an unknown day, or when there are several different ones.
    pub fn read(&self, text: &str) -> Result<NaiveDate> {
        let text: String = text.chars().map(narrow).collect();
        // The forms are searched in this order, and what one of them takes, the later do not see.
        let mut rest = text.clone();
        let mut found: Vec<(usize, NaiveDate)> = Vec::new();
        for (form, pattern) in FORMS.iter() {
            if *form == Form::Relative && !found.is_empty() {
                break; // "Today, 2026-03-03, ..."
            }
            let mut taken = Vec::new();
            for captures in pattern.captures_iter(&rest) {
                let whole = captures.get(0).expect("group 0 is the match");
                taken.push(whole.range());
                found.push((whole.start(), self.of_form(*form, &captures)?));
            }
            let mut bytes = rest.into_bytes();
            for range in taken {
                bytes[range].fill(b' ');
            }
            rest = String::from_utf8(bytes).expect("whole matches were blanked");
        }
        found.sort_unstable();
        found.dedup_by_key(|(_, date)| *date);
        let mut days: Vec<NaiveDate> = found.into_iter().map(|(_, date)| date).collect();
        let all = days.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        days.sort_unstable();
        days.dedup();
        match days.as_slice() {
            [day] => Ok(*day),
            [] => Err(unreadable("a date, such as 2026-03-03", excerpt(&text))),
            _ => Err(unreadable("one date", format!("several ({all}) in {}", excerpt(&text)))),
        }
    }

    fn of_form(&self, form: Form, captures: &Captures<'_>) -> Result<NaiveDate> {
        let whole = captures.get(0).map_or("", |group| group.as_str()).trim();
        let get = |name| captures.name(name).map_or("", |group| group.as_str());
        let number = |name| get(name).parse::<u32>().unwrap_or(0);
        let date = match form {
            Form::Chinese => exact(chinese(get("y")), chinese(get("m")), chinese(get("d")), whole)?,
            Form::Numbers => exact(number("y"), number("m"), number("d"), whole)?,
            Form::Named => exact(number("y"), month(get("m")), number("d"), whole)?,
            Form::Slashes => self.slashes(number("a"), number("b"), number("y"), whole)?,
            Form::Relative => {
                let Some(today) = self.today else {
                    return Err(unreadable(
                        "a date with its year, such as 2026-03-03",
                        format!("only `{whole}`"),
                    ));
                };
                relative(captures, today)
                    .ok_or_else(|| unreadable("a date in the calendar's range", format!("`{whole}`")))?
            }
        };
        let weekday = get("w");
        match weekday_of(weekday) {
            Some(named) if form != Form::Relative && named != date.weekday() => {
                let day = full_name(date.weekday());
                Err(unreadable(
                    "a date that agrees with its weekday",
                    format!("`{whole}`, but {date} is a {day}"),
                ))
            }
            _ => Ok(date),
        }
    }

    fn slashes(&self, a: u32, b: u32, year: u32, whole: &str) -> Result<NaiveDate> {
        let day_first = NaiveDate::from_ymd_opt(year.cast_signed(), b, a);
        let month_first = NaiveDate::from_ymd_opt(year.cast_signed(), a, b);
        match (day_first, month_first, self.order) {
            (Some(one), Some(other), _) if one == other => Ok(one),
            (Some(date), _, Some(DateOrder::DayMonth)) | (_, Some(date), Some(DateOrder::MonthDay)) => {
                Ok(date)
            }
            (Some(one), Some(other), None) => Err(unreadable(
                "a date that is one day only, such as 2026-03-03",
                format!("`{whole}`, which could be {one} or {other}"),
            )),
            // The given order would be no date; the other reading is the only one.
            (Some(date), None, _) | (None, Some(date), _) => Ok(date),
            (None, None, _) => Err(nonexistent(whole)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Chinese,
    Numbers,
    Named,
    Slashes,
    Relative,
}

static FORMS: LazyLock<Vec<(Form, Regex)>> = LazyLock::new(|| {
    const MONTH: &str = "(?P<m>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)";
    const WEEKDAY: &str = "mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday)?|thu(?:r(?:s(?:day)?)?)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?";
    let ahead = format!(r"(?:\b(?P<w>{WEEKDAY})\.?,?\s+)?");
    let patterns = [
        (Form::Chinese, "(?P<y>[0-9〇零一二三四五六七八九]{4})\\s*年\\s*(?P<m>[0-9一二三四五六七八九十]{1,3})\\s*月\\s*(?P<d>[0-9一二三四五六七八九十]{1,3})\\s*[日号]".to_owned()),
        // Behind a `T`, the time and zone of RFC 3339.
        (Form::Numbers, r"\b(?P<y>[0-9]{4})-(?P<m>[0-9]{1,2})-(?P<d>[0-9]{1,2})(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?\b".to_owned()),
        (Form::Numbers, r"\b(?P<y>[0-9]{4})[/.](?P<m>[0-9]{1,2})[/.](?P<d>[0-9]{1,2})\b".to_owned()),
        (Form::Numbers, r"\b(?P<d>[0-9]{1,2})\.\s?(?P<m>[0-9]{1,2})\.\s?(?P<y>[0-9]{4})\b".to_owned()),
        (Form::Named, format!(r"{ahead}\b{MONTH}\.?\s+(?P<d>[0-9]{{1,2}})(?:st|nd|rd|th)?,?\s+(?P<y>[0-9]{{4}})\b")),
        (Form::Named, format!(r"{ahead}\b(?P<d>[0-9]{{1,2}})(?:st|nd|rd|th)?(?:\s+of)?[\s-]+{MONTH}\.?,?[\s-]+(?P<y>[0-9]{{4}})\b")),
        (Form::Slashes, r"\b(?P<a>[0-9]{1,2})[/-](?P<b>[0-9]{1,2})[/-](?P<y>[0-9]{4})\b".to_owned()),
        (Form::Relative, format!(
            r"\bin\s+(?P<n>[0-9]{{1,5}}|an?|one)\s+(?P<unit>day|week)s?\b|\b(?P<ago>[0-9]{{1,5}}|an?|one)\s+(?P<unit2>day|week)s?\s+ago\b|\b(?P<next>next|last)\s+(?P<w>{WEEKDAY})\b|\b(?P<day>day after tomorrow|day before yesterday|today|tomorrow|yesterday)\b|(?P<zh>今天|明天|后天|昨天|前天)"
        )),
    ];
    let compiled = patterns
        .map(|(form, pattern)| (form, Regex::new(&format!("(?i){pattern}")).expect("the pattern is valid")));
    compiled.into()
});

fn relative(captures: &Captures<'_>, today: NaiveDate) -> Option<NaiveDate> {
    let get = |name| captures.name(name).map(|group| group.as_str().to_lowercase());
    let shifted = |days: i64| match u64::try_from(days) {
        Ok(days) => today.checked_add_days(Days::new(days)),
        Err(_) => today.checked_sub_days(Days::new(days.unsigned_abs())),
    };
    let count = |number: &str, unit: Option<String>| {
        number.parse().unwrap_or(1_i64) * if unit.as_deref() == Some("week") { 7 } else { 1 }
    };
    if let Some(word) = get("day").or(get("zh")) {
        return shifted(match word.as_str() {
            "today" | "今天" => 0,
            "tomorrow" | "明天" => 1,
            "day after tomorrow" | "后天" => 2,
            "yesterday" | "昨天" => -1,
            _ => -2,
        });
    }
    if let Some(direction) = get("next") {
        let target = i64::from(weekday_of(&get("w")?)?.num_days_from_monday());
        let ahead = (target - i64::from(today.weekday().num_days_from_monday())).rem_euclid(7);
        let ahead = if ahead == 0 { 7 } else { ahead };
        let back = if ahead == 7 { 7 } else { 7 - ahead };
        return shifted(if direction == "next" { ahead } else { -back });
    }
    match (get("n"), get("ago")) {
        (Some(number), _) => shifted(count(&number, get("unit"))),
        (_, Some(number)) => shifted(-count(&number, get("unit2"))),
        _ => None,
    }
}

fn exact(year: u32, month: u32, day: u32, whole: &str) -> Result<NaiveDate> {
    NaiveDate::from_ymd_opt(year.cast_signed(), month, day).ok_or_else(|| nonexistent(whole))
}

fn nonexistent(whole: &str) -> crate::Error {
    unreadable("a date of the calendar", format!("`{whole}`, which does not exist"))
}

fn month(name: &str) -> u32 {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let name = name.to_lowercase();
    MONTHS.iter().zip(1..).find(|(month, _)| name.starts_with(**month)).map_or(0, |(_, number)| number)
}

fn weekday_of(name: &str) -> Option<Weekday> {
    name.get(..3)?.parse().ok()
}

fn full_name(day: Weekday) -> &'static str {
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
        [day.num_days_from_monday() as usize]
}

/// Wide digits and punctuation as ASCII.
fn narrow(c: char) -> char {
    match c {
        '０'..='９' | '／' | '－' | '．' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        _ => c,
    }
}

/// A number in ASCII or Chinese digits: `2026`, `二〇二六`, `十二`, `三十一`.
fn chinese(number: &str) -> u32 {
    let digit = |c: char| match c {
        '零' => Some(0),
        _ => c
            .to_digit(10)
            .or_else(|| "〇一二三四五六七八九".chars().zip(0..).find(|(d, _)| *d == c).map(|(_, v)| v)),
    };
    match number.split_once('十') {
        Some((tens, ones)) => {
            let value = |part: &str, empty| part.chars().next().map_or(Some(empty), digit).unwrap_or(0);
            value(tens, 1) * 10 + value(ones, 0)
        }
        None => number.chars().filter_map(digit).fold(0, |value, digit| value * 10 + digit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_one_day() {
        for text in [
            "2026-03-03",
            "2026-3-3",
            "2026-03-03T23:59:60+08:00",
            "2026-03-03 10:00",
            "on 2026/3/3.",
            "3.3.2026",
            "03. 03. 2026",
            "March 3, 2026",
            "mar. 3rd 2026",
            "Tue, 3 March 2026",
            "Tuesday, March 3, 2026",
            "3rd of March 2026",
            "3-Mar-2026",
            "3/3/2026",
            "2026年3月3日",
            "２０２６年３月３日",
            "二〇二六年三月三日",
            "due 2026-03-03, i.e. March 3, 2026",
        ] {
            assert_eq!(date(text).unwrap(), NaiveDate::from_ymd_opt(2026, 3, 3).unwrap(), "{text}");
        }
        assert_eq!(date("二零二六年十二月三十一日").unwrap().to_string(), "2026-12-31");
        assert_eq!(date("14/3/2026").unwrap(), date("3/14/2026").unwrap());
    }

    #[test]
    fn what_is_not_one_day_is_an_error_that_says_so() {
        for (text, part) in [
            ("", "found nothing"),
            ("soon", "found `soon`"),
            ("2026-02-30", "does not exist"),
            ("31/31/2026", "does not exist"),
            ("3/4/2026", "could be 2026-04-03 or 2026-03-04"),
            ("2026-03-03 or 2026-03-04", "several (2026-03-03, 2026-03-04)"),
            ("Monday, March 3, 2026", "2026-03-03 is a Tuesday"),
            ("tomorrow", "only `tomorrow`"),
            ("3/4/26", "found `3/4/26`"),
            ("March 2026", "found `March 2026`"),
        ] {
            let error = date(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn relative_days_are_counted_from_the_given_one() {
        let reader = DateReader::new().relative_to(NaiveDate::from_ymd_opt(2026, 3, 3).unwrap());
        for (text, expected) in [
            ("today", "2026-03-03"),
            ("the day after tomorrow", "2026-03-05"),
            ("in 2 weeks", "2026-03-17"),
            ("a day ago", "2026-03-02"),
            ("next Tuesday", "2026-03-10"),
            ("last Monday", "2026-03-02"),
            ("昨天", "2026-03-02"),
            ("后天", "2026-03-05"),
        ] {
            assert_eq!(reader.read(text).unwrap().to_string(), expected, "{text}");
        }
        assert_eq!(reader.order(DateOrder::MonthDay).read("3/4/2026").unwrap().to_string(), "2026-03-04");
    }
}
