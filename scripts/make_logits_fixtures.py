"""Writes llmkit-core/tests/fixtures/logits/*.json: what transformers' own logits processors and `generate` make of known logits.

Needs torch and transformers (the files say which versions made them). Run from the repository root:

    python scripts/make_logits_fixtures.py
"""

import json
from pathlib import Path

import torch
import transformers
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, PretrainedConfig, PreTrainedModel
from transformers.generation import (
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.modeling_outputs import CausalLMOutput

FOLDER = Path("llmkit-core/tests/fixtures/logits")
MADE_BY = f"torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"


def random_logits(seed, size, spread):
    """Rounded, so that the file is small and holds the very numbers that were used."""
    values = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread
    return [round(value, 3) for value in values.tolist()]


LOGITS = {
    "peaked": random_logits(0, 130, 4.0),
    "flat": random_logits(1, 150, 0.5),
    # Few distinct values: ties everywhere, at the border of every step too.
    "tied": [float(round(value)) for value in random_logits(2, 60, 1.5)],
    "equal": [0.5] * 7,
    "barred": [value if index % 3 else float("-inf") for index, value in enumerate(random_logits(3, 90, 2.0))],
}

# Tokens 500 and above are outside every vocabulary here.
SEEN = [0, 1, 1, 1, 5, 6, 3, 59, 58, 5, 500]

SETTINGS = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.7},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 1000},
    {"top_p": 0.05},
    {"top_p": 0.45},
    {"top_p": 0.92},
    {"min_p": 0.0},
    {"min_p": 0.03},
    {"min_p": 0.3},
    {"min_p": 1.0},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8},
    {"min_new_tokens": 3, "eos_token_ids": [2, 6]},
    {"temperature": 0.7, "top_k": 40, "top_p": 0.85},
    {"temperature": 1.4, "top_p": 0.75, "min_p": 0.1},
    {
        "repetition_penalty": 1.2,
        "min_new_tokens": 3,
        "eos_token_ids": [2, 6],
        "temperature": 0.9,
        "top_k": 30,
        "top_p": 0.9,
        "min_p": 0.02,
    },
]


def processors(setting, prompt_length):
    """In the order of `GenerationMixin._get_logits_processor`."""
    chain = LogitsProcessorList()
    if "repetition_penalty" in setting:
        chain.append(RepetitionPenaltyLogitsProcessor(setting["repetition_penalty"]))
    if "min_new_tokens" in setting:
        chain.append(
            MinNewTokensLengthLogitsProcessor(prompt_length, setting["min_new_tokens"], setting["eos_token_ids"])
        )
    if "temperature" in setting:
        chain.append(TemperatureLogitsWarper(setting["temperature"]))
    if "top_k" in setting:
        chain.append(TopKLogitsWarper(setting["top_k"]))
    if "top_p" in setting:
        chain.append(TopPLogitsWarper(setting["top_p"]))
    if "min_p" in setting:
        chain.append(MinPLogitsWarper(setting["min_p"]))
    return chain


def distributions():
    cases = []
    for name, logits in LOGITS.items():
        for setting in SETTINGS:
            scores = processors(setting, len(SEEN))(torch.tensor([SEEN]), torch.tensor([logits]))[0]
            probabilities = scores.double().softmax(-1)
            kept = [index for index, score in enumerate(scores.tolist()) if score > float("-inf")]
            cases.append(
                {
                    "logits": name,
                    "setting": setting,
                    "kept": kept,
                    "probabilities": [float(f"{probabilities[index]:.6g}") for index in kept],
                }
            )
    # JSON has no infinity: null stands for minus infinity.
    logits = {
        name: [None if value == float("-inf") else value for value in values] for name, values in LOGITS.items()
    }
    return {"made_by": MADE_BY, "seen": SEEN, "logits": logits, "cases": cases}


class TableConfig(PretrainedConfig):
    model_type = "table"
    num_hidden_layers = 1


class Table(PreTrainedModel, GenerationMixin):
    """The next token's logits are a row of a table, by the last token."""

    config_class = TableConfig

    def __init__(self, config, table):
        super().__init__(config)
        self.table = torch.nn.Parameter(table)

    def forward(self, input_ids, **_):
        return CausalLMOutput(logits=self.table[input_ids])

    def prepare_inputs_for_generation(self, input_ids, **_):
        return {"input_ids": input_ids}


def greedy_runs():
    """Whole answers of `generate`, over a table of 12 tokens."""
    size = 12
    rows = [random_logits(100 + row, size, 2.0) for row in range(size)]
    # Two likeliest tokens alike: the lower id must be taken.
    rows[4][2] = rows[4][9] = 9.0
    model = Table(TableConfig(vocab_size=size), torch.tensor(rows)).eval()
    runs = []
    for prompt in [[0], [4], [7, 3, 4], [11, 2]]:
        for setting in [
            {"max_new_tokens": 20},
            {"max_new_tokens": 20, "repetition_penalty": 1.5},
            {"max_new_tokens": 30, "repetition_penalty": 4.0, "eos_token_id": [5]},
            {"max_new_tokens": 30, "repetition_penalty": 1.1, "eos_token_id": [2, 8, 10]},
            {"max_new_tokens": 15, "min_new_tokens": 6, "eos_token_id": [2, 8, 10]},
        ]:
            setting = {"do_sample": False, **setting}
            config = GenerationConfig(**setting, pad_token_id=0, use_cache=False)
            output = model.generate(torch.tensor([prompt]), generation_config=config)
            runs.append({"prompt": prompt, "config": setting, "ids": output[0, len(prompt) :].tolist()})
    return {"made_by": MADE_BY, "table": rows, "runs": runs}


def write(name, content):
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / name).write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    write("distributions.json", distributions())
    write("greedy.json", greedy_runs())
    GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
        repetition_penalty=1.05,
        max_length=4096,
        max_new_tokens=64,
        bos_token_id=1,
        eos_token_id=[151645, 151643],
        pad_token_id=151643,
        stop_strings="\n\n",
    ).save_pretrained(FOLDER)
