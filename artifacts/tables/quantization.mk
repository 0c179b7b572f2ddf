# make table-quantization: each way of quantizing, WORK/STEM-WAY.SUFFIX; accuracy, size, speed in the engines of a CPU.

# after training, from the exported graph; or by training it
quantized = $(eval QUANTIZED += $(1))$(eval $(call WAY,$(1),onnx,quantize,$(2),,onnx))
quantized_by_training = $(eval QUANTIZED += $(1))$(eval $(call WAY,$(1),onnx,quantize,--qat --epochs $(QAT_EPOCHS) --resume $(2)))
$(foreach method,minmax moving-average percentile entropy mse,\
  $(call quantized,w8a8-$(method),--method $(method))\
  $(call quantized,w8a8-tensor-$(method),--per-tensor --method $(method)))
$(call quantized,w8a8-bias,--bias-correction)
$(call quantized,w8a8-equalize,--equalize)
$(call quantized,w8a8-adaround,--adaround)
$(call quantized,w4a8,--weight-bits 4)
$(call quantized,w4a8-bias,--weight-bits 4 --bias-correction)
$(call quantized,w4a8-equalize,--weight-bits 4 --equalize)
$(call quantized,w4a8-adaround,--weight-bits 4 --adaround)
$(call quantized,w4a16,--weight-bits 4 --activation-bits none)
$(call quantized,fp16,--fp16)
$(call quantized_by_training,w8a8-qat)
$(call quantized_by_training,w4a8-qat,--weight-bits 4)
$(eval $(call WAY,bf16,pth,quantize,--bf16))
$(foreach count,256 16,$(eval $(call WAY,clusters$(count),pth,cluster,--clusters $(count))))
$(eval $(call WAY,binary,pth,binarize,--epochs $(BINARY_EPOCHS) --resume))

$(WORK)/%-bf16.xml: $(WORK)/%.onnx  # ONNX Runtime has no convolution in BF16 on a CPU, so no .onnx
	$(RCOMPRESS) build-engine $< -o $@ --bf16 --no-verdict --threads $(THREADS)

$(WORK)/%-w8a8.x86: $(WORK)/%.pth
	$(RCOMPRESS) build-engine $< -o $@ --int8 --threads $(THREADS)

QUANTIZATION_SPEED := w8a8-minmax w8a8-tensor-minmax w8a8-qat w4a8-qat fp16

table-quantization: ## Each way of quantizing: accuracy, size, speed (QAT_EPOCHS, BINARY_EPOCHS)
$(eval $(call TABLE,quantization,Quantization,\
  .pth .onnx .xml -bf16.pth -bf16.xml -w8a8.x86 -clusters256.pth -clusters16.pth -binary.pth \
    $(QUANTIZED:%=-%.onnx) $(QUANTIZATION_SPEED:%=-%.xml),\
  .pth .onnx .xml -bf16.xml -w8a8.x86 -w4a16.onnx $(QUANTIZATION_SPEED:%=-%.onnx) $(QUANTIZATION_SPEED:%=-%.xml)))

# ResNet-18 in the columns of speed, which do not depend on its weights: untrained.
RESNET18_SPEED := .pth .onnx .xml -bf16.xml -w8a8.x86 -w8a8-minmax.onnx -w8a8-minmax.xml
table-quantization: $(RESULTS)/quantization-r18-untrained.md
$(WORK)/r18-untrained.pth: | $(INSTALLED)
	@mkdir -p $(@D)
	$(RCOMPRESS) train --arch resnet18 --dataset $(STUDENT_DATA) --epochs 0 -o $@
$(RESULTS)/quantization/r18-untrained.bench.result.json: $(RESNET18_SPEED:%=$(WORK)/r18-untrained%)
	@mkdir -p $(@D)
	$(RCOMPRESS) bench $^ -b 1 -b 64 --threads 1 --device cpu -o $@
$(RESULTS)/quantization-r18-untrained.md: $(RESULTS)/quantization/r18-untrained.bench.result.json
	$(RCOMPRESS) report $< --title "Quantization: speed of a ResNet-18, untrained" -o $@
