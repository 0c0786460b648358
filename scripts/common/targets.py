"""The names of targets that only read a run."""

READ_ONLY_TARGETS = ("plan", "status", "check_cluster", "check_benchmarks")
"""They write nothing that another Snakemake may be writing, so they may start while jobs run."""
