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
# By environment variable, with its default: UNETPP (unetpp), the program; GPUS (0), or 0,1 or cpu; SLICE (9m);
# SEARCH_WIDTH (16) and SEARCH_EPOCHS (200) of the candidates; WIDTH (24) and EPOCHS (800) of the last training;
# TEACHER_WIDTH (0): a teacher of that width, trained on the same frames first; DEPTH (4) at which the weights are packed;
# HOLD_OUT (0001TP); ONLY (all), names of candidates, such as "recipe distill".
set -euo pipefail

data=${1:?usage: camvid-gpu.sh CAMVID [FOLDER]}
out=${2:-camvid-gpu}
read -ra unetpp <<<"${UNETPP:-unetpp}"
gpus=${GPUS:-0}
held=${HOLD_OUT:-0001TP}
mkdir -p "$out"

# A candidate is a name and what it changes. `recipe` changes nothing; `blog` is the article's training.
candidates=(
    "recipe"
    "full-size --progressive ''"
    "large-crop --set 'augment=[{RandomScale:{scale_limit:[-0.25,0.75],p:1.0}},{RandomCrop:{height:320,width:320,pad_if_needed:true,fill:[124,116,104],fill_mask:255}},{HorizontalFlip:{p:0.5}},{ColorJitter:{brightness:[0.6,1.4],contrast:[0.7,1.3],saturation:[0.6,1.4],hue:[-0.05,0.05],p:0.8}}]'\"
    "dark --set 'augment=[{RandomScale:{scale_limit:[-0.5,0.5],p:1.0}},{RandomCrop:{height:256,width:256,pad_if_needed:true,fill:[124,116,104],fill_mask:255}},{HorizontalFlip:{p:0.5}},{ColorJitter:{brightness:[0.3,1.5],contrast:[0.5,1.5],saturation:[0.4,1.6],hue:[-0.1,0.1],p:0.9}}]'\"
    "ce --loss ce"
    "lovasz --loss ce+lovasz"
    "ohem --loss ohem --class-weights none"
    "linear-heads --head-weights linear"
    "decay --set weight_decay=0.05"
    "distill --distill 0.5"
    "blog --recipe blog"
)

ending() { # RUN: how its last start ended
    sed -n 's/^ *"ending": "\(.*\)".*/\1/p' "$1/run.json" 2>/dev/null | tail -n 1
}

train() { # RUN OPTION...: to its end, slice by slice
    local run=$1
    shift
    while :; do
        case $(ending "$run") in
            finished | "early stop") return ;;
        esac
        printf '=== %s (%s s so far) ===\n' "$run" "$SECONDS"
        "${unetpp[@]}" train --data "$data" --gpus "$gpus" --out "$run" --resume auto \
            --time-limit "${SLICE:-9m}" "$@"
    done
}

options() { # CANDIDATE: what it changes, a word a line
    local words
    eval "words=(${1#* })"
    [ "$1" = "${1%% *}" ] || printf '%s\n' "${words[@]}"
}

score() { # FILE.csv OPTION...: last, not best: nothing here is chosen by the epoch's score
    local file=$1
    shift
    [ -s "$file" ] || "${unetpp[@]}" eval --data "$data" --gpus "$gpus" --csv "$@" >"$file.part"
    [ -s "$file" ] || mv "$file.part" "$file"
}

table() { # TITLE FILE.csv: Markdown, a line per model with the mIoU of each row
    printf '\n## %s\n\n' "$1"
    awk -F, 'NR > 1 {
        if ($1 != name) { if (name) print line; name = $1; line = "| " name " |" }
        line = line sprintf(" %s %.1f", $2, 100 * $3)
        if ($4 != "") line = line sprintf(" (%.1f-%.1f)", 100 * $4, 100 * $5)
        line = line " |"
    } END { print line }' "$2"
}

# --- the candidates, on all frames but one sequence
runs=()
best_options=()
for candidate in "${candidates[@]}"; do
    name=${candidate%% *}
    case " ${ONLY:-$name} " in *" $name "*) ;; *) continue ;; esac
    mapfile -t changes < <(options "$candidate")
    run=$out/search-$name
    recipe=(--recipe camvid --width "${SEARCH_WIDTH:-16}" --epochs "${SEARCH_EPOCHS:-200}")
    [ "$name" = blog ] && recipe=()
    train "$run" --hold-out "$held" "${recipe[@]}" "${changes[@]}"
    score "$run/held-out.csv" "$run/weights/last.safetensors" --hold-out "$held" --split val
    runs+=("$run")
done

# --- the best of them by its deepest head, on all frames
winner=$(for run in "${runs[@]}"; do
    [ "$(basename "$run")" = search-blog ] && [ "${#runs[@]}" -gt 1 ] && continue
    awk -F, -v run="$run" '$2 ~ /^L/ { miou = $3 } END { print miou, run }' "$run/held-out.csv"
done | sort -rn | head -n 1 | cut -d' ' -f2)
printf 'The best candidate: %s\n' "$winner"
for candidate in "${candidates[@]}"; do
    if [ "$out/search-${candidate%% *}" = "$winner" ]; then
        mapfile -t best_options < <(options "$candidate")
    fi
done
if [ "${TEACHER_WIDTH:-0}" -gt 0 ]; then
    train "$out/teacher" --recipe camvid --width "$TEACHER_WIDTH" --epochs "${EPOCHS:-800}" "${best_options[@]}"
    best_options+=(--distill 0.5 --teacher "$out/teacher/weights/last.safetensors")
fi
train "$out/final" --recipe camvid --width "${WIDTH:-24}" --epochs "${EPOCHS:-800}" "${best_options[@]}"
final=$out/final/weights/last.safetensors

splits=(val)
if "${unetpp[@]}" check "$data" | grep -q ' test'; then splits+=(test); fi
for split in "${splits[@]}"; do
    score "$out/$split.csv" "$final" --split "$split"
    score "$out/$split-flip.csv" "$final" --split "$split" --tta flip
    score "$out/$split-flip-scales.csv" "$final" --split "$split" --tta flip,scales
done

# --- tables and weights
{
    printf '# CamVid, 11 classes: mIoU in %%, with 95 %% intervals where there are blocks enough\n\n'
    printf '%s; candidates: width %s, %s epochs; last: width %s, %s epochs, %s s in all\n' \
        "$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 || true)" \
        "${SEARCH_WIDTH:-16}" "${SEARCH_EPOCHS:-200}" "${WIDTH:-24}" "${EPOCHS:-800}" "$SECONDS"
    for run in "${runs[@]}"; do table "$(basename "$run"), on $held" "$run/held-out.csv"; done
    for split in "${splits[@]}"; do
        table "All frames, on $split" "$out/$split.csv"
        table "The same with mirrored images" "$out/$split-flip.csv"
        table "The same with mirrored images at three sizes" "$out/$split-flip-scales.csv"
    done
} >"$out/table.md"
"${unetpp[@]}" prune "$final" --depth "${DEPTH:-4}" --half --data "$data" --gpus "$gpus" \
    -o "$out/camvid11.safetensors" --overwrite
cat "$out/table.md"
printf 'Done in %s s: %s/table.md, %s/camvid11.safetensors\n' "$SECONDS" "$out" "$out"
