# What the tables share: where work goes, which networks, how they are measured.
#   WORK     models and engines (large, not kept)      RESULTS  records and tables
#   MODELS   networks by their stem: WORK/STEM.pth     THREADS  of every step; make -j2 THREADS=1 uses two cores best
#   SCALE    smoke (digits, minutes), cpu (CIFAR, hours), full (as in the studies, a GPU)
SCALE       ?= cpu
WORK        ?= runs/$(SCALE)
RESULTS     ?= runs/$(SCALE)
MODELS      ?= r20 $(if $(R32_WEIGHTS),r32)
R32_WEIGHTS ?=#  resnet32-d509ac18.th of github.com/akamaster/pytorch_resnet_cifar10
THREADS     ?= 0

include artifacts/tables/scale-$(SCALE).mk

.PHONY: tables comparisons
tables: ## The tables of five studies, ours beside theirs (SCALE=smoke|cpu|full)
comparisons: ## Ways of one kind against each other (R32_WEIGHTS=resnet32-d509ac18.th adds the public ResNet-32)

ifndef TRAIN.r20
$(WORK)/r20.pth: artifacts/reference/r20.pth | $(INSTALLED)
	@mkdir -p $(@D)
	cp $< $@
endif

$(WORK)/r32.pth: $(R32_WEIGHTS) | $(INSTALLED)
	$(if $<,,$(error r32 is imported: give R32_WEIGHTS=resnet32-d509ac18.th))
	@mkdir -p $(@D)
	$(RCOMPRESS) import $< --arch resnet32 --shortcut pad --dataset cifar10 \
	  --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 -o $@

$(WORK)/%.xml: $(WORK)/%.onnx
	$(RCOMPRESS) build-engine $< -o $@ --no-verdict --threads $(THREADS)

# $(call WAY,NAME,SUFFIX,COMMAND,OPTIONS,TEACHER,FROM): WORK/STEM-NAME.SUFFIX from WORK/STEM.pth (FROM=onnx: from
# WORK/STEM.onnx), with a TEACHER if any.
define WAY
$(WORK)/%-$(1).$(2): $(WORK)/%.$(or $(6),pth) $(5)
	$$(RCOMPRESS) $(3) $$< -o $$@ $(4) $(if $(5),--teacher $$(word 2,$$^)) --threads $$(THREADS)
endef

# Networks from elsewhere are judged by half of the test split once it has chosen something: so is their parent.
$(RESULTS)/%.test-b.eval.result.json: $(WORK)/%.pth
	@mkdir -p $(@D)
	$(RCOMPRESS) eval $< --split test-b --threads $(THREADS) -o $@

# $(call RECORDED,NAME): the accuracy of WORK/FILE stands in RESULTS/NAME/FILE.eval.result.json (EVAL_FLAGS: of some files).
define RECORDED
$(RESULTS)/$(1)/%.eval.result.json: $(WORK)/%
	@mkdir -p $$(@D)
	$$(RCOMPRESS) eval $$< $$(EVAL_FLAGS) --threads $$(THREADS) -o $$@
endef

# $(call TABLE,NAME,TITLE,EVALUATED,TIMED): make table-NAME; for each model a table of STEM and STEM-WAY.SUFFIX for
# the ways given: EVALUATED for accuracy, TIMED for speed (batches of 1 and 64, one thread).
define TABLE
.PHONY: table-$(1)
comparisons: table-$(1)
$(eval $(call RECORDED,$(1)))
$(foreach model,$(MODELS),$(eval $(call TABLE_OF_MODEL,$(1),$(2),$(3),$(4),$(model))))
endef

define TABLE_OF_MODEL
table-$(1): $(RESULTS)/$(1)-$(5).md
$(RESULTS)/$(1)/$(5).bench.result.json: $(4:%=$(WORK)/$(5)%) $(3:%=$(RESULTS)/$(1)/$(5)%.eval.result.json)
	$$(RCOMPRESS) bench $(4:%=$(WORK)/$(5)%) -b 1 -b 64 --threads 1 --device cpu -o $$@
$(RESULTS)/$(1)-$(5).md: $(RESULTS)/$(1)/$(5).bench.result.json $(RESULTS)/$(5).test-b.eval.result.json
	$$(RCOMPRESS) report $$^ $(3:%=$(RESULTS)/$(1)/$(5)%.eval.result.json) \
	  --baseline $(5).pth --title "$(2)" -o $$@ -o $$(@:.md=.html)
endef
