# make table-factorization: layers as products of cheaper ones at several ranks, before and after fine-tuning.
#   STEM-SCHEME-lessP.pth   P % fewer MACs in each layer      STEM-evbmf.pth   ranks from the weights alone
FACTORIZED_SHARES ?= 35 50 65 80
SCHEMES           ?= auto spatial channel

factorized = $(eval FACTORIZED += $(1) $(1)-ft)$(eval $(call WAY,$(1),pth,factorize,$(2) --ignore fc))$(eval \
  $(call WAY,$(1)-ft,pth,factorize,$(2) --ignore fc --finetune-epochs $(FINETUNE_EPOCHS) --resume,$(ITSELF)))
$(foreach scheme,$(SCHEMES),$(foreach share,$(FACTORIZED_SHARES),\
  $(call factorized,$(scheme)-less$(share),--scheme $(scheme) --ratio 0.$(share))))
$(call factorized,tucker-less50,--scheme tucker --ratio 0.50)
$(call factorized,evbmf,--evbmf)

table-factorization: ## Low rank: SVD, Tucker-2 at several ranks, before and after fine-tuning
$(eval $(call TABLE,factorization,Factorization,.pth $(FACTORIZED:%=-%.pth),\
  .onnx $(patsubst %,-%.onnx,$(filter-out %-ft,$(FACTORIZED)))))
