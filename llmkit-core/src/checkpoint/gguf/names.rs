/// The architectures whose tensors have a name here, as in `general.architecture`.
pub(super) const ARCHITECTURES: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// The tensor of llama.cpp that holds the frequency factors of RoPE scaling; it is no parameter (see `GgufFile::rope_factors`).
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The Hugging Face name of a tensor of one of [`ARCHITECTURES`], or `None` if there is none. They share one table: Qwen 3 adds the norms of
/// query and key, and a tensor that a model has no place for is reported when the model loads.
pub(super) fn hugging_face_name(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".into()),
        "output_norm.weight" => return Some("model.norm.weight".into()),
        "output.weight" => return Some("lm_head.weight".into()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    // Only the plain decimal form: `01` or `+1` would make two tensors of one name.
    if layer.parse::<u32>().ok()?.to_string() != layer {
        return None;
    }
    let (place, kind) = rest.rsplit_once('.')?;
    if !matches!(kind, "weight" | "bias") {
        return None;
    }
    let place = match place {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{place}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::hugging_face_name;

    #[test]
    fn names_of_layers_and_of_the_rest() {
        let name = |gguf| hugging_face_name(gguf).unwrap();
        assert_eq!(name("token_embd.weight"), "model.embed_tokens.weight");
        assert_eq!(name("blk.12.attn_q.bias"), "model.layers.12.self_attn.q_proj.bias");
        assert_eq!(name("blk.0.ffn_norm.weight"), "model.layers.0.post_attention_layernorm.weight");
        for unknown in
            ["blk.01.attn_q.weight", "blk.0.ffn_gate_exps.weight", "blk.0.attn_q", "rope_freqs.weight"]
        {
            assert_eq!(hugging_face_name(unknown), None, "{unknown}");
        }
    }
}
