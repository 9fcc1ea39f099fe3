"""Writes llmkit-core/tests/fixtures/llama: tiny checkpoints of the Llama family and what transformers computes from them.

Each folder is a Hugging Face model folder plus `expected.safetensors`:
  input_ids  [2, 17] i64   logits     [2, 17, vocab] f32, all positions attended
  prompt_ids [1, 7]  i64   greedy_ids [1, 64] i64, the new tokens of greedy decoding with the end token disabled
Everything is computed in f32 from the weights as stored. Two folders keep the config fields that transformers 4 wrote
(`rope_theta`, `rope_scaling`) and `untied-llama3` has both (`config.json` and `config-v4.json`), since most published checkpoints do.

Run: python scripts/make_llama_fixtures.py
"""

import json

import torch

from tiny_models import LLAMA_DIR, build, expectations, fresh, llama_config, load, mistral_config, save_tensors, write_json


def config_v4(folder, rope_scaling=None):
    """The config of `folder` in the fields that transformers 4 wrote."""
    config = json.loads((folder / "config.json").read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["rope_scaling"] = rope_scaling
    config["torch_dtype"] = config.pop("dtype")
    return config


def same_logits(folder, expected):
    """Whether the folder, read again, still gives the same logits."""
    with torch.no_grad():
        return torch.equal(load(folder)(expected["input_ids"]).logits, expected["logits"])


def variant(name, config, dtype=torch.float32, **save_options):
    """Saves the first seed whose greedy decoding is clear, and what transformers computes from the saved files."""
    folder = LLAMA_DIR / name
    for seed in range(1, 200):
        build(config, seed).to(dtype).save_pretrained(fresh(folder), **save_options)
        expected = expectations(load(folder))
        if expected is not None:
            print(f"{name}: seed {seed}")
            save_tensors(folder / "expected.safetensors", expected)
            return folder, expected
    raise SystemExit(f"{name}: no seed decodes clearly")


def legacy(name, config, rope_scaling=None):
    """A variant whose config.json is as transformers 4 wrote it."""
    folder, expected = variant(name, config)
    write_json(folder / "config.json", config_v4(folder, rope_scaling))
    if not same_logits(folder, expected):
        raise SystemExit(f"{name}: the older config gives other logits")


def llama3():
    """Frequency bands of all three kinds: kept (wavelength below 16), blended, and divided by the factor (above 64)."""
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    config = llama_config(max_position_embeddings=512, rope_parameters={"rope_theta": 10000.0, **scaling})
    folder, expected = variant("untied-llama3", config)
    newer = (folder / "config.json").read_text()
    older = config_v4(folder, scaling)
    write_json(folder / "config.json", older)
    if not same_logits(folder, expected):
        raise SystemExit("untied-llama3: the older config gives other logits")
    (folder / "config.json").write_text(newer)
    write_json(folder / "config-v4.json", older)
    plain = {**json.loads(newer), "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}
    write_json(folder / "config.json", plain)
    if same_logits(folder, expected):
        raise SystemExit("untied-llama3: the scaling does not matter")
    (folder / "config.json").write_text(newer)


def main():
    torch.set_num_threads(1)
    legacy("gqa-tied", llama_config(num_hidden_layers=3, tie_word_embeddings=True, rope_parameters=rope(100000.0)))
    llama3()
    linear = {"rope_type": "linear", "factor": 4.0}
    legacy(
        "linear-rope",
        llama_config(num_key_value_heads=3, rope_parameters={"rope_theta": 10000.0, **linear}),
        {"type": "linear", "factor": 4.0},
    )
    variant("head-dim-bias", llama_config(head_dim=24, attention_bias=True, mlp_bias=True))
    folder, _ = variant("sharded-bf16", llama_config(), dtype=torch.bfloat16, max_shard_size="40KB")
    shards = len(list(folder.glob("model-*.safetensors")))
    if shards < 3:
        raise SystemExit(f"sharded-bf16: {shards} shards")
    variant("f16", llama_config(tie_word_embeddings=True), dtype=torch.float16)
    variant("mistral", mistral_config())


def rope(theta):
    """Plain rotation with base `theta`."""
    return {"rope_theta": theta, "rope_type": "default"}


if __name__ == "__main__":
    main()
