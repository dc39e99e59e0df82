#!/usr/bin/env bash
# What scripts/kubernetes.yaml runs in each pod. JOB, WORKERS and JOB_COMPLETION_INDEX (Kubernetes
# sets it) say who this is; in a StatefulSet that index is the number at the end of the pod's name.
set -euo pipefail
index=${JOB_COMPLETION_INDEX:-${HOSTNAME##*-}}
shared=${SHARED:-/shared}
addresses=()
for ((worker = 0; worker < WORKERS; worker++)); do
  addresses+=("$JOB-$worker.kerasseg:12345")
done
TF_CONFIG=$(bash scripts/tf_config.sh "$index" "${addresses[@]}")
export TF_CONFIG
run=$shared/runs/$JOB
made=$(compgen -G "$run/config.yaml" || compgen -G "${run}_fold*/config.yaml" || true)
resume=()
# The chief makes the run folder only after all have got past this line, so they agree.
if [[ -n $made ]]; then
  resume=(--resume)
fi
exec python train.py "${resume[@]}" "$@" \
  "run.root=$shared/runs" "run.name=$JOB" "records.root=$shared/tfrecords/$JOB"
