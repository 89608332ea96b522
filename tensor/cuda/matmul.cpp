// The matrix products of the kernel list, in f32 and bf16, with conversion of mixed dtypes.
// The library (gemm.h) divides the work.
#include "tensor/checks.h"
#include "tensor/cuda/gemm.h"
#include "tensor/device.h"
#include "tensor/kernels.h"

namespace burrow::cuda {

Tensor converted(const Tensor& t, DType dtype) {
  if (t.dtype() == dtype) return t;
  Tensor out = Tensor::empty(t.shape(), dtype, Device::cuda, "converted weight");
  convert_elements(out.bytes(), dtype, t.bytes(), t.dtype(), t.numel());
  return out;
}

namespace {

void check_float(const char* op, const char* name, const Tensor& t) {
  BURROW_CHECK(t.dtype() == DType::f32 || t.dtype() == DType::bf16, "[{}] {} is {}, expected f32 or bf16", op,
               name, t.dtype());
}

// y = (or +=) op(a) op(b) + bias with the sizes and flags of g; bias may be undefined. Sizes may be 0; the
// library does not support K = 0, where the sums are 0.
void product(Tensor& y, const Tensor& a, const Tensor& b, const Tensor& bias, Gemm g) {
  if (g.M == 0 || g.N == 0) return;
  // A bf16 gradient of f32 activations is computed in f32 and converted.
  Tensor target = y;
  if (y.dtype() == DType::bf16 && a.dtype() == DType::f32) {
    target = Tensor::empty(y.shape(), DType::f32, Device::cuda, "converted gradient");
    if (g.add) convert_elements(target.bytes(), DType::f32, y.bytes(), DType::bf16, y.numel());
  }
  const Tensor added = bias.defined() ? converted(bias, target.dtype()) : Tensor{};
  g.c = target.bytes();
  g.a = a.bytes();
  g.b = b.bytes();
  g.bias = added.defined() ? added.bytes() : nullptr;
  g.output = target.dtype();
  if (g.K == 0)
    plain_gemm(g);
  else
    gemm(g);
  if (!target.same_window(y)) convert_elements(y.bytes(), DType::bf16, target.bytes(), DType::f32, y.numel());
}

}  // namespace

// y[N,O] = x[N,C] w[O,C]^T + bias[O], or y += with `accumulate`
// in: x [N,C], w [O,C] converted to the dtype of x, bias [O] converted to that of y, or undefined
// out: y [N,O], of x's dtype or f32
// The library (cuBLASLt) assigns tiles of y to blocks; sums in f32, with the bias.
void matmul_nt(Tensor& y, const Tensor& x, const Tensor& w, const Tensor& bias, bool accumulate) {
  const char* op = "matmul_nt";
  const int64_t N = leading(x), C = channels(x), O = leading(w);
  BURROW_CHECK(channels(w) == C, "[matmul_nt] x {} and w {}: inner sizes {} and {} differ", x.shape(),
               w.shape(), C, channels(w));
  check_float(op, "x", x);
  check_float(op, "w", w);
  check_float(op, "y", y);
  check_matrix(op, "y", y, y.dtype(), N, O);
  if (bias.defined()) {
    check_float(op, "bias", bias);
    check_vector(op, "bias", bias, bias.dtype(), O);
  }
  product(y, x, converted(w, x.dtype()), bias,
          {.M = N, .N = O, .K = C, .b_transposed = true, .add = accumulate, .inputs = x.dtype()});
}

// y[N,C] = x[N,O] w[O,C], or y += with `accumulate`
// in: x [N,O], w [O,C] f32 or bf16, converted to the dtype of x   out: y [N,C], of x's dtype or f32
// The library (cuBLASLt) assigns tiles of y to blocks; sums in f32.
void matmul_nn(Tensor& y, const Tensor& x, const Tensor& w, bool accumulate) {
  const char* op = "matmul_nn";
  const int64_t N = leading(x), O = channels(x), C = channels(w);
  BURROW_CHECK(leading(w) == O, "[matmul_nn] x {} and w {}: inner sizes {} and {} differ", x.shape(),
               w.shape(), O, leading(w));
  check_float(op, "x", x);
  check_float(op, "w", w);
  check_float(op, "y", y);
  check_matrix(op, "y", y, y.dtype(), N, C);
  product(y, x, converted(w, x.dtype()), {},
          {.M = N, .N = C, .K = O, .add = accumulate, .inputs = x.dtype()});
}

// y[O,C] = a[N,O]^T b[N,C], or y += with `accumulate`: the gradient of a weight
// in: a [N,O], b [N,C], converted to the dtype of a   out: y [O,C], f32 or bf16
// The library (cuBLASLt) assigns tiles of y to blocks; sums in f32.
void matmul_tn(Tensor& y, const Tensor& a, const Tensor& b, bool accumulate) {
  const char* op = "matmul_tn";
  const int64_t N = leading(a), O = channels(a), C = channels(b);
  BURROW_CHECK(leading(b) == N, "[matmul_tn] a {} and b {}: inner sizes {} and {} differ", a.shape(),
               b.shape(), N, leading(b));
  check_float(op, "a", a);
  check_float(op, "b", b);
  check_float(op, "y", y);
  check_matrix(op, "y", y, y.dtype(), O, C);
  product(y, a, converted(b, a.dtype()), {},
          {.M = O, .N = C, .K = N, .a_transposed = true, .add = accumulate, .inputs = a.dtype()});
}

}  // namespace burrow::cuda
