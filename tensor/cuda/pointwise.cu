// Element-wise functions with their gradients, scaling, accumulation, and sums over rows.
// A thread owns packets of 16 bytes; sum_rows uses the blocks of columns.cuh.
#include "tensor/cuda/columns.cuh"

namespace burrow::cuda {
namespace {

// y[i] = f(in[i]...)
// in: one or more tensors of n elements   out: y, n elements, written; y may be an input
// A thread owns every (grid size)-th of the first `packets` packets of 16 bytes, then of the remaining
// elements; computed in f32.
template <class T, class F, class... In>
__global__ void elementwise(T* y, F f, int64_t packets, int64_t n, const In*... in) {
  constexpr int kSize = kPacket<T>;
  for (int64_t i = first_element(); i < packets; i += element_stride()) {
    Run<T, kSize> out;
    const auto each = [&](const Run<In, kSize>&... from) {
      for (int k = 0; k < kSize; ++k) out.v[k] = static_cast<T>(f(to_float(from.v[k])...));
    };
    each(load_run<kSize>(in + i * kSize)...);
    store_run(y + i * kSize, out);
  }
  for (int64_t i = packets * kSize + first_element(); i < n; i += element_stride())
    y[i] = static_cast<T>(f(to_float(in[i])...));
}

// Inputs must have the dtype of y. Packets need aligned tensors, which a view may not be.
template <class T, class F, class... Inputs>
void for_each_element(const char* op, Tensor& y, F f, const Inputs&... inputs) {
  const int64_t n = y.numel(), packets = aligned(y) && (aligned(inputs) && ...) ? n / kPacket<T> : 0;
  launch(op, elementwise<T, F, std::conditional_t<true, T, Inputs>...>, elements(packets > 0 ? packets : n),
         device_data<T>(y), f, packets, n, static_cast<const T*>(device_data<T>(inputs))...);
}

// The formulas, one struct each, because a host lambda cannot be passed to a kernel.
template <class Op>
struct UnaryOf {
  __device__ float operator()(float x) const { return Op::f(x); }
};
template <class Op>
struct UnaryGradient {
  __device__ float operator()(float dy, float x) const { return dy * Op::df(x); }
};
struct SumOf {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct ProductOf {
  __device__ float operator()(float a, float b) const { return a * b; }
};
struct Accumulated {
  float alpha;
  __device__ float operator()(float y, float x) const { return y + alpha * x; }
};
struct ScaledBy {
  float alpha;
  __device__ float operator()(float x) const { return alpha * x; }
};
struct Swiglu {
  __device__ float operator()(float gate, float up) const { return scalar::silu::f(gate) * up; }
};
template <class T>
struct ElementOf {
  const T* x;
  int64_t C;
  __device__ float operator()(int64_t n, int64_t c) const { return to_float(x[n * C + c]); }
};

}  // namespace

// y = f(x)
void unary(Tensor& y, const Tensor& x, Unary op) {
  check_same("unary", "y", y, "x", x);
  visit_device("unary", x.dtype(), [&]<class T>(T) {
    visit_unary(op, [&]<class Op>(Op) { for_each_element<T>("unary", y, UnaryOf<Op>{}, x); });
  });
}

// dx = dy f'(x)
void unary_backward(Tensor& dx, const Tensor& dy, const Tensor& x, Unary op) {
  check_same("unary_backward", "dy", dy, "x", x);
  check_same("unary_backward", "dx", dx, "x", x);
  visit_device("unary_backward", x.dtype(), [&]<class T>(T) {
    visit_unary(op,
                [&]<class Op>(Op) { for_each_element<T>("unary_backward", dx, UnaryGradient<Op>{}, dy, x); });
  });
}

// y = a + b
void add(Tensor& y, const Tensor& a, const Tensor& b) {
  check_same("add", "a", a, "b", b);
  check_same("add", "y", y, "a", a);
  visit_device("add", a.dtype(), [&]<class T>(T) { for_each_element<T>("add", y, SumOf{}, a, b); });
}

// y = alpha x
void scale(Tensor& y, const Tensor& x, double alpha) {
  check_same("scale", "y", y, "x", x);
  visit_device("scale", x.dtype(),
               [&]<class T>(T) { for_each_element<T>("scale", y, ScaledBy{static_cast<float>(alpha)}, x); });
}

namespace {

// y[i] = (or +=) alpha s[0] x[i]; 1 for s[0] where s is null
// in: x [n], s [1] or null   out: y [n]; y may be x; each f32 or bf16
// A thread owns every (grid size)-th element; computed in f32.
__global__ void scale_by_kernel(Floats y, Floats x, Floats s, double alpha, bool add, int64_t n) {
  const float k = s.p ? static_cast<float>(alpha * static_cast<double>(s[0])) : static_cast<float>(alpha);
  for (int64_t i = first_element(); i < n; i += element_stride()) y.set(i, add ? y[i] + k * x[i] : k * x[i]);
}

}  // namespace

void scale_by(Tensor& y, const Tensor& x, const Tensor& s, double alpha, bool accumulate) {
  const char* op = "scale_by";
  BURROW_CHECK(y.shape() == x.shape(), "[scale_by] y {} and x {} differ", y.shape(), x.shape());
  launch(op, scale_by_kernel, elements(x.numel()), floats_of(op, "y", y, x.numel()),
         floats_of(op, "x", x, x.numel()), floats_of(op, "s", s, 1), alpha, accumulate, x.numel());
}

// y = a b
void mul(Tensor& y, const Tensor& a, const Tensor& b) {
  check_same("mul", "a", a, "b", b);
  check_same("mul", "y", y, "a", a);
  visit_device("mul", a.dtype(), [&]<class T>(T) { for_each_element<T>("mul", y, ProductOf{}, a, b); });
}

// y += alpha x; by scale_by_kernel where the dtypes differ
void accumulate(Tensor& y, const Tensor& x, double alpha) {
  const char* op = "accumulate";
  BURROW_CHECK(y.shape() == x.shape(), "[accumulate] y {} and x {} differ", y.shape(), x.shape());
  if (y.dtype() == x.dtype()) {
    return visit_device(op, y.dtype(), [&]<class T>(T) {
      for_each_element<T>(op, y, Accumulated{static_cast<float>(alpha)}, y, x);
    });
  }
  launch(op, scale_by_kernel, elements(x.numel()), floats_of(op, "y", y, x.numel()),
         floats_of(op, "x", x, x.numel()), Floats{}, alpha, true, x.numel());
}

// y = silu(gate) up
// Source: Shazeer, GLU Variants Improve Transformer, 2020.
void swiglu(Tensor& y, const Tensor& gate, const Tensor& up) {
  check_same("swiglu", "gate", gate, "up", up);
  check_same("swiglu", "y", y, "gate", gate);
  visit_device("swiglu", gate.dtype(),
               [&]<class T>(T) { for_each_element<T>("swiglu", y, Swiglu{}, gate, up); });
}

namespace {

// dgate = dy up silu'(gate),  dup = dy silu(gate)
// in: dy gate up, n elements   out: dgate dup, n elements, written; each may be null
// A thread owns every (grid size)-th packet of 16 bytes (V = 1: element); computed in f32.
template <int V, class T>
__global__ void swiglu_backward_kernel(T* dgate, T* dup, const T* dy, const T* gate, const T* up, int64_t n) {
  for (int64_t i = first_element() * V; i < n; i += element_stride() * V) {
    const auto gs = load_run<V>(gate + i), us = load_run<V>(up + i), ds = load_run<V>(dy + i);
    Run<T, V> to_gate, to_up;
    for (int k = 0; k < V; ++k) {
      const float g = to_float(gs.v[k]), s = 1 / (1 + vector_exp(-g)), silu = g * s, d = to_float(ds.v[k]);
      to_gate.v[k] = static_cast<T>(d * to_float(us.v[k]) * (s + silu * (1 - s)));
      to_up.v[k] = static_cast<T>(d * silu);
    }
    if (dgate) store_run(dgate + i, to_gate);
    if (dup) store_run(dup + i, to_up);
  }
}

}  // namespace

void swiglu_backward(Tensor& dgate, Tensor& dup, const Tensor& dy, const Tensor& gate, const Tensor& up) {
  check_same("swiglu_backward", "gate", gate, "up", up);
  check_same("swiglu_backward", "dy", dy, "gate", gate);
  if (dgate.defined()) check_same("swiglu_backward", "dgate", dgate, "gate", gate);
  if (dup.defined()) check_same("swiglu_backward", "dup", dup, "up", up);
  visit_device("swiglu_backward", gate.dtype(), [&]<class T>(T) {
    const int64_t n = gate.numel();
    visit_runs<T>(
        n,
        [&]<int V>(std::integral_constant<int, V>) {
          launch("swiglu_backward", swiglu_backward_kernel<V, T>, elements(n / V), device_data<T>(dgate),
                 device_data<T>(dup), device_data<T>(dy), device_data<T>(gate), device_data<T>(up), n);
        },
        dgate, dup, dy, gate, up);
  });
}

// y[c] = sum_n x[n,c], or y[c] += with `accumulate`
// in: x [N,C]   out: y [C], f32 or bf16
// A block owns 32 channels of a chunk of rows, a thread every eighth row; chunks in order; sums in f32.
void sum_rows(Tensor& y, const Tensor& x, bool accumulate) {
  const int64_t C = channels(x);
  const Floats out = floats_of("sum_rows", "y", y, C);
  visit_device("sum_rows", x.dtype(), [&]<class T>(T) {
    column_sums("sum_rows", out, ElementOf<T>{device_data<T>(x), C}, leading(x), C, accumulate);
  });
}

}  // namespace burrow::cuda
