#!/bin/sh
exec vllm serve org/m --max-num-seqs 8
