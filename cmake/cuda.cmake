# CUDA is used when nvcc is there; without it everything is built for the CPU.
include(CheckLanguage)
find_program(PENSTOCK_NVCC nvcc PATHS /usr/local/cuda/bin)
if(PENSTOCK_NVCC)
  message(STATUS "CUDA: ${PENSTOCK_NVCC}")
else()
  message(STATUS "CUDA: no nvcc found, CPU only")
endif()
