// Kernels run without the GIL. Not by pybind11's guards: once Python is ending it ends every other thread that asks for
// the GIL, by an unwinding that a guard's destructor would turn into an abort of the whole process.
#pragma once
#include <pybind11/pybind11.h>

#include <exception>

#include "core/error.h"
#include "system/system.h"

namespace fusedrnn {

// Does what takes the GIL. Where Python is ending, the thread waits here for the end of the process instead: what it
// would unwind through holds Python objects.
template <class Take> auto take_gil(Take take) {
  try {
    return take();
  } catch (...) {  // pthread_exit; nothing else leaves these functions
    wait_for_ever();
  }
}

// Asked by the calling thread while a kernel runs.
inline bool python_interrupted() {
  const PyGILState_STATE state = take_gil([] { return PyGILState_Ensure(); });
  const bool interrupted = PyErr_CheckSignals() != 0;
  PyGILState_Release(state);
  return interrupted;
}

template <class Body> void without_gil(Body body) {
  PyThreadState* const thread = PyEval_SaveThread();
  std::exception_ptr error;
  try {
    body();
  } catch (...) {
    error = std::current_exception();
  }
  take_gil([&] { PyEval_RestoreThread(thread); });
  try {
    if (error) std::rethrow_exception(error);
  } catch (const Interrupted&) {
    throw pybind11::error_already_set();  // PyErr_CheckSignals has set KeyboardInterrupt
  }
}

}  // namespace fusedrnn
