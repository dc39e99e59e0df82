#!/usr/bin/env bash
# What scripts/slurm.sh runs on each node.
set -euo pipefail
port=$((20000 + SLURM_JOB_ID % 20000)) # two jobs may share a node
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
TF_CONFIG=$(bash scripts/tf_config.sh "$SLURM_NODEID" "${hosts[@]/%/:$port}")
export TF_CONFIG
run=runs/$SLURM_JOB_NAME
made=$(compgen -G "$run/config.yaml" || compgen -G "${run}_fold*/config.yaml" || true)
resume=()
# The chief makes the run folder only after all have got past this line, so they agree.
if [[ ${SLURM_RESTART_COUNT:-0} -gt 0 && -n $made ]]; then
  resume=(--resume)
fi
exec python train.py "${resume[@]}" "$@" run.root=runs "run.name=$SLURM_JOB_NAME"
