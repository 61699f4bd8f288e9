#!/bin/sh
# persona in a build: train, draw, and fail when the subject is not recognized in the images.
#
#   examples/ci.sh [PHOTOS [CLASS [LEAST-IDENTITY]]]
set -eu

photos=${1:-examples/photos/dog}
class=${2:-dog}
least=${3:-0.6}
out=${OUT:-build/persona}
mkdir -p "$out"

persona train "$photos" --class "$class" --out "$out/subject" --json >"$out/train.json"
persona sample "a photo of a [V] $class on the beach" --persona "$out/subject" --out "$out/pictures" -n 4 --seed 0 \
  --json >"$out/sample.json"

python3 - "$out/train.json" "$out/sample.json" "$least" <<'PYTHON'
import json
import sys

trained, drawn = (json.load(open(path)) for path in sys.argv[1:3])
identity, least = trained["scores"].get("identity"), float(sys.argv[3])
print(f"{len(drawn['pictures'])} pictures in {drawn['folder']}, identity {identity}, at least {least} wanted")
sys.exit(identity is None or identity < least)
PYTHON
