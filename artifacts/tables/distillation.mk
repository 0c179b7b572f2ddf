# make table-distillation: a ResNet-20 from nothing, with and without what TEACHER says of the images.
#   TEACHER   stem of WORK/STEM.pth        STUDENT_EPOCHS   of every student
#   student-alone-sN.pth, student-logits-sN.pth for every seed N; student-hints-s0.pth and other losses for one
TEACHER        ?= $(lastword $(MODELS))
STUDENT        ?= resnet20
STUDENT_DATA   ?= cifar10
SEEDS          ?= 0 1 2
OTHER_LOSSES   ?= hints attention relational

STUDENT_FLAGS = --epochs $(STUDENT_EPOCHS) --seed $* --resume --threads $(THREADS)

$(WORK)/student-alone-s%.pth: | $(INSTALLED)
	@mkdir -p $(@D)
	$(RCOMPRESS) train --arch $(STUDENT) --dataset $(STUDENT_DATA) -o $@ $(STUDENT_FLAGS)

define TAUGHT
$(WORK)/student-$(1)-s%.pth: $(WORK)/$(TEACHER).pth
	$$(RCOMPRESS) distill --teacher $$< --student $(STUDENT) --dataset $(STUDENT_DATA) -o $$@ $(2) $$(STUDENT_FLAGS)
endef
$(eval $(call TAUGHT,logits))
$(foreach loss,$(OTHER_LOSSES),$(eval $(call TAUGHT,$(loss),--loss $(loss))))
$(eval $(call TAUGHT,logits-attention,--loss logits --loss attention))

STUDENTS := $(SEEDS:%=student-alone-s%) $(SEEDS:%=student-logits-s%) \
  $(patsubst %,student-%-s0,$(OTHER_LOSSES) logits-attention)
STUDENT_RECORDS := $(patsubst %,$(RESULTS)/distillation/%.pth.eval.result.json,$(STUDENTS) $(TEACHER))

.PHONY: table-distillation
comparisons: table-distillation
table-distillation: $(RESULTS)/distillation.md ## Students with and without a teacher (TEACHER, STUDENT_EPOCHS, SEEDS)
$(eval $(call RECORDED,distillation))
$(RESULTS)/distillation.md: $(STUDENT_RECORDS)
	$(RCOMPRESS) report $^ --baseline student-alone-s0.pth --title Distillation -o $@ -o $(@:.md=.html)
