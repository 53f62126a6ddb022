#include "tests/unit/llama/cuda_emulation.h"

#include "worker/engines/llama/cuda/attention.cu"
