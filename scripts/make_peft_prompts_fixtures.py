"""Writes llmkit-peft/tests/fixtures/prompts: prompts and prefixes as PEFT saves them, and what PEFT computes with them.

Each folder is what `save_pretrained` wrote (but its README.md), plus:
  base.txt              the folder of the base model below llmkit-core/tests/fixtures
  expected.safetensors  input_ids [2, 9] i64 and logits f32 with the adapter active: those of a causal model, the prompt's positions included;
                        of a classifier with lengths [2] i64 where the second row is padded; hidden states of a bare encoder.
                        For causal models also prompt_ids [2, 7] i64 (row 1 is the last five of its tokens, row 0 all seven) and greedy_ids
                        [2, 20] i64. For multitask prompts, task_ids [2] i64 too.
  llmkit_prompt_encoder.safetensors   where there is an encoder: its state, under torch's names
  gradients.safetensors               there: `weights` like the encoder's output, and the gradient of sum(weights * output) under each name
All expectations come from the adapter as PEFT loads it from the folder. Needs the folders of make_llama_fixtures.py,
make_decoder_fixtures.py, make_encoder_fixtures.py.

Run: python scripts/make_peft_prompts_fixtures.py
"""

import os
import sys

# PEFT writes sets as lists: without a fixed hash seed the same run gives another order.
if os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})

import warnings

import torch
from peft import (
    MultitaskPromptTuningConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

from tiny_models import PEFT_DIR, ROOT, check_logits_scale, fresh, random_ids, save_tensors

OUT = PEFT_DIR / "prompts"
CORE = ROOT / "llmkit-core/tests/fixtures"
MIN_EFFECT = 0.1
MIN_MARGIN = 2e-3
NEW_TOKENS = 20
CLASSES = {
    "CAUSAL_LM": AutoModelForCausalLM,
    "SEQ_CLS": AutoModelForSequenceClassification,
    "TOKEN_CLS": AutoModelForTokenClassification,
    "FEATURE_EXTRACTION": AutoModel,
}
TEXT = "Say what the word means, in the manner of a dictionary"

LLAMA, QWEN2, QWEN3, GEMMA3, LONGROPE = "llama/gqa-tied", "decoders/qwen2-window", "decoders/qwen3", "decoders/gemma3", "decoders/phi4-longrope"
BERT_SEQ, BERT_TOKEN, BERT, ROBERTA_SEQ = "encoders/bert-sequence", "encoders/bert-token", "encoders/bert", "encoders/xlm-roberta-sequence"

# name -> (base, task, config)
VARIANTS = {
    "prompt-llama": (LLAMA, "CAUSAL_LM", lambda: PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)),
    "prompt-qwen3": (QWEN3, "CAUSAL_LM", lambda: PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, prompt_tuning_init="SAMPLE_VOCAB")),
    "prompt-gemma3": (GEMMA3, "CAUSAL_LM", lambda: PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)),
    "prompt-longrope": (LONGROPE, "CAUSAL_LM", lambda: PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)),
    "prompt-bert-sequence": (BERT_SEQ, "SEQ_CLS", lambda: PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)),
    "prompt-bert-token": (BERT_TOKEN, "TOKEN_CLS", lambda: PromptTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=4)),
    "prompt-bert": (BERT, "FEATURE_EXTRACTION", lambda: PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=4)),
    "p-tuning-llama-mlp": (LLAMA, "CAUSAL_LM", lambda: PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, encoder_hidden_size=12)),
    "p-tuning-llama-lstm": (
        LLAMA,
        "CAUSAL_LM",
        lambda: PromptEncoderConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=4, encoder_hidden_size=6, encoder_num_layers=2, encoder_dropout=0.1, encoder_reparameterization_type="LSTM"
        ),
    ),
    "p-tuning-qwen2": (QWEN2, "CAUSAL_LM", lambda: PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, encoder_hidden_size=8)),
    "p-tuning-bert-sequence": (
        BERT_SEQ,
        "SEQ_CLS",
        lambda: PromptEncoderConfig(
            task_type="SEQ_CLS", num_virtual_tokens=3, encoder_hidden_size=7, encoder_num_layers=1, encoder_reparameterization_type="LSTM"
        ),
    ),
    "prefix-llama": (LLAMA, "CAUSAL_LM", lambda: PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)),
    "prefix-llama-projection": (
        LLAMA,
        "CAUSAL_LM",
        lambda: PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=10),
    ),
    "prefix-qwen2-window": (QWEN2, "CAUSAL_LM", lambda: PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)),
    "prefix-qwen3": (QWEN3, "CAUSAL_LM", lambda: PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)),
    # Longer than the sliding window of 9.
    "prefix-gemma3": (GEMMA3, "CAUSAL_LM", lambda: PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=11)),
    "prefix-longrope": (LONGROPE, "CAUSAL_LM", lambda: PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)),
    "prefix-bert-sequence": (BERT_SEQ, "SEQ_CLS", lambda: PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)),
    "prefix-bert-projection": (
        BERT_SEQ,
        "SEQ_CLS",
        lambda: PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=6),
    ),
    "prefix-roberta-sequence": (ROBERTA_SEQ, "SEQ_CLS", lambda: PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)),
    "multitask-llama": (
        LLAMA,
        "CAUSAL_LM",
        lambda: MultitaskPromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, num_tasks=3, num_ranks=2),
    ),
    "multitask-qwen3": (QWEN3, "CAUSAL_LM", lambda: MultitaskPromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, num_tasks=2)),
    "multitask-bert-sequence": (
        BERT_SEQ,
        "SEQ_CLS",
        lambda: MultitaskPromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3, num_tasks=2, num_ranks=2),
    ),
}


def base(name, task):
    return CLASSES[task].from_pretrained(name, attn_implementation="eager", dtype=torch.float32).eval()


def randomise(model, seed):
    """Fills everything the adapter saves from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if "prompt_encoder" in name:
                if "prefix_task" in name:
                    parameter.copy_(noise * 0.8)
                elif "embedding" in name:
                    parameter.copy_(noise * 0.7)
                elif parameter.dim() == 1:
                    parameter.copy_(noise * 0.3)
                else:
                    parameter.copy_(noise * 1.3 / parameter.shape[-1] ** 0.5)
            elif "modules_to_save" in name:
                parameter.add_(0.2 * noise)


@torch.no_grad()
def greedy(model, prompts, tasks):
    """New tokens by argmax without a cache for prompts of different lengths, and the smallest lead of a winner."""
    rows, margin = [], float("inf")
    for row, prompt in enumerate(prompts):
        ids = prompt[None]
        more = {"task_ids": tasks[row : row + 1]} if tasks is not None else {}
        for _ in range(NEW_TOKENS):
            top = model(ids, use_cache=False, **more).logits[:, -1].topk(2)
            margin = min(margin, (top.values[:, 0] - top.values[:, 1]).item())
            ids = torch.cat([ids, top.indices[:, :1]], dim=1)
        rows.append(ids[0, len(prompt) :])
    return torch.stack(rows), margin


@torch.no_grad()
def generated(model, prompt, task):
    """The same for one prompt by PEFT's `generate`."""
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = None
    more = {"task_ids": task} if task is not None else {}
    ids = prompt[None]
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0, **more)
    return out[0, len(prompt) :]


def encoder_state(folder, encoder):
    """Writes the encoder's state and gradients."""
    from safetensors.torch import load_file

    tokens = torch.arange(encoder.embedding.weight.shape[0])[None]
    output = encoder(tokens)[0]
    saved = load_file(folder / "adapter_model.safetensors")["prompt_embeddings"]
    if not torch.allclose(saved, output, atol=1e-6):
        raise SystemExit(f"{folder.name}: the file does not hold the encoder's output")
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    for parameter in encoder.parameters():
        parameter.grad = None
    (output * weights).sum().backward()
    save_tensors(folder / "llmkit_prompt_encoder.safetensors", encoder.state_dict())
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    save_tensors(folder / "gradients.safetensors", {"weights": weights, **gradients})


def make(name, base_name, task, config, seed):
    """Saves one adapter and what PEFT computes with it."""
    folder = fresh(OUT / name)
    made = get_peft_model(base(base_name, task), config()).eval()
    randomise(made, seed)
    with torch.no_grad():
        made.save_pretrained(folder)
    (folder / "README.md").unlink()
    encoder = made.prompt_encoder["default"]
    if hasattr(encoder, "mlp_head") or hasattr(encoder, "transform"):
        encoder_state(folder, encoder)

    loaded = PeftModel.from_pretrained(base(base_name, task), str(folder)).eval()
    plain = base(base_name, task)
    vocab = plain.config.vocab_size
    ids = random_ids((2, 9), vocab, seed)
    tasks = torch.tensor([1, 0]) if name.startswith("multitask") else None
    more = {"task_ids": tasks} if tasks is not None else {}
    expected = {"input_ids": ids, **more}
    with torch.no_grad():
        if task == "CAUSAL_LM":
            logits = loaded(ids, **more).logits
            if not torch.equal(logits, made(ids, **more).logits):
                print(f"  the saved adapter differs by {(logits - made(ids, **more).logits).abs().max():.1e}")
            check_logits_scale(logits)
            tokens = logits[:, -9:]
            effect = (tokens - plain(ids).logits).abs().max().item()
            prompts = random_ids((2, 7), vocab, seed + 1000)
            rows = [prompts[0], prompts[1, 2:]]
            expected["prompt_ids"] = prompts
            expected["greedy_ids"], margin = greedy(loaded, rows, tasks)
            if margin < MIN_MARGIN:
                return False
            for row, prompt in enumerate(rows):
                theirs = generated(loaded, prompt, None if tasks is None else tasks[row : row + 1])
                if not torch.equal(theirs, expected["greedy_ids"][row]):
                    print(f"  {name}: PEFT's generate differs from its forward pass in row {row}: {theirs.tolist()} {expected['greedy_ids'][row].tolist()}")
        else:
            # Row by row where a mask does not reach behind a prefix.
            lengths = [9, 6]
            rows = []
            for row, length in enumerate(lengths):
                one = {key: value[row : row + 1] for key, value in more.items()}
                out = loaded(input_ids=ids[row : row + 1, :length], attention_mask=torch.ones(1, length, dtype=torch.long), **one)
                rows.append(out.logits if hasattr(out, "logits") else out.last_hidden_state)
            if task == "SEQ_CLS":
                logits = torch.cat(rows)
                effect = (logits[0] - plain(ids[:1]).logits[0]).abs().max().item()
            else:
                logits = torch.cat([row[0] for row in rows])
                unadapted = plain(ids[:1])
                unadapted = unadapted.logits if hasattr(unadapted, "logits") else unadapted.last_hidden_state
                effect = (rows[0][0, -9:] - unadapted[0]).abs().max().item()
            try:
                mask = torch.ones_like(ids)
                mask[1, 6:] = 0
                out = loaded(input_ids=ids, attention_mask=mask, **more)
                out = out.logits if hasattr(out, "logits") else out.last_hidden_state
                if task == "SEQ_CLS":
                    print(f"  padded: {(out - logits).abs().max():.1e}")
            except Exception as error:
                print(f"  padded rows fail in PEFT: {type(error).__name__} {str(error)[:100]}")
            expected["lengths"] = torch.tensor(lengths)
    if effect < MIN_EFFECT:
        raise SystemExit(f"{name}: effect {effect}")
    print(f"{name}: effect {effect:.2f}")
    expected["logits"] = logits
    (folder / "base.txt").write_text(base_name + "\n")
    save_tensors(folder / "expected.safetensors", expected)
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)
    return True


def main():
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    # Bases are loaded by a relative path, since adapter_config.json keeps it.
    os.chdir(CORE)
    for number, (name, (base_name, task, config)) in enumerate(VARIANTS.items()):
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        seed = 300 + number
        # Until greedy decoding is not too close to call.
        while not make(name, base_name, task, config, seed):
            seed += 100


if __name__ == "__main__":
    main()
