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
    let half = shape[3] / 2;
    let table =
        |t: FloatTensor<B>| cast::<B>(B::float_reshape(t, Shape::from([1, shape[1], 1, half])), x.dtype());
    let (cos, sin) = (table(cos), table(sin));
    let sin = match direction {
        Direction::Forward => sin,
        Direction::Back => B::float_neg(sin),
    };
    let part = |start: usize| {
        let last = Slice::new(start as isize, Some((start + half) as isize), 1);
        B::float_slice(x.clone(), &[Slice::full(), Slice::full(), Slice::full(), last])
    };
    let (low, high) = (part(0), part(half));
    let new_low =
        B::float_sub(B::float_mul(low.clone(), cos.clone()), B::float_mul(high.clone(), sin.clone()));
    let new_high = B::float_add(B::float_mul(high, cos), B::float_mul(low, sin));
    B::float_cat(vec![new_low, new_high], 3)
}
