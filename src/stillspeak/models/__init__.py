"""The networks. This package needs torch and nothing else."""
