// Sums over a whole tensor, and means over the rows of a group.
// A block sums one part of the data; a second launch adds the parts in a fixed order. Sums in f64.
#include "tensor/cuda/team.cuh"
#include "tensor/cuda/values.cuh"

namespace burrow::cuda {
namespace {

constexpr int64_t kElements = 16384;  // of a block

// partial[block] = sum over the block's elements i of a[i] b[i]
// in: a b f32 or bf16 [n]   out: partial f64 [blocks], written
// A block owns 16384 elements, a thread every 256th of them; sums in f64.
__global__ void partial_products(double* partial, Floats a, Floats b, int64_t n) {
  const int64_t begin = blockIdx.x * kElements, end = begin + kElements < n ? begin + kElements : n;
  double sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads)
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  sum = team_sum<kThreads>(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// y[0] = alpha sum_i partial[i]
// in: partial f64 [blocks]   out: y [1] f32 or bf16, or y64 [1] where that is not null, written
// One block; a thread owns every 256th partial sum; sums in f64.
__global__ void finish_products(Floats y, double* y64, const double* partial, int64_t blocks, double alpha) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < blocks; i += kThreads) sum += partial[i];
  sum = alpha * team_sum<kThreads>(sum);
  if (threadIdx.x != 0) return;
  if (y64)
    *y64 = sum;
  else
    y.set(0, static_cast<float>(sum));
}

void product_sum(const char* op, Tensor& y, const Tensor& a, const Tensor& b, double alpha) {
  const int64_t n = a.numel(), blocks = ceil_div(n, kElements);
  const bool wide = y.dtype() == DType::f64;
  const Scratch<double> partial(blocks);
  launch(op, partial_products, {blocks}, partial.data(), floats_of(op, "a", a, n), floats_of(op, "b", b, n),
         n);
  launch(op, finish_products, {1}, wide ? Floats{} : floats_of(op, "y", y, 1),
         wide ? device_data<double>(y) : nullptr, partial.data(), blocks, alpha);
}

}  // namespace

// y[0] = alpha sum_i a[i] b[i]; y is f32, bf16 or f64
void dot(Tensor& y, const Tensor& a, const Tensor& b, double alpha) {
  BURROW_CHECK(a.shape() == b.shape(), "[dot] a {} and b {} differ", a.shape(), b.shape());
  check_vector("dot", "y", y, y.dtype(), 1);
  product_sum("dot", y, a, b, alpha);
}

// y[0] = sum_i x[i]^2, f64; NaN and infinity pass through
void sum_squares(Tensor& y, const Tensor& x) {
  check_vector("sum_squares", "y", y, DType::f64, 1);
  product_sum("sum_squares", y, x, x, 1);
}

namespace {

// partial[z,g,c] = sum of x[n,c], counts[z,g] = number of rows, over the rows n of chunk z with group[n] = g
// in: x [N,C], group i32 [N] in [-1, G)   out: partial f64 [chunks,G,C], counts i32 [chunks,G], written
// A block owns 256 channels of one group in one chunk, a thread one channel; sums in f64.
template <class T>
__global__ void group_sums_kernel(double* partial, int32_t* counts, const T* x, const int32_t* group,
                                  int64_t chunk, int64_t N, int64_t C, int64_t G) {
  const int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x, g = blockIdx.y;
  const int64_t begin = blockIdx.z * chunk, end = begin + chunk < N ? begin + chunk : N;
  double sum = 0;
  int32_t rows = 0;
  for (int64_t n = begin; n < end; ++n) {
    if (group[n] != g) continue;
    ++rows;
    if (c < C) sum += static_cast<double>(to_float(x[n * C + c]));
  }
  if (c < C) partial[(blockIdx.z * G + g) * C + c] = sum;
  if (blockIdx.x == 0 && threadIdx.x == 0) counts[blockIdx.z * G + g] = rows;
}

// y[g,c] = sum_z partial[z,g,c] / count[g],  count[g] = sum_z counts[z,g];  an empty group gives 0
// in: partial f64 [chunks,G,C], counts i32 [chunks,G]   out: y [G,C], count [G] f32 or bf16, written
// A thread owns every (grid size)-th element of y and adds the chunks in order; sums in f64.
template <class T>
__global__ void group_mean_kernel(T* y, Floats count, const double* partial, const int32_t* counts,
                                  int64_t chunks, int64_t C, int64_t G) {
  for (int64_t i = first_element(); i < G * C; i += element_stride()) {
    double sum = 0;
    int64_t rows = 0;
    for (int64_t z = 0; z < chunks; ++z) {
      sum += partial[z * G * C + i];
      rows += counts[z * G + i / C];
    }
    y[i] = static_cast<T>(static_cast<float>(rows > 0 ? sum / static_cast<double>(rows) : 0));
    if (i % C == 0) count.set(i / C, static_cast<float>(rows));
  }
}

// dx[n,c] = dy[group[n],c] / count[group[n]], 0 where group[n] is -1
// in: dy [G,C], count [G] f32 or bf16, group i32 [N] in [-1, G)   out: dx [N,C], written
// A thread owns every (grid size)-th element; computed in f32.
template <class T>
__global__ void group_mean_backward_kernel(T* dx, const T* dy, Floats count, const int32_t* group, int64_t N,
                                           int64_t C) {
  for (int64_t i = first_element(); i < N * C; i += element_stride()) {
    const int32_t g = group[i / C];
    dx[i] = static_cast<T>(g < 0 ? 0.0f : to_float(dy[g * C + i % C]) * (1 / count[g]));
  }
}

}  // namespace

// y[g,c] = mean_{n: group[n] = g} x[n,c]; group -1 means no group
void group_mean(Tensor& y, Tensor& count, const Tensor& x, const Tensor& group) {
  const char* op = "group_mean";
  const int64_t C = channels(x), N = leading(x), G = leading(y);
  check_matrix(op, "y", y, x.dtype(), G, C);
  check_vector(op, "group", group, DType::i32, N);
  const Floats rows = floats_of(op, "count", count, G);
  // With few channels, small chunks are needed to fill the device; with many, larger chunks save memory.
  const int64_t chunk = std::max<int64_t>(C <= kThreads ? 64 : 1024, ceil_div(N, 65535)),
                chunks = std::max<int64_t>(ceil_div(N, chunk), 1);
  const Scratch<double> partial(chunks * G * C);
  const Scratch<int32_t> counts(chunks * G);
  visit_device(op, x.dtype(), [&]<class T>(T) {
    launch(op, group_sums_kernel<T>, {ceil_div(C, kThreads), G, chunks}, partial.data(), counts.data(),
           device_data<T>(x), device_data<int32_t>(group), chunk, N, C, G);
    launch(op, group_mean_kernel<T>, elements(G * C), device_data<T>(y), rows, partial.data(), counts.data(),
           chunks, C, G);
  });
}

void group_mean_backward(Tensor& dx, const Tensor& dy, const Tensor& count, const Tensor& group) {
  const char* op = "group_mean_backward";
  const int64_t C = channels(dy), G = leading(dy), N = leading(dx);
  check_matrix(op, "dx", dx, dy.dtype(), N, C);
  check_vector(op, "group", group, DType::i32, N);
  const Floats rows = floats_of(op, "count", count, G);
  visit_device(op, dy.dtype(), [&]<class T>(T) {
    launch(op, group_mean_backward_kernel<T>, elements(N * C), device_data<T>(dx), device_data<T>(dy), rows,
           device_data<int32_t>(group), N, C);
  });
}

}  // namespace burrow::cuda
