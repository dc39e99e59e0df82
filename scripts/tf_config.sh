#!/usr/bin/env bash
# Prints TF_CONFIG of one worker among all: scripts/tf_config.sh 0 host0:12345 host1:12345
set -euo pipefail
index=$1
shift
printf -v workers '"%s", ' "$@"
printf '{"cluster": {"worker": [%s]}, "task": {"type": "worker", "index": %d}}\n' \
  "${workers%, }" "$index"
