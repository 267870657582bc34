// The time loops: forward and backpropagation through time of one direction of one layer.
#pragma once
#include "cpu/rows.h"
#include "cpu/vmath.h"

namespace fusedrnn::FUSEDRNN_ISA {

// Pieces of k that keep a group of weight vectors in the second-level cache while all rows pass over it.
constexpr int64_t k_block = 512;
// The transposed weights have one vector a k, not G; k counts units and gates.
template <class C, class T>
constexpr int64_t transposed_units = k_block * 2 / (C::layout.gates * Vec<T>::lanes);

// Layout of Sequence::workspace. Rows of state are padded to whole vectors, and by one more vector where their size
// is a multiple of a page: six rows a page apart would fight for the same lines of the first-level cache.
template <class C, class T> struct Workspace {
  static constexpr int L = Vec<T>::lanes;
  int64_t units, row;  // U; elements of a row of state
  int64_t chunk_rows;  // rows projected at a time by one thread
  int64_t h, c, z, pointers, z_size, total;  // offsets in elements, from the start

  FUSEDRNN_INLINE Workspace(const Sequence<T>& q, int team_size) {
    const int64_t B = q.ragged->batch;
    units = ceil_div(q.H, L);
    row = units * L + (units * L * int64_t(sizeof(T)) % 4096 == 0 ? L : 0);
    const int64_t fits = (512 << 10) / (units * C::slots * L * int64_t(sizeof(T)));
    chunk_rows = fits < 96 ? 96 : fits > 512 ? 512 : fits;
    if (chunk_rows < B) chunk_rows = B;
    h = 0;
    c = h + 2 * B * row;
    z = c + B * row;
    z_size = q.gates ? 0 : chunk_rows * units * C::slots * L;
    pointers = z + team_size * z_size;
    total = pointers + team_size * chunk_rows * 2 * int64_t(sizeof(void*) / sizeof(T));
  }
};

// z = b + W_ih x for a chunk of rows, straight into the slots where the time loop reads it.
template <class T, int G> struct Project {
  using V = Vec<T>;
  static constexpr int L = V::lanes, gates = G;

  struct Args {
    const T *weights, *bias;  // packed
    int64_t I;
    const T** x_row;  // (n): input row of the i-th row of the chunk
    int64_t* z_row;   // (n): and its row in z
    T* z;             // first gate of row i of unit u at z + u*z_unit + i*z_stride
    int64_t z_unit, z_stride;
  };

  template <int Rows, int Units> static void tile(const Args& a, int64_t row, int64_t unit, int64_t block) {
    Tile<T, Rows, Units, G> t;
    T* z[Rows];
    const T* x[Rows];
    const int64_t k0 = block * k_block, k1 = smaller(a.I, k0 + k_block);
    for (int r = 0; r < Rows; ++r) {
      z[r] = a.z + unit * a.z_unit + a.z_row[row + r] * a.z_stride;
      x[r] = a.x_row[row + r] + k0;
    }
    // Sums over earlier pieces of k wait in z.
#pragma GCC unroll 1
    for (int r = 0; r < Rows; ++r)
      for (int j = 0; j < Units * G; ++j)
        t.acc[r][j] = V::load(block ? z[r] + (j / G) * a.z_unit + (j % G) * L : a.bias + (unit * G + j) * L);
    t.multiply(x, {1, k1 - k0, 0, 1}, a.weights + (unit * a.I + k0) * G * L, G * L, a.I * G * L);
#pragma GCC unroll 1
    for (int r = 0; r < Rows; ++r)
      for (int j = 0; j < Units * G; ++j) t.acc[r][j].store(z[r] + (j / G) * a.z_unit + (j % G) * L);
  }
};

template <class C, class T> struct ForwardPass {
  using V = Vec<T>;
  static constexpr int L = V::lanes, G = C::layout.gates, S = C::slots;
  static constexpr int in = C::layout.input_slot, rec = C::layout.recurrent_slot;

  struct Args {
    const Sequence<T>* q;
    Workspace<C, T> space;
    T* z;  // slots of row i of unit u at z + (u*z_rows + i)*S*L
    int64_t z_rows;
    int64_t step, z_first;  // sample j of the current step has row z_first + j in z
  };

  // One step: z += W_hh h, then the cell on the accumulators.
  struct Step {
    using Args = ForwardPass::Args;
    static constexpr int gates = G;
    template <int Rows, int Units> static void tile(const Args& a, int64_t j0, int64_t unit, int64_t block) {
      const Sequence<T>& q = *a.q;
      const int64_t row = a.space.row, B = q.ragged->batch;
      const T* h0 = q.workspace + a.space.h + (a.step & 1) * B * row;
      Tile<T, Rows, Units, G> t;
      T* z = a.z + (unit * a.z_rows + a.z_first + j0) * S * L;
      const int64_t z_unit = a.z_rows * S * L;
      const int64_t k0 = block * k_block, k1 = smaller(q.H, k0 + k_block);
      const T* h[Rows];
      for (int r = 0; r < Rows; ++r) h[r] = h0 + (j0 + r) * row + k0;
#pragma GCC unroll 1
      for (int r = 0; r < Rows; ++r)
        for (int j = 0; j < Units * G; ++j) {
          const bool from_input = rec + j % G >= in;
          t.acc[r][j] = V::load(from_input || block ? z + (j / G) * z_unit + (r * S + rec + j % G) * L
                                                    : q.recurrent_bias + (unit + j / G) * L);
        }
      t.multiply(h, {1, k1 - k0, 0, 1}, q.recurrent_weights + (unit * q.H + k0) * G * L, G * L, q.H * G * L);
      if (k1 < q.H) {
#pragma GCC unroll 1
        for (int r = 0; r < Rows; ++r)
          for (int j = 0; j < Units * G; ++j)
            t.acc[r][j].store(z + (j / G) * z_unit + (r * S + rec + j % G) * L);
        return;
      }
#pragma GCC unroll 1
      for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 1
        for (int u = 0; u < Units; ++u) finish(a, &t.acc[r][u * G], z + u * z_unit + r * S * L, j0 + r, unit + u);
    }

    static FUSEDRNN_INLINE void finish(const Args& a, const V* acc, T* z, int64_t j, int64_t unit) {
      const Sequence<T>& q = *a.q;
      const int64_t row = a.space.row, B = q.ragged->batch, at = j * row + unit * L;
      T* h = q.workspace + a.space.h;
      T* c = q.workspace + a.space.c + at;
      V s[S];
      for (int i = 0; i < S; ++i) s[i] = i >= rec && i < rec + G ? acc[i - rec] : V::load(z + i * L);
      V c1 = C::layout.has_cell_state ? V::load(c) : V(T(0));
      const V h1 = C::forward(s, V::load(h + (a.step & 1) * B * row + at), c1);
      if (C::layout.has_cell_state) c1.store(c);
      h1.store(h + (~a.step & 1) * B * row + at);
      store_within(h1, row_of(q.y, q, a.step, j), unit * L, q.H);
      if (q.gates) {
        for (int i = 0; i < S; ++i) s[i].store(z + i * L);
        if (C::layout.has_cell_state) c1.store(q.cells + (unit * a.z_rows + a.z_first + j) * L);
      }
    }
  };

  static bool run(const Sequence<T>& q, const Team& team) {
    const Ragged& ragged = *q.ragged;
    Args a{&q, Workspace<C, T>(q, team.size), q.gates, 0, 0, 0};
    const int64_t j0 = team.sample_begin, rec_blocks = ceil_div(q.H, k_block), in_blocks = ceil_div(q.I, k_block);
    if (!q.gates) a.z = q.workspace + a.space.z + team.rank * a.space.z_size;
    a.z_rows = q.gates ? ragged.first[ragged.steps] : a.space.chunk_rows;
    const T** x_row = reinterpret_cast<const T**>(q.workspace + a.space.pointers) + team.rank * a.space.chunk_rows * 2;
    int64_t* z_row = reinterpret_cast<int64_t*>(x_row + a.space.chunk_rows);
    const typename Project<T, G>::Args projection{
        q.input_weights, q.input_bias, q.I, x_row, z_row, a.z + in * L, a.z_rows * S * L, S * L};

    load_state(a, team);
    if (team.shares_steps && !team.barrier(team.context)) return false;
    const int64_t here = team.sample_end - j0;
    for (int64_t begin = 0, end; begin < ragged.steps; begin = end) {
      int64_t rows = 0;
      for (end = begin; end < ragged.steps && (end == begin || rows + here <= a.space.chunk_rows); ++end) {
        const int64_t n = smaller(count(ragged, end), team.sample_end);
        if (n <= j0) break;
        for (int64_t j = j0; j < n; ++j, ++rows) {
          x_row[rows] = row_of(q.x, q, end, j);
          z_row[rows] = q.gates ? ragged.first[end] + j : rows;
        }
      }
      if (end == begin) break;  // the samples of this thread have ended
      Sweep<Project<T, G>>::run(projection, rows, team.unit_begin, team.unit_end, in_blocks);
      int64_t done = 0;
      for (a.step = begin; a.step < end; ++a.step) {
        const int64_t n = smaller(count(ragged, a.step), team.sample_end) - j0;
        a.z_first = q.gates ? ragged.first[a.step] : done - j0;
        run_step(a, j0, n, team, rec_blocks);
        done += n;
        if (team.shares_steps && !team.barrier(team.context)) return false;
      }
      if (!team.poll(team.context)) return false;
    }
    store_state(a, team);
    return true;
  }

 private:
  // Sweep counts rows from 0, a step from its first sample.
  struct StepFrom {
    struct Args {
      const ForwardPass::Args* a;
      int64_t j0;
    };
    static constexpr int gates = G;
    template <int Rows, int Units> static void tile(const Args& from, int64_t row, int64_t unit, int64_t block) {
      Step::template tile<Rows, Units>(*from.a, from.j0 + row, unit, block);
    }
  };
  static FUSEDRNN_INLINE void run_step(const Args& a, int64_t j0, int64_t n, const Team& team, int64_t blocks) {
    Sweep<StepFrom>::run({&a, j0}, n, team.unit_begin, team.unit_end, blocks);
  }

  static void load_state(const Args& a, const Team& team) {
    const Sequence<T>& q = *a.q;
    for (int64_t j = team.sample_begin; j < team.sample_end; ++j)
      for (int64_t unit = team.unit_begin; unit < team.unit_end; ++unit) {
        const int64_t b = q.ragged->sample[j], at = j * a.space.row + unit * L;
        const auto state = [&](const StateView<const T>& v) {
          return v.data ? load_within(v.data + b * v.stride, unit * L, q.H) : V(T(0));
        };
        state(q.h0).store(q.workspace + a.space.h + at);
        if (C::layout.has_cell_state) state(q.c0).store(q.workspace + a.space.c + at);
      }
  }

  // A sample's last h stands in the buffer that its last step wrote.
  static void store_state(const Args& a, const Team& team) {
    const Sequence<T>& q = *a.q;
    for (int64_t j = team.sample_begin; j < team.sample_end; ++j)
      for (int64_t unit = team.unit_begin; unit < team.unit_end; ++unit) {
        const int64_t b = q.ragged->sample[j], at = j * a.space.row + unit * L;
        const T* h = q.workspace + a.space.h + (q.ragged->length[j] & 1) * q.ragged->batch * a.space.row;
        store_within(V::load(h + at), q.hn.data + b * q.hn.stride, unit * L, q.H);
        if (C::layout.has_cell_state)
          store_within(V::load(q.workspace + a.space.c + at), q.cn.data + b * q.cn.stride, unit * L, q.H);
      }
  }
};

// Backpropagation through time: dL/dz of every step, in place of the saved gates.
//   dh(s) = dy(s) + bypass(s+1) + W_hh^T dz(s+1)        dz(s), dc, bypass(s) = cell.backward(dh(s))
template <class C, class T> struct BackwardPass {
  using V = Vec<T>;
  static constexpr int L = V::lanes, G = C::layout.gates, S = C::slots, rec = C::layout.recurrent_slot;
  static constexpr int64_t runs_per_block = transposed_units<C, T>;

  struct Args {
    const Sequence<T>* q;
    int64_t units, row, total_rows;
    T *carry, *dc;    // (B, row): the part of dL/dh that does not come through W_hh, and dL/dc
    int64_t step;     // -1: the initial state
    int64_t j0, runs; // runs: U, or 0 for samples without a later step
  };

  struct Step {
    using Args = BackwardPass::Args;
    static constexpr int gates = 1;
    template <int Rows, int Units> static void tile(const Args& a, int64_t first, int64_t unit, int64_t block) {
      const Sequence<T>& q = *a.q;
      const int64_t j0 = a.j0 + first, R = a.total_rows;
      const int64_t run0 = block * runs_per_block, run1 = smaller(a.runs, run0 + runs_per_block);
      Tile<T, Rows, Units, 1> t;
      const T* dz[Rows];
#pragma GCC unroll 1
      for (int r = 0; r < Rows; ++r) {
        dz[r] = q.gates + ((run0 * R + q.ragged->first[a.step + 1] + j0 + r) * S + rec) * L;
        for (int u = 0; u < Units; ++u) {
          V dh = V::load(a.carry + (j0 + r) * a.row + (unit + u) * L);
          if (block == 0 && a.step >= 0 && q.dy.data)
            dh = dh + load_within(row_of(q.dy, q, a.step, j0 + r), (unit + u) * L, q.H);
          t.acc[r][u] = dh;
        }
      }
      const int64_t K = a.units * G * L;
      t.multiply(dz, {run1 - run0, G * L, R * S * L, 1}, q.recurrent_weights_t + (unit * K + run0 * G * L) * L, L,
                 K * L);
#pragma GCC unroll 1
      for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 1
        for (int u = 0; u < Units; ++u) {
          if (run1 < a.runs)
            t.acc[r][u].store(a.carry + (j0 + r) * a.row + (unit + u) * L);
          else if (a.step >= 0)
            finish(a, t.acc[r][u], j0 + r, unit + u);
          else
            store_within(t.acc[r][u], q.dh0.data + q.ragged->sample[j0 + r] * q.dh0.stride, (unit + u) * L, q.H);
        }
    }

    static FUSEDRNN_INLINE void finish(const Args& a, V dh, int64_t j, int64_t unit) {
      const Sequence<T>& q = *a.q;
      const Ragged& ragged = *q.ragged;
      const int64_t b = ragged.sample[j], at = j * a.row + unit * L;
      const int64_t here = unit * a.total_rows + ragged.first[a.step] + j;
      V s[S], h0(T(0)), c0(T(0)), c1(T(0)), dc(T(0));
      for (int i = 0; i < S; ++i) s[i] = V::load(q.gates + (here * S + i) * L);
      if constexpr (C::layout.has_cell_state) {
        c1 = V::load(q.cells + here * L);
        if (a.step > 0)
          c0 = V::load(q.cells + (unit * a.total_rows + ragged.first[a.step - 1] + j) * L);
        else if (q.c0.data)
          c0 = load_within(q.c0.data + b * q.c0.stride, unit * L, q.H);
        dc = V::load(a.dc + at);
      } else if (const T* h = previous_h(q, a.step, j)) {
        h0 = load_within(h, unit * L, q.H);
      }
      const V bypass = C::backward(s, h0, c0, c1, dh, dc);
      for (int i = 0; i < S; ++i) s[i].store(q.gates + (here * S + i) * L);
      bypass.store(a.carry + at);
      if constexpr (C::layout.has_cell_state) dc.store(a.dc + at);
    }
  };

  static bool run(const Sequence<T>& q, const Team& team) {
    const Ragged& ragged = *q.ragged;
    const Workspace<C, T> space(q, team.size);
    Args a{&q,   space.units, space.row, ragged.first[ragged.steps], q.workspace + space.h, q.workspace + space.c,
           0,    0,           0};
    load_state(a, team);
    int64_t later = 0;  // samples that have a later step
    for (a.step = ragged.steps - 1; a.step >= -1; --a.step) {
      const int64_t now = a.step >= 0 ? count(ragged, a.step) : ragged.batch;
      sweep(a, team, 0, later, space.units);
      sweep(a, team, later, now, 0);
      if (team.shares_steps && !team.barrier(team.context)) return false;
      if ((a.step & 15) == 0 && !team.poll(team.context)) return false;
      later = now;
    }
    if constexpr (C::layout.has_cell_state) store_dc0(a, team);
    return true;
  }

 private:
  // The samples [low, high) that are this thread's.
  static void sweep(Args& a, const Team& team, int64_t low, int64_t high, int64_t runs) {
    if (low < team.sample_begin) low = team.sample_begin;
    if (high > team.sample_end) high = team.sample_end;
    a.j0 = low;
    a.runs = runs;
    const int64_t blocks = runs ? ceil_div(runs, runs_per_block) : 1;
    Sweep<Step>::run(a, high - low, team.unit_begin, team.unit_end, blocks);
  }

  static void load_state(const Args& a, const Team& team) {
    const Sequence<T>& q = *a.q;
    for (int64_t j = team.sample_begin; j < team.sample_end; ++j)
      for (int64_t unit = team.unit_begin; unit < team.unit_end; ++unit) {
        const int64_t b = q.ragged->sample[j], at = j * a.row + unit * L;
        const auto state = [&](const StateView<const T>& v) {
          return v.data ? load_within(v.data + b * v.stride, unit * L, q.H) : V(T(0));
        };
        state(q.dhn).store(a.carry + at);
        if (C::layout.has_cell_state) state(q.dcn).store(a.dc + at);
      }
  }

  static void store_dc0(const Args& a, const Team& team) {
    const Sequence<T>& q = *a.q;
    for (int64_t j = team.sample_begin; j < team.sample_end; ++j)
      for (int64_t unit = team.unit_begin; unit < team.unit_end; ++unit)
        store_within(V::load(a.dc + j * a.row + unit * L), q.dc0.data + q.ragged->sample[j] * q.dc0.stride, unit * L,
                     q.H);
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
