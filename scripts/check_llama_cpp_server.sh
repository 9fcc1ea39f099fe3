#!/bin/sh
# Runs the client against llama.cpp's server (PyPI llama-cpp-python[server]) on this machine, and stops it again.
#
#   scripts/check_llama_cpp_server.sh MODEL.gguf
#
# PYTHON names an interpreter that has the package; without it, a virtual environment is made and the package installed (which compiles it,
# for minutes). PORT is 18080 unless set; PORT + 1 serves embeddings: EMBEDDING_MODEL names a GGUF that is made for them, and
# LLMKIT_LLAMA_CPP_DIMENSIONS the length of its vectors. Without them, the refusal of a model that makes none is checked.
set -eu
model=${1:?give the path of a GGUF model}
port=${PORT:-18080}
folder=$(mktemp -d)
cleanup() {
    [ -z "${chat:-}" ] || kill "$chat" 2>/dev/null || true
    [ -z "${embedding:-}" ] || kill "$embedding" 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT INT TERM
if [ -z "${PYTHON:-}" ]; then
    python3 -m venv "$folder/venv"
    PYTHON=$folder/venv/bin/python
    "$PYTHON" -m pip install -q 'llama-cpp-python[server]'
fi
"$PYTHON" -m llama_cpp.server --model "$model" --model_alias local --port "$port" --n_ctx 1024 >"$folder/chat.log" 2>&1 &
chat=$!
"$PYTHON" -m llama_cpp.server --model "${EMBEDDING_MODEL:-$model}" --model_alias local --port $((port + 1)) --n_ctx 512 --embedding true >"$folder/embedding.log" 2>&1 &
embedding=$!
for address in "$port" $((port + 1)); do
    tries=0
    until "$PYTHON" -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$address/v1/models', timeout=2)" 2>/dev/null; do
        tries=$((tries + 1))
        if [ "$tries" -gt 120 ]; then
            cat "$folder"/*.log
            exit 1
        fi
        sleep 1
    done
done
LLMKIT_LLAMA_CPP=http://127.0.0.1:$port/v1 LLMKIT_LLAMA_CPP_EMBEDDINGS=http://127.0.0.1:$((port + 1))/v1 \
    cargo test -p llmkit-prompt --all-features --test llama_cpp -- --ignored --nocapture --test-threads=1
