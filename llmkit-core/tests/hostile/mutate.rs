//! What an attacker or a bad disk does to a file.

use serde_json::{Map, Value, json};

/// SplitMix64: the same numbers from the same seed, everywhere.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x0dd_ba11)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `end - 1`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Changes one to four places among the first `head` bytes, or cuts the file.
pub(crate) fn bytes(rng: &mut Rng, original: &[u8], head: usize) -> Vec<u8> {
    const NUMBERS: [u64; 8] = [0, 1, 255, 1 << 31, 1 << 32, 1 << 40, 1 << 63, u64::MAX];
    let mut bytes = original.to_vec();
    for _ in 0..1 + rng.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.below(head.min(bytes.len()));
        match rng.below(12) {
            0 => bytes.truncate(rng.below(original.len())),
            1..=4 => bytes[at] ^= 1 << rng.below(8),
            5..=6 => {
                // Where a length or an offset may be.
                let width = *rng.pick(&[4, 8]);
                let end = bytes.len().min(at + width);
                let number = *rng.pick(&NUMBERS);
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
            7 => {
                let end = bytes.len().min(at + 1 + rng.below(40));
                bytes.drain(at..end);
            }
            8 => {
                let new: Vec<u8> = (0..1 + rng.below(40)).map(|_| rng.next() as u8).collect();
                bytes.splice(at..at, new);
            }
            9 => {
                let end = bytes.len().min(at + 1 + rng.below(200));
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            10 => bytes[at] = *rng.pick(b"\0\xff\"{}[],:0-9\\%"),
            _ => {
                let end = bytes.len().min(at + 1 + rng.below(60));
                bytes[at..end].fill(rng.next() as u8);
            }
        }
    }
    bytes
}

/// JSON with values swapped for others, keys removed, renamed or doubled, or bytes changed.
pub(crate) fn json(rng: &mut Rng, original: &[u8]) -> Vec<u8> {
    if rng.below(4) == 0 {
        return bytes(rng, original, original.len());
    }
    let mut value: Value = serde_json::from_slice(original).unwrap();
    for _ in 0..1 + rng.below(3) {
        let donor = pick_node(rng, &value).clone();
        let steps = rng.below(6);
        change(rng, &mut value, steps, donor);
    }
    let text = serde_json::to_string(&value).unwrap();
    match rng.below(12) {
        // The same key twice: which one wins must not matter to safety.
        0 if text.starts_with("{\"") => {
            let donor = serde_json::to_string(&hostile(rng)).unwrap();
            let key = value.as_object().and_then(|map| map.keys().nth(rng.below(map.len())).cloned());
            format!("{{{}:{donor},{}", json!(key.unwrap_or_default()), &text[1..]).into_bytes()
        }
        1 => nested(rng, &text).into_bytes(),
        _ => text.into_bytes(),
    }
}

fn pick_node<'a>(rng: &mut Rng, value: &'a Value) -> &'a Value {
    let mut node = value;
    for _ in 0..rng.below(6) {
        node = match node {
            Value::Array(items) if !items.is_empty() => rng.pick(items),
            Value::Object(map) if !map.is_empty() => map.values().nth(rng.below(map.len())).unwrap_or(node),
            _ => break,
        };
    }
    node
}

fn change(rng: &mut Rng, value: &mut Value, steps: usize, donor: Value) {
    match value {
        Value::Array(items) if steps > 0 && !items.is_empty() => {
            let at = rng.below(items.len());
            match rng.below(10) {
                0 => drop(items.remove(at)),
                1 => items.insert(at, donor),
                2 => {
                    let copy = items[at].clone();
                    items.push(copy);
                }
                _ => change(rng, &mut items[at], steps - 1, donor),
            }
        }
        Value::Object(map) if steps > 0 && !map.is_empty() => {
            let key = map.keys().nth(rng.below(map.len())).cloned().unwrap_or_default();
            match rng.below(10) {
                0 => drop(map.remove(&key)),
                1 => {
                    let taken = map.remove(&key).unwrap_or_default();
                    map.insert(format!("{key}_"), taken);
                }
                2 => drop(map.insert(key, donor)),
                _ => change(rng, &mut map[&key], steps - 1, donor),
            }
        }
        Value::Number(number) if rng.below(2) == 0 => {
            // Near misses get further than nonsense.
            let near = number.as_i64().unwrap_or(1);
            let factor = *rng.pick(&[-1, 0, 2, 3, 1000, 1 << 20]);
            *value = json!(near.wrapping_mul(factor).wrapping_add(rng.below(3) as i64 - 1));
        }
        Value::String(text) if rng.below(2) == 0 => {
            let changed = bytes(rng, text.as_bytes(), text.len());
            *value = String::from_utf8_lossy(&changed).into_owned().into();
        }
        _ => *value = if rng.below(5) == 0 { donor } else { hostile(rng) },
    }
}

/// A value that is likely to be unwelcome.
fn hostile(rng: &mut Rng) -> Value {
    match rng.below(18) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(0),
        4 => json!(1),
        5 => json!(u64::MAX),
        6 => json!(i64::MIN),
        7 => json!(1u64 << 31),
        8 => json!(1u64 << 40),
        9 => json!(1e308),
        10 => json!(-1e-308),
        11 => json!(0.5),
        12 => json!(""),
        13 => json!("\u{0}\u{fffd}../../%s{{"),
        14 => json!("a".repeat(10_000)),
        15 => json!([]),
        16 => Value::Object(Map::new()),
        _ => json!([[[[1, null]]], {"type": "x"}]),
    }
}

/// A value within brackets upon brackets.
fn nested(rng: &mut Rng, text: &str) -> String {
    let depth = *rng.pick(&[100, 1000, 30_000]);
    if rng.below(2) == 0 {
        format!("{}{text}{}", "[".repeat(depth), "]".repeat(depth))
    } else {
        let end = text.len() - 1;
        format!("{},\"x\":{}1{}}}", &text[..end.max(1)], "[".repeat(depth), "]".repeat(depth))
    }
}
