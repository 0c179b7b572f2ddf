# make demo   the whole chain on embedded data          make test   what CI runs
# Artifacts are files, so chains are rules: make runs/r20-pruned60-int8.xml builds what is missing on the way.

PYTHON  ?= python3
VENV    ?= .venv
ENGINE  ?= xml#      backend of the chain by its suffix: xml (OpenVINO), onnx (ONNX Runtime), plan (TensorRT)
PRUNE_FLAGS ?= --finetune-epochs 10
INT8_FLAGS  ?=
BENCH_FLAGS ?= -b 1 -b 64
BENCHMARKS  ?=
EXTRAS  ?= $(if $(findstring plan,$(ENGINE)),tensorrt)#  of the package, as in tensorrt,gpu
DEMO    := demo

BIN       := $(VENV)/bin
RCOMPRESS := $(BIN)/rcompress
INSTALLED := $(VENV)/.installed$(EXTRAS:%=-%)
TESTABLE  := $(VENV)/.testable
COMPARABLE := $(VENV)/.comparable
comma     := ,
SUFFIX    := $(strip $(ENGINE))
LINUX_X86 := $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: help install demo test lint benchmark reference clean

help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 22
	@printf '\nAny artifact by its name:  make runs/r20-pruned60-int8.xml   (given runs/r20.pth)\n'
	@printf 'Variables: ENGINE=xml|onnx|plan  PRUNE_FLAGS  INT8_FLAGS  BENCH_FLAGS  BENCHMARKS  EXTRAS  PYTHON  VENV\n'
	@printf '           of tables: SCALE=smoke|cpu|full  THREADS  WORK  RESULTS  MODELS  R32_WEIGHTS\n'

install: $(INSTALLED) ## Create .venv and install rcompress into it

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.$(EXTRAS:%=[%])'
	@touch $@

$(TESTABLE): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[tune$(if $(LINUX_X86),$(comma)tensorrt-rtx)]' --group dev
	@touch $@

$(COMPARABLE): $(TESTABLE)
	$(BIN)/python -m pip install --quiet --group benchmark
	@touch $@

demo: $(DEMO)/report.html ## Train, prune, export, build INT8, evaluate, time and report on embedded digits
	@echo
	@$(RCOMPRESS) report $(DEMO)
	@echo "Look at $(DEMO)/report.html"

test: $(TESTABLE) ## Install what tests need and run them
	$(BIN)/python -m pytest -q -n 2 $(PYTEST_FLAGS)

lint: $(TESTABLE) ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmark: $(COMPARABLE) ## Ratios against PyTorch, ONNX Runtime and others (BENCHMARKS="training inference cli")
	$(BIN)/python -m tests.benchmarks $(BENCHMARKS)

reference: $(TESTABLE) ## Write the generated parts of README.md
	$(BIN)/python -m tests.reference

clean: ## Remove the demo and caches (not .venv, not your artifacts)
	rm -rf $(DEMO) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist

# --- one rule per command; % is an artifact's stem -----------------------------------------------------------

%.onnx: %.pth | $(INSTALLED)
	$(RCOMPRESS) export $< -o $@

define PRUNED
%-pruned$(1).pth: %.pth | $(INSTALLED)
	$$(RCOMPRESS) prune $$< -o $$@ --ratio 0.$(1) $$(PRUNE_FLAGS)
endef
$(foreach percent,10 20 30 40 50 60 70 80 90,$(eval $(call PRUNED,$(percent))))

%-int8.xml %-int8.calib.json &: %.onnx | $(INSTALLED)
	$(RCOMPRESS) build-engine $< -o $*-int8.xml --int8 $(INT8_FLAGS)

%-int8.onnx: %.onnx | $(INSTALLED)
	$(RCOMPRESS) build-engine $< -o $@ --int8 --backend onnxruntime $(INT8_FLAGS)

%-int8.plan: %.onnx | $(INSTALLED)
	$(RCOMPRESS) build-engine $< -o $@ --int8 $(INT8_FLAGS)

%.eval.result.json: % | $(INSTALLED)
	$(RCOMPRESS) eval $< -o $@

# --- the demo ------------------------------------------------------------------------------------------------

CHAIN := $(DEMO)/r20.pth $(DEMO)/r20-pruned60.onnx $(DEMO)/r20-pruned60-int8.$(SUFFIX)

$(DEMO)/r20.pth: | $(INSTALLED)
	@mkdir -p $(@D)
	$(RCOMPRESS) train --arch resnet20 --dataset digits --epochs 12 --batch-size 64 --lr 0.1 -o $@

$(DEMO)/bench.result.json: $(CHAIN)
	$(RCOMPRESS) bench $^ $(BENCH_FLAGS) -o $@

$(DEMO)/report.html: $(DEMO)/bench.result.json $(CHAIN:=.eval.result.json)
	$(RCOMPRESS) report $^ --title "rcompress demo: ResNet-20 on digits" -o $@

# --- the tables of results -------------------------------------------------------------------------------------

include $(addprefix artifacts/tables/,common.mk quantization.mk pruning.mk distillation.mk factorization.mk published.mk)
