#!/usr/bin/env bash
# Trains on machines that can reach each other; to be started on each with its own number, in the
# same shared folder, with the same arguments for train.py behind the --:
#
#   scripts/two_machines.sh 0 host0:12345 host1:12345 -- --config configs/brats20_3d.yaml
#   scripts/two_machines.sh 1 host0:12345 host1:12345 -- --config configs/brats20_3d.yaml
#
# More than two are listed likewise. After a failure start all of them again with --resume.
set -euo pipefail
cd "$(dirname "$0")/.."
index=$1
shift
addresses=()
while [[ $# -gt 0 && $1 != -- ]]; do
  addresses+=("$1")
  shift
done
[[ $# -eq 0 ]] || shift
TF_CONFIG=$(bash scripts/tf_config.sh "$index" "${addresses[@]}")
export TF_CONFIG
exec python train.py "$@"
