"""Writes llmkit-core/tests/fixtures/logits/*.json: what transformers' own logits processors and `generate`, and llama.cpp's own samplers,
make of known logits.

Needs torch, transformers and llama-cpp-python (the files say which versions made them). Run from the repository root:

    python scripts/make_logits_fixtures.py
"""

import ctypes
import json
import math
from pathlib import Path

import llama_cpp
import torch
import transformers
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, PretrainedConfig, PreTrainedModel
from transformers.generation import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
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

# Ends as it began, so that repetitions can be completed.
REPEATED = [0, 1, 2, 3, 1, 2, 5, 4, 4, 1, 2]

# Those in which "seen" stands look back at REPEATED.
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
    {"typical_p": 0.1},
    {"typical_p": 0.5},
    {"typical_p": 0.95},
    {"epsilon_cutoff": 0.004},
    {"epsilon_cutoff": 0.2},
    {"eta_cutoff": 0.002},
    {"eta_cutoff": 0.3},
    {"top_h": 0.3},
    {"top_h": 0.8},
    {"suppress_tokens": [1, 2, 59, 700], "begin_suppress_tokens": [3]},
    {"seen": True, "no_repeat_ngram_size": 1},
    {"seen": True, "no_repeat_ngram_size": 2},
    {"seen": True, "no_repeat_ngram_size": 3},
    {"seen": True, "no_repeat_ngram_size": 12},
    {"seen": True, "sequence_bias": [[[5], 2.5], [[0], -1.0], [[2, 6], 0.75], [[1, 2, 6], 1.5], [[4, 2, 3], 9.0]]},
    {"seen": True, "bad_words_ids": [[0], [2, 3], [4, 1, 2, 4], [5, 4, 2], [6]], "eos_token_ids": [6]},
    {"seen": True, "sequence_bias": [[[2, 3], -2.0], [[0, 1, 2, 3, 1, 2, 5, 4, 4, 1, 2, 6], 3.0]]},
    {
        "seen": True,
        "sequence_bias": [[[5], 1.5]],
        "repetition_penalty": 1.1,
        "no_repeat_ngram_size": 2,
        "bad_words_ids": [[1, 2, 6]],
        "min_new_tokens": 1,
        "eos_token_ids": [2],
        "suppress_tokens": [4],
        "begin_suppress_tokens": [0],
        "temperature": 1.3,
        "top_h": 0.95,
        "top_k": 60,
        "top_p": 0.97,
        "min_p": 0.001,
        "typical_p": 0.9,
        "epsilon_cutoff": 0.001,
        "eta_cutoff": 0.002,
    },
]


def processors(setting, prompt_length):
    """In the order of `GenerationMixin._get_logits_processor`."""
    chain = LogitsProcessorList()
    if "sequence_bias" in setting:
        chain.append(SequenceBiasLogitsProcessor(setting["sequence_bias"]))
    if "repetition_penalty" in setting:
        chain.append(RepetitionPenaltyLogitsProcessor(setting["repetition_penalty"]))
    if "no_repeat_ngram_size" in setting:
        chain.append(NoRepeatNGramLogitsProcessor(setting["no_repeat_ngram_size"]))
    if "bad_words_ids" in setting:
        chain.append(NoBadWordsLogitsProcessor(setting["bad_words_ids"], setting["eos_token_ids"]))
    if "min_new_tokens" in setting:
        chain.append(
            MinNewTokensLengthLogitsProcessor(prompt_length, setting["min_new_tokens"], setting["eos_token_ids"])
        )
    if "suppress_tokens" in setting:
        chain.append(SuppressTokensLogitsProcessor(setting["suppress_tokens"]))
    if "begin_suppress_tokens" in setting:
        chain.append(SuppressTokensAtBeginLogitsProcessor(setting["begin_suppress_tokens"], prompt_length))
    if "temperature" in setting:
        chain.append(TemperatureLogitsWarper(setting["temperature"]))
    if "top_h" in setting:
        chain.append(TopHLogitsWarper(setting["top_h"]))
    if "top_k" in setting:
        chain.append(TopKLogitsWarper(setting["top_k"]))
    if "top_p" in setting:
        chain.append(TopPLogitsWarper(setting["top_p"]))
    if "min_p" in setting:
        chain.append(MinPLogitsWarper(setting["min_p"]))
    if "typical_p" in setting:
        chain.append(TypicalLogitsWarper(setting["typical_p"]))
    if "epsilon_cutoff" in setting:
        chain.append(EpsilonLogitsWarper(setting["epsilon_cutoff"]))
    if "eta_cutoff" in setting:
        chain.append(EtaLogitsWarper(setting["eta_cutoff"]))
    return chain


def distributions():
    cases = []
    for name, logits in LOGITS.items():
        for setting in SETTINGS:
            seen = REPEATED if "seen" in setting else SEEN
            chain = processors(setting, len(seen))
            scores = chain(torch.tensor([seen]), torch.tensor([logits]))[0]
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
    return {"made_by": MADE_BY, "seen": SEEN, "repeated": REPEATED, "logits": logits, "cases": cases}


def apply(sampler, logits):
    """What a sampler of llama.cpp makes of logits: `{id: logit}` of those it leaves, their probabilities, and the token that it selected."""
    array = (llama_cpp.llama_token_data * len(logits))(
        *[llama_cpp.llama_token_data(id=token, logit=logit, p=0.0) for token, logit in enumerate(logits)]
    )
    data = llama_cpp.llama_token_data_array(data=array, size=len(logits), selected=-1, sorted=False)
    llama_cpp.llama_sampler_apply(sampler, ctypes.byref(data))
    left = [data.data[index] for index in range(data.size)]
    selected = left[data.selected].id if data.selected >= 0 else None
    return {token.id: token.logit for token in left}, {token.id: token.p for token in left}, selected


def softmax(logits):
    """Probabilities by id, barred tokens left out."""
    top = max(logits.values())
    weights = {token: math.exp(logit - top) for token, logit in logits.items() if logit > float("-inf")}
    total = sum(weights.values())
    return {token: float(f"{weights[token] / total:.6g}") for token in sorted(weights)}


def after(sampler, history, logits):
    """The distribution that a sampler leaves after it accepted `history`."""
    for token in history:
        llama_cpp.llama_sampler_accept(sampler, token)
    left, _, _ = apply(sampler, logits)
    llama_cpp.llama_sampler_free(sampler)
    probabilities = softmax(left)
    return {"kept": list(probabilities), "probabilities": list(probabilities.values())}


def dry_plain(logits, history, multiplier, base, allowed_length, last_n, breakers):
    """llama.cpp's DRY said plainly, for breakers of token ids (llama.cpp takes texts, and finds the tokens in a vocabulary)."""
    recent = history if last_n == -1 else history[-last_n:]
    limit = len(recent)
    for back in range(len(recent)):
        start = len(recent) - 1 - back
        lengths = [len(breaker) for breaker in breakers if recent[start : start + len(breaker)] == breaker]
        if lengths:
            limit = back - (max(lengths) - 1)
            break
    left = dict(enumerate(logits))
    if len(recent) <= allowed_length or limit < allowed_length:
        return left
    longest = {}
    for end in range(len(recent) - 1):
        # How many tokens up to and including `end` equal the newest ones.
        length = 0
        while length <= end and recent[end - length] == recent[len(recent) - 1 - length]:
            length += 1
        length = min(length, limit)
        if length >= allowed_length:
            longest[recent[end + 1]] = max(longest.get(recent[end + 1], 0), length)
    for token, length in longest.items():
        if [token] not in breakers and token in left:
            left[token] -= multiplier * base ** (length - allowed_length)
    return left


def dry_cases():
    histories = [
        [1, 2, 3, 4, 1, 2, 3],
        [5, 5, 5, 5, 5, 5],
        [1, 2, 3, 4, 9, 2, 3, 6, 8, 1, 2, 3],
        [1, 0, 2, 1, 0, 3, 1, 2, 1, 0],
        torch.randint(0, 3, (80,), generator=torch.Generator().manual_seed(5)).tolist(),
    ]
    settings = [
        {"multiplier": 0.8, "base": 1.75, "allowed_length": 2, "last_n": -1, "breakers": []},
        {"multiplier": 0.5, "base": 1.2, "allowed_length": 1, "last_n": -1, "breakers": []},
        {"multiplier": 0.3, "base": 1.0, "allowed_length": 3, "last_n": 9, "breakers": []},
        {"multiplier": 0.4, "base": 1.5, "allowed_length": 0, "last_n": 30, "breakers": []},
        {"multiplier": 0.8, "base": 1.75, "allowed_length": 1, "last_n": -1, "breakers": [[2], [9]]},
        {"multiplier": 0.8, "base": 1.75, "allowed_length": 1, "last_n": -1, "breakers": [[1, 0], [0, 2, 1], [1, 2]]},
    ]
    logits = random_logits(7, 12, 2.0)
    cases = []
    for history in histories:
        for setting in settings:
            plain = softmax(dry_plain(logits, history, *setting.values()))
            case = {"kept": list(plain), "probabilities": list(plain.values())}
            if not setting["breakers"]:
                last_n = len(history) if setting["last_n"] == -1 else setting["last_n"]
                sampler = llama_cpp.llama_sampler_init_dry(
                    None, setting["multiplier"], setting["base"], setting["allowed_length"], last_n, None, 0
                )
                found = after(sampler, history, logits)
                assert found["kept"] == case["kept"]
                for mine, theirs in zip(case["probabilities"], found["probabilities"]):
                    assert abs(mine - theirs) < 1e-5 * theirs, (setting, history)
            cases.append({"setting": setting, "history": history, **case})
    return {"logits": logits, "cases": cases}


def penalty_cases():
    logits = random_logits(8, 12, 2.0)
    cases = []
    for history in [[3, 3, 3, 7, 0], [11]]:
        for frequency, presence in [(0.5, 0.0), (0.0, 1.25), (0.3, 0.4), (-0.7, 0.2)]:
            sampler = llama_cpp.llama_sampler_init_penalties(len(logits), 64, 1.0, frequency, presence)
            setting = {"frequency_penalty": frequency, "presence_penalty": presence}
            cases.append({"setting": setting, "history": history, **after(sampler, history, logits)})
    return {"logits": logits, "cases": cases}


def top_n_sigma_cases():
    cases = []
    for name, logits in LOGITS.items():
        for n in [0.5, 1.0, 2.5]:
            sampler = llama_cpp.llama_sampler_init_top_n_sigma(n)
            cases.append({"logits": name, "n": n, **after(sampler, [], logits)})
    return cases


def mirostat_runs():
    """Whole runs of llama.cpp's mirostat: at each step what it left, with which probabilities, and what it drew."""
    runs = []
    for tau, eta in [(1.0, 0.3), (3.0, 0.1), (5.0, 1.0)]:
        sampler = llama_cpp.llama_sampler_init_mirostat_v2(11, tau, eta)
        steps = []
        for step in range(12):
            logits = random_logits(200 + step, 60, 1.0 + step % 4)
            _, probabilities, drawn = apply(sampler, logits)
            kept = {token: float(f"{probabilities[token]:.6g}") for token in sorted(probabilities)}
            steps.append(
                {"logits": logits, "kept": list(kept), "probabilities": list(kept.values()), "drawn": drawn}
            )
        llama_cpp.llama_sampler_free(sampler)
        runs.append({"tau": tau, "eta": eta, "steps": steps})
    return runs


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
            {"max_new_tokens": 25, "no_repeat_ngram_size": 2},
            {"max_new_tokens": 25, "bad_words_ids": [[4, 9], [1, 3], [7]], "begin_suppress_tokens": [9, 4]},
            {"max_new_tokens": 20, "repetition_penalty": 1.2, "sequence_bias": [[[3], 1.5], [[9, 1], -4.0]]},
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
    llama_cpp_file = {
        "made_by": f"llama-cpp-python {llama_cpp.__version__}",
        "dry": dry_cases(),
        "penalties": penalty_cases(),
        "top_n_sigma": top_n_sigma_cases(),
        "mirostat": mirostat_runs(),
    }
    write("llama_cpp.json", llama_cpp_file)
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
