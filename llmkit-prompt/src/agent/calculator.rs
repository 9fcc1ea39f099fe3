use schemars::JsonSchema;
use serde::Deserialize;

use super::{FnTool, ToolError, sync_tool};

/// The longest expression, in bytes.
const LONGEST: usize = 1_000;
/// How deep parentheses, signs and powers may nest.
const DEEPEST: usize = 50;

/// A tool named `calculator` that works out an arithmetic expression.
///
/// It knows `+ - * / ^`, parentheses, `%` as "percent" and `mod` as the remainder, `pi` and `e`, and the functions `sqrt`, `abs`, `round`,
/// `floor`, `ceil`, `ln`, `log` (to base 10), `exp`, `sin`, `cos`, `tan` (radians), `min`, `max` and `pow`. It reckons with 64-bit
/// floating-point numbers and shows 12 digits.
///
/// ```
/// use llmkit_prompt::agent::{Tool, calculator};
/// use serde_json::json;
///
/// # pollster::block_on(async {
/// let calculator = calculator();
/// for (expression, result) in [
///     ("17 * 23", "391"),
///     ("15% of 80", "12"),
///     ("sqrt(2) * max(1, 3)", "4.24264068712"),
///     ("0.1 + 0.2", "0.3"),
/// ] {
///     assert_eq!(calculator.call(json!({ "expression": expression })).await.unwrap().text, result);
/// }
/// let error = calculator.call(json!({"expression": "2 * (3 + x)"})).await.unwrap_err();
/// assert_eq!(error.to_string(), "at character 10: `x` is no number and no function");
/// # });
/// ```
pub fn calculator() -> FnTool {
    let work_out = |args: Calculation| value_of(&args.expression).map(shown).map_err(ToolError::new);
    sync_tool(
        "calculator",
        "Works out an arithmetic expression, such as (12.5 + 3) * 4 ^ 2 or sqrt(2).",
        work_out,
    )
    .read_only()
}

#[derive(Deserialize, JsonSchema)]
struct Calculation {
    /// The expression, with numbers in place of names.
    expression: String,
}

/// Twelve digits hide what binary fractions add to decimal ones.
fn shown(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    let scientific = format!("{value:.11e}");
    let rounded: f64 = scientific.parse().expect("Rust reads the numbers that it writes");
    if (1e-5..1e15).contains(&value.abs()) { rounded.to_string() } else { format!("{rounded:e}") }
}

fn value_of(text: &str) -> Result<f64, String> {
    if text.len() > LONGEST {
        return Err(format!("the expression has {} bytes; the longest has {LONGEST}", text.len()));
    }
    let mut reader = Reader { tokens: tokens(text)?, at: 0, depth: 0 };
    let value = reader.sum()?;
    match reader.peek() {
        Token { kind: Kind::End, .. } => finite(value, 1),
        token => {
            Err(format!("at character {}: expected an operator or the end, found {}", token.at, token.kind))
        }
    }
}

fn finite(value: f64, at: usize) -> Result<f64, String> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(format!(
        "at character {at}: the result is {}",
        if value.is_nan() { "not defined" } else { "too large" }
    ))
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Number(f64),
    Name(String),
    Sign(char),
    End,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "`{number}`"),
            Self::Name(name) => write!(f, "`{name}`"),
            Self::Sign(sign) => write!(f, "`{sign}`"),
            Self::End => f.write_str("the end"),
        }
    }
}

#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    /// Which character it begins at, from 1.
    at: usize,
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut index = 0;
    while let Some(&char) = chars.get(index) {
        let (start, at) = (index, index + 1);
        let kind = match char {
            _ if char.is_whitespace() => {
                index += 1;
                continue;
            }
            '0'..='9' | '.' => {
                index = end_of_number(&chars, index);
                let number: String = chars[start..index].iter().filter(|char| **char != '_').collect();
                let value = number.parse();
                Kind::Number(value.map_err(|_| format!("at character {at}: `{number}` is no number"))?)
            }
            _ if char.is_alphabetic() => {
                while chars.get(index).is_some_and(|char| char.is_alphanumeric() || *char == '_') {
                    index += 1;
                }
                Kind::Name(chars[start..index].iter().collect::<String>().to_lowercase())
            }
            _ => {
                index += 1;
                Kind::Sign(match char {
                    '*' if chars.get(index) == Some(&'*') => {
                        index += 1;
                        '^'
                    }
                    '×' | '·' | '⋅' | '*' => '*',
                    '÷' | '/' => '/',
                    '−' | '–' | '-' => '-',
                    '+' | '^' | '%' | '(' | ')' | ',' => char,
                    '√' => {
                        tokens.push(Token { kind: Kind::Name("sqrt".to_owned()), at });
                        continue;
                    }
                    _ => return Err(format!("at character {at}: `{char}` has no place in an expression")),
                })
            }
        };
        tokens.push(Token { kind, at });
    }
    tokens.push(Token { kind: Kind::End, at: chars.len() + 1 });
    Ok(tokens)
}

/// Digits, `_` between them, a point, and an exponent if one follows.
fn end_of_number(chars: &[char], mut index: usize) -> usize {
    let is_digit = |index: usize| chars.get(index).is_some_and(char::is_ascii_digit);
    while is_digit(index) || matches!(chars.get(index), Some('.' | '_')) {
        index += 1;
    }
    if matches!(chars.get(index), Some('e' | 'E')) {
        let sign = usize::from(matches!(chars.get(index + 1), Some('+' | '-')));
        if is_digit(index + 1 + sign) {
            index += 1 + sign;
            while is_digit(index) {
                index += 1;
            }
        }
    }
    index
}

/// A descent through the grammar; `depth` bounds it.
struct Reader {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Reader {
    /// There is always one: the end is never passed.
    fn peek(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn takes(&mut self, sign: char) -> bool {
        let takes = self.peek().kind == Kind::Sign(sign);
        self.at += usize::from(takes);
        takes
    }

    fn sum(&mut self) -> Result<f64, String> {
        let mut value = self.product()?;
        loop {
            if self.takes('+') {
                value += self.product()?;
            } else if self.takes('-') {
                value -= self.product()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<f64, String> {
        let mut value = self.signed()?;
        loop {
            let Token { kind, at } = self.peek().clone();
            match kind {
                Kind::Sign('*') => {
                    self.at += 1;
                    value *= self.signed()?;
                }
                Kind::Sign('/') => {
                    self.at += 1;
                    let divisor = self.signed()?;
                    if divisor == 0.0 {
                        return Err(format!("at character {at}: division by zero"));
                    }
                    value /= divisor;
                }
                // "15% of 80".
                Kind::Name(name) if name == "of" => {
                    self.at += 1;
                    value *= self.signed()?;
                }
                Kind::Name(name) if name == "mod" => {
                    self.at += 1;
                    let divisor = self.signed()?;
                    if divisor == 0.0 {
                        return Err(format!("at character {at}: division by zero"));
                    }
                    value = value.rem_euclid(divisor);
                }
                _ => return Ok(value),
            }
        }
    }

    /// A sign binds less than a power: -2^2 is -4.
    fn signed(&mut self) -> Result<f64, String> {
        let mut negative = false;
        loop {
            if self.takes('-') {
                negative = !negative;
            } else if !self.takes('+') {
                break;
            }
        }
        let value = self.power()?;
        Ok(if negative { -value } else { value })
    }

    fn power(&mut self) -> Result<f64, String> {
        let base = self.percent()?;
        let at = self.peek().at;
        if !self.takes('^') {
            return Ok(base);
        }
        // Powers group from the right, and a sign may follow: 2^-3^2.
        let exponent = self.deeper(Self::signed)?;
        finite(base.powf(exponent), at)
    }

    fn percent(&mut self) -> Result<f64, String> {
        let mut value = self.operand()?;
        while self.peek().kind == Kind::Sign('%') {
            let Token { at, .. } = self.next();
            if matches!(self.peek().kind, Kind::Number(_) | Kind::Sign('(')) {
                return Err(format!("at character {at}: `%` means percent; write `mod` for the remainder"));
            }
            value /= 100.0;
        }
        Ok(value)
    }

    fn operand(&mut self) -> Result<f64, String> {
        let Token { kind, at } = self.next();
        match kind {
            Kind::Number(number) => {
                if self.peek().kind == Kind::Sign(',') && self.depth == 0 {
                    return Err(format!(
                        "at character {}: a number has no commas: write 1000, not 1,000",
                        self.peek().at
                    ));
                }
                finite(number, at)
            }
            Kind::Sign('(') => {
                let value = self.deeper(Self::sum)?;
                self.close()?;
                Ok(value)
            }
            Kind::Name(name) if name == "pi" || name == "π" => Ok(std::f64::consts::PI),
            Kind::Name(name) if name == "e" => Ok(std::f64::consts::E),
            Kind::Name(name) => self.function(&name, at),
            kind => Err(format!("at character {at}: expected a number, found {kind}")),
        }
    }

    fn function(&mut self, name: &str, at: usize) -> Result<f64, String> {
        let known = [
            "sqrt", "abs", "round", "floor", "ceil", "ln", "log", "exp", "sin", "cos", "tan", "min", "max",
            "pow",
        ];
        if !known.contains(&name) {
            return Err(format!("at character {at}: `{name}` is no number and no function"));
        }
        let mut values = Vec::new();
        if self.takes('(') {
            loop {
                values.push(self.deeper(Self::sum)?);
                if !self.takes(',') {
                    break;
                }
            }
            self.close()?;
        } else {
            // √2
            values.push(self.deeper(Self::percent)?);
        }
        let value = match (name, values.as_slice()) {
            ("sqrt", [x]) => x.sqrt(),
            ("abs", [x]) => x.abs(),
            ("round", [x]) => x.round(),
            ("floor", [x]) => x.floor(),
            ("ceil", [x]) => x.ceil(),
            ("ln", [x]) => x.ln(),
            ("log", [x]) => x.log10(),
            ("exp", [x]) => x.exp(),
            ("sin", [x]) => x.sin(),
            ("cos", [x]) => x.cos(),
            ("tan", [x]) => x.tan(),
            ("pow", [x, y]) => x.powf(*y),
            ("min", [x, rest @ ..]) => rest.iter().fold(*x, |a, b| a.min(*b)),
            ("max", [x, rest @ ..]) => rest.iter().fold(*x, |a, b| a.max(*b)),
            (_, values) => {
                let wanted = if name == "pow" { 2 } else { 1 };
                return Err(format!("at character {at}: `{name}` takes {wanted}, found {}", values.len()));
            }
        };
        finite(value, at)
    }

    fn close(&mut self) -> Result<(), String> {
        let Token { kind, at } = self.next();
        match kind {
            Kind::Sign(')') => Ok(()),
            kind => Err(format!("at character {at}: expected `)`, found {kind}")),
        }
    }

    fn deeper(&mut self, part: fn(&mut Self) -> Result<f64, String>) -> Result<f64, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("at character {}: more than {DEEPEST} levels deep", self.peek().at));
        }
        let value = part(self);
        self.depth -= 1;
        value
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn result(text: &str) -> String {
        value_of(text).map_or_else(|error| error, shown)
    }

    #[test]
    fn expressions_are_worked_out() {
        for (text, expected) in [
            ("1 + 2 * 3", "7"),
            ("(1 + 2) * 3", "9"),
            ("2 ^ 3 ^ 2", "512"),
            ("2 ** 10", "1024"),
            ("-2 ^ 2", "-4"),
            ("2 ^ -1", "0.5"),
            ("2 - -3", "5"),
            ("--3", "3"),
            ("7 mod 3", "1"),
            ("-7 mod 3", "2"),
            ("50%", "0.5"),
            ("200 * 15%", "30"),
            ("15% of 80", "12"),
            ("3 × 4 ÷ 2 − 1", "5"),
            ("√16 + √(9)", "7"),
            ("1e3 + 1_000", "2000"),
            ("1.5E-3 * 2", "0.003"),
            ("2e", "at character 2: expected an operator or the end, found `e`"),
            ("pow(2, 0.5) ^ 2", "2"),
            ("min(3, 1, 2) + max(3)", "4"),
            ("ROUND(2.5)", "3"),
            ("log(1000) + ln(e)", "4"),
            ("sin(pi / 6)", "0.5"),
            ("1 / 3", "0.333333333333"),
            ("10 ^ 20", "1e20"),
            ("2 ^ -40", "9.09494701773e-13"),
            ("0.1 + 0.2 - 0.3", "5.55111512313e-17"),
        ] {
            assert_eq!(result(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, expected) in [
            ("", "at character 1: expected a number, found the end"),
            ("1 +", "at character 4: expected a number, found the end"),
            ("1 / 0", "at character 3: division by zero"),
            ("1 mod 0", "at character 3: division by zero"),
            ("(1 + 2", "at character 7: expected `)`, found the end"),
            ("1 2", "at character 3: expected an operator or the end, found `2`"),
            ("7 % 3", "at character 3: `%` means percent; write `mod` for the remainder"),
            ("1,000 * 2", "at character 2: a number has no commas: write 1000, not 1,000"),
            ("x + 1", "at character 1: `x` is no number and no function"),
            ("sqrt(-1)", "at character 1: the result is not defined"),
            ("sqrt(1, 2)", "at character 1: `sqrt` takes 1, found 2"),
            ("9 ^ 999", "at character 3: the result is too large"),
            ("1.2.3", "at character 1: `1.2.3` is no number"),
            ("2 = 2", "at character 3: `=` has no place in an expression"),
        ] {
            assert_eq!(result(text), expected, "{text}");
        }
        let deep = "(".repeat(500) + "1" + &")".repeat(400);
        assert_eq!(result(&deep), "at character 52: more than 50 levels deep");
        assert!(result(&"1+".repeat(600)).contains("the longest has 1000"));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in r"[0-9.e+*/^%(),a-z √−_]{0,200}") {
            if let Ok(value) = value_of(&text) {
                prop_assert!(value.is_finite());
                prop_assert!(shown(value).parse::<f64>().is_ok());
            }
        }

        #[test]
        fn sums_and_products_are_those_of_rust(a in -1e6..1e6_f64, b in 0.001..1e6_f64, c in -1e3..1e3_f64) {
            let expected = (a + b * c) / b - c;
            let found = value_of(&format!("({a} + {b} * {c}) / {b} - {c}")).unwrap();
            prop_assert_eq!(found, expected);
        }
    }
}
