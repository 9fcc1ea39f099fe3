"""Copies the chat templates of well-known models out of PyPI packages into llmkit-core/tests/fixtures/chat/known.

The README there names the source and licence of each. The packages are only unpacked, never imported:
    pip download --no-deps --only-binary :all: -d WHEELS trl==1.16.0 axolotl==0.19.0 unsloth==2026.10.9
    python scripts/copy_chat_templates.py WHEELS
"""

import ast
import sys
import zipfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "llmkit-core/tests/fixtures/chat/known"

TRL = """
cohere cohere2 cohere2_training deepseek_r1_distill deepseek_r1_distill_training deepseekv3 gemma gemma3 gemma3_training gemma4_v5
glm4moe glm4moe_training gptoss gptoss_training lfm2_v2 lfm2_2_5 llama3 llama3_training llama3_1 llama3_2 nemotron_3_nano phi3 phi3_5
phi3_training qwen2_5 qwen2_5_training qwen3 qwen3_training qwen3_instruct_2507 qwen3_5_think smolvlm
""".split()
AXOLOTL = """
alpaca aya chatml command_a_tool_use deepseek_v2 exaone exaone4 falcon_h1 jamba llama4 metharme mistral_v1 mistral_v2v3
mistral_v3_tekken mistral_v7_tekken phi_4
""".split()
UNSLOTH = {
    "llama2": "llama_template",
    "starling": "starling_template",
    "vicuna": "vicuna_template",
    "yi": "yi_chat_template",
    "zephyr": "zephyr_template",
}


def wheel(folder, package):
    (path,) = Path(folder).glob(f"{package}-*.whl")
    return zipfile.ZipFile(path)


def main():
    folder = sys.argv[1]
    texts = {}
    with wheel(folder, "trl") as trl:
        for name in TRL:
            texts[name] = trl.read(f"trl/chat_templates/{name}.jinja").decode()
    with wheel(folder, "axolotl") as axolotl:
        for name in AXOLOTL:
            texts[name] = axolotl.read(f"axolotl/utils/chat_templates/templates/{name}.jinja").decode()
    with wheel(folder, "unsloth") as unsloth:
        values = {}
        for node in ast.parse(unsloth.read("unsloth/chat_templates.py")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Constant):
                values[node.targets[0].id] = node.value.value
        for name, variable in UNSLOTH.items():
            # Unsloth fills this in when it takes the template into use.
            texts[name] = values[variable].replace("{system_message}", "You are a helpful assistant.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (FOLDER / f"{name}.jinja").write_text(text, encoding="utf-8", newline="")
    print(len(texts), "templates,", sum(len(text.encode()) for text in texts.values()), "bytes")


if __name__ == "__main__":
    main()
