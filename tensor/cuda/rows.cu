// Gathering and scattering rows, copying columns, and the embedding with its gradient.
// A thread owns elements; where rows are summed, a block owns 256 channels of one target row.
#include "tensor/cuda/values.cuh"

namespace burrow::cuda {
namespace {

// y[n] = x[index[n]]
// in: x [M,C], also i32, index i32 [N] in [0, M)   out: y [N,C], written
// A thread owns every (grid size)-th element.
template <class T>
__global__ void gather_kernel(T* y, const T* x, const int32_t* index, int64_t N, int64_t C) {
  for (int64_t i = first_element(); i < N * C; i += element_stride()) y[i] = x[index[i / C] * C + i % C];
}

// y[n,c] = x[n, first + c]
// in: x [N,C]   out: y [N,O], written
// A thread owns every (grid size)-th element.
template <class T>
__global__ void copy_columns_kernel(T* y, const T* x, int64_t first, int64_t N, int64_t O, int64_t C) {
  for (int64_t i = first_element(); i < N * O; i += element_stride()) y[i] = x[i / O * C + first + i % O];
}

// y[n, first + c] += x[n,c]
// in: x [N,O]   out: y [N,C], added to; each f32 or bf16
// A thread owns every (grid size)-th element; computed in f32.
__global__ void add_columns_kernel(Floats y, Floats x, int64_t first, int64_t N, int64_t O, int64_t C) {
  for (int64_t i = first_element(); i < N * O; i += element_stride()) {
    const int64_t to = i / O * C + first + i % O;
    y.set(to, y[to] + x[i]);
  }
}

// The target row of index[n]; negative means none. If `flipped`, -1 - index[n] (visual tokens).
__device__ int64_t row_of(const int32_t* index, int64_t n, bool flipped) {
  return flipped ? -1 - int64_t{index[n]} : int64_t{index[n]};
}

// y[row_of(n)] += x[n] for the n whose target row is not negative
// in: x [N,C], index i32 [N]   out: y [M,C], added to; each f32 or bf16
// A block belongs to one n and 256 channels, a thread to one channel. The block exits unless n is the first
// index of its target row; then it adds all rows with that target in the order of n, so that the sum does not
// depend on timing; sums in f32.
__global__ void add_rows_kernel(Floats y, Floats x, const int32_t* index, int64_t N, int64_t C,
                                bool flipped) {
  __shared__ int64_t rows[kThreads];
  __shared__ int found;  // whether an earlier n has this target row
  const int64_t first = blockIdx.x, row = row_of(index, first, flipped);
  const int64_t c = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (row < 0) return;
  if (threadIdx.x == 0) found = 0;
  __syncthreads();  // found is 0 before any thread sets it
  for (int64_t n = threadIdx.x; n < first; n += kThreads) {
    if (row_of(index, n, flipped) == row) found = 1;  // no race: all write the same value
  }
  __syncthreads();  // all threads have searched
  if (found) return;
  float sum = c < C ? y[row * C + c] : 0;
  for (int64_t begin = first; begin < N; begin += kThreads) {
    const int64_t n = begin + threadIdx.x;
    rows[threadIdx.x] = n < N ? row_of(index, n, flipped) : -1;
    __syncthreads();  // the chunk's targets are stored
    for (int64_t i = 0; c < C && i < kThreads; ++i) {
      if (rows[i] == row) sum += x[(begin + i) * C + c];
    }
    __syncthreads();  // all threads have read the targets, which the next chunk overwrites
  }
  if (c < C) y.set(row * C + c, sum);
}

void add_rows(const char* op, Floats y, Floats x, const Tensor& index, int64_t N, int64_t C, bool flipped) {
  launch(op, add_rows_kernel, {N, ceil_div(C, kThreads)}, y, x, device_data<int32_t>(index), N, C, flipped);
}

}  // namespace

void gather_rows(Tensor& y, const Tensor& x, const Tensor& index) {
  const int64_t C = channels(x), N = index.numel();
  check_matrix("gather_rows", "y", y, x.dtype(), N, C);
  check_vector("gather_rows", "index", index, DType::i32, N);
  const auto copy = [&]<class T>(T) {
    launch("gather_rows", gather_kernel<T>, elements(N * C), device_data<T>(y), device_data<T>(x),
           device_data<int32_t>(index), N, C);
  };
  if (x.dtype() == DType::i32)
    copy(int32_t{});
  else
    visit_device("gather_rows", x.dtype(), copy);
}

void copy_columns(Tensor& y, const Tensor& x, int64_t first) {
  const char* op = "copy_columns";
  check_columns(op, x, y, x.dtype(), first);
  visit_device(op, x.dtype(), [&]<class T>(T) {
    launch(op, copy_columns_kernel<T>, elements(y.numel()), device_data<T>(y), device_data<T>(x), first,
           leading(x), channels(y), channels(x));
  });
}

void add_columns(Tensor& y, const Tensor& x, int64_t first) {
  const char* op = "add_columns";
  check_columns(op, y, x, x.dtype(), first);
  launch(op, add_columns_kernel, elements(x.numel()), floats_of(op, "y", y, y.numel()),
         floats_of(op, "x", x, x.numel()), first, leading(x), channels(x), channels(y));
}

// y[m] = sum of x[n] with index[n] = m, in the order of n; or y[m] += with `accumulate`
void scatter_rows(Tensor& y, const Tensor& x, const Tensor& index, bool accumulate) {
  const char* op = "scatter_rows";
  if (!accumulate) y.zero();
  const int64_t C = channels(x), N = leading(x);
  check_matrix(op, "y", y, y.dtype(), leading(y), C);
  check_vector(op, "index", index, DType::i32, N);
  add_rows(op, floats_of(op, "y", y, y.numel()), floats_of(op, "x", x, N * C), index, N, C, false);
}

namespace {

// y[n] = table[id[n]] where id[n] >= 0, else visual[-1 - id[n]]
// in: table [V,C] f32 or bf16, visual [M,C] or null, id i32 [N] in [-M, V)   out: y [N,C], written
// A thread owns every (grid size)-th element.
template <class T>
__global__ void embedding_kernel(T* y, Floats table, const T* visual, const int32_t* id, int64_t N,
                                 int64_t C) {
  for (int64_t i = first_element(); i < N * C; i += element_stride()) {
    const int64_t row = id[i / C], c = i % C;
    y[i] = row < 0 ? visual[(-1 - row) * C + c] : static_cast<T>(table[row * C + c]);
  }
}

}  // namespace

void embedding(Tensor& y, const Tensor& table, const Tensor& visual, const Tensor& id) {
  const int64_t C = channels(table), N = id.numel();
  check_matrix("embedding", "y", y, y.dtype(), N, C);
  check_vector("embedding", "id", id, DType::i32, N);
  if (visual.defined()) check_matrix("embedding", "visual", visual, y.dtype(), leading(visual), C);
  const Floats words = floats_of("embedding", "table", table, table.numel());
  visit_device("embedding", y.dtype(), [&]<class T>(T) {
    launch("embedding", embedding_kernel<T>, elements(N * C), device_data<T>(y), words,
           device_data<T>(visual), device_data<int32_t>(id), N, C);
  });
}

// dtable[id[n]] += dy[n] where id[n] >= 0, else dvisual[-1 - id[n]] += dy[n], in the order of n
void embedding_backward(Tensor& dtable, Tensor& dvisual, const Tensor& dy, const Tensor& id) {
  const char* op = "embedding_backward";
  const int64_t C = channels(dy), N = leading(dy);
  check_vector(op, "id", id, DType::i32, N);
  if (dtable.defined()) check_matrix(op, "dtable", dtable, dtable.dtype(), leading(dtable), C);
  if (dvisual.defined()) check_matrix(op, "dvisual", dvisual, dvisual.dtype(), leading(dvisual), C);
  const Floats g = floats_of(op, "dy", dy, N * C);
  if (dtable.defined()) add_rows(op, floats_of(op, "dtable", dtable, dtable.numel()), g, id, N, C, false);
  if (dvisual.defined()) add_rows(op, floats_of(op, "dvisual", dvisual, dvisual.numel()), g, id, N, C, true);
}

}  // namespace burrow::cuda
