# The module _cuda: FUSEDRNN_CUDA decides, nvcc alone is needed. cuBLAS is loaded at run time (csrc/cuda/engine/blas.cpp).
set(FUSEDRNN_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO (where nvcc and a GPU are present), ON, OFF")
set_property(CACHE FUSEDRNN_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NOT FUSEDRNN_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "fusedrnn: FUSEDRNN_CUDA is '${FUSEDRNN_CUDA}'; expected AUTO, ON or OFF")
endif()

# Why the module is left out: an error where it was asked for.
macro(fusedrnn_without_cuda reason)
  if(FUSEDRNN_CUDA STREQUAL "ON")
    message(FATAL_ERROR "fusedrnn: FUSEDRNN_CUDA=ON, but ${reason}")
  endif()
  message(STATUS "fusedrnn: CPU only (FUSEDRNN_CUDA=${FUSEDRNN_CUDA}): ${reason}")
  return()
endmacro()

if(FUSEDRNN_CUDA STREQUAL "OFF")
  fusedrnn_without_cuda("the CUDA module was not asked for")
endif()

# AUTO builds for the devices of this machine, so their compute capabilities come first: 8.6 is 86.
if(FUSEDRNN_CUDA STREQUAL "AUTO")
  find_program(FUSEDRNN_NVIDIA_SMI nvidia-smi)
  if(FUSEDRNN_NVIDIA_SMI)
    execute_process(COMMAND ${FUSEDRNN_NVIDIA_SMI} --query-gpu=compute_cap --format=csv,noheader TIMEOUT 30
                    OUTPUT_VARIABLE capabilities ERROR_QUIET)
    string(REGEX MATCHALL "[0-9]+\\.[0-9]" devices "${capabilities}")
    string(REPLACE "." "" devices "${devices}")
  endif()
  if(NOT devices)
    fusedrnn_without_cuda("nvidia-smi names no GPU; FUSEDRNN_CUDA=ON builds the CUDA module all the same")
  endif()
  list(REMOVE_DUPLICATES devices)
endif()

include(CheckLanguage)
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  set(fusedrnn_choose_architectures ON)
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # for the check alone: what nvcc supports is asked below
endif()
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  fusedrnn_without_cuda("no working nvcc was found; put it on the PATH, set CUDACXX, or leave CUDA out by FUSEDRNN_CUDA=OFF")
endif()

# Machine code for Ampere and later. AUTO: for what is present; a device that this nvcc does not know yet takes the PTX of
# the newest. ON: for every architecture that it knows, and PTX for those to come. Explicit numbers, because CMake's
# "native" fails where there is no device.
if(fusedrnn_choose_architectures)
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch OUTPUT_VARIABLE known)
  string(REGEX MATCHALL "compute_[0-9]+[\r\n]" known "${known}")
  string(REGEX REPLACE "compute_|[\r\n]" "" known "${known}")
  list(SORT known COMPARE NATURAL)
  list(GET known -1 newest)
  set(CMAKE_CUDA_ARCHITECTURES "")
  if(devices)
    foreach(device IN LISTS devices)
      if(device IN_LIST known AND device GREATER_EQUAL 80)
        list(APPEND CMAKE_CUDA_ARCHITECTURES ${device}-real)
      elseif(device GREATER newest)
        list(APPEND CMAKE_CUDA_ARCHITECTURES ${newest}-virtual)
      endif()
    endforeach()
    if(NOT CMAKE_CUDA_ARCHITECTURES)
      fusedrnn_without_cuda("compute capability ${devices} (times ten) is too old; expected 8.0 or newer")
    endif()
  else()
    foreach(architecture 80 86 89 90 100 120)
      if(architecture IN_LIST known)
        list(APPEND CMAKE_CUDA_ARCHITECTURES ${architecture}-real)
        set(newest ${architecture})
      endif()
    endforeach()
    list(APPEND CMAKE_CUDA_ARCHITECTURES 90-virtual ${newest}-virtual)
  endif()
  list(REMOVE_DUPLICATES CMAKE_CUDA_ARCHITECTURES)
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)  # the first with C++20
  fusedrnn_without_cuda("nvcc is ${CMAKE_CUDA_COMPILER_VERSION}; expected 12.0 or newer")
endif()
find_package(CUDAToolkit REQUIRED)
message(STATUS "fusedrnn: CPU and CUDA ${CUDAToolkit_VERSION} for ${CMAKE_CUDA_ARCHITECTURES} (FUSEDRNN_CUDA=${FUSEDRNN_CUDA})")

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
  csrc/core/cell.cpp csrc/core/memory.cpp csrc/core/problem.cpp csrc/core/process_locks.cpp csrc/core/row_order.cpp
  csrc/system/posix.cpp
  csrc/cuda/engine/blas.cpp csrc/cuda/engine/check.cpp csrc/cuda/engine/context.cpp csrc/cuda/engine/cuda_device.cu csrc/cuda/engine/device_engines.cpp
  csrc/cuda/engine/host_engine.cpp csrc/cuda/path_plan.cpp csrc/cuda/status.cpp)
# Only tests run the host twin; compiling it with -O3 would take longer than the whole module.
set_property(SOURCE csrc/cuda/engine/host_engine.cpp APPEND PROPERTY COMPILE_OPTIONS -O1)
target_link_libraries(_cuda PRIVATE fusedrnn_flags Threads::Threads CUDA::cudart_static ${CMAKE_DL_LIBS})
target_compile_options(_cuda PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${FUSEDRNN_BASELINE_FLAGS}>)
fusedrnn_harden(_cuda)
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
