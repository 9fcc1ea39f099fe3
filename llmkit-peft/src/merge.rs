use std::sync::Arc;

use llmkit_core::models::CausalLm;
use llmkit_core::nn::LayerMut;

use crate::Lora;

/// A model of its own with the LoRA worked into its weights: it computes the same without the adapter's cost.
///
/// The base stays as it is; the merged model shares every tensor that the LoRA leaves alone.
pub fn merge(model: &dyn CausalLm, lora: &Lora) -> Arc<dyn CausalLm> {
    model.with_layers(&mut |layer| match layer {
        LayerMut::Linear(linear) => {
            if let Some(update) = lora.lora_layer(linear.path()) {
                linear.weight = linear.weight.clone() + update.delta_weight();
                if let Some(bias) = &update.bias {
                    linear.bias = Some(bias.val().without_autodiff());
                }
                if let Some(bias) = &update.lora_b_bias {
                    let bias = bias.val().without_autodiff() * update.scale;
                    linear.bias = Some(match linear.bias.take() {
                        Some(base) => base + bias,
                        None => bias,
                    });
                }
                return true;
            }
            let Some(saved) = lora.saved_layer(linear.path()) else { return false };
            if let Some(matrix) = &saved.matrix {
                linear.weight = matrix.val().without_autodiff();
            }
            linear.bias = saved.bias.as_ref().map(|bias| bias.val().without_autodiff());
            true
        }
        LayerMut::Embedding(embedding) => {
            match lora.saved_layer(embedding.path()).and_then(|saved| saved.matrix.as_ref()) {
                Some(matrix) => {
                    embedding.weight = matrix.val().without_autodiff();
                    true
                }
                None => false,
            }
        }
        LayerMut::Norm(norm) => {
            let Some(saved) = lora.saved_layer(norm.path()) else { return false };
            let Some(vector) = &saved.vector else { return false };
            norm.weight = vector.val().without_autodiff();
            norm.bias = saved.bias.as_ref().map(|bias| bias.val().without_autodiff());
            true
        }
    })
}
