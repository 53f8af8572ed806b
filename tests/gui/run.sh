#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs the zips in the real windows of two Blender versions, clicks through the scripts beside
# this file, and runs command.py without a window. Nothing of this machine is visible inside but the
# scripts. Needs a Debian machine, root, and the program named by BLENDER_GUI, which starts Blender
# under a virtual display (see docs/development.md).
# usage: tests/gui/run.sh OUT_FOLDER [trixie|sid ...]      with SCRIPTS="first_minute generate" fewer
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
program=${BLENDER_GUI:-$root/../shared/gui/blender-gui.sh}
out=${1:?usage: run.sh OUT_FOLDER [trixie|sid ...]}
shift
[ -x "$program" ] || { echo "there is no $program; set BLENDER_GUI" >&2; exit 2; }
declare -A python=([trixie]=3.13 [sid]=3.14)
for suite in "${@:-trixie}"; do
  (cd "$root" && python3.11 build.py zip --python "${python[$suite]}")
  zip=$(ls -t "$root"/dist/ptalker-*-py"${python[$suite]/./}".zip | head -1)
  for script in ${SCRIPTS:-first_minute generate exemplar face_points command}; do
    options=(--timeout 600)
    [ "$script" != command ] || options+=(--background)
    "$program" --suite "$suite" --zip "$zip" --script "$here/$script.py" \
      --out "$out/$suite-$script" "${options[@]}"
  done
done
