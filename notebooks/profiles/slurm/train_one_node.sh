#!/usr/bin/env bash
# Train on one node with 4 A100, as published; the results are a plan's, which goes on behind. In the repository's root:
#
#     sbatch --account=ours --partition=a100 notebooks/profiles/slurm/train_one_node.sh paper runs/paper/jobs/04a.json
#
# The words are a plan and the marks to be reached; what they need and is not there yet is done first. A plan run with config.yaml
# (beside this) asks for the same by itself; take this where you want to hold the node and look after it.
#
# On a Slurm of one machine it began to train with two processes of a CPU, and was not waited for to its end. Not tried:
# GPUs. Memory and hours below are estimates.
#
#SBATCH --job-name=train
#SBATCH --output=%x-%j.log
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --mem=256G
#SBATCH --time=24:00:00
# Five minutes before its time is up the job is told to stop. Submitted again, it goes on from the last whole checkpoint.
#SBATCH --signal=B:TERM@300
set -euo pipefail

if (($# < 2)); then
    echo "train_one_node.sh: found $# words, expected a plan and marks, such as: paper runs/paper/jobs/04a.json" >&2
    exit 2
fi
cd "$SLURM_SUBMIT_DIR"  # the script itself runs as a copy elsewhere

# One thread for a process's own work; its rows are decoded in the meantime by others.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"

# On this node there is nothing to wait for: snakemake runs the jobs itself. `exec` has the signal reach it.
exec .venv/bin/python -m expstar_utils.schedule "$@" --cores "$SLURM_CPUS_PER_TASK"
