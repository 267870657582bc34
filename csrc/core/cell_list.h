// Every cell: X(kind, formula, name of the cell in errors). One line adds a cell to every backend.
#define FUSEDRNN_CELLS(X)       \
  X(rnn_tanh, Rnn<Tanh>, "RNN") \
  X(rnn_relu, Rnn<Relu>, "RNN") \
  X(lstm, Lstm, "LSTM")         \
  X(gru, Gru, "GRU")
