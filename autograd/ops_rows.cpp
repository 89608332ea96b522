#include "autograd/ops.h"

namespace burrow {

Var embedding(const Var& table, const Var& visual, const Tensor& id) {
  const Tensor& T = table.value();
  BURROW_CHECK(T.rank() == 2 && id.rank() == 1 && (!visual.defined() || visual.dim(1) == T.dim(1)),
               "[embedding] table {}, visual {}, id {}", T.shape(), visual.shape(), id.shape());
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

Var gather_rows(const Var& x, const Tensor& index) {
  const Tensor& X = x.value();
  BURROW_CHECK(X.rank() == 2 && index.rank() == 1, "[gather_rows] x {}, index {}", X.shape(), index.shape());
  Tensor y = Tensor::empty({index.dim(0), X.dim(1)}, X.dtype(), X.device(), "gather_rows");
  kernel::gather_rows(y, X, index);
  return record("gather_rows", y, {x}, [index](const Tensor& dy, Grads& g) {
    Tensor dx = g.accumulator(0);
    kernel::scatter_add_rows(dx, dy, index);
  });
}

Var scatter_rows(const Var& x, const Tensor& index, int64_t rows) {
  const Tensor& X = x.value();
  BURROW_CHECK(X.rank() == 2 && index.shape() == Shape({X.dim(0)}), "[scatter_rows] x {}, index {}",
               X.shape(), index.shape());
  Tensor y = Tensor::zeros({rows, X.dim(1)}, X.dtype(), X.device(), "scatter_rows");
  kernel::scatter_add_rows(y, X, index);
  return record("scatter_rows", y, {x}, [index](const Tensor& dy, Grads& g) {
    Tensor dx = g.like(0);
    kernel::gather_rows(dx, dy, index);
    g.add(0, dx);
  });
}

Var group_mean(const Var& x, const Tensor& group, int64_t groups) {
  const Tensor& X = x.value();
  BURROW_CHECK(X.rank() == 2 && group.shape() == Shape({X.dim(0)}), "[group_mean] x {}, group {}", X.shape(),
               group.shape());
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
