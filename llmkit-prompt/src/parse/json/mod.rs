//! JSON that a model wrote.

mod fit;
mod repair;
mod report;
mod search;
mod strict;
mod text;
mod word;

use serde::de::DeserializeOwned;

use super::excerpt;
use super::place::unreadable;
use crate::Result;

pub use report::{Repair, RepairKind, Repaired};

/// How deep JSON may be nested: 127 brackets, as serde_json allows.
pub const MAX_DEPTH: usize = 127;

/// The longest text that is searched for JSON: 4 MiB.
pub const MAX_TEXT: usize = 4 << 20;

/// The JSON value in `text`, as a `T`.
///
/// Valid JSON is read exactly as serde_json does. Otherwise the text is searched for the piece that is meant, what is broken in it is mended, and the first
/// piece that is a `T` is taken, in this order:
///
/// - behind the end of a model's thoughts (`</think>`), where there is one;
/// - in a fence marked as JSON before other fences before none;
/// - valid JSON before broken; objects before lists; a later piece before an earlier one, as answers come last;
/// - pieces that follow each other directly (`{..}{..}`, JSON lines) first as one list;
/// - at last, what lies alone in an object or list (`{"result": ..}`), and JSON within a text.
///
/// Mended are quotes, commas, colons and brackets that are missing, wrong or too many, comments, literals of Python and JavaScript, numbers in other notations,
/// unescaped quotes and line breaks within texts, texts without quotes, doubled braces, and a cut-off end; see [`RepairKind`].
/// Time and memory are linear in the text.
///
/// # Errors
/// [`Error::Parse`](crate::Error::Parse) when there is no JSON, when none is a `T` (then with the path of the first wrong field of the likeliest piece), or when the
/// text is longer than [`MAX_TEXT`] or nested deeper than [`MAX_DEPTH`].
///
/// ```
/// use llmkit_prompt::parse::json;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// #[derive(serde::Deserialize)]
/// struct Dish { name: String, litres: f32 }
///
/// let dish: Dish = json(r#"I'd say {"name": "the "big" tureen", "litres": 3.5"#)?;
/// assert_eq!(dish.name, "the \"big\" tureen");
///
/// let error = json::<Vec<Dish>>(r#"[{"name": "bowl", "litres": "many"}]"#).err().expect("it is no number");
/// assert_eq!(error.to_string(), r#"expected f32, found string "many" at `[0].litres`"#);
/// # Ok(())
/// # }
/// ```
pub fn json<T: DeserializeOwned>(text: &str) -> Result<T> {
    json_with_repairs(text).map(|repaired| repaired.value)
}

/// As [`json`], with a list of what was mended.
///
/// # Errors
/// As [`json`].
///
/// ```
/// use llmkit_prompt::parse::{RepairKind, json_with_repairs};
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let read = json_with_repairs::<Vec<String>>("[\"a\" \"b\"]")?;
/// assert_eq!(read.value, ["a", "b"]);
/// assert_eq!(read.repairs[0].kind, RepairKind::MissingComma);
/// # Ok(())
/// # }
/// ```
pub fn json_with_repairs<T: DeserializeOwned>(text: &str) -> Result<Repaired<T>> {
    if text.len() > MAX_TEXT {
        return Err(unreadable(format!("at most {MAX_TEXT} bytes of text"), format!("{} bytes", text.len())));
    }
    let found = search::search(text);
    let mut first_error = None;
    let others = found.pieces.iter().filter(|piece| !piece.is_list_of_pieces()).count().saturating_sub(1);
    let mut values = Vec::new();
    for piece in &found.pieces {
        match piece.fit(text) {
            Ok(value) => return Ok(repaired(text, value, piece.log.clone(), others)),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    for piece in found.pieces.iter().take(search::UNWRAPPED) {
        values.extend(piece.value(text).map(|value| (value, piece)));
    }
    for (value, piece) in values {
        if let Some((value, kinds)) = fit::unwrapped(value) {
            let mut log = piece.log.clone();
            kinds.into_iter().for_each(|kind| log.add(piece.range.start, kind));
            return Ok(repaired(text, value, log, others));
        }
    }
    for piece in search::within_broken(text, &found.pieces) {
        if let Ok(value) = piece.fit(text) {
            return Ok(repaired(text, value, piece.log.clone(), others));
        }
    }
    Err(match (first_error, found.too_deep) {
        (Some(error), _) => error,
        (None, true) => unreadable(format!("JSON at most {MAX_DEPTH} levels deep"), "deeper JSON"),
        (None, false) => unreadable("JSON", excerpt(text)),
    })
}

fn repaired<T>(text: &str, value: T, log: report::Log, others: usize) -> Repaired<T> {
    let (repairs, unlisted) = log.placed(text);
    Repaired { value, repairs, unlisted, others }
}
