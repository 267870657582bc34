// Complaints about arguments, which bind/ turns into ValueError and TypeError, and a call that was stopped.
#pragma once
#include <stdexcept>
#include <string>

namespace fusedrnn {

struct ShapeError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
struct TypeMismatch : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
// The caller asked to stop (Ctrl-C); whoever set that knows why.
struct Interrupted : std::exception {};

// "LSTM: h0 has shape (8, 2, 64); expected (num_layers*num_directions, batch, hidden) = (4, 8, 64)"
[[noreturn]] inline void fail(const std::string& op, const std::string& argument, const std::string& got,
                              const std::string& expected) {
  throw ShapeError(op + ": " + argument + " " + got + "; expected " + expected);
}

}  // namespace fusedrnn
