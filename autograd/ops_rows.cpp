#include "autograd/ops.h"

namespace burrow {

Var embedding(const Var& table, const Var& visual, const Tensor& id) {
  const Tensor& T = table.value();
  BURROW_CHECK(T.rank() == 2 && id.rank() == 1 && (!visual.defined() || visual.dim(1) == T.dim(1)),
               "[embedding] table {}, visual {} and id {} do not match", T.shape(), visual.shape(),
               id.shape());
  const DType dtype = visual.defined()           ? visual.value().dtype()
                      : T.dtype() == DType::bf16 ? DType::f32
                                                 : T.dtype();
  Tensor y = Tensor::empty({id.dim(0), T.dim(1)}, dtype, T.device(), "embedding");
  kernel::embedding(y, T, visual.value(), id);
  return record("embedding", y, {table, visual}, [id](const Tensor& dy, Grads& g) {
    Tensor dtable = g.accumulator(0), dvisual = g.accumulator(1);
    kernel::embedding_backward(dtable, dvisual, dy, id);
  });
}

Var reshape(const Var& x, Shape shape) {
  return record("reshape", x.value().reshape(std::move(shape)), {x},
                [from = x.shape()](const Tensor& dy, Grads& g) { g.add(0, dy.reshape(from)); });
}

Var concat_rows(const std::vector<Var>& x) {
  BURROW_CHECK(!x.empty(), "[concat_rows] no inputs");
  const Tensor& first = x[0].value();
  int64_t N = 0;
  for (const Var& part : x) {
    const Tensor& X = part.value();
    BURROW_CHECK(X.rank() == 2 && X.dim(1) == first.dim(1), "[concat_rows] {} and {} differ in columns",
                 X.shape(), first.shape());
    N += X.dim(0);
  }
  Tensor y = Tensor::empty({N, first.dim(1)}, first.dtype(), first.device(), "concat_rows");
  std::vector<int64_t> begin{0};
  for (const Var& part : x) {
    begin.push_back(begin.back() + part.dim(0));
    y.slice_rows(begin[begin.size() - 2], begin.back()).copy_from(part.value());
  }
  return record("concat_rows", y, x, [begin](const Tensor& dy, Grads& g) {
    for (size_t i = 0; i + 1 < begin.size(); ++i)
      g.add(static_cast<int>(i), dy.slice_rows(begin[i], begin[i + 1]));
  });
}

Var columns(const Var& x, int64_t first, int64_t count) {
  const Tensor& X = x.value();
  BURROW_CHECK(X.rank() == 2 && first >= 0 && count >= 0 && first + count <= X.dim(1),
               "[columns] {} columns from column {} on are outside of {}", count, first, X.shape());
  Tensor y = Tensor::empty({X.dim(0), count}, X.dtype(), X.device(), "columns");
  kernel::copy_columns(y, X, first);
  return record("columns", y, {x}, [first](const Tensor& dy, Grads& g) {
    Tensor dx = g.accumulator(0);
    kernel::add_columns(dx, dy, first);
  });
}

Var gather_rows(const Var& x, const Tensor& index) {
  const Tensor& X = x.value();
  BURROW_CHECK(X.rank() == 2 && index.rank() == 1, "[gather_rows] x {} and index {} do not match", X.shape(),
               index.shape());
  Tensor y = Tensor::empty({index.dim(0), X.dim(1)}, X.dtype(), X.device(), "gather_rows");
  kernel::gather_rows(y, X, index);
  return record("gather_rows", y, {x}, [index](const Tensor& dy, Grads& g) {
    auto [dx, adds] = g.target(0);
    kernel::scatter_rows(dx, dy, index, adds);
  });
}

Var scatter_rows(const Var& x, const Tensor& index, int64_t rows) {
  const Tensor& X = x.value();
  BURROW_CHECK(X.rank() == 2 && index.shape() == Shape({X.dim(0)}),
               "[scatter_rows] x {} and index {} do not match", X.shape(), index.shape());
  Tensor y = Tensor::empty({rows, X.dim(1)}, X.dtype(), X.device(), "scatter_rows");
  kernel::scatter_rows(y, X, index, false);
  return record("scatter_rows", y, {x}, [index](const Tensor& dy, Grads& g) {
    Tensor dx = g.like(0);
    kernel::gather_rows(dx, dy, index);
    g.add(0, dx);
  });
}

Var group_mean(const Var& x, const Tensor& group, int64_t groups) {
  const Tensor& X = x.value();
  BURROW_CHECK(X.rank() == 2 && group.shape() == Shape({X.dim(0)}),
               "[group_mean] x {} and group {} do not match", X.shape(), group.shape());
  Tensor y = Tensor::empty({groups, X.dim(1)}, X.dtype(), X.device(), "group_mean");
  Tensor count = Tensor::empty({groups}, X.dtype(), X.device(), "group_mean");
  kernel::group_mean(y, count, X, group);
  return record("group_mean", y, {x}, [group, count](const Tensor& dy, Grads& g) {
    Tensor dx = g.like(0);
    kernel::group_mean_backward(dx, dy, count, group);
    g.add(0, dx);
  });
}

}  // namespace burrow
