# CUDA is used when nvcc is there; without it everything is built for the CPU.
#
# nvcc is called by rules of our own: CMake's CUDA language would hand it this project's compiler
# warnings, and what it compiles here is a handful of kernels. The runtime is linked statically and
# finds the driver when it is asked; cuBLASLt is found likewise (worker/engines/llama/cuda/cublaslt.h).
find_program(PENSTOCK_NVCC nvcc PATHS /usr/local/cuda/bin)
option(PENSTOCK_CUDA "Build for CUDA, too, where nvcc is found" ON)
option(PENSTOCK_CUDA_FAULTS "Let PENSTOCK_CUDA_FAULT_AT_STEP=N break a step; for checks" OFF)

set(PENSTOCK_WITH_CUDA OFF)
if(PENSTOCK_CUDA AND PENSTOCK_NVCC)
  file(REAL_PATH ${PENSTOCK_NVCC} nvcc_path)
  cmake_path(GET nvcc_path PARENT_PATH cuda_root)
  cmake_path(GET cuda_root PARENT_PATH cuda_root)
  set(CUDA_HINTS ${cuda_root} ${cuda_root}/targets/${CMAKE_SYSTEM_PROCESSOR}-linux /usr/local/cuda)
  find_library(PENSTOCK_CUDART NAMES cudart_static HINTS ${CUDA_HINTS} PATH_SUFFIXES lib64 lib)
  find_path(PENSTOCK_CUDA_INCLUDE cublasLt.h HINTS ${CUDA_HINTS} PATH_SUFFIXES include)
  execute_process(COMMAND ${PENSTOCK_NVCC} --version OUTPUT_VARIABLE nvcc_says ERROR_QUIET)
  string(REGEX MATCH "release ([0-9]+\\.[0-9]+)" nvcc_release "${nvcc_says}")
  set(nvcc_release "${CMAKE_MATCH_1}")
  if(PENSTOCK_CUDART AND PENSTOCK_CUDA_INCLUDE AND nvcc_release VERSION_GREATER_EQUAL 12.0)
    set(PENSTOCK_WITH_CUDA ON)
  endif()
endif()
if(PENSTOCK_WITH_CUDA)
  message(STATUS "CUDA: ${PENSTOCK_NVCC}")
elseif(NOT PENSTOCK_CUDA)
  message(STATUS "CUDA: switched off, CPU only")
elseif(PENSTOCK_NVCC AND NOT nvcc_release VERSION_GREATER_EQUAL 12.0)
  message(STATUS "CUDA: ${PENSTOCK_NVCC} is \"${nvcc_release}\", at least 12.0 is needed, CPU only")
elseif(PENSTOCK_NVCC)
  message(STATUS "CUDA: ${PENSTOCK_NVCC} has no libcudart_static.a or cublasLt.h beside it, CPU only")
else()
  message(STATUS "CUDA: no nvcc found, CPU only")
endif()

# penstock_cuda_sources(TARGET SOURCE.cu...): compiles them for what is common in data centres, Ampere
# and Hopper, and as PTX for what is newer, and links them and the runtime to TARGET.
function(penstock_cuda_sources target)
  set(flags -std=c++20 -O3 -I${CMAKE_SOURCE_DIR}
    -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=[sm_90,compute_90]
    -Werror all-warnings -Xcompiler -Wall,-Wextra,-fPIC,-fvisibility=hidden)
  if(PENSTOCK_CUDA_FAULTS)
    list(APPEND flags -DPENSTOCK_CUDA_FAULTS=1)
  endif()
  foreach(source ${ARGN})
    cmake_path(GET source STEM name)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.cu.o)
    add_custom_command(OUTPUT ${object}
      COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${PENSTOCK_NVCC} ${flags} -MD -MF ${object}.d
        -c ${CMAKE_CURRENT_SOURCE_DIR}/${source} -o ${object}
      DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${source}
      DEPFILE ${object}.d
      VERBATIM
      COMMENT "Building CUDA object ${name}.cu.o")
    target_sources(${target} PRIVATE ${object})
    set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  endforeach()
  target_link_libraries(${target} PUBLIC ${PENSTOCK_CUDART} ${CMAKE_DL_LIBS} rt)
endfunction()
