"""Makes llmkit-prompt/tests/fixtures/documents.json: distances of quotes to a text by edlib, captions as webvtt-py reads them.

    pip install edlib==1.3.9.post1 webvtt-py==0.6.0
    python scripts/make_prompt_documents_fixtures.py
"""

import io
import json
import random
import re
from pathlib import Path

import edlib
import webvtt

ROOT = Path(__file__).resolve().parent.parent
# What the finder treats as more than a difference of letters.
SPECIAL = re.compile(
    r"\b(not|no|never|none|nobody|nothing|neither|nor|without|cannot|one|two|three|four|five|six|seven|eight|nine|ten|eleven|"
    r"twelve|fifteen|twenty|thirty|forty|fifty|sixty|ninety|hundred|thousand|million)\b|n't|[0-9]"
)

VTT = """WEBVTT
Kind: captions

STYLE
::cue { color: white }

1
00:00:01.000 --> 00:00:04.250
<v Ana Ruiz>Good morning, <i>everybody</i>.</v>

NOTE This is said by nobody.

second
00:04.500 --> 00:00:06.000 align:start position:10%
<v Ben>We are complete,
so let us begin.

01:02:03.004 --> 01:02:05.000
Nobody is named here.
"""

SRT = """1
00:00:01,000 --> 00:00:04,250
Good morning, everybody.

2
00:00:04,500 --> 00:00:06,000
We are complete,
so let us begin.

3
01:02:03,004 --> 01:02:05,000
It is late.
"""


def quotes():
    rng = random.Random(7)
    talk = (ROOT / "examples/data/meetings/harbor-line.txt").read_text()
    lines = [re.sub(r"^\[[0-9:]+\] [^:]+: ", "", line) for line in talk.splitlines()]
    text = " ".join(line for line in lines if line.isascii())
    # The finder puts letters into lower case.
    lower = text.lower()
    made = []
    while len(made) < 60:
        start, length = rng.randrange(len(lower) - 400), rng.choice([30, 60, 64, 65, 128, 200, 300])
        if SPECIAL.search(lower[max(0, start - 12) : start + length + 12]):
            continue
        letters = list(lower[start : start + length].strip(" .,'\""))
        for _ in range(rng.randrange(1, max(2, length // 8))):
            at = rng.randrange(1, len(letters) - 1)
            kind = rng.choice("dir")
            if kind == "d":
                del letters[at]
            elif kind == "i":
                letters.insert(at, rng.choice("xyzq"))
            else:
                letters[at] = rng.choice("xyzq")
        quote = re.sub(" +", " ", "".join(letters)).strip(" .,'\"")
        result = edlib.align(quote, lower, mode="HW", task="distance")
        made.append({"quote": quote, "distance": result["editDistance"]})
    return {"text": text, "quotes": made}


def captions():
    made = []
    for text, form in [(VTT, "vtt"), (SRT, "srt")]:
        cues = webvtt.from_buffer(io.StringIO(text), format=form)
        made.append(
            {
                "text": text,
                "cues": [
                    {
                        "start": cue.start,
                        "voice": cue.voice,
                        "text": " ".join(cue.text.split()),
                    }
                    for cue in cues
                ],
            }
        )
    return made


if __name__ == "__main__":
    target = ROOT / "llmkit-prompt/tests/fixtures/documents.json"
    target.write_text(json.dumps({"finder": quotes(), "captions": captions()}, ensure_ascii=False, indent=1) + "\n")
    print(target, target.stat().st_size)
