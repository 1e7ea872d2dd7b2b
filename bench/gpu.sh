#!/usr/bin/env bash
# Everything that only a GPU can show, in two parts of under ten minutes each. Build before: cargo build --release --features cuda
#
#   PART=right bench/gpu.sh [FOLDER]   are the numbers right? Every kernel at every shape, among poisoned memory, and models
#                                      against the reference, those with experts too, which nothing else may compute on a GPU
#   PART=fast bench/gpu.sh [FOLDER]    speed, ranks over NCCL, a short main job
#   bench/gpu.sh [FOLDER]              both; results in FOLDER (default: a fresh folder under /tmp); the last lines are a summary
#   HYPEREYES=path                     the program (default: target/release/hypereyes); an .xz beside it is unpacked
#   STEPS=40                           optimiser steps of the main job (default 12)
#
# Numbers that are wrong end the script before anything is timed. What is not there (PyTorch, NCCL, compute-sanitizer) is skipped
# with a word. A step that fails does not stop the others of its part.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-$(mktemp -d)}
mkdir -p "$out"
program=${HYPEREYES:-target/release/hypereyes}
if [ ! -x "$program" ] && [ -e "$program.xz" ]; then
    unpacked=$(mktemp)
    python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' "$program.xz" "$unpacked"
    program=$unpacked
    chmod +x "$program"
fi

# cudarc asks for libnccl.so, wheels bring libnccl.so.2; kernels are compiled against the toolkit's headers.
libraries=$(mktemp -d)
for name in nccl nvrtc; do
    found=$(ldconfig -p | awk -v name="lib$name.so" '$1 ~ "^"name { print $NF; exit }')
    [ -n "$found" ] || found=$(find / -xdev -name "lib$name.so.*" -not -name '*alt*' 2>/dev/null | head -1)
    [ -n "$found" ] && ln -sf "$found" "$libraries/lib$name.so" && export LD_LIBRARY_PATH="$libraries:$(dirname "$found"):${LD_LIBRARY_PATH:-}"
done
if [ -z "${CUDA_PATH:-}" ] && [ ! -d /usr/local/cuda/include ]; then
    header=$(find / -xdev -name cuda_fp16.h 2>/dev/null | head -1)
    [ -n "$header" ] && export CUDA_PATH=$(dirname "$(dirname "$header")")
fi

part=${PART:-all}
failed=0
# Steps that failed of what people use: models with experts are not among it yet.
wrong=0
step() { # name, seconds, command
    local name=$1 limit=$2 began=$SECONDS
    shift 2
    echo "== $name: $*"
    timeout "$limit" "$@" >"$out/$name.txt" 2>"$out/$name.err"
    local code=$?
    [ $code -eq 0 ] || failed=$((failed + 1))
    tail -c 1800 "$out/$name.txt"
    [ $code -eq 0 ] || tail -c 1500 "$out/$name.err"
    echo "-- $name: exit $code, $((SECONDS - began)) s"
}

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader | tee "$out/gpu.txt"
if [ "$part" != fast ]; then
    # One line per kernel and size: ok or FAIL, how many of its cases failed, and the worst.
    for device in cuda cuda-bf16; do
        step "kernels-$device" 240 "$program" bench kernels --device $device --full
        grep '^FAIL' "$out/kernels-$device.txt"
    done
    if command -v compute-sanitizer >/dev/null; then
        step sanitizer 90 compute-sanitizer --tool memcheck --error-exitcode 1 "$program" bench kernels --device cuda
    else
        echo "== sanitizer: skipped, there is no compute-sanitizer"
    fi
    # What rounding weights to TF32 and to bf16 does on a CPU, with room; with experts, one router's choice goes the other way.
    for model in qwen3vl-tiny qwen3vl-moe-tiny; do
        data=crates/policy/tests/data/$model
        [ $model = qwen3vl-tiny ] || wrong=$failed
        for device in cuda cuda-bf16; do
            case $model-$device in
                *moe*) tolerance=0.2 ;;
                *-bf16) tolerance=0.1 ;;
                *) tolerance=5e-3 ;;
            esac
            step "parity-$model-$device" 90 "$program" logprobs --model "$data" --cases "$data/expected.safetensors" --images --device $device --check $tolerance
        done
    done
fi
if [ "$part" = right ] || [ $wrong -gt 0 ]; then
    echo "failed steps: $failed; results in $out"
    exit $((failed > 0))
fi
step device 150 "$program" bench device --device cuda --side 4096
step device-bf16 150 "$program" bench device --device cuda-bf16 --side 8192
step nccl 60 "$program" bench ranks --transport nccl --world 1 --values 100000000
for device in cuda cuda-bf16; do
    step "engine-$device" 150 "$program" bench engine --size 100m --device $device --json
    step "policy-$device" 150 "$program" bench policy --size 100m --device $device --sequences 32 --set learner.micro_tokens=8192 --json
    if python3 -c 'import torch, transformers' 2>/dev/null; then
        step "peer-$device" 150 python3 bench/peers/speed.py --size 100m --device $device --sequences 32 --skip-generate
    else
        echo "== peer: skipped, there is no PyTorch"
    fi
done
step up 240 "$program" up --set device=cuda --set learner.steps="${STEPS:-12}" --set run_dir="$out/run"
echo "failed steps: $failed; results in $out"
exit $((failed > 0))
