#!/usr/bin/env bash
# From CamVid to weights on a CUDA machine: trains the candidates, scores them on a sequence that none of them saw,
# trains the best one on all frames, writes the tables and packs the weights.
#
#     bash examples/camvid-gpu.sh CAMVID [FOLDER]
#
# CAMVID is a folder or a zip in SegNet's layout (train, val and, where there is one, test). Everything goes to FOLDER
# (camvid-gpu): a run folder each, table.md, camvid11.safetensors. Every training runs in slices of SLICE and is resumed
# between them, so the script may be stopped at any moment and started again: what is done is not done twice.
#
# By environment variable, with its default: UNETPP (unetpp) and PYTHON (python3), the programs; GPUS (0), or 0,1 or
# cpu; SLICE (9m); SEARCH_WIDTH (16) and SEARCH_EPOCHS (200) of the candidates, JOBS (1) of them side by side: nets so
# narrow leave most of a GPU idle; WIDTH (24) and EPOCHS (800) of the last training, 0 epochs for the table of the
# candidates alone; TEACHER_WIDTH (0): first a teacher of that width on the same frames; DEPTH (4) at which the weights
# are packed; HOLD_OUT (0001TP); ONLY: names of candidates, such as "recipe unweighted+distill", where + takes both
# changes (all single ones); OPTIONS of every training but the article's ("--batch-size 16 --lr 4e-3 --progressive=":
# large batches, at full size from the start).
set -euo pipefail
export LC_ALL=C
if [ "${BASH_VERSINFO[0]}" -lt 4 ] || { [ "${BASH_VERSINFO[0]}" -eq 4 ] && [ "${BASH_VERSINFO[1]}" -lt 4 ]; }; then
    echo "This needs bash 4.4 or newer, not $BASH_VERSION." >&2
    exit 2
fi

data=${1:?usage: camvid-gpu.sh CAMVID [FOLDER]}
out=${2:-camvid-gpu}
read -ra unetpp <<<"${UNETPP:-unetpp}"
results=("${PYTHON:-python3}" "$(dirname "${BASH_SOURCE[0]}")/../benchmarks/results.py")
gpus=${GPUS:-0}
one_gpu=${gpus%%,*} # eval computes on one
[ "$one_gpu" = all ] && one_gpu=0
held=${HOLD_OUT:-0001TP}
teacher_width=${TEACHER_WIDTH:-0}
read -ra common <<<"--recipe camvid ${OPTIONS---batch-size 16 --lr 4e-3 --progressive=}"
mkdir -p "$out"

fail() {
    echo "$1" >&2
    exit 2
}

case $teacher_width in *[!0-9]* | '') fail "TEACHER_WIDTH is $teacher_width, but must be a number." ;; esac
jobs=${JOBS:-1}
case $jobs in *[!0-9]* | '' | 0) fail "JOBS is $jobs, but must be a number from 1." ;; esac

candidates="recipe small-first unweighted large-crop day ce lovasz ohem linear-heads decay distill blog"

flip='{HorizontalFlip: {p: 0.5}}'
dusk='{ColorJitter: {brightness: [0.35, 1.5], contrast: [0.6, 1.4], saturation: [0.5, 1.5], hue: [-0.05, 0.05], p: 0.8}}'
day='{ColorJitter: {brightness: [0.6, 1.4], contrast: [0.7, 1.3], saturation: [0.6, 1.4], hue: [-0.05, 0.05], p: 0.8}}'
scale='{RandomScale: {scale_limit: [-0.5, 0.5], p: 1.0}}'
large='{RandomScale: {scale_limit: [-0.25, 0.75], p: 1.0}}'
crop() { # SIDE
    printf '{RandomCrop: {height: %s, width: %s, pad_if_needed: true, fill: [124, 116, 104], fill_mask: 255}}' "$1" "$1"
}

changes_of() { # CANDIDATE: sets `changes`, what it changes in the camvid recipe
    local part
    changes=()
    for part in ${1//+/ }; do
        case $part in
            recipe) ;;
            small-first) changes+=(--progressive "0.5:0.45,0.75:0.25") ;;
            unweighted) changes+=(--class-weights none) ;;
            large-crop) changes+=(--set "augment=[$large, $(crop 320), $flip, $dusk]") ;;
            day) changes+=(--set "augment=[$scale, $(crop 256), $flip, $day]") ;;
            ce) changes+=(--loss ce) ;;
            lovasz) changes+=(--loss ce+lovasz) ;;
            ohem) changes+=(--loss ohem --class-weights none) ;;
            linear-heads) changes+=(--head-weights linear) ;;
            decay) changes+=(--set weight_decay=0.05) ;;
            distill) changes+=(--distill 0.5) ;;
            blog) changes+=(--recipe blog) ;;
            *) fail "There is no candidate '$part': $candidates." ;;
        esac
    done
}

ending() { # RUN: how its last start ended
    sed -n 's/^ *"ending": "\(.*\)".*/\1/p' "$1/run.json" 2>/dev/null | tail -n 1
}

train() { # RUN OPTION...: to its end, slice by slice
    local run=$1
    shift
    if [ -e "$run.options" ] && [ "$(cat "$run.options")" != "$*" ]; then
        fail "$run was begun with other options ($run.options). Remove it, or name another FOLDER."
    fi
    printf '%s\n' "$*" >"$run.options"
    while :; do
        case $(ending "$run") in
            finished | "early stop") return ;;
        esac
        printf '=== %s (%s s so far) ===\n' "$run" "$SECONDS"
        "${unetpp[@]}" train --data "$data" --gpus "$gpus" --out "$run" --resume auto \
            --time-limit "${SLICE:-9m}" "$@"
    done
}

score() { # FILE.json MODEL OPTION...
    local file=$1
    shift
    [ -s "$file" ] && return
    "${unetpp[@]}" eval --data "$data" --gpus "$one_gpu" --json "$@" >"$file.part"
    mv "$file.part" "$file"
}

# --- the candidates, on all frames but one sequence; `last`, not `best`: nothing is chosen by an epoch's score
candidate() { # NAME
    local run=$out/search-$1 recipe quick
    changes_of "$1"
    recipe=("${common[@]}" --width "${SEARCH_WIDTH:-16}" --epochs "${SEARCH_EPOCHS:-200}")
    [ "$1" = blog ] && recipe=()
    train "$run" --hold-out "$held" "${recipe[@]}" "${changes[@]}"
    quick=(--split val --no-boundary --no-timing)
    score "$run.json" "$run/weights/last.safetensors" --hold-out "$held" "${quick[@]}"
    score "$run-val.json" "$run/weights/last.safetensors" --hold-out= "${quick[@]}"
}

read -ra names <<<"${ONLY:-$candidates}"
files=()
for name in "${names[@]}"; do
    changes_of "$name" # or it says now that there is no such candidate
    [ "$name" = blog ] || files+=("$out/search-$name.json,$out/search-$name-val.json")
done
[ "${#files[@]}" -gt 0 ] || fail "ONLY names no candidate for the last training."
if [ "$jobs" -eq 1 ]; then
    for name in "${names[@]}"; do candidate "$name"; done
else
    trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
    for name in "${names[@]}"; do
        while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
        candidate "$name" >"$out/search-$name.log" 2>&1 &
    done
    while [ "$(jobs -rp | wc -l)" -gt 0 ]; do wait -n || true; done
    trap - EXIT
    for name in "${names[@]}"; do
        [ -s "$out/search-$name-val.json" ] || fail "$name did not end well: $out/search-$name.log"
    done
fi

# --- the best of them by its deepest head, on all frames; the article's training is there to compare with
winner=$("${results[@]}" best "${files[@]}")
winner=${winner##*/search-}
winner=${winner%-val.json}
printf 'The best candidate: %s\n' "$winner"
entries=()
for name in "${names[@]}"; do entries+=("$name=$out/search-$name.json" "$name, val=$out/search-$name-val.json"); done
{
    printf '# CamVid, 11 classes: mIoU in %%, with 95 %% intervals where there are blocks enough\n\n'
    printf '%s\n' "$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 || true)"
    printf '\n## Candidates, %s held out (width %s, %s epochs)\n\n' "$held" "${SEARCH_WIDTH:-16}" "${SEARCH_EPOCHS:-200}"
    "${results[@]}" table "${entries[@]}"
} >"$out/table.md"
if [ "${EPOCHS:-800}" = 0 ]; then
    cat "$out/table.md"
    exit
fi

changes_of "$winner"
final=$out/final-$winner
if [ "$teacher_width" -gt 0 ]; then
    train "$out/teacher-$winner" "${common[@]}" --width "$teacher_width" --epochs "${EPOCHS:-800}" "${changes[@]}"
    changes+=(--distill 0.5 --teacher "$out/teacher-$winner/weights/last.safetensors")
fi
train "$final" "${common[@]}" --width "${WIDTH:-24}" --epochs "${EPOCHS:-800}" "${changes[@]}"
last=$final/weights/last.safetensors

splits="val"
report=$("${unetpp[@]}" check "$data" --json)
case $report in *'"test": {'*) splits="val test" ;; esac
for split in $splits; do
    score "$final-$split.json" "$last" --split "$split"
    score "$final-$split-flip.json" "$last" --split "$split" --tta flip
    score "$final-$split-flip-scales.json" "$last" --split "$split" --tta flip,scales
done

# --- tables and weights
{
    printf '\n## `%s` on all frames (width %s, %s epochs)\n\n' "$winner" "${WIDTH:-24}" "${EPOCHS:-800}"
    rows=()
    for split in $splits; do
        rows+=("$split=$final-$split.json" "$split, mirrored too=$final-$split-flip.json")
        rows+=("$split, mirrored, three sizes=$final-$split-flip-scales.json")
    done
    "${results[@]}" table "${rows[@]}"
} >>"$out/table.md"
"${results[@]}" pack "$last" -o "$out/camvid11.safetensors" --depth "${DEPTH:-4}" --table "val=$final-val.json" \
    --table "$held held out (width ${SEARCH_WIDTH:-16})=$out/search-$winner.json"
cat "$out/table.md"
printf 'Done: %s/table.md, %s/camvid11.safetensors\n' "$out" "$out"
