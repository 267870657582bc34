// Steps of optimizers and other passes of training as Python sees them: judge, release the GIL and call.
#include <functional>
#include <optional>

#include "bind/arrays.h"
#include "bind/gil.h"
#include "bind/register.h"
#include "cpu/alignments.h"
#include "cpu/rows.h"
#include "cpu/update.h"

namespace fusedrnn {
namespace {

constexpr const char* op = "update";

struct NamedRule {
  const char* name;
  int states;
};
constexpr NamedRule rules[rule_count] = {
    {"sgd", 0}, {"momentum", 1}, {"rmsprop", 1}, {"rmsprop_momentum", 2}, {"adam", 2}};

struct NamedNumber {
  const char* name;
  double Rates::* where;
};
constexpr NamedNumber numbers[] = {
    {"lr", &Rates::lr},
    {"shrink", &Rates::shrink},
    {"decay", &Rates::decay},
    {"momentum", &Rates::momentum},
    {"along", &Rates::along},
    {"ahead", &Rates::ahead},
    {"mean_share", &Rates::mean_share},
    {"square_kept", &Rates::square_kept},
    {"square_share", &Rates::square_share},
    {"root_scale", &Rates::root_scale},
    {"eps", &Rates::eps},
};

template <class Entry, size_t n>
int place_of(const char* argument, const Entry (&table)[n], const std::string& name) {
  for (size_t i = 0; i < n; ++i)
    if (name == table[i].name) return static_cast<int>(i);
  fail(op, argument, "is '" + name + "'", "one that core/update.h has");
}

bool same_shape(const py::array& a, const py::array& b) {
  return a.ndim() == b.ndim() && std::equal(a.shape(), a.shape() + a.ndim(), b.shape());
}

// Memory of a plain array of T, C-ordered and aligned, or null.
template <class T> T* plain(const py::handle& object, bool written) {
  if (Py_TYPE(object.ptr()) != py::detail::npy_api::get().PyArray_Type_) return nullptr;
  auto* const a = py::detail::array_proxy(object.ptr());
  const int wanted = int{py::array::c_style} | int{py::detail::npy_api::NPY_ARRAY_ALIGNED_} |
                     (written ? int{py::detail::npy_api::NPY_ARRAY_WRITEABLE_} : 0);
  return a->descr == descriptor<T>() && (a->flags & wanted) == wanted ? reinterpret_cast<T*>(a->data) : nullptr;
}

// (parameter, gradient, state ..., rows or None), if all of them are plain arrays of T of one shape.
template <class T> std::optional<Update<T>> update_of(const py::tuple& item) {
  const size_t states = item.size() - 3;
  Update<T> u{plain<T>(item[0], true), plain<T>(item[1], false), {}, 0, 0, nullptr};
  bool fits = u.param && u.grad;
  for (size_t i = 0; i < states; ++i) fits = (u.state[i] = plain<T>(item[2 + i], true)) && fits;
  if (!fits) return {};
  const auto param = py::reinterpret_borrow<py::array>(item[0]);
  for (size_t i = 1; i < 2 + states; ++i)
    if (!same_shape(param, py::reinterpret_borrow<py::array>(item[i]))) return {};
  u.rows = param.ndim() ? param.shape(0) : 1;
  u.width = u.rows ? param.size() / u.rows : 0;
  if (const py::object rows = item[2 + states]; !rows.is_none()) {
    u.chosen = plain<int64_t>(rows, false);
    if (!u.chosen) throw TypeMismatch("update: rows is no plain array of int64");
    const int64_t count = py::reinterpret_borrow<py::array>(rows).size();
    for (int64_t i = 0; i < count; ++i)
      if (u.chosen[i] < 0 || u.chosen[i] >= u.rows || (i && u.chosen[i] <= u.chosen[i - 1]))
        fail(op, "rows", "has " + std::to_string(u.chosen[i]) + " at " + std::to_string(i),
             "ascending numbers below " + std::to_string(u.rows));
    u.rows = count;
  }
  return u;
}

// Returns the numbers of the items whose arrays the kernels cannot change where they are; nothing has become of those.
py::list update(const std::string& rule_name, const py::list& items, const py::kwargs& given) {
  const int rule = place_of("rule", rules, rule_name);
  const size_t parts = 3 + static_cast<size_t>(rules[rule].states);
  Rates rates;
  for (const auto& [name, value] : given)
    rates.*numbers[place_of("number", numbers, py::cast<std::string>(name))].where = py::cast<double>(value);
  py::list left;
  std::vector<Update<float>> single;
  std::vector<Update<double>> wide;
  for (size_t i = 0; i < items.size(); ++i) {
    const py::tuple item = items[i];
    if (item.size() != parts)
      fail(op, "item", "has " + std::to_string(item.size()) + " parts", std::to_string(parts) + " for this rule");
    if (const auto u = update_of<float>(item))
      single.push_back(*u);
    else if (const auto v = update_of<double>(item))
      wide.push_back(*v);
    else
      left.append(i);
  }
  without_gil([&] {
    if (!single.empty()) run_update<float>(Rule(rule), rates, single);
    if (!wide.empty()) run_update<double>(Rule(rule), rates, wide);
  });
  return left;
}

// None of an array that is not plain.
py::object square_sum_of(const py::array& x) {
  const float* const single = plain<float>(x, false);
  const double* const wide = plain<double>(x, false);
  if (!single && !wide) return py::none();
  double sum = 0;
  without_gil([&] { sum = single ? square_sum(single, x.size()) : square_sum(wide, x.size()); });
  return py::float_(sum);
}

// Of the elements of arrays of floats, one array after the other, whatever their order in memory.
uint64_t fingerprint_of(const py::list& arrays) {
  std::vector<py::array> held;
  std::vector<Bytes> parts;
  for (const py::handle object : arrays) {
    if (!py::isinstance<py::array>(object)) throw TypeMismatch("fingerprint: arrays has what is none");
    auto a = py::reinterpret_borrow<py::array>(object);
    if (a.dtype().kind() != 'f' || a.itemsize() % 4)
      throw TypeMismatch("fingerprint: an array has dtype " + dtype_name(a) + "; expected floats");
    refuse_repetition("fingerprint", "arrays", a);
    held.push_back(a.flags() & py::array::c_style ? a : contiguous_copy(a));
    parts.push_back({held.back().data(), held.back().nbytes()});
  }
  uint64_t sum = 0;
  without_gil([&] { sum = fingerprint(parts); });
  return sum;
}

// What follows returns false, with nothing changed, unless the arrays are plain and fit together. One signature for all
// makes pybind11's code for it once.

// Compiled once for all that give it up.
void released(const std::function<void()>& body) { without_gil(body); }

// Arrays that a function was given.
struct Given {
  const py::tuple& arrays;

  const py::detail::PyArray_Proxy& operator[](size_t i) const {
    return *py::detail::array_proxy(PyTuple_GET_ITEM(arrays.ptr(), static_cast<py::ssize_t>(i)));
  }
  bool are(size_t count) const {
    if (arrays.size() != count) return false;
    return std::all_of(arrays.begin(), arrays.end(), [](const py::handle& each) {
      return each.is_none() || Py_TYPE(each.ptr()) == py::detail::npy_api::get().PyArray_Type_;
    });
  }
  // The size of an axis; -1 unless there are `rank`.
  int64_t size(size_t i, int axis, int rank) const {
    const py::handle each = PyTuple_GET_ITEM(arrays.ptr(), static_cast<py::ssize_t>(i));
    return !each.is_none() && (*this)[i].nd == rank ? (*this)[i].dimensions[axis] : -1;
  }
  // Memory of a plain array of this shape, or null.
  template <class T> const T* read(size_t i, std::initializer_list<int64_t> shape) const {
    const py::handle each = PyTuple_GET_ITEM(arrays.ptr(), static_cast<py::ssize_t>(i));
    return is_plain<T>(each, shape) ? reinterpret_cast<const T*>((*this)[i].data) : nullptr;
  }
  template <class T> T* write(size_t i, std::initializer_list<int64_t> shape) const {
    const bool fits = read<T>(i, shape) && ((*this)[i].flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_);
    return fits ? reinterpret_cast<T*>((*this)[i].data) : nullptr;
  }
  // Numbers in [0, end).
  const int64_t* rows(size_t i, int64_t count, int64_t end) const {
    const int64_t* const row = read<int64_t>(i, {count});
    const auto inside = [&](int64_t each) { return each >= 0 && each < end; };
    return row && std::all_of(row, row + count, inside) ? row : nullptr;
  }
};

// (table, rows, values)
template <class T> bool add_rows_of(const Given& given) {
  const int64_t height = given.size(0, 0, 2), width = given.size(0, 1, 2), count = given.size(2, 0, 2);
  T* const table = given.write<T>(0, {height, width});
  const int64_t* const rows = given.rows(1, count, height);
  const T* const values = given.read<T>(2, {count, width});
  if (!table || !rows || !values) return false;
  released([&] { add_rows(table, width, rows, count, values); });
  return true;
}

// (shifted, chosen, losses, x at the beginning, and at the end factors or None)
template <class T> bool softmax_of(const Given& given, bool begins, double scale) {
  SoftmaxRows<T> rows{given.size(0, 0, 2), given.size(0, 1, 2), nullptr, nullptr, nullptr};
  rows.shifted = given.write<T>(0, {rows.count, rows.size});
  rows.chosen = given.rows(1, rows.count, rows.size);
  rows.losses = given.write<T>(2, {rows.count});
  const bool alike = !begins && given.arrays[3].is_none();
  const T* const more = begins ? given.read<T>(3, {rows.count, rows.size}) : given.read<T>(3, {rows.count});
  if (!rows.shifted || !rows.chosen || !rows.losses || !(more || alike)) return false;
  released([&] { begins ? begin_softmax(rows, more) : end_softmax(rows, more, T(scale)); });
  return true;
}

bool add_to_rows(const py::tuple& arrays, double) {
  const Given given{arrays};
  return given.are(3) && (add_rows_of<float>(given) || add_rows_of<double>(given));
}

bool begin(const py::tuple& arrays, double) {
  const Given given{arrays};
  return given.are(4) && (softmax_of<float>(given, true, 0) || softmax_of<double>(given, true, 0));
}

bool end(const py::tuple& arrays, double scale) {
  const Given given{arrays};
  return given.are(4) && (softmax_of<float>(given, false, scale) || softmax_of<double>(given, false, scale));
}

// (emissions, allowed, before, after, scales)
bool align_columns(const py::tuple& arrays, double rescaled) {
  const Given given{arrays};
  if (!given.are(5) || !(rescaled >= 1)) return false;
  Alignments a{};
  a.steps = given.size(0, 0, 3), a.states = given.size(0, 1, 3), a.columns = given.size(0, 2, 3);
  a.emissions = given.read<double>(0, {a.steps, a.states, a.columns});
  a.allowed = given.read<double>(1, {a.states, a.columns});
  a.before = given.write<double>(2, {a.steps, a.states, a.columns});
  a.after = given.write<double>(3, {a.steps, a.states + 2, a.columns});
  a.scales = given.write<double>(4, {a.steps, a.columns});
  a.rescaled = static_cast<int64_t>(rescaled);
  if (!a.emissions || !a.allowed || !a.before || !a.after || !a.scales) return false;
  released([&] { align(a); });
  return true;
}

}  // namespace

void register_update(py::module_& m) {
  m.def("update", &update, py::arg("rule"), py::arg("items"));
  m.def("fingerprint", &fingerprint_of, py::arg("arrays"));
  m.def("square_sum", &square_sum_of, py::arg("x"));
  m.def("add_to_rows", &add_to_rows);
  m.def("begin_softmax", &begin);
  m.def("end_softmax", &end);
  m.def("align", &align_columns);
}

}  // namespace fusedrnn
