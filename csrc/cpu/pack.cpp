#include "cpu/pack.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/process_locks.h"

namespace fusedrnn {
namespace {

// Calls visit(unit, gate, lanes in use, first row in the caller's matrix) for every run of rows that becomes a vector.
template <class Visit>
void each_block(const CellLayout& layout, const int (&order)[4], int64_t H, int64_t lanes, Visit visit) {
  for (int64_t u = 0; u * lanes < H; ++u)
    for (int g = 0; g < layout.gates; ++g) visit(u, g, std::min(lanes, H - u * lanes), order[g] * H + u * lanes);
}

// Some of the gates that W_hh feeds, as a matrix of their own.
struct Gates {
  CellLayout layout;
  int order[4];
};
Gates gates_from(const CellLayout& layout, int begin, int count) {
  Gates some{layout, {}};
  some.layout.gates = count;
  std::copy_n(layout.recurrent_order + begin, count, some.order);
  return some;
}

// A matrix that is no gate's.
const Gates one_gate{{1, 1, 0, 0, {0}, {0}, false}, {0}};

void proceed(Counted& counted, int64_t elements) {
  if (!counted.go_on_after(elements)) throw Interrupted();
}

// Elements of a k of this block.
int64_t row_width(const Blocks& blocks, int64_t u) {
  return (u < blocks.wide ? blocks.gates : blocks.vectors) * blocks.lanes;
}

template <class T>
Buffer<T> pack(const T* weight, const CellLayout& layout, const int (&order)[4], const Blocks& blocks, int64_t H,
               int64_t K, Counted& counted) {
  const int64_t block = K * blocks.gates * blocks.lanes, last = blocks.units - 1;
  Buffer<T> out(last * block + K * row_width(blocks, last));
  std::fill_n(out.get() + last * block, K * row_width(blocks, last), T(0));
  each_block(layout, order, H, blocks.lanes, [&](int64_t u, int64_t g, int64_t used, int64_t row) {
    T* to = out.get() + u * block + g * blocks.distance(u);
    kernels<T>().copy_transposed(weight + row * K, K, used, K, to, row_width(blocks, u));
    proceed(counted, K * blocks.lanes);
  });
  return out;
}

template <class T>
Buffer<T> pack_transposed(const T* weight, const CellLayout& layout, const int (&order)[4], const Blocks& blocks,
                          int64_t H, int64_t K, Counted& counted) {
  const int64_t lanes = blocks.lanes, panels = (K + lanes - 1) / lanes, panel = blocks.columns * lanes;
  Buffer<T> out(panels * panel);
  each_block(layout, order, H, lanes, [&](int64_t u, int64_t g, int64_t used, int64_t row) {
    const int64_t first = u * blocks.gates * lanes + g * blocks.distance(u);
    const int64_t columns_of_gate = std::min(blocks.distance(u), blocks.columns - first);
    for (int64_t i = 0; i < columns_of_gate; ++i) {
      proceed(counted, K);
      for (int64_t p = 0; p < panels; ++p) {
        T* to = out.get() + p * panel + (first + i) * lanes;
        const int64_t columns = i < used ? std::min(lanes, K - p * lanes) : 0;
        if (columns) std::memcpy(to, weight + (row + i) * K + p * lanes, static_cast<size_t>(columns) * sizeof(T));
        std::fill(to + columns, to + lanes, T(0));
      }
    }
  });
  return out;
}

// The bias of a slot fed by both products starts the input's sum. A slot fed by W_hh alone (GRU's n) gets its own.
template <class T>
void pack_bias(const WeightArrays<T>& w, const CellLayout& layout, int64_t H, int64_t lanes, PackedWeights<T>& out) {
  const int64_t units = (H + lanes - 1) / lanes, G = layout.gates;
  out.input_bias = Buffer<T>(units * G * lanes);
  out.recurrent_bias = Buffer<T>(units * lanes);
  std::fill_n(out.input_bias.get(), units * G * lanes, T(0));
  std::fill_n(out.recurrent_bias.get(), units * lanes, T(0));
  if (!w.bias_ih) return;
  const auto shared = [&](int slot) {
    return slot >= layout.recurrent_slot && slot < layout.recurrent_slot + layout.gates;
  };
  each_block(layout, layout.input_order, H, lanes, [&](int64_t u, int64_t g, int64_t used, int64_t row) {
    T* to = out.input_bias.get() + (u * G + g) * lanes;
    for (int64_t i = 0; i < used; ++i)
      to[i] = shared(layout.input_slot + static_cast<int>(g)) ? w.bias_ih[row + i] + w.bias_hh[row + i]
                                                              : w.bias_ih[row + i];
  });
  each_block(layout, layout.recurrent_order, H, lanes, [&](int64_t u, int64_t g, int64_t used, int64_t row) {
    if (layout.recurrent_slot + g < layout.input_slot)
      std::copy_n(w.bias_hh + row, used, out.recurrent_bias.get() + u * lanes);
  });
}

// W_hh of a cell with two products (cpu/kernels/two_products.h): all gates but the last, and the last.
template <class T>
void pack_gates(const T* weight, const CellLayout& layout, const Blocks& blocks, int64_t H, bool training,
                Counted& counted, PackedWeights<T>& out) {
  const Gates first = gates_from(layout, 0, layout.gates - 1), last = gates_from(layout, layout.gates - 1, 1);
  const int64_t panel = H * blocks.lanes;
  out.recurrent = Buffer<T>(layout.gates * blocks.units * panel);
  const auto pack_panels = [&](const Gates& some, T* to) {
    each_block(some.layout, some.order, H, blocks.lanes, [&](int64_t u, int64_t g, int64_t used, int64_t row) {
      T* at = to + (u * some.layout.gates + g) * panel;
      if (used < blocks.lanes) std::fill_n(at, panel, T(0));
      kernels<T>().copy_transposed(weight + row * H, H, used, H, at, blocks.lanes);
      proceed(counted, panel);
    });
  };
  pack_panels(first, out.recurrent.get());
  pack_panels(last, out.recurrent.get() + first.layout.gates * blocks.units * panel);
  if (!training) return;
  const int64_t row = blocks.units * blocks.lanes, first_size = blocks.part(first.layout.gates).columns * row,
                last_size = blocks.part(1).columns * row;
  out.recurrent_t = Buffer<T>(first_size + last_size);
  std::copy_n(pack_transposed(weight, first.layout, first.order, blocks.part(first.layout.gates), H, H, counted).get(),
              first_size, out.recurrent_t.get());
  std::copy_n(pack_transposed(weight, last.layout, last.order, blocks.part(1), H, H, counted).get(), last_size,
              out.recurrent_t.get() + first_size);
}

template <class T> Buffer<T> pack_peepholes(const T* peephole, int64_t H) {
  const int64_t lanes = kernels<T>().lanes, row = (H + lanes - 1) / lanes * lanes;
  Buffer<T> out(3 * row);
  for (int64_t gate = 0; gate < 3; ++gate)
    std::fill(std::copy_n(peephole + gate * H, H, out.get() + gate * row), out.get() + (gate + 1) * row, T(0));
  return out;
}

// Sequence::norm. What is not there is 0.
template <class T> Buffer<T> pack_norm(const WeightArrays<T>& w, const CellLayout& layout, int64_t H) {
  const int64_t L = kernels<T>().lanes, G = layout.gates, units = (H + L - 1) / L, of_gates = units * G * L;
  Buffer<T> out(4 * of_gates + 2 * units * L);
  std::fill_n(out.get(), 4 * of_gates + 2 * units * L, T(0));
  const auto put = [&](const T* from, const int (&order)[4], T* to) {
    each_block(layout, order, H, L, [&](int64_t u, int64_t g, int64_t used, int64_t row) {
      if (from) std::copy_n(from + row, used, to + (u * G + g) * L);
    });
  };
  put(w.norm.ih, layout.input_order, out.get());
  put(w.bias_ih, layout.input_order, out.get() + of_gates);
  put(w.norm.hh, layout.recurrent_order, out.get() + 2 * of_gates);
  put(w.bias_hh, layout.recurrent_order, out.get() + 3 * of_gates);
  if (w.norm.c) std::copy_n(w.norm.c, H, out.get() + 4 * of_gates);
  if (w.norm.bias_c) std::copy_n(w.norm.bias_c, H, out.get() + 4 * of_gates + units * L);
  return out;
}

uint32_t bfloat16_bits(float x) {
  if (x != x) return 0x7FC0;
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;  // nearest, ties to even
}

// Each of `count` panels holds K rows, of `width` elements but for the last: rows k and k + 1 side by side in one. K
// odd: with zeros.
template <class T>
Buffer<T> paired(const Buffer<T>& panels, int64_t count, int64_t K, int64_t width, int64_t last_width,
                 Counted& counted) {
  const int64_t pairs = (K + 1) / 2;
  Buffer<T> out(pairs * ((count - 1) * width + last_width));
  for (int64_t panel = 0; panel < count; ++panel) {
    const int64_t here = panel + 1 < count ? width : last_width;
    for (int64_t pair = 0; pair < pairs; ++pair) {
      proceed(counted, 2 * here);
      for (int64_t i = 0; i < here; ++i) {
        const T* low = panels.get() + panel * K * width + 2 * pair * here + i;
        const uint32_t high = 2 * pair + 1 < K ? bfloat16_bits(static_cast<float>(low[here])) : 0;
        const uint32_t bits = bfloat16_bits(static_cast<float>(*low)) | high << 16;
        std::memcpy(out.get() + panel * pairs * width + pair * here + i, &bits, sizeof(bits));
      }
    }
  }
  return out;
}

// Rows of int8_t, four columns to an element. K is filled up with zeros.
template <class T>
Buffer<T> pack_bytes(const int8_t* weight, const CellLayout& layout, const int (&order)[4], const Blocks& blocks,
                     int64_t H, int64_t K, Counted& counted) {
  const int64_t elements = (K + 3) / 4, block = elements * blocks.gates * blocks.lanes, last = blocks.units - 1;
  const int64_t size = last * block + elements * row_width(blocks, last);
  Buffer<T> out(size);
  std::memset(out.get(), 0, static_cast<size_t>(size) * sizeof(T));
  each_block(layout, order, H, blocks.lanes, [&](int64_t u, int64_t g, int64_t used, int64_t row) {
    T* to = out.get() + u * block + g * blocks.distance(u);
    for (int64_t i = 0; i < used; ++i)
      for (int64_t k = 0; k < K; k += 4)
        std::memcpy(to + k / 4 * row_width(blocks, u) + i, weight + (row + i) * K + k,
                    static_cast<size_t>(std::min<int64_t>(4, K - k)));
    proceed(counted, K * used);
  });
  return out;
}

// The scales of the rows of such weights, and 128 times the sums of the rows, as the gates lie in accumulators.
template <class T>
void pack_scales(const int8_t* weight, const T* scale, const CellLayout& layout, const int (&order)[4],
                 const Blocks& blocks, int64_t H, int64_t K, Buffer<T>& scales, Buffer<int32_t>& excess) {
  const int64_t size = blocks.units * blocks.gates * blocks.lanes;
  scales = Buffer<T>(size);
  excess = Buffer<int32_t>(size);
  std::fill_n(scales.get(), size, T(0));
  std::fill_n(excess.get(), size, 0);
  each_block(layout, order, H, blocks.lanes, [&](int64_t u, int64_t g, int64_t used, int64_t row) {
    const int64_t to = (u * blocks.gates + g) * blocks.lanes;
    for (int64_t i = 0; i < used; ++i) {
      int64_t sum = 0;
      for (int64_t k = 0; k < K; ++k) sum += weight[(row + i) * K + k];
      scales.get()[to + i] = scale[row + i];
      excess.get()[to + i] = static_cast<int32_t>(128 * sum);  // at most 2^30: K is
    }
  });
}

}  // namespace

template <class T>
std::shared_ptr<PackedWeights<T>> WeightCache<T>::packed(const WeightArrays<T>& w, bool training,
                                                         Counted& counted) const {
  auto fresh = std::make_shared<PackedWeights<T>>();
  const int64_t L = kernels<T>().lanes;
  const Blocks blocks(H_, layout_.gates, L, values_);
  WeightArrays<T> summed = w;
  if (w.norm.ih) {
    summed.bias_ih = summed.bias_hh = nullptr;
    fresh->norm = pack_norm(w, layout_, H_);
  }
  pack_bias(summed, layout_, H_, L, *fresh);
  if (w.scale_ih) {
    const auto pack_all = [&](const T* values, const T* scale, const int (&order)[4], int64_t K, Buffer<T>& weights,
                              Buffer<T>& scales, Buffer<int32_t>& excess) {
      const auto* bytes = reinterpret_cast<const int8_t*>(values);
      weights = pack_bytes<T>(bytes, layout_, order, blocks, H_, K, counted);
      pack_scales(bytes, scale, layout_, order, blocks, H_, K, scales, excess);
    };
    pack_all(w.weight_ih, w.scale_ih, layout_.input_order, I_, fresh->input, fresh->input_scales, fresh->input_excess);
    pack_all(w.weight_hh, w.scale_hh, layout_.recurrent_order, H_, fresh->recurrent, fresh->recurrent_scales,
             fresh->recurrent_excess);
    return fresh;
  }
  fresh->input = pack(w.weight_ih, layout_, layout_.input_order, blocks, H_, I_, counted);
  if (layout_.two_products)
    pack_gates(w.weight_hh, layout_, blocks, H_, training, counted, *fresh);
  else
    fresh->recurrent = pack(w.weight_hh, layout_, layout_.recurrent_order, blocks, H_, P_, counted);
  if (w.peephole) fresh->peephole = pack_peepholes(w.peephole, H_);
  const Blocks of_h(P_, 1, L, 1);
  if (w.weight_hr) fresh->projection = pack(w.weight_hr, one_gate.layout, one_gate.order, of_h, P_, H_, counted);
  if (w.weight_hr && training)
    fresh->projection_t = pack_transposed(w.weight_hr, one_gate.layout, one_gate.order, of_h, P_, H_, counted);
  if (training) {
    fresh->input_t = pack_transposed(w.weight_ih, layout_, layout_.input_order, blocks, H_, I_, counted);
    if (!layout_.two_products)
      fresh->recurrent_t = pack_transposed(w.weight_hh, layout_, layout_.recurrent_order, blocks, H_, P_, counted);
  }
  if (values_ == 2) {
    const int64_t width = layout_.gates * L, last_width = row_width(blocks, blocks.units - 1);
    fresh->input = paired(fresh->input, blocks.units, I_, width, last_width, counted);
    fresh->recurrent = paired(fresh->recurrent, blocks.units, H_, width, last_width, counted);
    if (training) {
      fresh->input_t = paired(fresh->input_t, (I_ + L - 1) / L, blocks.columns, L, L, counted);
      fresh->recurrent_t = paired(fresh->recurrent_t, blocks.units, blocks.columns, L, L, counted);
    }
  }
  return fresh;
}

template <class T>
std::shared_ptr<const PackedWeights<T>> WeightCache<T>::get(const WeightArrays<T>& w, bool training, int64_t serial,
                                                            const Interrupt& interrupt) {
  if (serial) {
    const std::lock_guard<std::mutex> lock(weights_lock(this));
    if (serial == serial_ && serves(training)) return packed_;
  }
  const int64_t rows = layout_.gates * H_, size = sizeof(T), weight_size = w.scale_ih ? 1 : size;
  uint64_t state[32] = {};
  Counted counted(interrupt);
  const auto look_at = [&](const T* values, int64_t bytes) {
    constexpr int64_t stretch = 4 << 20;
    const char* at = reinterpret_cast<const char*>(values);
    for (int64_t rest = bytes; rest > 0; rest -= stretch, at += stretch) {
      const int64_t n = std::min(stretch, rest), whole = n / 4 * 4;
      kernels<T>().fingerprint(at, whole, state);
      if (char last[4] = {}; n > whole) {
        std::memcpy(last, at + whole, static_cast<size_t>(n - whole));
        kernels<T>().fingerprint(last, 4, state);
      }
      proceed(counted, n / 4);
    }
  };
  look_at(w.weight_ih, rows * I_ * weight_size);
  look_at(w.weight_hh, rows * P_ * weight_size);
  for (const T* per_row : {w.bias_ih, w.bias_hh, w.scale_ih, w.scale_hh})
    if (per_row) look_at(per_row, rows * size);
  if (w.peephole) look_at(w.peephole, 3 * H_ * size);
  if (w.weight_hr) look_at(w.weight_hr, P_ * H_ * size);
  for (const T* gain : {w.norm.ih, w.norm.hh})
    if (gain) look_at(gain, rows * size);
  for (const T* of_c : {w.norm.c, w.norm.bias_c})
    if (of_c) look_at(of_c, H_ * size);
  {
    const std::lock_guard<std::mutex> lock(weights_lock(this));
    if (serves(training) && std::equal(state, state + 32, fingerprint_)) {
      serial_ = serial;
      return packed_;
    }
  }
  // Outside the lock: threads that find the same change at once pack it twice, but none waits, and a fork in the
  // meantime leaves no lock held for long.
  auto fresh = packed(w, training, counted);
  const std::lock_guard<std::mutex> lock(weights_lock(this));
  std::copy(state, state + 32, fingerprint_);
  serial_ = serial;
  packed_ = fresh;
  return fresh;
}

template <class T>
void add_unpacked(const T* packed, const CellLayout& layout, const int (&order)[4], const Blocks& blocks, int64_t H,
                  int64_t K, int64_t begin, int64_t end, T* grad, T* bias) {
  const int64_t columns = std::min(end, K) - begin;
  each_block(layout, order, H, blocks.lanes, [&](int64_t u, int64_t g, int64_t used, int64_t row) {
    const T* from = packed + u * (K + 1) * blocks.gates * blocks.lanes + g * blocks.distance(u);
    const int64_t step = row_width(blocks, u);
    if (grad) kernels<T>().add_transposed(from + begin * step, step, used, columns, grad + row * K + begin, K);
    if (bias && end > K)
      for (int64_t i = 0; i < used; ++i) bias[row + i] += from[K * step + i];
  });
}

template <class T>
void add_unpacked_gates(const T* packed, const CellLayout& layout, const Blocks& blocks, int64_t H, int64_t begin,
                        int64_t end, T* grad, T* bias) {
  for (int g = 0; g < layout.gates; ++g, packed += blocks.units * (H + 1) * blocks.lanes) {
    const Gates one = gates_from(layout, g, 1);
    add_unpacked(packed, one.layout, one.order, Blocks(H, 1, blocks.lanes, 1), H, H, begin, end, grad, bias);
  }
}

template <class T> void add_projection(const T* packed, int64_t P, int64_t H, T* grad) {
  const Blocks of_h(P, 1, kernels<T>().lanes, 1);
  add_unpacked<T>(packed, one_gate.layout, one_gate.order, of_h, P, H, 0, H, grad, nullptr);
}

template <class T>
void add_norm(const T* packed, const CellLayout& layout, int64_t H, T* bias_ih, T* bias_hh, const NormArrays<T>& to) {
  const int64_t L = kernels<T>().lanes, sums = 4 * layout.gates + 2;
  const auto add = [&](const int (&order)[4], int64_t first, T* grad) {
    each_block(layout, order, H, L, [&](int64_t u, int64_t g, int64_t used, int64_t row) {
      for (int64_t i = 0; grad && i < used; ++i) grad[row + i] += packed[(u * sums + 4 * g + first) * L + i];
    });
  };
  add(layout.input_order, 0, to.ih);
  add(layout.input_order, 1, bias_ih);
  add(layout.recurrent_order, 2, to.hh);
  add(layout.recurrent_order, 3, bias_hh);
  for (int64_t h = 0; h < H; ++h) {
    const T* of_c = packed + (h / L * sums + 4 * layout.gates) * L + h % L;
    if (to.c) to.c[h] += of_c[0];
    if (to.bias_c) to.bias_c[h] += of_c[L];
  }
}

template <class T> void add_peepholes(const T* packed, int64_t H, T* grad) {
  const int64_t lanes = kernels<T>().lanes, row = (H + lanes - 1) / lanes * lanes;
  for (int64_t gate = 0; gate < 3; ++gate)
    for (int64_t h = 0; h < H; ++h) grad[gate * H + h] += packed[gate * row + h];
}

template <class T>
void unpack_saved(const Problem& p, const Ragged& ragged, bool reverse, int64_t slots, const T* saved, T* to,
                  const Interrupt& interrupt) {
  Counted counted(interrupt);
  const int64_t L = kernels<T>().lanes, H = p.hidden_size, R = ragged.rows();
  if (R < p.T * p.B)
    for (int64_t row = 0; row < slots * p.T * p.B; ++row) {
      std::fill_n(to + row * H, H, T(0));
      proceed(counted, H);
    }
  for (int64_t j = 0; j < ragged.batch; ++j)
    for (int64_t s = 0; s < ragged.length[j]; ++s) {
      const int64_t t = ragged.begin[j] + time_of(s, ragged.length[j], reverse);
      for (int64_t slot = 0; slot < slots; ++slot) {
        const T* from = saved + ((ragged.first[s] + j) * slots + slot) * L;
        T* values = to + ((slot * p.T + t) * p.B + ragged.sample[j]) * H;
        for (int64_t h = 0; h < H; h += L, from += R * slots * L) std::copy_n(from, std::min(L, H - h), values + h);
      }
      proceed(counted, slots * H);
    }
}

#define FUSEDRNN_INSTANTIATE(T)                                                                                       \
  template class WeightCache<T>;                                                                                      \
  template void add_unpacked(const T*, const CellLayout&, const int (&)[4], const Blocks&, int64_t, int64_t, int64_t, \
                             int64_t, T*, T*);                                                                        \
  template void add_unpacked_gates(const T*, const CellLayout&, const Blocks&, int64_t, int64_t, int64_t, T*, T*);    \
  template void add_projection(const T*, int64_t, int64_t, T*);                                                       \
  template void add_norm(const T*, const CellLayout&, int64_t, T*, T*, const NormArrays<T>&);                         \
  template void add_peepholes(const T*, int64_t, T*);                                                                 \
  template void unpack_saved(const Problem&, const Ragged&, bool, int64_t, const T*, T*, const Interrupt&);
FUSEDRNN_INSTANTIATE(float)
FUSEDRNN_INSTANTIATE(double)

}  // namespace fusedrnn
