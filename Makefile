# make demo   the main job on this machine, from nothing
# make test   every test that needs no cluster
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install demo test fuzz test-images test-cluster lint compile images push bench bench-cluster clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

install: .venv/installed

.venv/installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	@echo "Installing the pinned set (torch and its CUDA libraries: about 5 GB, two minutes) ..."
	$(BIN)/pip install -qq --constraint constraints.txt --editable ".[train,dev]"
	touch $@

demo: install ## fine-tune a small model here; MODEL=, DATASET= and SET="epochs=2 lora_rank=16" change what and how
	@$(BIN)/python -m kfp_finetune.client.demo $(if $(MODEL),--model "$(MODEL)") $(if $(DATASET),--dataset "$(DATASET)") \
		$(foreach assignment,$(SET),--set '$(assignment)')

test: install ## every test that needs no cluster
	@tests/browser.sh
	@tests/compiler.sh
	OMP_NUM_THREADS=1 $(BIN)/pytest tests --ignore tests/cluster --ignore tests/images --numprocesses 2 --dist loadfile

fuzz: install ## 10,000 requests drawn from the whole parameter set, and 50 of those accepted trained
	FUZZ_EXAMPLES=10000 FUZZ_TRAININGS=50 $(BIN)/pytest tests/components/torchtune_train/test_fuzz.py

test-images: install ## builds both images, runs the pipeline in them; BASE=python:3.11-slim if a registry is at hand
	tests/images/engine.sh $(BIN)/pytest tests/images

test-cluster: install ## trainings on the cluster of KUBECONFIG, in the image KFP_FINETUNE_TEST_IMAGE that its nodes have
	$(BIN)/pytest tests/cluster -m "not disruptive" --numprocesses 3 --dist loadgroup
	$(BIN)/pytest tests/cluster -m disruptive

lint: install ## style, types, which package may import which, and whether the compiled pipelines are up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/lint
	$(BIN)/pip install -qq --no-deps --target build/lint .
	cd build/lint && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p kfp_finetune
	cd build/lint && ../../$(BIN)/lint-imports --config ../../pyproject.toml
	./compile.sh --check

compile: install ## compile every pipeline
	./compile.sh

images: ## builds both images with Docker or Podman; REGISTRY= and TAG= name them, BASE= is the Python image below
	containers/build.sh steps $(if $(BASE),--build-arg BASE=$(BASE)) $(BUILD_FLAGS)
	containers/build.sh train $(if $(BASE),--build-arg BASE=$(BASE)) $(BUILD_FLAGS)

push: ## pushes both images; REGISTRY= and TAG= as above
	containers/push.sh

bench: install ## the figures of the README
	$(BIN)/python -m benchmarks

bench-cluster: install ## a TrainJob by the pipeline and by kubectl, its start, and requests to the API server; as test-cluster
	$(BIN)/python -m benchmarks cluster start

clean: ## remove what was built, but not .venv
	rm -rf build dist *.egg-info
