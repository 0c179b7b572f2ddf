# Real CIFAR on a CPU, in hours: ResNet-18 for the headline alone, ResNet-20 and -32 where a study trained larger ones.
TRAIN.r18       := --arch resnet18 --dataset cifar10 --epochs 15
TRAIN.r18-amp   := --arch resnet20 --dataset cifar10 --epochs 15 --precision bf16
TRAIN.r18-c100  := --arch resnet20 --dataset cifar100 --epochs 15
TRAIN.i18       := --arch resnet18 --stem imagenet --dataset cifar10 --epochs 15
TRAIN.s18       := --arch resnet20 --dataset cifar100 --epochs 15
TRAIN.s50       := --arch resnet32 --dataset cifar100 --epochs 15
TRAIN.c50       := --arch resnet20 --dataset cifar100 --epochs 15 --seed 1
FINETUNE_EPOCHS ?= 6
QAT_EPOCHS      ?= 3
BINARY_EPOCHS   ?= 8
STUDENT_EPOCHS  ?= 10
PERCENTS.r18    ?= 60
PERCENTS.r20    ?= 10 20 30 40 50 60 70 80 90
IN_STEPS        := --ratio 0.8 --steps 5 --finetune-epochs $(FINETUNE_EPOCHS)
STEPS           := 01 02 03 04#  those before the last
RANKS           ?= 4 8 16 24
BENCH           ?=
