use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Shape, Slice, TensorMetadata};

use super::super::compose::cast;
use super::Direction;

pub(super) fn rotate<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    direction: Direction,
) -> FloatTensor<B> {
    let shape = x.shape();
    let [rows, seq, half] = cos.shape().dims();
    let table =
        |t: FloatTensor<B>| cast::<B>(B::float_reshape(t, Shape::from([rows, seq, 1, half])), x.dtype());
    let (cos, sin) = (table(cos), table(sin));
    let sin = match direction {
        Direction::Forward => sin,
        Direction::Back => B::float_neg(sin),
    };
    let part = |start: usize, end: usize| {
        let last = Slice::new(start as isize, Some(end as isize), 1);
        B::float_slice(x.clone(), &[Slice::full(), Slice::full(), Slice::full(), last])
    };
    let (low, high) = (part(0, half), part(half, 2 * half));
    let new_low =
        B::float_sub(B::float_mul(low.clone(), cos.clone()), B::float_mul(high.clone(), sin.clone()));
    let new_high = B::float_add(B::float_mul(high, cos), B::float_mul(low, sin));
    let mut parts = vec![new_low, new_high];
    if 2 * half < shape[3] {
        parts.push(part(2 * half, shape[3]));
    }
    B::float_cat(parts, 3)
}
