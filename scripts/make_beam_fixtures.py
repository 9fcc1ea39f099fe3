"""Writes llmkit-core/tests/fixtures/beams.json: what transformers' beam search finds with the tiny Llama models in tests/fixtures/llama.

Every case is checked to come out the same in f64: it does
not hang on f32 rounding. Needs torch and transformers. Run from the repository root:

    python scripts/make_beam_fixtures.py
"""

import json

import tiny_models
import torch
from transformers import GenerationConfig

MODELS = ["gqa-tied", "untied-llama3"]

# `eos` counts the end tokens: the likeliest ones that a plain run meets but does not choose, so that beams do end. "greedy" is the one that
# it chooses half way.
SETTINGS = [
    {"num_beams": 2, "max_new_tokens": 8},
    {"num_beams": 3, "max_new_tokens": 12, "eos": 4},
    {"num_beams": 4, "max_new_tokens": 12, "eos": 8, "num_return_sequences": 4},
    {"num_beams": 4, "max_new_tokens": 12, "eos": 8, "num_return_sequences": 3, "early_stopping": True},
    {"num_beams": 4, "max_new_tokens": 12, "eos": 8, "num_return_sequences": 2, "early_stopping": "never"},
    {"num_beams": 4, "max_new_tokens": 12, "eos": 8, "length_penalty": 2.0, "early_stopping": "never"},
    {"num_beams": 4, "max_new_tokens": 12, "eos": 8, "length_penalty": 2.0, "num_return_sequences": 4},
    {"num_beams": 4, "max_new_tokens": 12, "eos": 8, "length_penalty": -1.0, "num_return_sequences": 2},
    {"num_beams": 4, "max_new_tokens": 12, "eos": 8, "length_penalty": -1.0, "early_stopping": "never"},
    {"num_beams": 4, "max_new_tokens": 12, "eos": 8, "length_penalty": 0.0, "early_stopping": True},
    {"num_beams": 3, "max_new_tokens": 10, "eos": 4, "min_new_tokens": 5, "num_return_sequences": 3},
    {"num_beams": 3, "max_new_tokens": 10, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    {"num_beams": 5, "max_new_tokens": 1, "num_return_sequences": 5},
    {"num_beams": 3, "max_new_tokens": 20, "eos": "greedy", "num_return_sequences": 3},
    {"num_beams": 3, "max_new_tokens": 20, "eos": "greedy", "num_return_sequences": 3, "early_stopping": "never"},
    {"num_beams": 3, "max_new_tokens": 20, "eos": "greedy", "num_return_sequences": 3, "early_stopping": True},
    {"num_beams": 2, "max_new_tokens": 20, "eos": "greedy", "num_return_sequences": 2, "length_penalty": 0.3},
    {"num_beams": 2, "max_new_tokens": 20, "eos": "greedy", "length_penalty": 0.3, "early_stopping": "never"},
]


@torch.no_grad()
def search(model, prompt, config):
    output = model.generate(prompt, generation_config=config, attention_mask=torch.ones_like(prompt))
    ids = []
    for row in output.sequences[:, prompt.shape[1] :].tolist():
        # Shorter answers are padded after their end token.
        ends = [index for index, token in enumerate(row) if token in (config.eos_token_id or [])]
        ids.append(row[: ends[0] + 1] if ends else row)
    return ids, output.sequences_scores.tolist()


@torch.no_grad()
def likeliest(model, prompt, steps, count):
    """The tokens with the greatest logits over a greedy run, except the greedy ones themselves."""
    greedy, _ = tiny_models.greedy(model, prompt, steps)
    logits = model(torch.cat([prompt, greedy], dim=1)).logits[0, prompt.shape[1] - 1 :]
    if count == "greedy":
        return greedy[0, steps // 2 : steps // 2 + 1].tolist()
    taken = set(greedy[0, : steps // 2].tolist())
    order = logits.max(dim=0).values.argsort(descending=True).tolist()
    return sorted([token for token in order if token not in taken][:count])


def cases():
    found = []
    for name in MODELS:
        model = tiny_models.load(tiny_models.LLAMA_DIR / name)
        exact = tiny_models.load(tiny_models.LLAMA_DIR / name, dtype=torch.float64)
        for one in [model, exact]:
            # Else transformers fills in the model's own end token where a setting has none.
            one.generation_config.eos_token_id = one.config.eos_token_id = None
        prompts = [tiny_models.random_ids((1, length), 101, seed) for seed, length in [(31, 5), (32, 9)]]
        for prompt in prompts:
            for setting in SETTINGS:
                fields = {key: value for key, value in setting.items() if key != "eos"}
                if "eos" in setting:
                    fields["eos_token_id"] = likeliest(model, prompt, setting["max_new_tokens"], setting["eos"])
                config = GenerationConfig(
                    **fields, do_sample=False, pad_token_id=0, return_dict_in_generate=True, output_scores=True
                )
                ids, scores = search(model, prompt, config)
                exact_ids, exact_scores = search(exact, prompt, config)
                assert ids == exact_ids, (name, setting)
                assert max(abs(a - b) for a, b in zip(scores, exact_scores)) < 1e-4
                found.append(
                    {
                        "model": name,
                        "prompt": prompt[0].tolist(),
                        "config": {"do_sample": False, **fields},
                        "ids": ids,
                        "scores": [float(f"{score:.7g}") for score in scores],
                    }
                )
    return found


if __name__ == "__main__":
    import transformers

    made_by = f"torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"
    path = tiny_models.ROOT / "llmkit-core/tests/fixtures/beams.json"
    path.write_text(json.dumps({"made_by": made_by, "cases": cases()}, separators=(",", ":")) + "\n")
