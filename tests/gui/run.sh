#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs generate.py, exemplar.py and face_points.py in the real windows of two Blender versions, and command.py without a window. Needs a Debian machine, root, and the
# program named by BLENDER_GUI, which starts Blender under a virtual display (see docs/development.md).
# usage: tests/gui/run.sh OUT_FOLDER [trixie|sid ...]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
program=${BLENDER_GUI:-$root/../shared/gui/blender-gui.sh}
out=${1:?usage: run.sh OUT_FOLDER [trixie|sid ...]}
shift
[ -x "$program" ] || { echo "there is no $program; set BLENDER_GUI" >&2; exit 2; }
python=$root/.venv/backend/bin/python
base=$(dirname "$(dirname "$(readlink -f "$python")")")
zip=${PTALKER_ZIP:-$(ls -t "$root"/dist/ptalker-*.zip | head -1)}
for suite in "${@:-trixie}"; do
  for script in generate exemplar face_points command; do
    options=(--bind "$root/.venv" --bind "$base" --timeout 600)
    [ "$script" != command ] || options+=(--background)
    "$program" --suite "$suite" --zip "$zip" --script "$here/$script.py" \
      --out "$out/$suite-$script" "${options[@]}" -- "$python"
  done
done
