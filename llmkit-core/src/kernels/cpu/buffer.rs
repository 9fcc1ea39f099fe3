use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use burn::backend::{DType, TensorData};

/// Whether the CPU bodies apply.
pub(in crate::kernels) fn all_f32<const N: usize>(tensors: [&FlexTensor; N]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

/// The tensor with its elements in row-major order from the start of its buffer; without a copy where they are so already.
/// `storage_mut` on the result writes in place if nobody else holds the buffer, and copies otherwise.
pub(in crate::kernels) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    tensor.to_contiguous()
}

/// Room for `len` elements. Nothing is written: zeroing large buffers was up to a tenth of a training step.
pub(in crate::kernels) fn uninit(len: usize) -> Vec<MaybeUninit<f32>> {
    let mut buffer = Vec::with_capacity(len);
    // SAFETY: the capacity is `len`, and elements of this type need no initialisation.
    unsafe { buffer.set_len(len) };
    buffer
}

/// The tensor of a buffer that is filled.
///
/// # Safety
/// Every element must have been written.
pub(in crate::kernels) unsafe fn written<const D: usize>(
    buffer: Vec<MaybeUninit<f32>>,
    shape: [usize; D],
) -> FlexTensor {
    let mut buffer = std::mem::ManuallyDrop::new(buffer);
    let (pointer, len, capacity) = (buffer.as_mut_ptr(), buffer.len(), buffer.capacity());
    // SAFETY: the parts are those of a vector that is not dropped, `MaybeUninit<f32>` has the layout of `f32`, and the caller
    // vouches for the elements.
    let values = unsafe { Vec::from_raw_parts(pointer.cast::<f32>(), len, capacity) };
    FlexTensor::from_data(TensorData::new(values, shape))
}
