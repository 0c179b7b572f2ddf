# make table-pruning: channels and single weights removed, before and after BatchNorm's re-estimation and fine-tuning.
#   STEM-IMPORTANCE-SCOPE-macsP.pth   P % fewer MACs      STEM-sparseP, -nm24, -filtersP.pth   zeros in place
#   STEM-...-ft.pth   then FINETUNE_EPOCHS of fine-tuning, taught by the network before; -long: LONG_EPOCHS
IMPORTANCES          ?= l1 l2 bn-scale fpgm lamp taylor hessian activation random
ADAPTIVE_IMPORTANCES ?= l2 taylor#  each measures curves of its own
REMOVED              ?= 30 50 60 75 90
ROUND_TO             ?= 4
LONG_EPOCHS          ?= 15

LEFT.30 := 0.7x
LEFT.50 := 0.5x
LEFT.60 := 0.4x
LEFT.75 := 0.25x
LEFT.90 := 0.1x

# $(call PRUNE,IMPORTANCE,SCOPE,PERCENT,NAME,MORE): one rule; adaptive scope goes by measured curves.
define PRUNE
$(WORK)/%-$(1)-$(2)-macs$(3)$(4).pth: $(WORK)/%.pth $(if $(filter adaptive,$(2)),$(WORK)/%.$(1).sensitivity.json)
	$$(RCOMPRESS) prune $$< -o $$@ --importance $(1) --scope $(2) --target-macs $(LEFT.$(3)) \
	  $$(if $$(word 2,$$^),--sensitivity $$(word 2,$$^)) --round-to $$(ROUND_TO) $(5) --threads $$(THREADS)
endef
pruned = $(eval CUT += $(1)-$(2)-macs$(3))$(eval $(call PRUNE,$(1),$(2),$(3)))
trained = $(eval FINETUNED += $(1)-$(2)-macs$(3)-ft)$(eval \
  $(call PRUNE,$(1),$(2),$(3),-ft,--finetune-epochs $(FINETUNE_EPOCHS) --resume))
long = $(eval FINETUNED += $(1)-$(2)-macs$(3)-long)$(eval \
  $(call PRUNE,$(1),$(2),$(3),-long,--finetune-epochs $(LONG_EPOCHS) --resume))
other = $(eval $(4) += $(1))$(eval $(call WAY,$(1),pth,$(2),$(3)))

$(foreach importance,$(ADAPTIVE_IMPORTANCES),$(eval $(WORK)/%.$(importance).sensitivity.json: $(WORK)/%.pth ; \
  $$(RCOMPRESS) sensitivity $$< -o $$@ --images 256 --importance $(importance) --threads $$(THREADS)))

$(foreach percent,$(REMOVED),\
  $(foreach importance,$(IMPORTANCES),\
    $(call pruned,$(importance),local,$(percent)) $(call pruned,$(importance),global,$(percent)))\
  $(foreach importance,$(ADAPTIVE_IMPORTANCES),$(call pruned,$(importance),adaptive,$(percent))))
$(call trained,l2,local,50) $(call trained,l2,global,50) $(call trained,taylor,global,50) $(call trained,l2,adaptive,50)
$(call long,l2,adaptive,50)

$(foreach percent,50 75 90,$(call other,sparse$(percent),sparsify,--sparsity 0.$(percent),SPARSE))
$(call other,nm24,sparsify,--nm 2:4,SPARSE)
$(call other,filters30,sparsify,--filters 0.3,SPARSE)

RETRAIN := --finetune-epochs $(FINETUNE_EPOCHS) --resume
$(call other,sparse75-ft,sparsify,--sparsity 0.75 $(RETRAIN),FINETUNED)
$(call other,sparse90-ft,sparsify,--sparsity 0.90 $(RETRAIN),FINETUNED)
$(call other,sparse90-cubic-ft,sparsify,--sparsity 0.90 --schedule cubic $(RETRAIN),FINETUNED)
$(call other,filters30-ft,sparsify,--filters 0.3 $(RETRAIN),FINETUNED)
$(call other,nm24-ft,sparsify,--nm 2:4 $(RETRAIN),FINETUNED)
$(call other,ratio30-ft,prune,--ratio 0.3 --round-to $(ROUND_TO) $(RETRAIN),FINETUNED)
$(call other,ratio30-steps3-ft,prune,--ratio 0.3 --round-to $(ROUND_TO) --steps 3 --resume \
  --finetune-epochs $(shell expr \( $(FINETUNE_EPOCHS) + 2 \) / 3),FINETUNED)

PRUNING_SPEED := $(foreach percent,$(REMOVED),\
  l2-local-macs$(percent) l2-global-macs$(percent) l2-adaptive-macs$(percent)) $(SPARSE) $(FINETUNED)

# Sensitivity is measured on half of the test split where a network comes from elsewhere: the other half judges all.
$(RESULTS)/pruning/r32%.eval.result.json: EVAL_FLAGS := --split test-b

table-pruning: ## Each way of pruning: accuracy before and after recovery, size, MACs, speed (FINETUNE_EPOCHS)
$(eval $(call TABLE,pruning,Pruning,\
  .pth $(CUT:%=-%.pth) $(SPARSE:%=-%.pth) $(FINETUNED:%=-%.pth),.onnx $(PRUNING_SPEED:%=-%.onnx)))
