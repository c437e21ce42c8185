#!/usr/bin/env bash
# Train on two nodes with 4 A100 each. The notebook runs on the first node; where it trains, `srun` starts `accelerate launch` on
# both, one a node, and these start a process a GPU. The first node's name and a free port on it are told to both; which of the
# two a node is, Slurm tells it (`expstar_utils/launching.py`). In the repository's root:
#
#     sbatch --account=ours --partition=a100 notebooks/profiles/slurm/train_two_nodes.sh my_plan.yaml runs/two/jobs/04a.json
#
# The plan's run names a profile that wants it: a copy of paper.yaml with
#
#     processes: 8
#     machines: 2
#
# A step then learns from 8 rows rather than 4, so that there are half as many steps: results are not those of one node. Whether
# sft_lr should grow with it was not tried.
#
# What it starts ran in two tasks of one machine, a process of a CPU each, with the losses of one launcher (tests/slurm). Not
# tried: this script as a whole, two machines, GPUs, NCCL, ZeRO-2. If the nodes do not meet, name the network by
# NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME, such as ib0.
#
#SBATCH --job-name=train
#SBATCH --output=%x-%j.log
#SBATCH --nodes=2
#SBATCH --ntasks=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --mem=256G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
set -euo pipefail

if (($# < 2)); then
    echo "train_two_nodes.sh: found $# words, expected a plan and marks, such as: my_plan.yaml runs/two/jobs/04a.json" >&2
    exit 2
fi
cd "$SLURM_SUBMIT_DIR"  # on a file system that both nodes see, as are the run's folder and the data's

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"  # srun does not take it over by itself
exec .venv/bin/python -m expstar_utils.schedule "$@" --cores "$SLURM_CPUS_PER_TASK"
