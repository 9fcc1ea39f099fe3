use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::place::unreadable;
use super::{code_blocks, excerpt};
use crate::{Error, Result};

/// A table, as [`table()`] reads it. Every row has as many cells as the header.
///
/// ```
/// use llmkit_prompt::parse;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// #[derive(serde::Deserialize, Debug, PartialEq)]
/// struct Dish { name: String, litres: f32 }
///
/// let table = parse::table("| name | litres |\n|---|---|\n| tureen | 3.5 |\n| bowl | 1 |")?;
/// assert_eq!(table.header, ["name", "litres"]);
/// assert_eq!(table.rows[0], ["tureen", "3.5"]);
/// let dishes: Vec<Dish> = table.records()?;
/// assert_eq!(dishes[1], Dish { name: "bowl".into(), litres: 1.0 });
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Table {
    /// The names of the columns.
    pub header: Vec<String>,
    /// The cells, row by row, trimmed.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The rows as values of a type whose fields are named as the columns. A cell that reads as a number, `true` or `false` may fill a field of that
    /// type, and an empty one an `Option`.
    ///
    /// # Errors
    /// [`Error::Parse`] for the first row that is no `T`, with its number and the column.
    pub fn records<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        self.rows.iter().enumerate().map(|(number, row)| self.record(number, row)).collect()
    }

    fn record<T: DeserializeOwned>(&self, number: usize, row: &[String]) -> Result<T> {
        let cells =
            row.iter().map(|cell| if cell.is_empty() { Value::Null } else { Value::String(cell.clone()) });
        let mut record = Value::Object(self.header.iter().cloned().zip(cells).collect::<Map<_, _>>());
        // What looks like a number stays a text where the type wants a text: a cell is read in another way only when it is refused.
        for _ in 0..=self.header.len() {
            let error = match serde_path_to_error::deserialize(&record) {
                Ok(record) => return Ok(record),
                Err(error) => error,
            };
            let column = error.path().to_string();
            let other = match record.get(&column) {
                Some(Value::Null) => Some(Value::String(String::new())),
                Some(Value::String(cell)) => literal(cell),
                _ => None,
            };
            let Some(other) = other else {
                return Err(Error::Parse {
                    expected: "a row that fits".to_owned(),
                    found: error.inner().to_string(),
                    place: Some(format!("row {}, column `{column}`", number + 1)),
                });
            };
            record[column] = other;
        }
        Err(unreadable("a row of the table that fits", excerpt(&row.join(" | "))))
    }
}

fn literal(cell: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(&cell.to_lowercase()).ok()?;
    (value.is_number() || value.is_boolean()).then_some(value)
}

/// The first table in `text`: in Markdown's pipes, else comma- or tab-separated values, in a fence or bare.
///
/// In a Markdown table the row of dashes under the header marks it; `\|` is a bar within a cell; the table ends at the first line without
/// a bar, and short rows are filled with empty cells. Separated values follow RFC 4180 (quoted cells may hold separators, doubled
/// quotes and newlines); bare ones are the first two or more lines in a row that have the same number of separators.
///
/// # Errors
/// [`Error::Parse`] when there is no table, or when a row has more cells than the header.
///
/// ```
/// use llmkit_prompt::parse::table;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let table = table("As asked:\n```csv\nname,note\ntureen,\"deep, with a lid\"\n```")?;
/// assert_eq!(table.rows, [["tureen", "deep, with a lid"]]);
/// # Ok(())
/// # }
/// ```
pub fn table(text: &str) -> Result<Table> {
    let lines: Vec<&str> = text.lines().collect();
    if let Some(head) =
        (1..lines.len()).find(|line| lines[*line].contains('-') && is_head(lines[line - 1], lines[*line]))
    {
        let rows = lines[head + 1..]
            .iter()
            .take_while(|line| line.contains('|') && !line.trim_start().starts_with("```"));
        return checked(pipe_cells(lines[head - 1]), rows.map(|line| pipe_cells(line)).collect());
    }
    for block in code_blocks(text) {
        let separator = match block.language().as_str() {
            "csv" => ',',
            "tsv" => '\t',
            "" | "text" | "txt" => match block.code.lines().next() {
                Some(line) if line.contains('\t') => '\t',
                Some(line) if line.contains(',') => ',',
                _ => continue,
            },
            _ => continue,
        };
        return separated(&block.code, separator);
    }
    for separator in ['\t', ','] {
        if let Some(body) = longest_run(text, separator) {
            return separated(body, separator);
        }
    }
    Err(unreadable("a table", excerpt(text)))
}

/// Whether the lines are a header and the dashes under it.
fn is_head(header: &str, dashes: &str) -> bool {
    let cells = pipe_cells(dashes);
    let is_dashes = |cell: &String| {
        let dashes = cell.strip_prefix(':').unwrap_or(cell);
        let dashes = dashes.strip_suffix(':').unwrap_or(dashes);
        !dashes.is_empty() && dashes.bytes().all(|byte| byte == b'-')
    };
    (header.contains('|') || dashes.contains('|'))
        && cells.iter().all(is_dashes)
        && pipe_cells(header).len() == cells.len()
}

fn pipe_cells(line: &str) -> Vec<String> {
    let line = line.trim();
    let line = line.strip_prefix('|').unwrap_or(line);
    let mut cells = vec![String::new()];
    let mut escaped = false;
    for c in line.chars() {
        let cell = cells.last_mut().expect("it begins with one cell");
        match c {
            '|' if escaped => {
                cell.pop();
                cell.push('|');
            }
            '|' => cells.push(String::new()),
            _ => cell.push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    if cells.len() > 1 && cells.last().is_some_and(|cell| cell.trim().is_empty()) {
        cells.pop();
    }
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

fn checked(header: Vec<String>, mut rows: Vec<Vec<String>>) -> Result<Table> {
    for (number, row) in rows.iter_mut().enumerate() {
        if row.len() > header.len() {
            return Err(Error::Parse {
                expected: format!("{} cells a row ({})", header.len(), header.join(", ")),
                found: format!("{}: {}", row.len(), excerpt(&row.join(" | "))),
                place: Some(format!("row {}", number + 1)),
            });
        }
        row.resize(header.len(), String::new());
    }
    Ok(Table { header, rows })
}

fn separated(text: &str, separator: char) -> Result<Table> {
    let mut rows = vec![vec![String::new()]];
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let row = rows.last_mut().expect("it begins with one row");
        let cell = row.last_mut().expect("a row begins with one cell");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' if quoted => quoted = false,
            _ if quoted => cell.push(c),
            '"' if cell.trim().is_empty() => {
                cell.clear();
                quoted = true;
            }
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' => rows.push(vec![String::new()]),
            c if c == separator => row.push(String::new()),
            _ => cell.push(c),
        }
    }
    rows.retain(|row| row.len() > 1 || row.iter().any(|cell| !cell.trim().is_empty()));
    for cell in rows.iter_mut().flatten() {
        *cell = cell.trim().to_owned();
    }
    if rows.is_empty() {
        return Err(unreadable("a table", excerpt(text)));
    }
    let header = rows.remove(0);
    checked(header, rows)
}

/// The first two or more lines in a row with the same number of separators, not between quotes.
fn longest_run(text: &str, separator: char) -> Option<&str> {
    let (mut start, mut end, mut count, mut lines) = (0, 0, 0, 0);
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let mut quoted = false;
        let mut found = 0;
        for c in line.chars() {
            quoted ^= c == '"';
            found += usize::from(c == separator && !quoted);
        }
        if found > 0 && found == count {
            lines += 1;
        } else if lines > 1 {
            break;
        } else {
            (start, count, lines) = (offset, found, usize::from(found > 0));
        }
        offset += line.len();
        end = if lines > 0 { offset } else { end };
    }
    (lines > 1).then(|| &text[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_may_be_escaped_and_cells_missing() {
        let table = table("Intro\n\n a | b |c\n:--|:-:|--\n x \\| y | `z` |\n1|2|3\n\nEnd | of it").unwrap();
        assert_eq!(table.header, ["a", "b", "c"]);
        assert_eq!(table.rows, [["x | y", "`z`", ""], ["1", "2", "3"]]);
    }

    #[test]
    fn a_row_that_is_too_long_is_an_error() {
        let error = table("|a|b|\n|-|-|\n|1|2|\n|1|2|3|").unwrap_err().to_string();
        assert_eq!(error, "expected 2 cells a row (a, b), found 3: `1 | 2 | 3` at row 2");
    }

    #[test]
    fn separated_values_in_prose() {
        let found = table("Here you are:\n\na,b\n1,\"x, \"\"y\"\"\"\n2,z\nThat is all.").unwrap();
        assert_eq!(found.header, ["a", "b"]);
        assert_eq!(found.rows, [["1", "x, \"y\""], ["2", "z"]]);
        let tabs = table("a\tb\n1\t2\n").unwrap();
        assert_eq!(tabs.rows, [["1", "2"]]);
        let fenced = table("```csv\na,b\n\"1\n2\",3\n```").unwrap();
        assert_eq!(fenced.rows, [["1\n2", "3"]]);
        assert!(table("No table, here.").is_err());
        assert!(table("").is_err());
    }

    #[test]
    fn records_say_which_cell_is_wrong() {
        #[derive(serde::Deserialize, Debug, PartialEq)]
        struct Row {
            code: String,
            n: u8,
            note: Option<String>,
        }
        let good = table("|code|n|note|\n|-|-|-|\n|007|7||").unwrap();
        let row = Row { code: "007".to_owned(), n: 7, note: None };
        assert_eq!(good.records::<Row>().unwrap(), [row]);
        let bad = table("|code|n|note|\n|-|-|-|\n|007|seven|x|").unwrap();
        let error = bad.records::<Row>().unwrap_err().to_string();
        assert!(error.contains("at row 1, column `n`"), "{error}");
    }
}
