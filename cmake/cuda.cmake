# The module _cuda: FUSEDRNN_CUDA decides, nvcc alone is needed. cuBLAS is loaded at run time (csrc/cuda/engine/blas.cpp).
set(FUSEDRNN_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO (where nvcc is present), ON, OFF")
set_property(CACHE FUSEDRNN_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NOT FUSEDRNN_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "fusedrnn: FUSEDRNN_CUDA is '${FUSEDRNN_CUDA}'; expected AUTO, ON or OFF")
endif()
if(FUSEDRNN_CUDA STREQUAL "OFF")
  return()
endif()

include(CheckLanguage)
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  set(fusedrnn_choose_architectures ON)
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # for the check alone: what nvcc supports is asked below
endif()
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(FUSEDRNN_CUDA STREQUAL "ON")
    message(FATAL_ERROR "fusedrnn: FUSEDRNN_CUDA=ON, but no working nvcc was found; put it on the PATH, set CUDACXX, or "
                        "build without CUDA by FUSEDRNN_CUDA=OFF")
  endif()
  message(STATUS "fusedrnn: CPU only, no working nvcc was found (FUSEDRNN_CUDA=ON makes that an error)")
  return()
endif()

# Machine code for every architecture from Ampere on that this nvcc knows, and PTX of the newest for those to come.
# An explicit list, because there need not be a GPU where the package is built.
if(fusedrnn_choose_architectures)
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch OUTPUT_VARIABLE known)
  set(CMAKE_CUDA_ARCHITECTURES "")
  foreach(architecture 80 86 89 90 100 120)
    if(known MATCHES "compute_${architecture}[\r\n]")
      list(APPEND CMAKE_CUDA_ARCHITECTURES ${architecture}-real)
      set(newest ${architecture})
    endif()
  endforeach()
  list(APPEND CMAKE_CUDA_ARCHITECTURES 90-virtual)
  if(newest AND NOT newest EQUAL 90)
    list(APPEND CMAKE_CUDA_ARCHITECTURES ${newest}-virtual)
  endif()
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)  # the first with C++20
  if(FUSEDRNN_CUDA STREQUAL "ON")
    message(FATAL_ERROR "fusedrnn: FUSEDRNN_CUDA=ON, but nvcc is ${CMAKE_CUDA_COMPILER_VERSION}; expected 12.0 or newer")
  endif()
  message(STATUS "fusedrnn: CPU only, nvcc ${CMAKE_CUDA_COMPILER_VERSION} is older than 12.0")
  return()
endif()
find_package(CUDAToolkit REQUIRED)
message(STATUS "fusedrnn: CUDA ${CUDAToolkit_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")

set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake before 3.26 does not know that nvcc has it
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")

pybind11_add_module(_cuda NO_EXTRAS
  csrc/bind/cuda_arrays.cpp csrc/bind/cuda_module.cpp csrc/bind/cuda_stack_binding.cpp
  csrc/core/cell.cpp csrc/core/memory.cpp csrc/core/problem.cpp csrc/core/row_order.cpp csrc/system/posix.cpp
  csrc/cuda/engine/blas.cpp csrc/cuda/engine/check.cpp csrc/cuda/engine/context.cpp csrc/cuda/engine/cuda_device.cu csrc/cuda/engine/device_engines.cpp
  csrc/cuda/engine/host_engine.cpp csrc/cuda/path_plan.cpp csrc/cuda/status.cpp)
# Only tests run the host twin; compiling it with -O3 would take longer than the whole module.
set_property(SOURCE csrc/cuda/engine/host_engine.cpp APPEND PROPERTY COMPILE_OPTIONS -O1)
target_link_libraries(_cuda PRIVATE fusedrnn_flags Threads::Threads CUDA::cudart_static ${CMAKE_DL_LIBS})
target_compile_options(_cuda PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${FUSEDRNN_BASELINE_FLAGS}>)
string(REPLACE ";" "," architectures "${CMAKE_CUDA_ARCHITECTURES}")
target_compile_definitions(_cuda PRIVATE FUSEDRNN_CUDA_ARCHITECTURES="${architectures}")
if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug" AND NOT FUSEDRNN_SANITIZE)
  target_link_options(_cuda PRIVATE -s)
endif()

# A cuBLAS header is not needed; where there is one, blas.cpp checks its own declarations against it.
find_path(FUSEDRNN_CUBLAS_INCLUDE cublas_v2.h
          HINTS ${CUDAToolkit_INCLUDE_DIRS} ${Python_SITELIB}/nvidia/cu13/include ${Python_SITELIB}/nvidia/cublas/include)
if(FUSEDRNN_CUBLAS_INCLUDE)
  set_property(SOURCE csrc/cuda/engine/blas.cpp APPEND PROPERTY INCLUDE_DIRECTORIES ${FUSEDRNN_CUBLAS_INCLUDE})
endif()

# The element types: name | type. Adding one is a line here and in cuda/engine/device_engines.cpp.
foreach(entry "f32|float" "f64|double" "bf16|__nv_bfloat16" "f16|__half")
  string(REPLACE "|" ";" field "${entry}")
  list(GET field 0 name)
  list(GET field 1 type)
  add_library(cuda_engine_${name} OBJECT csrc/cuda/engine/device_engine.cu)
  target_link_libraries(cuda_engine_${name} PRIVATE fusedrnn_flags)
  # As for C++: fused only where the source says fma, so that all kernels of a formula round alike.
  target_compile_options(cuda_engine_${name} PRIVATE --fmad=false)
  target_compile_definitions(cuda_engine_${name} PRIVATE FUSEDRNN_ELEMENT=${type} FUSEDRNN_ENGINE=engine_${name})
  target_sources(_cuda PRIVATE $<TARGET_OBJECTS:cuda_engine_${name}>)
endforeach()

install(TARGETS _cuda LIBRARY DESTINATION fusedrnn)
