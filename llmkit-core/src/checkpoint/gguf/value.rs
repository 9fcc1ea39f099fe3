use std::collections::BTreeMap;

/// The key-value pairs at the head of a GGUF file. [`Fields`](super::Fields) reads them by type, with errors that name the key.
pub type Metadata = BTreeMap<String, MetadataValue>;

/// One value of a GGUF file's metadata.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum MetadataValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Vec<MetadataValue>),
}

impl MetadataValue {
    /// An integer of any width that is not negative; writers differ in the width that they choose.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::U64(value) => Some(value),
            Self::I8(value) => value.try_into().ok(),
            Self::I16(value) => value.try_into().ok(),
            Self::I32(value) => value.try_into().ok(),
            Self::I64(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// As [`as_u64`](Self::as_u64), if it fits.
    pub fn as_u32(&self) -> Option<u32> {
        self.as_u64()?.try_into().ok()
    }

    /// A floating-point number. Of an `f32`, the `f64` that is written with the same shortest decimal: 1e-5 stays 1e-5, as in the
    /// `config.json` that the value came from, and does not become 9.999999747378752e-6.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(value) => value.to_string().parse().ok(),
            Self::F64(value) => Some(value),
            _ => None,
        }
    }

    /// A truth value.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// A text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(value) => Some(value),
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<&[MetadataValue]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }

    /// What this is, for error messages: never the whole of a long text or array.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::String(text) => format!("the text {:?}", text.chars().take(40).collect::<String>()),
            Self::Array(values) => format!("an array of {}", values.len()),
            Self::U8(value) => format!("u8 {value}"),
            Self::I8(value) => format!("i8 {value}"),
            Self::U16(value) => format!("u16 {value}"),
            Self::I16(value) => format!("i16 {value}"),
            Self::U32(value) => format!("u32 {value}"),
            Self::I32(value) => format!("i32 {value}"),
            Self::U64(value) => format!("u64 {value}"),
            Self::I64(value) => format!("i64 {value}"),
            Self::F32(value) => format!("f32 {value}"),
            Self::F64(value) => format!("f64 {value}"),
            Self::Bool(value) => format!("bool {value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::MetadataValue;

    #[test]
    fn integers_of_any_width_are_read_and_negative_ones_are_not() {
        assert_eq!(MetadataValue::I32(7).as_u32(), Some(7));
        assert_eq!(MetadataValue::U64(1 << 40).as_u32(), None);
        assert_eq!(MetadataValue::I8(-1).as_u64(), None);
        assert_eq!(MetadataValue::F32(1.0).as_u64(), None);
    }

    #[test]
    fn floats_keep_their_decimal() {
        assert_eq!(MetadataValue::F32(1e-5).as_f64(), Some(1e-5));
        assert_eq!(MetadataValue::F32(500000.0).as_f64(), Some(500000.0));
    }
}
