// All cells: X(kind, formula, name of the cell in errors). This file is the only list of them. A backend includes it a
// second time with FUSEDRNN_FORMULAS defined, in its namespace, after the operations that it computes with.
#ifndef FUSEDRNN_CELLS
#define FUSEDRNN_CELLS(X)       \
  X(rnn_tanh, Rnn<Tanh>, "RNN") \
  X(rnn_relu, Rnn<Relu>, "RNN") \
  X(lstm, Lstm, "LSTM")         \
  X(gru, Gru, "GRU")

// The same formulas with functions that are chosen when the layer is made (core/cell_options.h). On the CPU only.
#define FUSEDRNN_VARIED_CELLS(X)          \
  X(rnn_varied, Varied<Rnn<Tanh>>, "RNN") \
  X(lstm_varied, Varied<Lstm>, "LSTM")    \
  X(gru_varied, Varied<Gru>, "GRU")       \
  X(gru_before, Varied<ResetBefore>, "GRU")
#endif

#ifdef FUSEDRNN_FORMULAS
#undef FUSEDRNN_FORMULAS
#include "cells/activation.h"
#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/reset_before.h"
#include "cells/rnn.h"
#endif
