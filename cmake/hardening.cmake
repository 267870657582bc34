# What makes an error in a library harder to use against its host: relocations that are read-only once all are bound, at
# load; no executable stack; calls of the C library that know the size of their buffers; guarded stacks. The kernels are
# left out of the last two: they call nothing, and a guard would be a part of a small step.
include(CheckCXXSourceCompiles)
set(CMAKE_REQUIRED_FLAGS "-O2 -Werror -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3")
check_cxx_source_compiles("#include <cstring>\nint main() { return 0; }" FUSEDRNN_FORTIFY_3)
unset(CMAKE_REQUIRED_FLAGS)

function(fusedrnn_harden target)
  if(APPLE)
    return()
  endif()
  target_link_options(${target} PRIVATE -Wl,-z,relro,-z,now,-z,noexecstack)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fstack-protector-strong>)
  if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug" AND NOT FUSEDRNN_SANITIZE)
    target_compile_options(${target} PRIVATE
      $<$<COMPILE_LANGUAGE:CXX>:-U_FORTIFY_SOURCE$<SEMICOLON>-D_FORTIFY_SOURCE=$<IF:$<BOOL:${FUSEDRNN_FORTIFY_3}>,3,2>>)
  endif()
endfunction()
