// The memory of the time loops of one layer, which its threads share: Sequence::workspace.
#pragma once
#include "core/sequence.h"
#include "cpu/kernels/cell_shape.h"
#include "cpu/kernels/factors.h"

namespace fusedrnn::FUSEDRNN_ISA {

// The same for all layers that use it. Rows of state are padded to whole vectors, and by one more vector where their
// size is a multiple of a page: six rows a page apart would fight for the same lines of the first-level cache.
template <class C, class T, class E> class Workspace {
 public:
  int64_t row;         // elements of a row of state
  int64_t chunk_rows;  // rows projected at a time by one thread
  int64_t x_row;       // elements of a rounded row of x; a row may become several
  int64_t total;       // elements of all

  FUSEDRNN_INLINE Workspace(const Sequence<T>& seq, int threads) : base_(seq.workspace), batch_(seq.ragged->batch) {
    const int64_t B = batch_, units = ceil_div(seq.H, L);
    row = units * L + (units * L * int64_t(sizeof(T)) % 4096 == 0 ? L : 0);
    const int64_t fits = (128 << 10) / (units * C::slots * L * int64_t(sizeof(T)));
    chunk_rows = fits < 64 ? 64 : fits > 512 ? 512 : fits;
    if (chunk_rows < B) chunk_rows = B;
    state_ = B * row;
    c_ = 2 * state_;
    between_ = c_ + (seq.projection || seq.norm ? state_ : 0);
    const bool factored = seq.noise && seq.noise->h_factor.data;
    products_ = between_ + state_ + (factored ? 2 * state_ : 0);
    z_ = products_ + (seq.norm ? B * units * C::gates * L : 0);
    z_size_ = seq.gates ? 0 : chunk_rows * units * C::slots * L;
    x_row = values > 1 ? ceil_div(seq.widest_input, L) * L / values : 0;
    x_size_ = chunk_rows * planes * (x_row + is_quantized<E>);
    h_size_ = is_quantized<E> ? state_ / values + ceil_div(B, 2) * 2 : 0;
    rounded_h_ = z_ + threads * z_size_;
    rounded_x_ = rounded_h_ + (is_quantized<E> ? threads * h_size_ : values > 1 ? 2 * state_ / values : 0);
    rows_ = ceil_div(rounded_x_ + threads * x_size_, 2) * 2;  // pointers: at a multiple of 8 bytes
    total = rows_ + threads * chunk_rows * int64_t(sizeof(Row) / sizeof(T));
    if (!base_) return;  // asked for its size
    operands_ = reinterpret_cast<E*>(base_ + (values > 1 ? rounded_h_ : factored ? between_ + state_ : 0));
  }

  // h before a step, (B, row); two buffers take turns. And as the products read it: h itself, with factors of recurrent
  // dropout, or as Pairs. Each thread makes Quads of h on its own, because their scale depends on all units.
  FUSEDRNN_INLINE T* h(int64_t step) const { return base_ + (step & 1) * state_; }
  FUSEDRNN_INLINE E* operand(int64_t step) const { return operands_ + (step & 1) * (state_ / values); }
  FUSEDRNN_INLINE E* quantized_h(int rank) const {
    return reinterpret_cast<E*>(h_scales(rank) + ceil_div(batch_, 2) * 2);
  }
  FUSEDRNN_INLINE T* h_scales(int rank) const { return base_ + rounded_h_ + rank * h_size_; }  // (B)
  FUSEDRNN_INLINE T* c() const { return base_ + c_; }                                          // (B, row)
  // (B, row): what stands between the two products of a step, or dL/dh of whole rows; of a cell without c, with a
  // projection or with layer normalisation.
  FUSEDRNN_INLINE T* between() const { return base_ + between_; }
  FUSEDRNN_INLINE T* products() const { return base_ + products_; }  // (B, U, G, lanes): W_hh h, to be normalised

  // Each thread has its own: z of a chunk where it is not kept, x of a chunk as Pairs, where the rows of a chunk lie.
  FUSEDRNN_INLINE T* z(int rank) const { return base_ + z_ + rank * z_size_; }
  FUSEDRNN_INLINE E* rounded_x(int rank) const { return reinterpret_cast<E*>(base_ + rounded_x_ + rank * x_size_); }
  FUSEDRNN_INLINE T* x_scales(int rank) const {
    return base_ + rounded_x_ + rank * x_size_ + chunk_rows * planes * x_row;
  }
  FUSEDRNN_INLINE const E** x_rows(int rank) const {
    return reinterpret_cast<const E**>(base_ + rows_) + rank * chunk_rows * (2 * planes + 1);
  }
  FUSEDRNN_INLINE int64_t* z_rows(int rank) const {
    return reinterpret_cast<int64_t*>(x_rows(rank) + chunk_rows * planes);
  }
  FUSEDRNN_INLINE T** y_rows(int rank) const { return reinterpret_cast<T**>(z_rows(rank) + chunk_rows * planes); }

 private:
  static constexpr int L = Vec<T>::lanes, values = Operand<E>::values, planes = is_quantized<E> ? most_planes : 1;
  struct Row {
    const E* x[planes];
    int64_t z[planes];
    T* y;
  };

  T* base_;
  E* operands_ = nullptr;
  int64_t batch_, h_size_;
  int64_t state_;                                                      // elements of the state of all samples
  int64_t c_, between_, products_, z_, rounded_h_, rounded_x_, rows_;  // offsets in elements
  int64_t z_size_, x_size_;                                            // of one thread
};

}  // namespace fusedrnn::FUSEDRNN_ISA
