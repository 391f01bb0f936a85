#!/usr/bin/env bash
# Every CUDA row of the tables, in less than eight minutes: bash benchmarks/gpu.sh [FOLDER] [DATA]
#
# Writes Markdown and JSON to FOLDER (gpu-results). DATA is a folder in SegNet's layout; drawn scenes when left
# out. Installs nothing: rows whose packages are missing say so. PYTHON names the interpreter (python3). A part
# that fails or takes too long leaves the others alone; the exit code is then 1.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-gpu-results}
data=${2:+--data $2}
python=${PYTHON:-python3}
mkdir -p "$out"
failed=0

part() { # NAME LIMIT COMMAND...
    local name=$1 limit=$2
    shift 2
    printf '=== %s (%s s so far) ===\n' "$name" "$SECONDS"
    timeout "$limit" "$python" "$@" --json "$out/$name.json" --markdown "$out/$name.md" >"$out/$name.log" 2>&1
    local code=$?
    if [ "$code" -ne 0 ]; then
        failed=1
        printf '%s ended with %s:\n' "$name" "$code"
        tail -n 15 "$out/$name.log"
    fi
    [ -f "$out/$name.md" ] && cat "$out/$name.md"
}

"$python" -c 'import torch; assert torch.cuda.is_available(), "torch sees no GPU"' || exit 1
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv | tee "$out/gpu.csv"

same="--device cuda --width 64 --batch 32 --size 224"
passes="--device cuda --width 64 --size 480x360 --peers none --rounds 5"
# shellcheck disable=SC2086  # options are several words
{
    part predict 40 benchmarks/predict.py $passes --batch 8
    part predict-1 25 benchmarks/predict.py $passes --batch 1
    part step 90 benchmarks/train.py $same --group step --peers none --rounds 7
    if "$python" -c 'import albumentations, PIL, yaml' 2>/dev/null; then
        part epoch 115 benchmarks/train.py $same --group epoch --images 352 --workers 0,4 --rounds 6 $data
    else
        printf 'epoch and data: albumentations, pillow or pyyaml is not installed\n' | tee "$out/epoch.log"
    fi
    part peers 70 benchmarks/train.py --device cuda --width 32 --batch 32 --group step --rounds 5
    part compiled 90 benchmarks/train.py $same --group step --rounds 5 \
        --variants article/plain,ours/bf16,ours/compile
    if "$python" -c 'import albumentations, PIL, yaml' 2>/dev/null; then
        part data 35 benchmarks/data.py --workers 0,4 --rounds 5 $data
    fi
}
cat "$out"/*.md >"$out/all.txt" 2>/dev/null
printf 'done in %s s; everything is in %s\n' "$SECONDS" "$out"
exit "$failed"
