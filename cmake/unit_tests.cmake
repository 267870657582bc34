# One executable with the tests of what Python cannot reach: `cmake --build <folder> --target unit_tests`.
file(GLOB unit_tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/tests/cpp/*.cpp)
add_executable(unit_tests EXCLUDE_FROM_ALL ${unit_tests}
  csrc/core/cell.cpp csrc/core/memory.cpp csrc/core/plan.cpp csrc/core/problem.cpp csrc/core/process_locks.cpp
  csrc/core/row_order.cpp
  csrc/cpu/threads/flush_subnormals.cpp csrc/cpu/threads/openmp.cpp csrc/cpu/threads/region.cpp
  csrc/cpu/threads/thread_pool.cpp
  csrc/cuda/path_plan.cpp csrc/system/posix.cpp)
target_link_libraries(unit_tests PRIVATE fusedrnn_flags Threads::Threads ${CMAKE_DL_LIBS})
target_include_directories(unit_tests PRIVATE tests/cpp)
# Of what is compiled per instruction set, the parts that are not about vectors.
target_compile_definitions(unit_tests PRIVATE FUSEDRNN_ISA=baseline FUSEDRNN_VECTOR_BYTES=16)
target_compile_options(unit_tests PRIVATE ${FUSEDRNN_BASELINE_FLAGS})

# What several threads do at once, for the thread sanitizer: see the head of its source.
file(GLOB all_cpu_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/csrc/core/*.cpp
  ${CMAKE_CURRENT_SOURCE_DIR}/csrc/cpu/*.cpp ${CMAKE_CURRENT_SOURCE_DIR}/csrc/cpu/threads/*.cpp)
add_executable(races EXCLUDE_FROM_ALL tests/sanitize/races.cpp ${all_cpu_sources} csrc/system/posix.cpp)
get_target_property(core_sources _core SOURCES)
list(FILTER core_sources INCLUDE REGEX "TARGET_OBJECTS:kernels_")
target_sources(races PRIVATE ${core_sources})
target_link_libraries(races PRIVATE fusedrnn_flags Threads::Threads ${CMAKE_DL_LIBS})
target_compile_options(races PRIVATE ${FUSEDRNN_BASELINE_FLAGS})
