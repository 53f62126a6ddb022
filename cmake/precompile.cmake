# penstock_precompile(TARGET HEADERS...): the headers are read once for all sources of the target. A build from nothing takes half the
# time then. ccache cannot keep what is compiled so: where there is a compiler launcher, nothing is precompiled.
if(CMAKE_CXX_COMPILER_LAUNCHER OR PENSTOCK_SANITIZE OR PENSTOCK_FUZZ)
  set(precompile OFF)
else()
  set(precompile ON)
endif()
option(PENSTOCK_PRECOMPILE "Precompile the standard library's headers and others'" ${precompile})

set(PENSTOCK_STD_HEADERS <algorithm> <array> <charconv> <deque> <functional> <map> <memory> <optional> <set> <sstream> <string>
    <string_view> <unordered_map> <utility> <vector>)

function(penstock_precompile target)
  if(PENSTOCK_PRECOMPILE)
    target_precompile_headers(${target} PRIVATE ${PENSTOCK_STD_HEADERS} ${ARGN})
    # GCC 12 forgets that a precompiled header is the system's, and warns of the library's own insides. Elsewhere these stay on.
    target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds -Wno-maybe-uninitialized -Wno-restrict
                           -Wno-stringop-overflow -Wno-stringop-overread>)
  endif()
endfunction()
