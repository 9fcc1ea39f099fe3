use super::architecture::Architecture;

/// The tensor of llama.cpp that holds the frequency factors of RoPE scaling; it is no parameter (see `GgufFile::rope_factors`).
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";
/// Phi-3's two sets of the same, for texts that fit into the original context and for longer ones.
pub(super) const ROPE_FACTORS_SHORT: &str = "rope_factors_short.weight";
pub(super) const ROPE_FACTORS_LONG: &str = "rope_factors_long.weight";

/// Places outside the layers: llama.cpp's name, Hugging Face's.
const OUTSIDE: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

const ATTENTION: [(&str, &str); 6] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
];
const QUERY_KEY_NORMS: [(&str, &str); 2] =
    [("attn_q_norm", "self_attn.q_norm"), ("attn_k_norm", "self_attn.k_norm")];
const MLP: [(&str, &str); 3] =
    [("ffn_gate", "mlp.gate_proj"), ("ffn_up", "mlp.up_proj"), ("ffn_down", "mlp.down_proj")];
const GEMMA3_NORMS: [(&str, &str); 4] = [
    ("attn_norm", "input_layernorm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];
const PHI3: [(&str, &str); 6] = [
    ("attn_norm", "input_layernorm"),
    ("attn_qkv", "self_attn.qkv_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_up", "mlp.gate_up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Where the experts of a layer are: what routes to them, and each weight of all experts in one tensor `[experts, out, in]`, which Hugging
/// Face keeps as one tensor an expert.
struct Experts {
    router: (&'static str, &'static str),
    /// Before the number of the expert.
    prefix: &'static str,
    weights: [(&'static str, &'static str); 3],
}

const QWEN3_MOE: Experts = Experts {
    router: ("ffn_gate_inp", "mlp.gate"),
    prefix: "mlp.experts",
    weights: [("ffn_gate_exps", "gate_proj"), ("ffn_up_exps", "up_proj"), ("ffn_down_exps", "down_proj")],
};
const MIXTRAL: Experts = Experts {
    router: ("ffn_gate_inp", "block_sparse_moe.gate"),
    prefix: "block_sparse_moe.experts",
    weights: [("ffn_gate_exps", "w1"), ("ffn_up_exps", "w3"), ("ffn_down_exps", "w2")],
};

/// The Hugging Face place of a tensor of llama.cpp.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A tensor of this name.
    Whole(String),
    /// For each expert `i` a tensor `{prefix}.{i}.{suffix}`.
    Experts { prefix: String, suffix: String },
}

/// The place of a llama.cpp name, or `None` if the architecture has none: a model that loads reports such a tensor.
pub(super) fn place(architecture: Architecture, name: &str) -> Option<Place> {
    let (path, kind) = name.rsplit_once('.')?;
    if !is_kind(kind) {
        return None;
    }
    if let Some((_, theirs)) = OUTSIDE.iter().find(|(ours, _)| *ours == path) {
        return Some(Place::Whole(format!("{theirs}.{kind}")));
    }
    let (layer, path) = path.strip_prefix("blk.")?.split_once('.')?;
    let layer = number(layer)?;
    if let Some((_, theirs)) = in_layers(architecture).find(|(ours, _)| *ours == path) {
        return Some(Place::Whole(format!("model.layers.{layer}.{theirs}.{kind}")));
    }
    let experts = experts(architecture)?;
    let (_, theirs) = experts.weights.iter().find(|(ours, _)| *ours == path)?;
    Some(Place::Experts {
        prefix: format!("model.layers.{layer}.{}", experts.prefix),
        suffix: format!("{theirs}.{kind}"),
    })
}

/// The llama.cpp name of a Hugging Face tensor, with the number of the expert that it belongs to, or `None` if there is none.
pub(super) fn gguf_name(architecture: Architecture, name: &str) -> Option<(String, Option<usize>)> {
    let (path, kind) = name.rsplit_once('.')?;
    if !is_kind(kind) {
        return None;
    }
    if let Some((ours, _)) = OUTSIDE.iter().find(|(_, theirs)| *theirs == path) {
        return Some((format!("{ours}.{kind}"), None));
    }
    let (layer, path) = path.strip_prefix("model.layers.")?.split_once('.')?;
    let layer = number(layer)?;
    if let Some((ours, _)) = in_layers(architecture).find(|(_, theirs)| *theirs == path) {
        return Some((format!("blk.{layer}.{ours}.{kind}"), None));
    }
    let experts = experts(architecture)?;
    let (expert, path) = path.strip_prefix(experts.prefix)?.strip_prefix('.')?.split_once('.')?;
    let (ours, _) = experts.weights.iter().find(|(_, theirs)| *theirs == path)?;
    Some((format!("blk.{layer}.{ours}.{kind}"), Some(number(expert)? as usize)))
}

/// The weights that every layer has: llama.cpp's place, Hugging Face's, and whether there is one an expert.
pub(super) fn required(architecture: Architecture) -> impl Iterator<Item = (&'static str, String, bool)> {
    let whole = in_layers(architecture).map(|(ours, theirs)| (ours, theirs.to_owned(), false));
    let experts = experts(architecture).into_iter().flat_map(|experts| {
        experts.weights.map(|(ours, theirs)| (ours, format!("{}.*.{theirs}", experts.prefix), true))
    });
    whole.chain(experts)
}

fn in_layers(architecture: Architecture) -> impl Iterator<Item = (&'static str, &'static str)> {
    let tables: [&[(&str, &str)]; 3] = match architecture {
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 => [&ATTENTION, &MLP, &[]],
        Architecture::Qwen3 => [&ATTENTION, &QUERY_KEY_NORMS, &MLP],
        Architecture::Qwen3Moe => [&ATTENTION, &QUERY_KEY_NORMS, &[]],
        Architecture::Mixtral => [&ATTENTION, &[], &[]],
        // Its own norms come first, since `ffn_norm` is another one here.
        Architecture::Gemma3 => [&GEMMA3_NORMS, &QUERY_KEY_NORMS, &MLP],
        Architecture::Phi3 => [&PHI3, &[], &[]],
    };
    let linears: &[(&str, &str)] = if architecture == Architecture::Gemma3 { &ATTENTION[1..5] } else { &[] };
    let router = experts(architecture).map(|experts| experts.router);
    tables.into_iter().chain([linears]).flatten().copied().chain(router)
}

fn experts(architecture: Architecture) -> Option<Experts> {
    match architecture {
        Architecture::Qwen3Moe => Some(QWEN3_MOE),
        Architecture::Mixtral => Some(MIXTRAL),
        _ => None,
    }
}

fn is_kind(kind: &str) -> bool {
    matches!(kind, "weight" | "bias")
}

/// Only the plain decimal form: `01` or `+1` would make two tensors of one name.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(architecture: Architecture, name: &str) -> Option<String> {
        match place(architecture, name)? {
            Place::Whole(name) => Some(name),
            Place::Experts { .. } => None,
        }
    }

    #[test]
    fn names_of_layers_and_of_the_rest() {
        let name = |gguf| whole(Architecture::Llama, gguf).unwrap();
        assert_eq!(name("token_embd.weight"), "model.embed_tokens.weight");
        assert_eq!(name("blk.12.attn_q.bias"), "model.layers.12.self_attn.q_proj.bias");
        assert_eq!(name("blk.0.ffn_norm.weight"), "model.layers.0.post_attention_layernorm.weight");
        for unknown in
            ["blk.01.attn_q.weight", "blk.0.ffn_gate_exps.weight", "blk.0.attn_q", "rope_freqs.weight"]
        {
            assert_eq!(place(Architecture::Llama, unknown), None, "{unknown}");
        }
        assert_eq!(
            whole(Architecture::Gemma3, "blk.0.ffn_norm.weight").unwrap(),
            "model.layers.0.pre_feedforward_layernorm.weight"
        );
        assert_eq!(
            whole(Architecture::Phi3, "blk.1.ffn_up.weight").unwrap(),
            "model.layers.1.mlp.gate_up_proj.weight"
        );
    }

    #[test]
    fn experts_are_many_tensors_of_one() {
        let found = place(Architecture::Mixtral, "blk.3.ffn_down_exps.weight").unwrap();
        let prefix = "model.layers.3.block_sparse_moe.experts".to_owned();
        assert_eq!(found, Place::Experts { prefix, suffix: "w2.weight".into() });
        assert_eq!(
            gguf_name(Architecture::Mixtral, "model.layers.3.block_sparse_moe.experts.5.w2.weight").unwrap(),
            ("blk.3.ffn_down_exps.weight".to_owned(), Some(5))
        );
    }

    #[test]
    fn both_directions_agree() {
        for architecture in Architecture::ALL {
            for (ours, theirs) in in_layers(architecture) {
                let (ours, theirs) =
                    (format!("blk.7.{ours}.weight"), format!("model.layers.7.{theirs}.weight"));
                assert_eq!(whole(architecture, &ours).as_deref(), Some(&*theirs), "{architecture:?}");
                assert_eq!(gguf_name(architecture, &theirs), Some((ours, None)), "{architecture:?}");
            }
        }
    }
}
