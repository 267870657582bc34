// Steps of optimizers as Python sees them: judge, release the GIL and call.
#include <optional>

#include "bind/arrays.h"
#include "bind/gil.h"
#include "bind/register.h"
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
    auto a = py::reinterpret_borrow<py::array>(object);
    if (a.dtype().kind() != 'f' || a.itemsize() % 4)
      throw TypeMismatch("fingerprint: an array has dtype " + dtype_name(a) + "; expected floats");
    held.push_back(a.flags() & py::array::c_style ? a : contiguous_copy(a));
    parts.push_back({held.back().data(), held.back().nbytes()});
  }
  uint64_t sum = 0;
  without_gil([&] { sum = fingerprint(parts); });
  return sum;
}

}  // namespace

void register_update(py::module_& m) {
  m.def("update", &update, py::arg("rule"), py::arg("items"));
  m.def("fingerprint", &fingerprint_of, py::arg("arrays"));
  m.def("square_sum", &square_sum_of, py::arg("x"));
}

}  // namespace fusedrnn
