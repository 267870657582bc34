// Weights in the order in which the kernels read them, rebuilt only when the weights have changed.
//
// torch's matrices are (G*H, K), gate after gate. Packed, block u of `lanes` units holds for each k the vectors of its
// gates, [U][K][G][lanes], so that the time loop reads memory straight through; a dense block (cpu/blocks.h) has fewer.
// The transposed copies for backward are [K/lanes][U][G][lanes][lanes]: for each panel of `lanes` columns one vector
// per row, rows in the order of the gate gradients, up to the last. Units and columns beyond the end are zero. For
// bfloat16 products, k and k + 1 share one 32-bit element, k in its low half; the buffers are half as long. Of weights
// in 8 bits four do, and the buffers are a quarter as long.
#pragma once
#include <memory>

#include "core/memory.h"
#include "core/problem.h"
#include "cpu/blocks.h"
#include "cpu/isa.h"
#include "cpu/threads/interrupt.h"

namespace fusedrnn {

// Of layer normalisation: gains of W_ih x and of W_hh h (G*H,), gain and bias of c (H,); all null without it. The other
// biases are bias_ih and bias_hh.
template <class T> struct NormArrays {
  T *ih, *hh, *c, *bias_c;
};

// The arrays of one direction of one layer; biases, peepholes and W_hr may be null.
template <class T> struct WeightArrays {
  const T *weight_ih, *weight_hh, *bias_ih, *bias_hh, *peephole = nullptr;
  const T *scale_ih = nullptr, *scale_hh = nullptr;  // (G*H,): of weights in 8 bits, which then are int8_t
  const T* weight_hr = nullptr;
  NormArrays<const T> norm{};
};

template <class T> struct PackedWeights {
  Buffer<T> input, recurrent, input_bias, recurrent_bias;
  Buffer<T> input_t, recurrent_t;      // for backward; empty until wanted
  Buffer<T> peephole;                  // (3, U, lanes); empty without
  Buffer<T> projection, projection_t;  // W_hr; empty without
  Buffer<T> norm;                      // Sequence::norm; empty without
  // Of weights in 8 bits: Sequence::input_scales and so on.
  Buffer<T> input_scales, recurrent_scales;
  Buffer<int32_t> input_excess, recurrent_excess;
};

template <class T> class WeightCache {
 public:
  WeightCache(const Problem& problem, int64_t layer)
      : layout_(problem.layout),
        I_(problem.layer_input(layer)),
        H_(problem.hidden_size),
        P_(problem.output_size()),
        values_(problem.values_per_operand()) {}

  // The packed form of these weights; `training` asks for the transposed copies too. Weights that were given with the
  // same serial number before, not 0, are known to be the same; others are compared by their fingerprint. Safe to call
  // from many threads: what was handed out before stays valid and unchanged. Throws Interrupted.
  std::shared_ptr<const PackedWeights<T>> get(const WeightArrays<T>& weights, bool training, int64_t serial,
                                              const Interrupt& interrupt = {});

 private:
  const CellLayout layout_;
  const int64_t I_, H_, P_;
  const int values_;  // weights that share an operand of the products
  std::shared_ptr<const PackedWeights<T>> packed_;
  uint64_t fingerprint_[32] = {};
  int64_t serial_ = 0;

  std::shared_ptr<PackedWeights<T>> packed(const WeightArrays<T>& weights, bool training, Counted& counted) const;
  bool serves(bool training) const { return packed_ && (!training || packed_->input_t.get()); }
};

// grad += columns [begin, end) of the packed gradient (U, K + 1, G, lanes) of a matrix (G*H, K); column K goes to bias.
// Either may be null.
template <class T>
void add_unpacked(const T* packed, const CellLayout& layout, const int (&order)[4], const Blocks& blocks, int64_t H,
                  int64_t K, int64_t begin, int64_t end, T* grad, T* bias);

// The same of W_hh where each gate is packed by itself, (G, U, H + 1, lanes).
template <class T>
void add_unpacked_gates(const T* packed, const CellLayout& layout, const Blocks& blocks, int64_t H, int64_t begin,
                        int64_t end, T* grad, T* bias);

// (P / lanes, H + 1, lanes), as the kernels have dW_hr, added to (P, H).
template <class T> void add_projection(const T* packed, int64_t P, int64_t H, T* grad);

// Sequence::dnorm, added to each of its arrays.
template <class T>
void add_norm(const T* packed, const CellLayout& layout, int64_t H, T* bias_ih, T* bias_hh, const NormArrays<T>& to);

// (3, U, lanes), as the kernels have peepholes, added to (3*H,).
template <class T> void add_peepholes(const T* packed, int64_t H, T* grad);

// What a slab has saved, (U, R, slots, lanes), as (slots, T, B, H): zeros past each sample's end. Throws Interrupted.
template <class T>
void unpack_saved(const Problem& problem, const Ragged& ragged, bool reverse, int64_t slots, const T* saved, T* to,
                  const Interrupt& interrupt = {});

}  // namespace fusedrnn
