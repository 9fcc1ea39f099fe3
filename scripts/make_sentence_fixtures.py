"""Writes llmkit-core/tests/fixtures/sentence: tiny sentence encoders and cross-encoders, and what sentence-transformers computes.

`base` and `cross` hold a model and its tokenizer; every other folder holds the files that make one variant of it (laid over the model's by the
test) and `expected.safetensors`: `embeddings` [texts, dimensions] f32, or `scores` [pairs] f32. `texts.json` has the texts; the
pairs are each query with each document.

Run: python scripts/make_sentence_fixtures.py
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from make_encoder_fixtures import randomise
from tiny_models import ROOT, fresh, save_tensors, write_json

FOLDER = ROOT / "llmkit-core/tests/fixtures/sentence"
TEXTS = [
    "the cat sat on the mat",
    "A dog",
    "",
    "  birds fly over the old house near the river and the cat sees them and runs and runs and runs  ",
    "river",
    "The CAT sat on the mat!",
    "unknown words: zebra quark",
]
QUERIES = ["where is the cat", "old house near the river and the birds that fly over it and the dog that runs to it"]
DOCUMENTS = TEXTS
WORDS = "the a cat dog sat on mat birds fly over old house near river and sees them run ##s where is that to it query : ! ?"


def tokenizer():
    """WordPiece over a few words and all letters."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(WORDS.split() + letters)]
    vocabulary += [f"##{letter}" for letter in letters if f"##{letter}" not in vocabulary]
    ids = {token: index for index, token in enumerate(vocabulary)}
    inner = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    # It keeps capitals, which the vocabulary lacks, so that `do_lower_case` matters.
    inner.normalizer = normalizers.BertNormalizer(lowercase=False)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=32, **names), len(vocabulary)


def config(vocab_size, **changes):
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=3,
        max_position_embeddings=32,
        **changes,
    )


def save_model(name, model, made_tokenizer):
    randomise(model, 3)
    folder = fresh(FOLDER / name)
    model.save_pretrained(folder)
    made_tokenizer.save_pretrained(folder)
    return folder


def old_pooling(*modes, **more):
    """1_Pooling/config.json as sentence-transformers wrote it up to version 5."""
    names = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    return {"word_embedding_dimension": 24, **{f"pooling_mode_{name}": name in modes for name in names}, **more}


def modules(*kinds, library="sentence_transformers.models"):
    """modules.json: the transformer, then `kinds`."""
    entries = [{"idx": 0, "name": "0", "path": "", "type": f"{library}.Transformer"}]
    for index, kind in enumerate(kinds, 1):
        entries.append({"idx": index, "name": str(index), "path": f"{index}_{kind}", "type": f"{library}.{kind}"})
    return entries


def variant(name, base, pooling, kinds=("Pooling",), bert=None, settings=None, prompt_name=None):
    """Writes the files of a variant and what sentence-transformers reads from base and variant together."""
    folder = fresh(FOLDER / name)
    write_json(folder / "modules.json", modules(*kinds))
    write_json(folder / "sentence_bert_config.json", bert or {"max_seq_length": 16, "do_lower_case": False})
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling/config.json", pooling)
    if settings:
        write_json(folder / "config_sentence_transformers.json", settings)
    for index, kind in enumerate(kinds, 1):
        if kind == "Dense":
            torch.manual_seed(index)
            # The activation is the name that the library looks up.
            function = torch.nn.Tanh() if index == 2 else torch.nn.Identity()
            width = 24 if index == 2 else 10
            dense = Dense(width, 10 if index == 2 else 7, bias=index == 2, activation_function=function)
            (folder / f"{index}_Dense").mkdir()
            dense.save(str(folder / f"{index}_Dense"))
    finish(name, base, lambda path: expected_embeddings(path, prompt_name))


def together(base, name, path):
    shutil.copytree(base, path, dirs_exist_ok=True)
    shutil.copytree(FOLDER / name, path, dirs_exist_ok=True)


def finish(name, base, compute):
    with tempfile.TemporaryDirectory() as path:
        together(base, name, path)
        tensors = compute(path)
    for key, tensor in tensors.items():
        print(f"{name}: {key} {list(tensor.shape)}, deviation {tensor.std():.3f}")
        if not torch.isfinite(tensor).all() or tensor.std() < 0.02:
            raise SystemExit(f"{name}: badly scaled")
    save_tensors(FOLDER / name / "expected.safetensors", tensors)


def expected_embeddings(path, prompt_name):
    model = SentenceTransformer(path, device="cpu")
    vectors = model.encode(TEXTS, prompt_name=prompt_name, convert_to_tensor=True)
    tensors = {"embeddings": vectors.float()}
    if "query" in (model.prompts or {}):
        tensors["queries"] = model.encode_query(TEXTS, convert_to_tensor=True).float()
        tensors["documents"] = model.encode_document(TEXTS, convert_to_tensor=True).float()
    return tensors


def newest(base):
    """A folder as today's sentence-transformers saves it, without the model's own files."""
    folder = fresh(FOLDER / "newest")
    with tempfile.TemporaryDirectory() as path:
        transformer = Transformer(str(base), max_seq_length=16)
        parts = [transformer, Pooling(24, pooling_mode=("mean", "max")), Normalize()]
        SentenceTransformer(modules=parts, device="cpu").save(path)
        for file in sorted(Path(path).rglob("*.json")):
            at = file.relative_to(path)
            if str(at) in ("config.json", "tokenizer.json"):
                continue
            (folder / at).parent.mkdir(exist_ok=True)
            shutil.copy(file, folder / at)
    finish("newest", base, lambda path: expected_embeddings(path, None))


def cross(name, base, changes, untyped=False):
    folder = fresh(FOLDER / name)
    write_json(folder / "config.json", {**json.loads((base / "config.json").read_text()), **changes})
    if untyped:
        tokenizer_config = json.loads((base / "tokenizer_config.json").read_text())
        del tokenizer_config["model_input_names"]
        write_json(folder / "tokenizer_config.json", tokenizer_config)
    pairs = [(query, document) for query in QUERIES for document in DOCUMENTS]

    def scores(path):
        return {"scores": torch.tensor(CrossEncoder(path, device="cpu").predict(pairs))}

    finish(name, base, scores)


def main():
    torch.set_num_threads(1)
    for folder in FOLDER.iterdir() if FOLDER.is_dir() else ():
        if folder.is_dir() and folder.name != "minilm":
            shutil.rmtree(folder)
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_json(FOLDER / "texts.json", {"texts": TEXTS, "queries": QUERIES, "documents": DOCUMENTS})
    made_tokenizer, size = tokenizer()
    base = save_model("base", BertModel(config(size)), made_tokenizer)
    variant("mean", base, old_pooling("mean_tokens"), ("Pooling", "Normalize"))
    variant("cls", base, old_pooling("cls_token"))
    variant("max", base, old_pooling("max_tokens"))
    variant("mean-sqrt-len", base, old_pooling("mean_sqrt_len_tokens"))
    variant("weighted-mean", base, old_pooling("weightedmean_tokens"))
    variant("last-token", base, old_pooling("lasttoken"))
    variant("two-modes", base, old_pooling("mean_tokens", "cls_token"), ("Pooling", "Normalize"))
    variant("dense", base, old_pooling("mean_tokens"), ("Pooling", "Dense", "Dense", "Normalize"))
    variant("lower-case", base, old_pooling("mean_tokens"), bert={"max_seq_length": 9, "do_lower_case": True})
    prompts = {"prompts": {"query": "query: ", "passage": "the house "}, "default_prompt_name": "query"}
    variant("prompts", base, old_pooling("mean_tokens"), settings=prompts)
    excluded = old_pooling("mean_tokens", "cls_token", "weightedmean_tokens", include_prompt=False)
    variant("prompts-excluded", base, excluded, settings={"prompts": {"query": "query: ", "document": ""}}, prompt_name="query")
    newest(base)

    model = BertForSequenceClassification(config(size, num_labels=1))
    cross_base = save_model("cross", model, made_tokenizer)
    settings = json.loads((cross_base / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    write_json(cross_base / "tokenizer_config.json", settings)
    cross("cross-default", cross_base, {})
    # Without the list of its inputs, the generic tokenizer of transformers 5 gives no token types.
    cross("cross-untyped", cross_base, {}, untyped=True)
    cross("cross-identity", cross_base, {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}})
    cross("cross-old", cross_base, {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"})


if __name__ == "__main__":
    main()
