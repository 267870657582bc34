// Calls by address, for a library whose arrays are not NumPy's. It judges shapes, dtypes and devices itself, allocates
// what comes out, and keeps all of it alive; here nothing but the number of weights is checked.
#include <pybind11/stl.h>

#include <mutex>

#include "bind/arrays.h"
#include "bind/exclusive_use.h"
#include "bind/gil.h"
#include "bind/problem_of_stack.h"
#include "bind/register.h"
#include "core/process_locks.h"
#include "cpu/stack.h"
#include "cpu/threads/thread_pool.h"

namespace fusedrnn {
namespace {

// The rows of a batch and what they belong to; made once for a forward and its backward.
struct Rows {
  int64_t T, B;
  std::shared_ptr<const RowOrder> order;
  int64_t places() const { return order->is_packed() ? order->rows() : T * B; }
};

int64_t number(const py::tuple& from, size_t i) { return py::cast<int64_t>(from[i]); }
template <class T> T* address(const py::tuple& from, size_t i) { return reinterpret_cast<T*>(number(from, i)); }
// (address, distance of steps, distance of samples) in elements.
template <class T> TimeMajorView<T> sequence_at(const py::tuple& view) {
  return {address<T>(view, 0), number(view, 1), number(view, 2)};
}
// Slab of a dense (layers*directions, B, H) state, or of none.
template <class T> StateView<T> state_at(T* all, const Problem& p, int64_t slab) {
  return {all ? all + slab * p.B * p.hidden_size : nullptr, p.hidden_size};
}

class AddressTape {
 public:
  virtual int64_t batch() const = 0;
  virtual ~AddressTape() = default;
  virtual void backward(py::tuple x, py::tuple y, py::tuple states, py::tuple dy, py::tuple dfinal, py::tuple dx,
                        py::tuple dstates, py::tuple gradients, int threads) = 0;
};

class AddressStack {
 public:
  virtual ~AddressStack() = default;
  virtual int64_t saved_per_row() const = 0;  // elements of gates and cells that a training call keeps
  virtual std::shared_ptr<Rows> rows(int64_t T, int64_t B, py::object lengths, py::object resets) = 0;
  virtual std::shared_ptr<Rows> packed_rows(std::vector<int64_t> sizes) = 0;
  virtual py::object forward(const std::shared_ptr<Rows>& rows, py::tuple weights, py::tuple x, py::tuple y,
                             py::tuple states, py::tuple final, bool training, bool keeps_y, int64_t saved,
                             int threads) = 0;
  virtual std::unique_ptr<AddressTape> tape(const std::shared_ptr<Rows>& rows, py::tuple weights, bool keeps_y,
                                            int64_t saved) = 0;
};

// A training call. Its memory, of the saved gates and of the outputs of all layers that are not the caller's, is its
// own or somebody else's. A backward consumes the gates; the next one computes the forward again.
template <class T> class TapeAt : public AddressTape {
 public:
  TapeAt(const Problem& problem, std::shared_ptr<Rows> rows, bool keeps_y, T* saved)
      : rows_(std::move(rows)), keeps_y_(keeps_y) {
    call.problem = problem;
    call.rows = rows_->order;
    call.slabs.resize(static_cast<size_t>(problem.slabs()));
    if (!saved) {
      memory_ = Buffer<T>(size());
      saved = memory_.get();
    }
    keep_for_backward(call, saved);
    saved += saved_size(call);
    for (int64_t i = 0; i < outputs_kept(); ++i, saved += output_size()) {
      const int64_t width = problem.num_directions * problem.hidden_size;
      call.y.push_back({saved, problem.B * width, width});
    }
  }

  int64_t size() const { return saved_size(call) + outputs_kept() * output_size(); }
  int64_t batch() const override { return call.problem.B; }

  ForwardCall<T> call;
  bool consumed = false;

  void backward(py::tuple x, py::tuple y, py::tuple states, py::tuple dy, py::tuple dfinal, py::tuple dx,
                py::tuple dstates, py::tuple gradients, int threads) override {
    const Turn turn(mutex_);
    const Problem& p = call.problem;
    point_to(x, y, states);
    BackwardCall<T> back{};
    back.slabs.resize(call.slabs.size());
    back.dy = sequence_at<const T>(dy);
    back.dx = sequence_at<T>(dx);
    // The kernels write the gradients of the initial states in any case.
    const int64_t state_size = p.slabs() * p.B * p.hidden_size;
    Buffer<T> unwanted;
    if (!address<T>(dstates, 0) || (p.layout.has_cell_state && !address<T>(dstates, 1)))
      unwanted = Buffer<T>(2 * state_size);
    T* const dh0 = address<T>(dstates, 0) ? address<T>(dstates, 0) : unwanted.get();
    T* const dc0 = !p.layout.has_cell_state ? nullptr
                   : address<T>(dstates, 1) ? address<T>(dstates, 1)
                                            : unwanted.get() + state_size;
    const int per_slab = p.weights_per_slab();
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      auto& to = back.slabs[static_cast<size_t>(slab)];
      to.dhn = state_at(address<const T>(dfinal, 0), p, slab);
      to.dcn = state_at(address<const T>(dfinal, 1), p, slab);
      to.dh0 = state_at(dh0, p, slab);
      to.dc0 = state_at(dc0, p, slab);
      to.dh_restart = state_at(address<T>(dstates, 2), p, slab);
      to.dc_restart = state_at(address<T>(dstates, 3), p, slab);
      T* pointers[4] = {};
      for (int which = 0; which < per_slab; ++which) {
        pointers[which] = address<T>(gradients, static_cast<size_t>(slab * per_slab + which));
        if (!pointers[which]) continue;
        int64_t size = 1;
        for (int64_t n : p.weight_shape(slab / p.num_directions, which)) size *= n;
        std::fill_n(pointers[which], size, T(0));
      }
      to.weight_ih = pointers[0], to.weight_hh = pointers[1], to.bias_ih = pointers[2], to.bias_hh = pointers[3];
    }
    call.threads = threads;
    without_gil([&] {
      const PreferOpenMP prefer;
      if (consumed) restore_gates();
      consumed = true;
      run_backward(call, back, python_interrupted);
    });
  }

  // What forward and backward are given alike: it may lie elsewhere in backward.
  void point_to(const py::tuple& x, const py::tuple& y, const py::tuple& states) {
    const Problem& p = call.problem;
    call.x = sequence_at<const T>(x);
    if (!keeps_y_) {
      call.y.resize(static_cast<size_t>(p.num_layers - 1));
      call.y.push_back(sequence_at<T>(y));
    }
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      auto& to = call.slabs[static_cast<size_t>(slab)];
      to.h0 = state_at(address<const T>(states, 0), p, slab);
      to.c0 = state_at(address<const T>(states, 1), p, slab);
      to.h_restart = state_at(address<const T>(states, 2), p, slab);
      to.c_restart = state_at(address<const T>(states, 3), p, slab);
    }
  }

  // y as the caller wants it, of what is kept here in (time, sample) order.
  void copy_y_to(const TimeMajorView<T>& to) const {
    const Problem& p = call.problem;
    const TimeMajorView<T>& from = call.y.back();
    if (rows_->order->is_packed()) {
      std::copy_n(from.data, output_size(), to.data);
      return;
    }
    for (int64_t t = 0; t < p.T; ++t)
      for (int64_t b = 0; b < p.B; ++b)
        std::copy_n(from.data + t * from.step + b * from.batch, from.batch, to.data + t * to.step + b * to.batch);
  }

 private:
  // One backward at a time; torch lets several threads walk one graph. Who waits does not hold the GIL.
  class Turn {
   public:
    explicit Turn(std::mutex& mutex) : mutex_(mutex) {
      without_gil([&] { mutex_.lock(); });
    }
    ~Turn() { mutex_.unlock(); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    std::mutex& mutex_;
  };

  std::mutex mutex_;
  std::shared_ptr<Rows> rows_;
  bool keeps_y_;
  Buffer<T> memory_;

  int64_t outputs_kept() const { return call.problem.num_layers - 1 + (keeps_y_ ? 1 : 0); }
  int64_t output_size() const { return rows_->places() * call.problem.num_directions * call.problem.hidden_size; }

  void restore_gates() {
    const Problem& p = call.problem;
    const int64_t slab_size = p.B * p.hidden_size;
    const Buffer<T> scratch(2 * slab_size * p.slabs());
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      auto& to = call.slabs[static_cast<size_t>(slab)];
      to.hn = {scratch.get() + 2 * slab * slab_size, p.hidden_size};
      if (p.layout.has_cell_state) to.cn = {scratch.get() + (2 * slab + 1) * slab_size, p.hidden_size};
    }
    run_forward(call, python_interrupted);
  }
};

template <class T> class AddressStackOf : public AddressStack {
 public:
  explicit AddressStackOf(Problem problem) : p_(std::move(problem)) {
    for (int64_t slab = 0; slab < p_.slabs(); ++slab)
      caches_.push_back(std::make_unique<WeightCache<T>>(p_, slab / p_.num_directions));
  }

  int64_t saved_per_row() const override {
    const int64_t lanes = kernels<T>().lanes, units = (p_.hidden_size + lanes - 1) / lanes * lanes;
    return p_.slabs() * units * (p_.layout.slots + (p_.layout.has_cell_state ? 1 : 0));
  }

  std::shared_ptr<Rows> rows(int64_t T_, int64_t B, py::object lengths, py::object resets) override {
    const bool all = lengths.is_none() && resets.is_none();
    if (all) {
      const InsteadOfGil lock(weights_lock(this));
      if (full_ && full_->T == T_ && full_->B == B) return full_;
    }
    const Problem p = extent(T_, B);
    std::vector<int64_t> ends;
    if (!lengths.is_none()) ends = read_lengths(p, lengths);
    py::array marks;
    RestartMarks restarts{};
    if (!resets.is_none()) {
      marks = read_resets(p, resets);
      restarts = restart_marks(marks, false);
    }
    auto made = std::make_shared<Rows>();
    *made = {
        T_, B,
        std::make_shared<RowOrder>(p, lengths.is_none() ? nullptr : &ends, resets.is_none() ? nullptr : &restarts)};
    if (all) {
      const InsteadOfGil lock(weights_lock(this));
      full_ = made;
    }
    return made;
  }

  std::shared_ptr<Rows> packed_rows(std::vector<int64_t> sizes) override {
    const Problem p = extent(static_cast<int64_t>(sizes.size()), sizes.empty() ? 0 : sizes[0]);
    auto made = std::make_shared<Rows>();
    *made = {p.T, p.B, std::make_shared<RowOrder>(p, RowOrder::Packed{sizes})};
    return made;
  }

  py::object forward(const std::shared_ptr<Rows>& rows, py::tuple weights, py::tuple x, py::tuple y, py::tuple states,
                     py::tuple final, bool training, bool keeps_y, int64_t saved, int threads) override {
    const std::vector<WeightArrays<T>> arrays = weight_arrays(weights);
    const TimeMajorView<T> out = sequence_at<T>(y);
    std::unique_ptr<TapeAt<T>> tape;
    ForwardCall<T> inference;
    std::vector<Buffer<T>> between;
    if (training) {
      tape = std::make_unique<TapeAt<T>>(extent(rows->T, rows->B), rows, keeps_y, reinterpret_cast<T*>(saved));
      tape->point_to(x, y, states);
    } else {
      inference.problem = extent(rows->T, rows->B);
      inference.rows = rows->order;
      inference.x = sequence_at<const T>(x);
      inference.slabs.resize(static_cast<size_t>(p_.slabs()));
      for (int64_t l = 0; l + 1 < p_.num_layers; ++l) {
        between.emplace_back(rows->places() * width());
        inference.y.push_back({between.back().get(), rows->B * width(), width()});
      }
      inference.y.push_back(out);
    }
    ForwardCall<T>& call = training ? tape->call : inference;
    const Problem& p = call.problem;
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      auto& to = call.slabs[static_cast<size_t>(slab)];
      if (!training) {
        to.h0 = state_at(address<const T>(states, 0), p, slab);
        to.c0 = state_at(address<const T>(states, 1), p, slab);
        to.h_restart = state_at(address<const T>(states, 2), p, slab);
        to.c_restart = state_at(address<const T>(states, 3), p, slab);
      }
      to.hn = state_at(address<T>(final, 0), p, slab);
      to.cn = state_at(address<T>(final, 1), p, slab);
    }
    call.threads = threads;
    without_gil([&] {
      const PreferOpenMP prefer;
      for (size_t slab = 0; slab < arrays.size(); ++slab)
        call.slabs[slab].weights = caches_[slab]->get(arrays[slab], training, 0, python_interrupted);
      run_forward(call, python_interrupted);
      if (training && keeps_y) tape->copy_y_to(out);
    });
    if (!training) return py::none();
    return py::cast(std::unique_ptr<AddressTape>(std::move(tape)));
  }

  std::unique_ptr<AddressTape> tape(const std::shared_ptr<Rows>& rows, py::tuple weights, bool keeps_y,
                                    int64_t saved) override {
    const std::vector<WeightArrays<T>> arrays = weight_arrays(weights);
    auto made = std::make_unique<TapeAt<T>>(extent(rows->T, rows->B), rows, keeps_y, reinterpret_cast<T*>(saved));
    without_gil([&] {
      for (size_t slab = 0; slab < arrays.size(); ++slab)
        made->call.slabs[slab].weights = caches_[slab]->get(arrays[slab], true, 0, python_interrupted);
    });
    return made;
  }

 private:
  int64_t width() const { return p_.num_directions * p_.hidden_size; }

  Problem extent(int64_t T_, int64_t B) const {
    Problem p = p_;
    p.set_extent(T_, B);
    return p;
  }

  std::vector<WeightArrays<T>> weight_arrays(const py::tuple& weights) const {
    const size_t per_slab = static_cast<size_t>(p_.weights_per_slab()), slabs = static_cast<size_t>(p_.slabs());
    if (weights.size() != slabs * per_slab)
      throw ShapeError(p_.op + ": weights has " + std::to_string(weights.size()) + " addresses; expected " +
                       std::to_string(slabs * per_slab));
    std::vector<WeightArrays<T>> out;
    for (size_t slab = 0; slab < slabs; ++slab) {
      const T* pointers[4] = {};
      for (size_t which = 0; which < per_slab; ++which)
        pointers[which] = address<const T>(weights, slab * per_slab + which);
      out.push_back({pointers[0], pointers[1], pointers[2], pointers[3]});
    }
    return out;
  }

  const Problem p_;
  std::vector<std::unique_ptr<WeightCache<T>>> caches_;
  std::shared_ptr<Rows> full_;  // of the last call without lengths
};

std::unique_ptr<AddressStack> make_stack(const std::string& cell, const std::string& dtype, int64_t input_size,
                                         int64_t hidden_size, int64_t num_layers, int64_t num_directions, bool bias,
                                         const std::string& compute_dtype) {
  const Problem p =
      problem_of_stack(cell, dtype, input_size, hidden_size, num_layers, num_directions, false, bias, compute_dtype);
  if (dtype == "float32") return std::make_unique<AddressStackOf<float>>(p);
  return std::make_unique<AddressStackOf<double>>(p);
}

}  // namespace

void register_addresses(py::module_& m) {
  py::class_<Rows, std::shared_ptr<Rows>>(m, "Rows").def_readonly("batch", &Rows::B);
  py::class_<AddressTape>(m, "AddressTape")
      .def_property_readonly("batch", &AddressTape::batch)
      .def("backward", &AddressTape::backward, py::arg("x"), py::arg("y"), py::arg("states"), py::arg("dy"),
           py::arg("dfinal"), py::arg("dx"), py::arg("dstates"), py::arg("gradients"), py::arg("threads"));
  py::class_<AddressStack>(m, "AddressStack")
      .def(py::init(&make_stack), py::arg("cell"), py::arg("dtype"), py::arg("input_size"), py::arg("hidden_size"),
           py::arg("num_layers"), py::arg("num_directions"), py::arg("bias"), py::arg("compute_dtype") = "")
      .def_property_readonly("saved_per_row", &AddressStack::saved_per_row)
      .def("rows", &AddressStack::rows, py::arg("time"), py::arg("batch"), py::arg("lengths") = py::none(),
           py::arg("resets") = py::none())
      .def("packed_rows", &AddressStack::packed_rows, py::arg("batch_sizes"))
      .def("forward", &AddressStack::forward, py::arg("rows"), py::arg("weights"), py::arg("x"), py::arg("y"),
           py::arg("states"), py::arg("final"), py::arg("training"), py::arg("keeps_y"), py::arg("saved"),
           py::arg("threads"))
      .def("tape", &AddressStack::tape, py::arg("rows"), py::arg("weights"), py::arg("keeps_y"), py::arg("saved"));
}

}  // namespace fusedrnn
