use std::collections::BTreeMap;

/// The key-value pairs at the head of a GGUF file.
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
