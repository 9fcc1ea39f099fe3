use chrono::{Datelike, Days, Months, NaiveDate, Weekday};
use serde::{Deserialize, Serialize};

/// The longest text that is looked at, in bytes.
const MAX_TEXT: usize = 200;

/// How a date was made out of words.
///
/// ```
/// use llmkit_prompt::minutes::{DateRule, resolve_date};
///
/// let meeting = "2026-11-24".parse().unwrap(); // a Tuesday
/// assert_eq!(resolve_date("in two weeks", meeting).unwrap().rule, DateRule::Counted);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DateRule {
    /// Day, month and year were said.
    Stated,
    /// The first such day on or after the meeting: "March 3", "the 15th"; for the day of a week, the first after the meeting.
    Coming,
    /// Days, weeks or months from the meeting: "tomorrow", "in two weeks".
    Counted,
    /// That day of the week that begins on the Monday after the meeting (`下下周` on the one after that): "next Friday".
    NextWeek,
    /// The last day of a month or a year: "the end of the month".
    LastDay,
}

/// A date that was made out of words.
///
/// ```
/// use llmkit_prompt::minutes::resolve_date;
///
/// let meeting = "2026-11-24".parse().unwrap();
/// assert_eq!(resolve_date("tomorrow", meeting).unwrap().date.to_string(), "2026-11-25");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolvedDate {
    /// The day.
    pub date: NaiveDate,
    /// How it was found.
    pub rule: DateRule,
}

/// Why no date was made out of words.
///
/// ```
/// use llmkit_prompt::minutes::{Undated, resolve_date};
///
/// let meeting = "2026-11-24".parse().unwrap();
/// assert_eq!(resolve_date("3/4", meeting), Err(Undated::Ambiguous));
/// assert_eq!(resolve_date("when the tests pass", meeting), Err(Undated::NotUnderstood));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Undated {
    /// The words are no date that is known here: "soon", "after the release".
    NotUnderstood,
    /// They may mean several days: "3/4", "Tuesday" on a Tuesday, "next week", "the end of the week".
    Ambiguous,
    /// They contradict themselves: "Monday, December 2" where that is no Monday, "February 30".
    Impossible,
    /// The date of the meeting, from which they count, is not known.
    NoMeetingDate,
}

/// The day that `text` means, said in a meeting on the day `meeting`; in English or Chinese.
///
/// Only what is a date from the first word to the last is taken (words such as "by", "before" and times of day may stand around it);
/// what may mean several days is not guessed.
///
/// ```
/// use llmkit_prompt::minutes::{Undated, resolve_date};
///
/// let meeting = "2026-11-24".parse().unwrap(); // a Tuesday
/// let day = |text| resolve_date(text, meeting).map(|found| found.date.to_string());
/// assert_eq!(day("by Friday").as_deref(), Ok("2026-11-27"));
/// assert_eq!(day("next Friday").as_deref(), Ok("2026-12-04"));
/// assert_eq!(day("the end of the month").as_deref(), Ok("2026-11-30"));
/// assert_eq!(day("下周三之前").as_deref(), Ok("2026-12-02"));
/// assert_eq!(day("next week"), Err(Undated::Ambiguous));
/// ```
///
/// # Errors
/// [`Undated`] says why there is none.
pub fn resolve_date(text: &str, meeting: NaiveDate) -> Result<ResolvedDate, Undated> {
    if text.len() > MAX_TEXT {
        return Err(Undated::NotUnderstood);
    }
    let text = text.trim().to_lowercase();
    if text.chars().any(|letter| ('\u{4e00}'..='\u{9fff}').contains(&letter)) {
        return chinese(&text, meeting);
    }
    english(&text, meeting)
}

/// Whether `text` is a date that counts from no other.
pub(super) fn stated(text: &str) -> Option<ResolvedDate> {
    // Two days that differ in everything: what is the same from both is not relative.
    let day = |year, month, day| NaiveDate::from_ymd_opt(year, month, day).expect("a date of the calendar");
    let first = resolve_date(text, day(2001, 1, 1)).ok()?;
    (first.rule == DateRule::Stated && resolve_date(text, day(2010, 6, 15)) == Ok(first)).then_some(first)
}

fn found(date: Option<NaiveDate>, rule: DateRule) -> Result<ResolvedDate, Undated> {
    date.map(|date| ResolvedDate { date, rule }).ok_or(Undated::Impossible)
}

fn english(text: &str, meeting: NaiveDate) -> Result<ResolvedDate, Undated> {
    let words: Vec<&str> = text
        .split(|letter: char| letter.is_whitespace() || letter == ',')
        .map(|word| word.trim_matches(|letter: char| matches!(letter, '.' | '!' | '?' | '"' | '(' | ')')))
        .filter(|word| !word.is_empty())
        .collect();
    let mut words = words.as_slice();
    const BEFORE: [&str; 12] =
        ["by", "on", "before", "until", "till", "due", "for", "at", "no", "later", "than", "latest"];
    while let [first, rest @ ..] = words
        && BEFORE.contains(first)
    {
        words = rest;
    }
    if let ["the", rest @ ..] = words {
        words = rest;
    }
    let words = without_time_of_day(words);
    let counted = |days: u64| found(meeting.checked_add_days(Days::new(days)), DateRule::Counted);
    match words {
        [] => Err(Undated::NotUnderstood),
        ["today" | "tonight" | "eod" | "cob"]
        | ["end", "of", "day" | "today" | "business"]
        | ["end", "of", "the" | "this", "day"]
        | ["close", "of", "business"] => counted(0),
        ["tomorrow"] => counted(1),
        ["day", "after", "tomorrow"] => counted(2),
        ["yesterday"] => found(meeting.checked_sub_days(Days::new(1)), DateRule::Counted),
        ["in" | "within", number, unit] | [number, unit, "from", "now" | "today"] => {
            count(number, unit, meeting)
        }
        ["in" | "within", "a", "couple", "of", unit] => count("two", unit, meeting),
        [number @ ("a" | "one" | "two"), unit @ ("week" | "weeks"), "from", day] => {
            let weeks = if *unit == "weeks" || *number == "two" { 2 } else { 1 };
            let start = if *day == "tomorrow" {
                meeting.checked_add_days(Days::new(1))
            } else {
                Some(coming(weekday(day).ok_or(Undated::NotUnderstood)?, meeting)?)
            };
            found(start.and_then(|start| start.checked_add_days(Days::new(7 * weeks))), DateRule::Counted)
        }
        ["end", "of", rest @ ..] => english_end(rest, meeting),
        ["next", day] if weekday(day).is_some() => {
            found(weekday(day).and_then(|day| of_week(day, 1, meeting)), DateRule::NextWeek)
        }
        ["next" | "this", "week" | "month" | "quarter" | "year" | "sprint" | "weekend"] | ["weekend"] => {
            Err(Undated::Ambiguous)
        }
        ["this", day] if weekday(day).is_some() => {
            let date = weekday(day).and_then(|day| of_week(day, 0, meeting));
            if date.is_some_and(|date| date <= meeting) {
                return Err(Undated::Ambiguous);
            }
            found(date, DateRule::Coming)
        }
        ["this" | "coming", rest @ ..] | ["this", "coming", rest @ ..] if rest.len() == 1 => {
            found(Some(coming(weekday(rest[0]).ok_or(Undated::NotUnderstood)?, meeting)?), DateRule::Coming)
        }
        [day] if weekday(day).is_some() => {
            found(Some(coming(weekday(day).expect("just seen"), meeting)?), DateRule::Coming)
        }
        [day, rest @ ..] if weekday(day).is_some() => {
            let rest = if let ["the", rest @ ..] = rest { rest } else { rest };
            let date = calendar(rest, meeting)?;
            if Some(date.date.weekday()) == weekday(day) { Ok(date) } else { Err(Undated::Impossible) }
        }
        words => calendar(words, meeting),
    }
}

/// `words` up to a time of day at the end, such as "at 5 pm" or "afternoon".
fn without_time_of_day<'a, 'b>(words: &'a [&'b str]) -> &'a [&'b str] {
    let is_clock = |word: &str| {
        let hours = word.trim_end_matches("am").trim_end_matches("pm");
        hours != word && hours.chars().all(|letter| letter.is_ascii_digit() || letter == ':')
            || hours.contains(':') && hours.chars().all(|letter| letter.is_ascii_digit() || letter == ':')
    };
    match words {
        [rest @ .., "at", _, "am" | "pm" | "o'clock"] | [rest @ .., "at", "noon" | "midnight"] => rest,
        [rest @ .., "at", clock] if is_clock(clock) => rest,
        [rest @ .., "end", "of", "day"] if !rest.is_empty() => rest,
        [rest @ .., "morning" | "afternoon" | "evening" | "night" | "noon" | "eod" | "cob" | "latest"]
            if !rest.is_empty() =>
        {
            if let [rest @ .., "at" | "in", "the"] | [rest @ .., "at"] = rest {
                rest
            } else {
                rest
            }
        }
        words => words,
    }
}

fn english_end(words: &[&str], meeting: NaiveDate) -> Result<ResolvedDate, Undated> {
    let (next, words) = match words {
        ["next", rest @ ..] => (1, rest),
        ["the" | "this", rest @ ..] => (0, rest),
        words => (0, words),
    };
    match words {
        ["month"] => {
            let day = meeting.with_day(1).and_then(|first| first.checked_add_months(Months::new(next)));
            found(day.and_then(last_of_month), DateRule::LastDay)
        }
        ["year"] => {
            let year = meeting.year().checked_add_unsigned(next);
            found(year.and_then(|year| NaiveDate::from_ymd_opt(year, 12, 31)), DateRule::LastDay)
        }
        [name] if month(name).is_some() => {
            let last = |year| NaiveDate::from_ymd_opt(year, month(name)?, 1).and_then(last_of_month);
            let date = last(meeting.year()).filter(|date| *date >= meeting);
            found(date.or_else(|| last(meeting.year().checked_add(1)?)), DateRule::LastDay)
        }
        [.., "week" | "quarter" | "sprint"] => Err(Undated::Ambiguous),
        _ => Err(Undated::NotUnderstood),
    }
}

fn count(number: &str, unit: &str, meeting: NaiveDate) -> Result<ResolvedDate, Undated> {
    const WORDS: [&str; 13] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
        "twelve",
    ];
    let number = match number {
        "a" | "an" => 1,
        word => match WORDS.iter().position(|known| *known == word) {
            Some(number) => u32::try_from(number).expect("below 13"),
            None => word.parse().map_err(|_| Undated::NotUnderstood)?,
        },
    };
    let date = match unit.trim_end_matches('s') {
        "day" => meeting.checked_add_days(Days::new(number.into())),
        "week" => meeting.checked_add_days(Days::new(u64::from(number) * 7)),
        "month" => meeting.checked_add_months(Months::new(number)),
        "year" => meeting.checked_add_months(Months::new(number.saturating_mul(12))),
        _ => return Err(Undated::NotUnderstood),
    };
    found(date, DateRule::Counted)
}

/// A day of the calendar, with or without its year.
fn calendar(words: &[&str], meeting: NaiveDate) -> Result<ResolvedDate, Undated> {
    match words {
        [date] if date.contains(['-', '/']) || date.split('.').count() == 3 => numeric(date),
        [name, day] | [day, name] | [day, "of", name] if month(name).is_some() => {
            let month = month(name).ok_or(Undated::NotUnderstood)?;
            let day = ordinal(day).ok_or(Undated::NotUnderstood)?;
            coming_day(month, day, meeting)
        }
        [name, day, year] | [day, name, year] | [day, "of", name, year] if month(name).is_some() => {
            let year: i32 = Some(year)
                .filter(|year| year.len() == 4)
                .and_then(|year| year.parse().ok())
                .ok_or(Undated::NotUnderstood)?;
            let (month, day) = month(name).zip(ordinal(day)).ok_or(Undated::NotUnderstood)?;
            found(NaiveDate::from_ymd_opt(year, month, day), DateRule::Stated)
        }
        [day] if day.ends_with(|letter: char| letter.is_ascii_alphabetic()) => {
            day_of_month(ordinal(day).ok_or(Undated::NotUnderstood)?, meeting)
        }
        _ => Err(Undated::NotUnderstood),
    }
}

/// `2026-12-01`, `2026/12/1`, `13/12/2026`; not `3/4`, which is read differently in different places.
fn numeric(text: &str) -> Result<ResolvedDate, Undated> {
    let parts: Vec<&str> = text.split(['-', '/', '.']).collect();
    let number = |part: &str| part.parse::<u32>().ok().filter(|_| part.len() <= 4);
    let [first, second, third] = parts.as_slice() else {
        let numbers = parts.len() == 2 && parts.iter().all(|part| number(part).is_some());
        return Err(if numbers { Undated::Ambiguous } else { Undated::NotUnderstood });
    };
    let (Some(a), Some(b), Some(c)) = (number(first), number(second), number(third)) else {
        return Err(Undated::NotUnderstood);
    };
    let date = |year: u32, month, day| {
        found(
            i32::try_from(year).ok().and_then(|year| NaiveDate::from_ymd_opt(year, month, day)),
            DateRule::Stated,
        )
    };
    match (first.len(), third.len()) {
        (4, _) => date(a, b, c),
        (_, 4) if a > 12 || a == b => date(c, b, a),
        (_, 4) if b > 12 => date(c, a, b),
        _ => Err(Undated::Ambiguous),
    }
}

/// "3", "3rd", "21st".
fn ordinal(word: &str) -> Option<u32> {
    let digits = word.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    if digits.is_empty()
        || digits.len() > 2
        || !matches!(&word[digits.len()..], "" | "st" | "nd" | "rd" | "th")
    {
        return None;
    }
    digits.parse().ok()
}

fn weekday(word: &str) -> Option<Weekday> {
    let full = matches!(
        word,
        "monday"
            | "mon"
            | "tuesday"
            | "tue"
            | "tues"
            | "wednesday"
            | "wed"
            | "thursday"
            | "thu"
            | "thurs"
            | "friday"
            | "fri"
            | "saturday"
            | "sat"
            | "sunday"
            | "sun"
    );
    full.then(|| word[..3].parse().ok()).flatten()
}

fn month(word: &str) -> Option<u32> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let known = |name: &str| name == word || word == &name[..3] || (word == "sept" && name == "september");
    MONTHS.iter().position(|name| known(name)).and_then(|index| u32::try_from(index + 1).ok())
}

/// The first such day after the meeting.
fn coming(day: Weekday, meeting: NaiveDate) -> Result<NaiveDate, Undated> {
    let ahead = day.days_since(meeting.weekday());
    if ahead == 0 {
        return Err(Undated::Ambiguous);
    }
    meeting.checked_add_days(Days::new(ahead.into())).ok_or(Undated::Impossible)
}

/// That day of the week `weeks` after the meeting's; weeks begin on Monday.
fn of_week(day: Weekday, weeks: u64, meeting: NaiveDate) -> Option<NaiveDate> {
    let monday = meeting.checked_sub_days(Days::new(meeting.weekday().num_days_from_monday().into()))?;
    monday.checked_add_days(Days::new(7 * weeks + u64::from(day.num_days_from_monday())))
}

/// The first day and month like this on or after the meeting.
fn coming_day(month: u32, day: u32, meeting: NaiveDate) -> Result<ResolvedDate, Undated> {
    // A leap day is at most eight years away.
    let dates =
        (0..=8).filter_map(|years| NaiveDate::from_ymd_opt(meeting.year().checked_add(years)?, month, day));
    found(dates.into_iter().find(|date| *date >= meeting), DateRule::Coming)
}

/// The first day with this number on or after the meeting.
fn day_of_month(day: u32, meeting: NaiveDate) -> Result<ResolvedDate, Undated> {
    let first = meeting.with_day(1);
    let dates = (0..=2).filter_map(|months| first?.checked_add_months(Months::new(months))?.with_day(day));
    found(dates.into_iter().find(|date| *date >= meeting), DateRule::Coming)
}

fn last_of_month(day: NaiveDate) -> Option<NaiveDate> {
    day.with_day(1)?.checked_add_months(Months::new(1))?.pred_opt()
}

fn chinese(text: &str, meeting: NaiveDate) -> Result<ResolvedDate, Undated> {
    let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
    let mut text = text.trim_matches(|letter| matches!(letter, '。' | '，' | '.' | ','));
    for before in ["最迟", "最晚", "截止到", "截至", "截止", "在", "到", "于"] {
        text = text.strip_prefix(before).unwrap_or(text);
    }
    const AFTER: [&str; 12] =
        ["之前", "以前", "前", "下班", "早上", "上午", "中午", "下午", "晚上", "晚", "早", "为止"];
    while let Some(rest) =
        AFTER.iter().find_map(|after| text.strip_suffix(after)).filter(|rest| !rest.is_empty())
    {
        text = rest;
    }
    let counted = |days: u64| found(meeting.checked_add_days(Days::new(days)), DateRule::Counted);
    match text {
        "今天" | "今日" | "今" => return counted(0),
        "明天" | "明日" | "明" => return counted(1),
        "后天" => return counted(2),
        "大后天" => return counted(3),
        "昨天" | "昨日" => return found(meeting.checked_sub_days(Days::new(1)), DateRule::Counted),
        "月底" | "本月底" | "这个月底" | "月末" | "本月末" => {
            return english_end(&["month"], meeting);
        }
        "下月底" | "下个月底" | "下月末" => return english_end(&["next", "month"], meeting),
        "年底" | "年末" | "今年年底" => return english_end(&["year"], meeting),
        "本周" | "这周" | "下周" | "下个月" | "下星期" | "周末" | "本周末" | "下周末" | "季度末" =>
        {
            return Err(Undated::Ambiguous);
        }
        _ => {}
    }
    if let Some(result) = chinese_weekday(text, meeting) {
        return result;
    }
    for (after, unit) in
        [("个月", "month"), ("个星期", "week"), ("个礼拜", "week"), ("周", "week"), ("天", "day")]
    {
        for end in ["之后", "以后", "后", "内", "之内", "以内"] {
            let number = text.strip_suffix(end).and_then(|rest| rest.strip_suffix(after));
            if let Some(number) = number.and_then(chinese_number) {
                return count(&number.to_string(), unit, meeting);
            }
        }
    }
    chinese_calendar(text, meeting).unwrap_or_else(|| {
        if text.contains(['-', '/']) { numeric(text) } else { Err(Undated::NotUnderstood) }
    })
}

fn chinese_weekday(text: &str, meeting: NaiveDate) -> Option<Result<ResolvedDate, Undated>> {
    let mut letters = text.chars();
    let last = letters.next_back()?;
    let day = match last {
        '日' | '天' => Weekday::Sun,
        last => {
            let index = "一二三四五六".chars().position(|known| known == last)?;
            Weekday::try_from(u8::try_from(index).ok()?).ok()?
        }
    };
    let before = letters.as_str();
    let before = ["周", "星期", "礼拜"].iter().find_map(|week| before.strip_suffix(week))?;
    let before = before.strip_suffix('个').unwrap_or(before);
    Some(match before {
        "" => coming(day, meeting).and_then(|date| found(Some(date), DateRule::Coming)),
        "本" | "这" => match of_week(day, 0, meeting) {
            Some(date) if date <= meeting => Err(Undated::Ambiguous),
            date => found(date, DateRule::Coming),
        },
        "下" => found(of_week(day, 1, meeting), DateRule::NextWeek),
        "下下" => found(of_week(day, 2, meeting), DateRule::NextWeek),
        _ => return None,
    })
}

/// `2026年12月3日`, `12月3号`, `3号`.
fn chinese_calendar(text: &str, meeting: NaiveDate) -> Option<Result<ResolvedDate, Undated>> {
    let (year, rest) = match text.split_once('年') {
        Some((year, rest)) => (Some(year), rest),
        None => (None, text),
    };
    let rest = rest.strip_suffix(['日', '号'])?;
    let Some((month, day)) = rest.split_once('月') else {
        return year.is_none().then(|| Some(day_of_month(chinese_number(rest)?, meeting))).flatten();
    };
    let day = chinese_number(day)?;
    let year = match year {
        Some("今") => Some(meeting.year()),
        Some("明") => Some(meeting.year().checked_add(1)?),
        Some(year) => Some(year.parse().ok()?),
        None => None,
    };
    if year.is_none() && matches!(month, "本" | "这个") {
        return Some(found(meeting.with_day(day), DateRule::Coming));
    }
    if year.is_none() && matches!(month, "下" | "下个") {
        let first = meeting.with_day(1)?.checked_add_months(Months::new(1))?;
        return Some(found(first.with_day(day), DateRule::Coming));
    }
    let month = chinese_number(month)?;
    Some(match year {
        Some(year) => found(NaiveDate::from_ymd_opt(year, month, day), DateRule::Stated),
        None => coming_day(month, day, meeting),
    })
}

/// Up to 99, in digits or in words.
fn chinese_number(text: &str) -> Option<u32> {
    if text.chars().all(|letter| letter.is_ascii_digit()) {
        return Some(text).filter(|text| text.len() <= 3).and_then(|text| text.parse().ok());
    }
    let digit = |letter: char| -> Option<u32> {
        if letter == '两' {
            return Some(2);
        }
        "零一二三四五六七八九"
            .chars()
            .position(|known| known == letter)
            .and_then(|index| index.try_into().ok())
    };
    let letters: Vec<char> = text.chars().collect();
    match letters.as_slice() {
        ['十'] => Some(10),
        ['十', ones] => Some(10 + digit(*ones)?),
        [tens, '十'] => Some(10 * digit(*tens)?),
        [tens, '十', ones] => Some(10 * digit(*tens)? + digit(*ones)?),
        [ones] => digit(*ones),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A Tuesday.
    fn meeting() -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 11, 24).unwrap()
    }

    #[test]
    fn dates_are_resolved_against_the_meeting() {
        let table = [
            ("today", "2026-11-24"),
            ("by end of day", "2026-11-24"),
            ("EOD", "2026-11-24"),
            ("tomorrow morning", "2026-11-25"),
            ("by tomorrow at 5 pm", "2026-11-25"),
            ("the day after tomorrow", "2026-11-26"),
            ("Friday", "2026-11-27"),
            ("by Friday EOD", "2026-11-27"),
            ("on Monday at noon", "2026-11-30"),
            ("this Thursday", "2026-11-26"),
            ("next Friday", "2026-12-04"),
            ("before next Tuesday.", "2026-12-01"),
            ("a week from Friday", "2026-12-04"),
            ("in 3 days", "2026-11-27"),
            ("in two weeks", "2026-12-08"),
            ("within a month", "2026-12-24"),
            ("three weeks from now", "2026-12-15"),
            ("end of the month", "2026-11-30"),
            ("by the end of next month", "2026-12-31"),
            ("end of January", "2027-01-31"),
            ("end of the year", "2026-12-31"),
            ("March 3", "2027-03-03"),
            ("December 5th", "2026-12-05"),
            ("the 3rd of March", "2027-03-03"),
            ("Friday, December 4th", "2026-12-04"),
            ("Dec 4, 2026", "2026-12-04"),
            ("February 29", "2028-02-29"),
            ("the 15th", "2026-12-15"),
            ("2026-12-01", "2026-12-01"),
            ("13/12/2026", "2026-12-13"),
            ("今天下午", "2026-11-24"),
            ("明天", "2026-11-25"),
            ("后天上午", "2026-11-26"),
            ("周五之前", "2026-11-27"),
            ("星期天", "2026-11-29"),
            ("本周五下班前", "2026-11-27"),
            ("下周三", "2026-12-02"),
            ("下个星期一", "2026-11-30"),
            ("下下周一", "2026-12-07"),
            ("三天后", "2026-11-27"),
            ("两周内", "2026-12-08"),
            ("一个月后", "2026-12-24"),
            ("月底", "2026-11-30"),
            ("12月5号", "2026-12-05"),
            ("十二月十五日前", "2026-12-15"),
            ("2027年1月8日", "2027-01-08"),
            ("28号", "2026-11-28"),
        ];
        for (text, expected) in table {
            let date = resolve_date(text, meeting()).map(|found| found.date.to_string());
            assert_eq!(date.as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_sure_is_not_guessed() {
        use Undated::{Ambiguous, Impossible, NotUnderstood};
        let table = [
            ("Tuesday", Ambiguous),
            ("this Monday", Ambiguous),
            ("3/4", Ambiguous),
            ("03/04/2026", Ambiguous),
            ("next week", Ambiguous),
            ("the end of the week", Ambiguous),
            ("end of the quarter", Ambiguous),
            ("周二", Ambiguous),
            ("下周", Ambiguous),
            ("Monday, December 2", Impossible),
            ("February 30", Impossible),
            ("2026-13-01", Impossible),
            ("soon", NotUnderstood),
            ("", NotUnderstood),
            ("Friday or Monday", NotUnderstood),
            ("not before Friday", NotUnderstood),
            ("after Friday", NotUnderstood),
            ("in many weeks", NotUnderstood),
            ("in 99999999999 weeks", NotUnderstood),
            ("发布之后", NotUnderstood),
        ];
        for (text, expected) in table {
            assert_eq!(resolve_date(text, meeting()), Err(expected), "{text}");
        }
        assert_eq!(resolve_date("in 4000000000 weeks", meeting()), Err(Impossible));
    }

    #[test]
    fn a_full_date_needs_no_meeting() {
        assert_eq!(stated("Dec 4, 2026").unwrap().date.to_string(), "2026-12-04");
        assert_eq!(stated("2027年1月8日").unwrap().date.to_string(), "2027-01-08");
        assert_eq!(stated("今年1月8日"), None);
        assert_eq!(stated("December 4"), None);
        assert_eq!(stated("tomorrow"), None);
    }

    proptest! {
        #[test]
        fn anything_is_a_date_or_none(text in "(\\PC|[0-9]|next |in | week|friday|march|[-/]|下|周|月|日|号|十|年){0,30}", days in 0_i32..3_000_000) {
            let meeting = NaiveDate::from_num_days_from_ce_opt(days).unwrap();
            let _ = resolve_date(&text, meeting);
            let _ = resolve_date(&text, NaiveDate::MAX);
            let _ = stated(&text);
        }
    }
}
