use burn::tensor::{Int, Tensor, TensorData, activation};

use super::{Layer, LayerMut, Linear, Mlp};
use crate::adapter::Adapter;

/// A sparse mixture of experts: a router scores the experts for each token, and the best `per_token` of them, weighted by their
/// probabilities, transform it (Shazeer et al. 2017; Jiang et al. 2024):
/// `p = softmax(router(x))`, `y = sum over the best of p[e] expert[e](x)`.
#[derive(Debug, Clone)]
pub struct MixtureOfExperts {
    router: Linear,
    experts: Vec<Mlp>,
    per_token: usize,
    normalise: bool,
}

impl MixtureOfExperts {
    /// Puts `experts` behind their `router`. `normalise` divides the probabilities of a token's experts by their sum.
    ///
    /// # Panics
    /// If the router does not score as many experts as there are, or `per_token` is 0 or more than that.
    pub fn new(router: Linear, experts: Vec<Mlp>, per_token: usize, normalise: bool) -> Self {
        assert!(
            (1..=experts.len()).contains(&per_token),
            "{per_token} experts a token, of {}",
            experts.len()
        );
        Self { router, experts, per_token, normalise }
    }

    /// # Shapes
    /// `[batch, seq, hidden]`, both.
    ///
    /// # Panics
    /// If the router's scores cannot be read back from the device.
    pub fn forward(&self, input: Tensor<3>, adapter: &dyn Adapter) -> Tensor<3> {
        let [batch, seq, hidden] = input.dims();
        let (tokens, experts) = (batch * seq, self.experts.len());
        let scores = adapter.linear(&self.router, input.clone()).reshape([tokens, experts]);
        let probabilities = activation::softmax(scores, 1);
        let chosen = self.choose(probabilities.clone());
        let probabilities = if self.normalise {
            let of_chosen = probabilities.clone() * chosen.mask(&input);
            probabilities / of_chosen.sum_dim(1)
        } else {
            probabilities
        };

        // Each expert transforms its tokens together; then each token's results are gathered from where they lie.
        let input = input.reshape([tokens, hidden]);
        let mut results = Vec::new();
        for (index, of_expert) in chosen.tokens.iter().enumerate().filter(|(_, tokens)| !tokens.is_empty()) {
            let count = of_expert.len();
            let rows = indices(of_expert, &input);
            let read = input.clone().select(0, rows.clone()).reshape([1, count, hidden]);
            let written = self.experts[index].forward(read, adapter).reshape([count, hidden]);
            let weight = probabilities.clone().narrow(1, index, 1).select(0, rows);
            results.push(written * weight);
        }
        let results = Tensor::cat(results, 0);
        let places = indices(&chosen.places(tokens), &results);
        let gathered = results.select(0, places).reshape([tokens, self.per_token, hidden]);
        gathered.sum_dim(1).reshape([batch, seq, hidden])
    }

    /// The experts of the highest probabilities; of equal ones, the first.
    fn choose(&self, probabilities: Tensor<2>) -> Chosen {
        let [_, experts] = probabilities.dims();
        let probabilities = probabilities.into_data_as::<f32>();
        let probabilities = probabilities.as_slice::<f32>().expect("just converted to f32");
        let mut tokens = vec![Vec::new(); experts];
        let mut order: Vec<usize> = Vec::new();
        for (token, row) in probabilities.chunks_exact(experts).enumerate() {
            order.clear();
            order.extend(0..experts);
            // A stable sort, so that equal ones keep their order; what is no number comes last.
            order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
            order[..self.per_token].iter().for_each(|expert| tokens[*expert].push(token));
        }
        Chosen { tokens }
    }

    /// Shows the router and the experts' projections.
    pub fn visit(&self, see: &mut dyn FnMut(Layer<'_>)) {
        see(Layer::Linear(&self.router));
        self.experts.iter().for_each(|expert| expert.visit(see));
    }

    /// Opens the router and the experts' projections for change.
    pub fn visit_mut(&mut self, edit: &mut dyn FnMut(LayerMut<'_>)) {
        edit(LayerMut::Linear(&mut self.router));
        self.experts.iter_mut().for_each(|expert| expert.visit_mut(edit));
    }
}

/// Which tokens each expert transforms, in their order.
struct Chosen {
    tokens: Vec<Vec<usize>>,
}

impl Chosen {
    /// 1 where an expert is chosen, else 0: `[tokens, experts]`.
    fn mask(&self, like: &Tensor<3>) -> Tensor<2> {
        let [batch, seq, _] = like.dims();
        let (tokens, experts) = (batch * seq, self.tokens.len());
        let mut mask = vec![0.0_f32; tokens * experts];
        for (expert, chosen) in self.tokens.iter().enumerate() {
            chosen.iter().for_each(|token| mask[token * experts + expert] = 1.0);
        }
        let mask = Tensor::<2>::from_data(TensorData::new(mask, [tokens, experts]), &like.device());
        mask.cast(like.dtype())
    }

    /// Where the results of each token lie when the experts' results follow each other: token by token.
    fn places(&self, tokens: usize) -> Vec<usize> {
        let mut of_token = vec![Vec::new(); tokens];
        for (place, token) in self.tokens.iter().flatten().enumerate() {
            of_token[*token].push(place);
        }
        of_token.into_iter().flatten().collect()
    }
}

fn indices<const D: usize>(values: &[usize], like: &Tensor<D>) -> Tensor<1, Int> {
    let values: Vec<i32> = values.iter().map(|value| *value as i32).collect();
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), &like.device())
}
