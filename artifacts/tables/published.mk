# make table-resnet18, -resnet20, -cpu, -survey, -resnet50: five studies' tables, ours beside theirs; table-playground.
# What was published is in published/*.csv; STEM.pth is trained with TRAIN.STEM of the scale.
define TRAINED
$(WORK)/$(1).pth: | $(INSTALLED)
	@mkdir -p $$(@D)
	$$(RCOMPRESS) train $(TRAIN.$(1)) -o $$@ --resume --threads $$(THREADS)
endef
$(foreach stem,r18 r18-amp r18-fp32 r18-c100 r20 i18 s18 s50 c50,$(if $(TRAIN.$(stem)),$(eval $(call TRAINED,$(stem)))))

# $(call RETRAINED,NAME,COMMAND,OPTIONS): then fine-tuned; a row may have FINETUNE_EPOCHS of its own
define RETRAINED
$(call WAY,$(1),pth,$(2),$(3) --finetune-epochs $$(FINETUNE_EPOCHS) --resume,$(ITSELF))
endef
percents := 10 20 30 40 50 60 70 80 90
$(foreach percent,$(percents),$(eval $(call RETRAINED,pruned$(percent),prune,--ratio 0.$(percent))))
$(foreach rank,$(RANKS),$(eval $(call RETRAINED,rank$(rank),factorize,--rank $(rank) --scheme channel)))
$(eval $(call RETRAINED,masked30,sparsify,--filters 0.3))
$(eval $(call WAY,steps,pth,prune,$(IN_STEPS) --resume,$(ITSELF)))
$(WORK)/c50-steps-step%.pth: $(WORK)/c50-steps.pth  # written on the way there, so older
	@test -s $@ && touch $@
# the survey's shares are of parameters: half of them is 29 % of the channels
$(foreach share,50:0.29 75:0.5 90:0.68,$(eval $(call RETRAINED,steps$(firstword $(subst :, ,$(share))),prune,\
  --ratio $(lastword $(subst :, ,$(share))) --steps 2)))
$(foreach share,50:0.5x 75:0.25x 90:0.1x,$(eval $(call RETRAINED,params$(firstword $(subst :, ,$(share))),prune,\
  --target-params $(lastword $(subst :, ,$(share))) --round-to 4)))
$(foreach share,50 75 90,$(eval $(call RETRAINED,grown$(share),sparsify,--sparsity 0.$(share) --schedule cubic)))

# ENGINE=plan: TensorRT's engines too, on a machine that runs them
$(WORK)/%.plan: $(WORK)/%.onnx
	$(RCOMPRESS) build-engine $< -o $@ --no-verdict
$(WORK)/%-fp16.plan: $(WORK)/%.onnx
	$(RCOMPRESS) build-engine $< -o $@ --fp16
$(WORK)/%-w8a8-minmax-trt.plan: $(WORK)/%.onnx
	$(RCOMPRESS) build-engine $< -o $@ --int8 --no-verdict
plans = $(if $(filter plan,$(SUFFIX)),$(1))

define TAUGHT_BY_LARGER
$(WORK)/s18-kd-$(1).pth: $(WORK)/s50.pth $(2)
	$$(RCOMPRESS) distill --teacher $$< --student $(3) -o $$@ --epochs $(STUDENT_EPOCHS) --resume --threads $$(THREADS)
endef
$(eval $(call TAUGHT_BY_LARGER,pre,$(WORK)/s18.pth,$(WORK)/s18.pth))
$(eval $(call TAUGHT_BY_LARGER,scratch,,$(word 2,$(TRAIN.s18))))

# the headline's: taught once more by the network that it was pruned from
$(WORK)/r18-pruned60-distilled.pth: $(WORK)/r18-pruned60.pth $(subst %,r18,$(or $(ITSELF),$(WORK)/%.pth))
	$(RCOMPRESS) distill --student $< --teacher $(word 2,$^) --recipe finetune -o $@ --epochs $(STUDENT_EPOCHS) --resume \
	  --threads $(THREADS)

STUDIES := resnet18 resnet20 cpu survey playground resnet50
PUBLISHED_FIGURES := $(wildcard artifacts/tables/published/*.csv)
tables: $(RESULTS)/tables.csv
$(RESULTS)/tables.csv: $(STUDIES:%=$(RESULTS)/%.md) $(PUBLISHED_FIGURES)
	$(RCOMPRESS) report $(STUDIES:%=$(RESULTS)/%) --baseline r18.pth --score \
	  $(PUBLISHED_FIGURES:%=--against %) -o $@

halves := .pth -fp16.onnx -w8a8-minmax.onnx
FILES.resnet18 := r18.pth r18-amp.pth $(if $(TRAIN.r18-fp32),r18-fp32.pth) r18-fp16.onnx r18-w8a8-minmax.onnx \
  r18-w8a8-minmax.xml r18-c100.pth r18-c100-fp16.onnx r18-c100-w8a8-minmax.onnx r20.pth $(foreach percent,$(PERCENTS.r18),\
  $(halves:%=r18-pruned$(percent)%) r18-pruned$(percent)-w8a8-minmax.xml) $(addprefix r18-pruned60-distilled,\
  .pth -fp16.onnx -w8a8-percentile.onnx -w8a8-percentile.xml) $(call plans,r18.plan r18-fp16.plan \
  r18-w8a8-minmax-trt.plan r20.plan $(foreach percent,$(PERCENTS.r18),\
  r18-pruned$(percent)-fp16.plan r18-pruned$(percent)-w8a8-minmax-trt.plan) r18-pruned60-distilled-w8a8-minmax-trt.plan)
FILES.resnet20 := $(halves:%=r20%) $(foreach percent,$(PERCENTS.r20),$(halves:%=r20-pruned$(percent)%))
FILES.cpu := i18.pth i18-w8a8.x86 i18-w8a8-minmax.xml i18-masked30.pth
FILES.survey := s18.pth s50.pth s18-kd-pre.pth s18-kd-scratch.pth s18-kd-pre-clusters256.pth s18-kd-pre-w8a8-minmax.onnx \
  s18-kd-pre-w8a8-tensor-minmax.onnx s18-kd-pre-w8a8-qat.onnx s18-kd-pre.onnx s18-kd-pre-fp16.onnx s50-nm24-ft.pth \
  $(foreach share,50 75 90,s50-steps$(share).pth s50-params$(share).pth s50-grown$(share).pth s50-sparse$(share).pth) \
  s50-clusters256.pth s50-w8a8-minmax.onnx s50-w8a8-tensor-minmax.onnx s50-w8a8-qat.onnx s50.onnx s50-fp16.onnx \
  $(call plans,s50.plan s50-fp16.plan s18-kd-pre.plan s18-kd-pre-fp16.plan)
FILES.playground := r20.pth r20-fp16.onnx r20-binary.pth r20-pruned60.pth r20-pruned60-fp16.onnx r20-pruned60-w8a8-minmax.onnx \
  r20-pruned60-binary.pth r20-sparse75-ft.pth r20-sparse75-ft-fp16.onnx $(RANKS:%=r20-rank%.pth)
FILES.resnet50 := c50.pth $(STEPS:%=c50-steps-step%.pth) c50-steps.pth

# $(call PUBLISHED,NAME,TITLE,BASELINE,BENCH OPTIONS,REPORT OPTIONS): all of FILES.NAME, judged and timed. RESULTS/NAME/judged
# is as old as the last accuracy; what is newer, or not in RESULTS/NAME/files, is judged, on CIFAR-10 and -100 apart.
# Where all tables are made, speed is measured once all is judged, a table after the other, and reports come last
# (SCALE=smoke does not wait: its figures are of no use).
figures_of = $(filter %/$(1).csv,$(PUBLISHED_FIGURES))
judge = $(if $(1),$(RCOMPRESS) eval $(1) --threads $(THREADS) -o $(@D))
new_in = $(patsubst %,$(WORK)/%,$(filter-out $(file <$(RESULTS)/$(1)/files),$(FILES.$(1))))
to_judge = $(sort $(filter-out with-new-files,$?) $(new_in))
.PHONY: with-new-files
all_judged := $(and $(filter tables,$(MAKECMDGOALS)),$(filter-out smoke,$(SCALE)),$(STUDIES:%=$(RESULTS)/%/judged))
all_timed := $(if $(all_judged),$(STUDIES:%=$(RESULTS)/%/bench.result.json))
timed_before :=
define PUBLISHED
.PHONY: table-$(1)
tables: table-$(1)
table-$(1): $(RESULTS)/$(1).md
$(RESULTS)/$(1)/judged: $(FILES.$(1):%=$(WORK)/%) $(if $(call new_in,$(1)),with-new-files)
	@mkdir -p $$(@D)
	$$(call judge,$$(filter-out $(WORK)/r18-c100%,$$(call to_judge,$(1))))
	$$(call judge,$$(filter $(WORK)/r18-c100%,$$(call to_judge,$(1))))
	@echo $(FILES.$(1)) > $$(@D)/files
	@touch $$@
$(RESULTS)/$(1)/bench.result.json: $(RESULTS)/$(1)/judged | $(all_judged) $(timed_before)
	$$(RCOMPRESS) bench $(FILES.$(1):%=$(WORK)/%) $(4) $$(BENCH) -o $$@
$(if $(all_judged),$(eval timed_before := $(RESULTS)/$(1)/bench.result.json))
$(RESULTS)/$(1).md: $(RESULTS)/$(1)/bench.result.json $(call figures_of,$(1)) | $(all_timed)
	$$(RCOMPRESS) report $(RESULTS)/$(1) --baseline $(3) --title "$(2)" $(5) $(addprefix --against ,$(call figures_of,$(1))) \
	  -o $$@ -o $$(@:.md=.html)
endef

table-resnet18: ## ResNet-18 pruned, FP16 and INT8 (SCALE=smoke|cpu|full, as all of these; ENGINE=plan: TensorRT too)
$(eval $(call PUBLISHED,resnet18,ResNet-18: pruning and INT8,r18.pth,-b 1))
table-resnet20: ## ResNet-20, pruned by 10 to 90 %
$(eval $(call PUBLISHED,resnet20,ResNet-20: pruning and INT8,r20.pth,-b 1))
table-cpu: ## INT8 and masks on one CPU thread
$(eval $(call PUBLISHED,cpu,INT8 on one CPU thread,i18.pth,-b 1 --threads 1 --device cpu))
table-survey: ## The survey's 29 rows
$(eval $(call PUBLISHED,survey,Survey,s50.pth,-b 32))
table-playground: ## FP16, binary weights, pruning, factorization and their combinations
$(eval $(call PUBLISHED,playground,Combinations,r20.pth,-b 1,--score))
table-resnet50: ## Pruning and distillation in steps
$(eval $(call PUBLISHED,resnet50,Pruning in steps,c50.pth,-b 32))
