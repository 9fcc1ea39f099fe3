use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

use half::{bf16, f16};

use crate::{Error, Result};

/// Values converted at a time while writing, so that no second copy of a tensor exists.
const CHUNK_VALUES: usize = 1 << 16;

/// How a tensor's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    /// Single precision, 4 bytes.
    F32,
    /// IEEE half precision, 2 bytes.
    F16,
    /// bfloat16, 2 bytes.
    Bf16,
}

impl FloatType {
    /// The size of one value in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name in a safetensors header.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }
}

/// A tensor to be saved: its shape and its values, at hand or made when their turn comes.
pub struct TensorData<'a> {
    shape: Vec<usize>,
    dtype: FloatType,
    values: Values<'a>,
}

type Produce<'a> = Box<dyn FnOnce() -> Result<Vec<f32>> + 'a>;

enum Values<'a> {
    F32(Cow<'a, [f32]>),
    F16(Cow<'a, [f16]>),
    Bf16(Cow<'a, [bf16]>),
    Deferred(Produce<'a>),
}

impl<'a> TensorData<'a> {
    /// Values in row-major order, stored as they are.
    ///
    /// # Panics
    /// If `values` is not as long as `shape` says.
    pub fn f32(shape: impl Into<Vec<usize>>, values: impl Into<Cow<'a, [f32]>>) -> Self {
        let (shape, values) = (shape.into(), values.into());
        assert_fits(&shape, values.len());
        Self { shape, dtype: FloatType::F32, values: Values::F32(values) }
    }

    /// Values in row-major order, stored as they are.
    ///
    /// # Panics
    /// If `values` is not as long as `shape` says.
    pub fn f16(shape: impl Into<Vec<usize>>, values: impl Into<Cow<'a, [f16]>>) -> Self {
        let (shape, values) = (shape.into(), values.into());
        assert_fits(&shape, values.len());
        Self { shape, dtype: FloatType::F16, values: Values::F16(values) }
    }

    /// Values in row-major order, stored as they are.
    ///
    /// # Panics
    /// If `values` is not as long as `shape` says.
    pub fn bf16(shape: impl Into<Vec<usize>>, values: impl Into<Cow<'a, [bf16]>>) -> Self {
        let (shape, values) = (shape.into(), values.into());
        assert_fits(&shape, values.len());
        Self { shape, dtype: FloatType::Bf16, values: Values::Bf16(values) }
    }

    /// Values that `produce` gives when this tensor is written, rounded to `dtype`: only one such tensor is in memory at a time, whether
    /// they come from a GPU or from another checkpoint.
    pub fn deferred(
        shape: impl Into<Vec<usize>>,
        dtype: FloatType,
        produce: impl FnOnce() -> Result<Vec<f32>> + 'a,
    ) -> Self {
        Self { shape: shape.into(), dtype, values: Values::Deferred(Box::new(produce)) }
    }

    /// A tensor on any device, stored in `f32` and read from its device when its turn comes.
    pub fn from_tensor<const D: usize>(tensor: burn::tensor::Tensor<D>) -> TensorData<'static> {
        TensorData::deferred(tensor.dims(), FloatType::F32, move || {
            tensor.try_into_vec_as::<f32>().map_err(|error| Error::Device {
                requested: "the tensor's own".into(),
                remedy: format!("reading a tensor from it failed: {error}"),
            })
        })
    }

    /// The same with its values rounded to `dtype` when they are written.
    ///
    /// # Panics
    /// If the values are at hand rather than [deferred](Self::deferred): those are stored as they are.
    pub fn stored_as(self, dtype: FloatType) -> Self {
        assert!(matches!(self.values, Values::Deferred(_)), "values at hand are stored as they are");
        Self { dtype, ..self }
    }

    /// The shape in torch's layout.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The stored type.
    pub fn dtype(&self) -> FloatType {
        self.dtype
    }

    /// The stored size in bytes, or `None` if it exceeds what the machine can address.
    pub(super) fn bytes(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.dtype.bytes(), |bytes, dim| bytes.checked_mul(*dim))
    }

    /// Writes the values, little-endian; errors other than I/O travel inside `io::Error::other`.
    pub(super) fn write(self, name: &str, out: &mut impl Write) -> io::Result<()> {
        match self.values {
            Values::F32(values) => write_chunks(&values, out, f32::to_le_bytes),
            Values::F16(values) => write_chunks(&values, out, f16::to_le_bytes),
            Values::Bf16(values) => write_chunks(&values, out, bf16::to_le_bytes),
            Values::Deferred(produce) => {
                let values = produce().map_err(io::Error::other)?;
                let expected: usize = self.shape.iter().product();
                if values.len() != expected {
                    return Err(io::Error::other(Error::Tensors {
                        path: "(tensors to be saved)".into(),
                        missing: Vec::new(),
                        unexpected: Vec::new(),
                        mismatched: vec![crate::ShapeMismatch {
                            name: name.to_owned(),
                            expected: self.shape,
                            found: vec![values.len()],
                        }],
                    }));
                }
                match self.dtype {
                    FloatType::F32 => write_chunks(&values, out, f32::to_le_bytes),
                    FloatType::F16 => write_chunks(&values, out, |value| f16::from_f32(value).to_le_bytes()),
                    FloatType::Bf16 => {
                        write_chunks(&values, out, |value| bf16::from_f32(value).to_le_bytes())
                    }
                }
            }
        }
    }
}

impl fmt::Debug for TensorData<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TensorData")
            .field("shape", &self.shape)
            .field("dtype", &self.dtype)
            .finish_non_exhaustive()
    }
}

fn assert_fits(shape: &[usize], values: usize) {
    let expected: usize = shape.iter().product();
    assert_eq!(expected, values, "shape {shape:?} holds {expected} values, {values} were given");
}

fn write_chunks<T: Copy, const BYTES: usize>(
    values: &[T],
    out: &mut impl Write,
    to_bytes: impl Fn(T) -> [u8; BYTES],
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(values.len().min(CHUNK_VALUES) * BYTES);
    for chunk in values.chunks(CHUNK_VALUES) {
        buffer.clear();
        buffer.extend(chunk.iter().flat_map(|value| to_bytes(*value)));
        out.write_all(&buffer)?;
    }
    Ok(())
}
