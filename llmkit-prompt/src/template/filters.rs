//! Filters of Jinja2 that the engine lacks or writes differently.

use llmkit_core::jinja;
use minijinja::value::{Kwargs, Rest, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State};

use super::Escape;

/// The widest that a text is padded or indented, in characters.
const WIDEST: usize = 10_000;

pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_filter("center", center);
    environment.add_filter("e", escape);
    environment.add_filter("escape", escape);
    environment.add_filter("float", float);
    environment.add_filter("indent", indent);
    environment.add_filter("int", int);
    environment.add_filter("truncate", truncate);
    environment.add_filter("urlencode", urlencode);
    environment.add_filter("wordcount", wordcount);
}

fn refused(reason: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// A positional argument, or the one of this name.
fn argument<T>(given: Option<T>, named: &Kwargs, name: &str) -> Result<Option<T>, Error>
where
    T: for<'a> minijinja::value::ArgType<'a, Output = T>,
{
    match given {
        Some(value) => Ok(Some(value)),
        None if named.has(name) => named.get(name).map(Some),
        None => Ok(None),
    }
}

fn width(width: Option<usize>, default: usize, filter: &str) -> Result<usize, Error> {
    let width = width.unwrap_or(default);
    if width > WIDEST {
        return Err(refused(format!("{filter}: a width of {width} is more than {WIDEST}")));
    }
    Ok(width)
}

fn escape(state: &State, value: &Value) -> Result<Value, Error> {
    if value.is_safe() {
        return Ok(value.clone());
    }
    Ok(Value::from_safe_string(Escape::Xml.apply(&jinja::str(state, value)?).into_owned()))
}

fn center(state: &State, value: &Value, given: Option<usize>, named: Kwargs) -> Result<String, Error> {
    let width = width(argument(given, &named, "width")?, 80, "center")?;
    named.assert_all_used()?;
    let text = jinja::str(state, value)?;
    let margin = width.saturating_sub(text.chars().count());
    // Python puts an odd blank to the left in odd widths.
    let left = margin / 2 + (margin & width & 1);
    Ok(format!("{}{text}{}", " ".repeat(left), " ".repeat(margin - left)))
}

fn indent(state: &State, value: &Value, given: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let (by, first, blank): (Option<Value>, Option<bool>, Option<bool>) = from_args(&given)?;
    let by = argument(by, &named, "width")?;
    let first = argument(first, &named, "first")?.unwrap_or(false);
    let blank = argument(blank, &named, "blank")?.unwrap_or(false);
    named.assert_all_used()?;
    let by = match &by {
        Some(by) if by.as_str().is_some() => by.as_str().unwrap_or_default().to_owned(),
        Some(by) => " ".repeat(width(by.as_usize(), 4, "indent")?),
        None => " ".repeat(4),
    };
    let text = jinja::str(state, value)?;
    state.consume_fuel((text.matches('\n').count() * by.len() / 64) as u64)?;
    let mut indented = String::with_capacity(text.len());
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            indented.push('\n');
        }
        if if index == 0 { first } else { blank || !line.is_empty() } {
            indented.push_str(&by);
        }
        indented.push_str(line);
    }
    Ok(indented)
}

fn truncate(state: &State, value: &Value, given: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    type Given = (Option<usize>, Option<bool>, Option<String>, Option<usize>);
    let (length, killwords, end, leeway): Given = from_args(&given)?;
    let length = argument(length, &named, "length")?.unwrap_or(255);
    let killwords = argument(killwords, &named, "killwords")?.unwrap_or(false);
    let end = argument(end, &named, "end")?.unwrap_or_else(|| "...".to_owned());
    let leeway = argument(leeway, &named, "leeway")?.unwrap_or(5);
    named.assert_all_used()?;
    let text = jinja::str(state, value)?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let Some(kept) = length.checked_sub(end.chars().count()) else {
        return Err(refused(format!("truncate: a length of {length} leaves no room for `{end}`")));
    };
    let kept = &text[..text.char_indices().nth(kept).map_or(text.len(), |(at, _)| at)];
    let kept = if killwords { kept } else { kept.rsplit_once(' ').map_or(kept, |(before, _)| before) };
    Ok(format!("{kept}{end}"))
}

fn wordcount(state: &State, value: &Value) -> Result<usize, Error> {
    let text = jinja::str(state, value)?;
    Ok(text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count())
}

fn urlencode(state: &State, value: &Value) -> Result<String, Error> {
    let mut encoded = String::new();
    for byte in jinja::str(state, value)?.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(encoded)
}

fn int(value: &Value, default: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let default = argument(default, &named, "default")?.unwrap_or_else(|| Value::from(0));
    named.assert_all_used()?;
    let whole = |number: f64| number.is_finite().then(|| Value::from(number.trunc() as i128));
    let found = match value.kind() {
        ValueKind::Number if value.is_integer() => Some(value.clone()),
        ValueKind::Number => f64::try_from(value.clone()).ok().and_then(whole),
        ValueKind::Bool => Some(Value::from(i32::from(value.is_true()))),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default().trim();
            text.parse::<i128>().ok().map(Value::from).or_else(|| text.parse::<f64>().ok().and_then(whole))
        }
        _ => None,
    };
    Ok(found.unwrap_or(default))
}

fn float(value: &Value, default: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let default = argument(default, &named, "default")?.unwrap_or_else(|| Value::from(0.0));
    named.assert_all_used()?;
    let found = match value.kind() {
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::String => value.as_str().unwrap_or_default().trim().parse().ok(),
        _ => None,
    };
    Ok(found.map_or(default, Value::from))
}
