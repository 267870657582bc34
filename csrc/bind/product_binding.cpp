// Products of matrices as Python sees them: judge, allocate, release the GIL and call.
#include <limits>

#include "bind/arrays.h"
#include "bind/gil.h"
#include "bind/register.h"
#include "cpu/product.h"

namespace fusedrnn {
namespace {

constexpr const char* op = "row_products";

void judge(const Shape& x, const Shape& weight) {
  if (x.size() != 2 && x.size() != 3)
    fail(op, "x", "has shape " + to_string(x), "(rows, inputs) or (items, rows, inputs)");
  const bool fits = weight.size() == x.size() && weight.back() == x.back() && (x.size() == 2 || weight[0] == x[0]);
  if (!fits)
    fail(op, "weight", "has shape " + to_string(weight),
         (x.size() == 2 ? "(outputs, inputs) = (outputs, "
                        : "(items, outputs, inputs) = (" + std::to_string(x[0]) + ", outputs, ") +
             std::to_string(x.back()) + ")");
}

// Whatever its strides.
template <class T> py::array operand(const py::array& a) { return addressable<T>(a) ? a : contiguous_copy(a); }

template <class T> Factor<T> factor(const py::array& a) {
  const int rows = static_cast<int>(a.ndim()) - 2;
  return {static_cast<const T*>(a.data()), rows ? stride<T>(a, 0) : 0, stride<T>(a, rows), stride<T>(a, rows + 1)};
}

template <class T> py::array row_products_of(const py::handle& given_x, const py::handle& given_weight) {
  const py::array view_x = typed<T>(op, "x", given_x), view_weight = typed<T>(op, "weight", given_weight);
  Shape shape = shape_of(view_x);
  judge(shape, shape_of(view_weight));
  refuse_repetition(op, "x", view_x);
  refuse_repetition(op, "weight", view_weight);
  const size_t last = shape.size() - 1;
  Product<T> product{};
  product.items = last == 2 ? shape[0] : 1;
  product.rows = shape[last - 1];
  product.K = shape[last];
  product.columns = shape[last] = shape_of(view_weight)[last - 1];
  if (double(product.items) * double(product.rows) * double(product.columns) * sizeof(T) >
      double(std::numeric_limits<int64_t>::max()))
    throw std::bad_alloc();  // of broadcast views
  const py::array x = operand<T>(view_x), weight = operand<T>(view_weight);
  product.x = factor<T>(x);
  product.weight = factor<T>(weight);
  py::array y = new_array<T>(shape);
  product.y = static_cast<T*>(y.mutable_data());
  without_gil([&] { run_product(product, python_interrupted); });
  return y;
}

py::array row_products(const py::handle& x, const py::handle& weight) {
  const bool wide =
      py::isinstance<py::array>(x) && py::dtype::of<double>().equal(py::reinterpret_borrow<py::array>(x).dtype());
  return wide ? row_products_of<double>(x, weight) : row_products_of<float>(x, weight);
}

}  // namespace

void register_product(py::module_& m) { m.def("row_products", &row_products, py::arg("x"), py::arg("weight")); }

}  // namespace fusedrnn
