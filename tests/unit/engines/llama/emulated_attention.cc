#include "tests/unit/engines/llama/cuda_emulation.h"

#include "worker/engines/llama/cuda/attention.cu"
