#!/bin/bash
export VLLM_USE_DEEP_GEMM=1
export VLLM_ALL2ALL_BACKEND="deepep_low_latency"
export CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7
