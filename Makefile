PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: install lock demo test test-rounding test-clients docs docs-table check format bench clean

# A virtual environment with the tested versions, and the project in it.
install: $(VENV)/installed

# LOCKED=yes, with Python 3.11 on Linux x86_64: the very files that the tests pass with.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(if $(LOCKED),$(BIN)/pip install -q --no-deps --require-hashes -r requirements.lock -r requirements-dev.lock)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

# requirements.lock and requirements-dev.lock, after a change of what the project depends on.
lock: install
	.ci/lock

# The main job on the embedded default: a phantom cohort and a source model are made,
# fine-tuned to another contrast and protocol, and a scan is segmented.
demo: install
	$(BIN)/python finetune.py lightning.max_epochs=20
	$(BIN)/hsf-finetune predict "$$(ls -td outputs/*_finetune_phantom*/ | head -n 1)" \
		data/target_T2w/sub-T01/*_T2w.nii.gz -o outputs/segmentations --overwrite

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The tests that compare up to rounding, as on a processor without vector instructions.
test-rounding: install
	ATEN_CPU_CAPABILITY=default HSF_FINETUNE_TEST_THREADS=2 $(BIN)/python -m pytest -n 2 \
		--dist loadfile -m 'exactness and not gpu and not clients'

# Exports in the programs that they are for. Each has an environment of its own, which the first
# run makes, outside of the checkout (see .ci/client_environment).
test-clients: install
	export PYTHON=$(PYTHON); \
	hsf=$$(.ci/client_environment hsf torch hsf==1.2.3 onnxruntime==1.32.0) && \
	nnunet=$$(.ci/client_environment nnunet torch nnunetv2==2.8.1 .) && \
	nnunet_v1=$$(.ci/client_environment nnunet_v1 torch nnunet==1.7.1 batchgenerators==0.25.1) && \
	formats=$$(.ci/client_environment formats bids-validator-deno==3.0.2 slicerio==1.4.0 \
		simpleitk==2.5.7) && \
	slurm=$$(.ci/client_environment slurm torch hydra-submitit-launcher==1.2.0 \
		hydra-optuna-sweeper==1.3.0.dev0 optuna==2.10.1 'sqlalchemy<2' 'alembic<1.15' .) && \
	oldest=$$(.ci/client_environment oldest torch $$(.ci/oldest_versions) .) && \
	recipe=$$(.ci/client_environment recipe py-rattler-build==0.73.0) && \
	axe=$$(.ci/node_package axe-core@4.14.1) && \
	HSF_FINETUNE_AXE=$$axe HSF_FINETUNE_ENV_HSF=$$hsf HSF_FINETUNE_ENV_NNUNET=$$nnunet \
		HSF_FINETUNE_ENV_NNUNET_V1=$$nnunet_v1 \
		HSF_FINETUNE_ENV_FORMATS=$$formats HSF_FINETUNE_ENV_SLURM=$$slurm \
		HSF_FINETUNE_ENV_OLDEST=$$oldest HSF_FINETUNE_ENV_RECIPE=$$recipe $(BIN)/python -m pytest -n 2 \
		--dist loadfile -m clients

# The documentation's site, in site/; nothing is fetched while it is built or read.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The table of docs/weights.md, from the files that its test writes.
docs-table: install
	HSF_FINETUNE_DOCS_TABLE=write $(BIN)/python -m pytest -q tests/weights/test_formats.py tests/weights/test_families.py

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python benchmarks/speed.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache site
