#!/usr/bin/env bash
#SBATCH --job-name=kerasseg
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
#
# Trains on the nodes of a Slurm job, one process a node with all its GPUs. From the repository, in
# a folder that all nodes share, with the environment activated:
#
#   sbatch --job-name=brats --nodes=4 scripts/slurm.sh --config configs/brats20_3d.yaml
#
# The run is runs/<job name>. Two minutes before the time is up, and when another job takes the
# nodes, the run saves itself; then the job is queued again and goes on with --resume.
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
status=0
# One that ends early must not make Slurm kill the chief while it saves: they end by themselves.
srun --kill-on-bad-exit=0 bash scripts/slurm_worker.sh "$@" || status=$?
if [[ $status -eq 143 ]]; then # stopped by SIGTERM, all is saved
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
