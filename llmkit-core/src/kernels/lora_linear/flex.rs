use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

use super::super::cpu::{Destination, Matrix, Threads, all_f32, contiguous, product, uninit, written};
use super::{InputGrads, Inputs, LoraLinearKernel, Outputs, Wanted, primitive};

impl LoraLinearKernel for Flex {
    fn forward(inputs: Inputs<Self>) -> Outputs<Self> {
        let dims = Dims::of(&inputs);
        if dims.is_empty() || !all_f32([&inputs.x, &inputs.weight, &inputs.a, &inputs.b]) {
            return primitive::forward::<Self>(inputs);
        }
        let Dims { batch, seq, d_input, d_output, rank, scale } = dims;
        let n = batch * seq;
        let tensor = contiguous(inputs.x);
        let x = Matrix::new(tensor.storage::<f32>().as_ptr(), d_input);
        let [weight, a, b] = [inputs.weight, inputs.a, inputs.b].map(strided);
        let [weight, a, b] = [&weight, &a, &b].map(matrix);
        let mut output = uninit(n * d_output);
        let mut inner = uninit(rank * n);
        let (y, h) = (output.as_mut_ptr().cast::<f32>(), inner.as_mut_ptr().cast::<f32>());
        // SAFETY: the matrices have the sizes of `dims`, which the shapes were checked for; the destinations are new, and `h` is
        // written before it is read.
        unsafe {
            overwrite([n, rank, d_input], 1.0, (x, a.transposed()), (h, rank));
            overwrite([n, d_output, d_input], 1.0, (x, weight.transposed()), (y, d_output));
            add([n, d_output, rank], scale, (Matrix::new(h, rank), b.transposed()), (y, d_output));
        }
        // SAFETY: the products wrote every element.
        unsafe {
            Outputs { output: written(output, [batch, seq, d_output]), inner: written(inner, [n, rank]) }
        }
    }

    fn backward(
        inputs: Inputs<Self>,
        inner: FlexTensor,
        grad: FlexTensor,
        wanted: Wanted,
    ) -> InputGrads<Self> {
        let dims = Dims::of(&inputs);
        if dims.is_empty() || !all_f32([&inputs.x, &inputs.weight, &inputs.a, &inputs.b, &inner, &grad]) {
            return primitive::backward::<Self>(inputs, inner, grad, wanted);
        }
        let Dims { batch, seq, d_input, d_output, rank, scale } = dims;
        let n = batch * seq;
        let [x_tensor, inner, grad_tensor] = [inputs.x, inner, grad].map(contiguous);
        let x = Matrix::new(x_tensor.storage::<f32>().as_ptr(), d_input);
        let grad = Matrix::new(grad_tensor.storage::<f32>().as_ptr(), d_output);
        let [weight, a, b] = [inputs.weight, inputs.a, inputs.b].map(strided);
        let [weight, a, b] = [&weight, &a, &b].map(matrix);

        let grad_b = wanted.b.then(|| {
            let mut transposed = vec![0.0f32; rank * d_output];
            let inner = Matrix::new(inner.storage::<f32>().as_ptr(), rank);
            // SAFETY: sizes as above, and a destination of its own.
            unsafe {
                overwrite(
                    [rank, d_output, n],
                    scale,
                    (inner.transposed(), grad),
                    (transposed.as_mut_ptr(), d_output),
                );
            }
            let mut values = Vec::with_capacity(rank * d_output);
            for column in 0..d_output {
                values.extend((0..rank).map(|row| transposed[row * d_output + column]));
            }
            FlexTensor::from_data(burn::backend::TensorData::new(values, [d_output, rank]))
        });
        if !wanted.x && !wanted.a {
            return InputGrads { x: None, a: None, b: grad_b };
        }

        let mut buffer = vec![0.0f32; rank * n];
        // SAFETY: sizes as above, and a destination of its own.
        unsafe {
            overwrite([n, rank, d_output], scale, (grad, b), (buffer.as_mut_ptr(), rank));
        }
        let e = Matrix::new(buffer.as_ptr(), rank);
        let grad_a = wanted.a.then(|| {
            let mut output = uninit(rank * d_input);
            // SAFETY: sizes as above; the product writes every element.
            unsafe {
                overwrite(
                    [rank, d_input, n],
                    1.0,
                    (e.transposed(), x),
                    (output.as_mut_ptr().cast(), d_input),
                );
                written(output, [rank, d_input])
            }
        });
        let grad_x = wanted.x.then(|| {
            let mut output = uninit(n * d_input);
            let target = (output.as_mut_ptr().cast::<f32>(), d_input);
            // SAFETY: sizes as above; the first product writes every element before the second adds to them.
            unsafe {
                overwrite([n, d_input, d_output], 1.0, (grad, weight), target);
                add([n, d_input, rank], 1.0, (e, a), target);
                written(output, [batch, seq, d_input])
            }
        });
        InputGrads { x: grad_x, a: grad_a, b: grad_b }
    }
}

/// The sizes of one call.
#[derive(Clone, Copy)]
struct Dims {
    batch: usize,
    seq: usize,
    d_input: usize,
    d_output: usize,
    rank: usize,
    scale: f32,
}

impl Dims {
    fn of(inputs: &Inputs<Flex>) -> Self {
        let [batch, seq, d_input] = inputs.x.layout().shape().dims();
        let [d_output, rank] = inputs.b.layout().shape().dims();
        Self { batch, seq, d_input, d_output, rank, scale: inputs.scale as f32 }
    }

    fn is_empty(&self) -> bool {
        self.batch * self.seq * self.d_input * self.d_output * self.rank == 0
    }
}

/// The tensor if its strides are not negative, otherwise a copy.
fn strided(tensor: FlexTensor) -> FlexTensor {
    if tensor.layout().strides().iter().all(|&stride| stride >= 0) { tensor } else { contiguous(tensor) }
}

/// A [`strided`] tensor's matrix.
fn matrix(tensor: &FlexTensor) -> Matrix {
    let layout = tensor.layout();
    let strides = layout.strides();
    let start = tensor.storage::<f32>()[layout.start_offset()..].as_ptr();
    Matrix { start, rows: strides[0] as usize, columns: strides[1] as usize }
}

/// # Safety
/// As for [`product`].
unsafe fn overwrite(size: [usize; 3], factor: f32, operands: (Matrix, Matrix), target: (*mut f32, usize)) {
    // SAFETY: passed on to the caller.
    unsafe { product(size, factor, operands, target, Destination::Overwrite, Threads::All) }
}

/// # Safety
/// As for [`product`].
unsafe fn add(size: [usize; 3], factor: f32, operands: (Matrix, Matrix), target: (*mut f32, usize)) {
    // SAFETY: passed on to the caller.
    unsafe { product(size, factor, operands, target, Destination::Accumulate, Threads::All) }
}
