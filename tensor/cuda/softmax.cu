// Softmax and its gradient, cross entropy with its gradient, and argmax, over the rows of a matrix.
// A warp owns a row of up to 1024 elements, a block a longer one (team.cuh).
#include <limits>

#include "tensor/cuda/team.cuh"
#include "tensor/cuda/values.cuh"
#include "tensor/row_ops.h"

namespace burrow::cuda {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

template <int Team, class T>
__device__ float row_max(const T* row, int64_t C) {
  float most = kLowest;
  for (int64_t c = team_rank<Team>(); c < C; c += Team) most = Largest{}(to_float(row[c]), most);
  return team_reduce<Team>(most, Largest{});
}
template <int Team, class T>
__device__ float sum_of_exponentials(const T* row, float shift, int64_t C) {
  float sum = 0;
  for (int64_t c = team_rank<Team>(); c < C; c += Team) sum += vector_exp(to_float(row[c]) - shift);
  return team_sum<Team>(sum);
}

// y[n,c] = e^(x[n,c] - m) / sum_j e^(x[n,j] - m),  m = max_j x[n,j]
// in: x [N,C]   out: y [N,C], written; y may be x
// A warp owns a row of up to 1024 channels, a block a longer one; sums in f32.
template <int Team, class T>
__global__ void softmax_kernel(T* y, const T* x, int64_t N, int64_t C) {
  const int64_t n = team_row<Team>();
  if (n >= N) return;
  const T* row = x + n * C;
  const float most = row_max<Team>(row, C), inverse = 1 / sum_of_exponentials<Team>(row, most, C);
  for (int64_t c = team_rank<Team>(); c < C; c += Team)
    y[n * C + c] = static_cast<T>(vector_exp(to_float(row[c]) - most) * inverse);
}

// dx[n,c] = y[n,c] (dy[n,c] - sum_j dy[n,j] y[n,j])
// in: dy y [N,C]   out: dx [N,C], written; dx may be dy
// A warp owns a row of up to 1024 channels, a block a longer one; sums in f32.
template <int Team, class T>
__global__ void softmax_backward_kernel(T* dx, const T* dy, const T* y, int64_t N, int64_t C) {
  const int64_t n = team_row<Team>();
  if (n >= N) return;
  const T *p = y + n * C, *g = dy + n * C;
  float sum = 0;
  for (int64_t c = team_rank<Team>(); c < C; c += Team) sum += to_float(p[c]) * to_float(g[c]);
  sum = team_sum<Team>(sum);
  for (int64_t c = team_rank<Team>(); c < C; c += Team)
    dx[n * C + c] = static_cast<T>(to_float(p[c]) * (to_float(g[c]) - sum));
}

// The running maximum m of the x that a thread has read, and the sum of e^(x - m).
struct Exponentials {
  float most = kLowest, sum = 0;
  __device__ void take(float x) {
    if (x == kLowest) return;  // e^-inf = 0; skipped because the first maximum may be -inf, too
    if (x > most) {
      sum *= vector_exp(most - x);
      most = x;
    }
    sum += vector_exp(x - most);
  }
};

// loss[n] = log sum_v e^logits[n,v] - logits[n,target[n]];  dlogits = softmax(logits) - onehot(target)
// in: logits [N,classes], target i32 [N] in [0, classes)
// out: loss f32 [N], dlogits [N,classes] or null, written; dlogits may be logits
// A warp owns a row of up to 1024 classes, a block a longer one, a thread packets of 16 bytes; sums in f32.
// One pass for the sum, rescaled when the maximum grows, one for the gradient.
template <int Team, int V, class T>
__global__ void cross_entropy_kernel(float* loss, T* dlogits, const T* logits, const int32_t* target,
                                     int64_t N, int64_t classes) {
  const int64_t n = team_row<Team>();
  if (n >= N) return;
  const T* row = logits + n * classes;
  const int32_t right = target[n];
  const float of_target = to_float(row[right]);  // read before dlogits, which may be logits, is written
  Exponentials mine;
  for (int64_t v = team_rank<Team>() * V; v < classes; v += Team * V) {
    const auto part = load_run<V>(row + v);
    for (int k = 0; k < V; ++k) mine.take(to_float(part.v[k]));
  }
  const float most = team_reduce<Team>(mine.most, Largest{});
  const float sum = team_sum<Team>(mine.sum * vector_exp(mine.most - most));
  if (team_rank<Team>() == 0) loss[n] = std::log(sum) + (most - of_target);
  const float inverse = 1 / sum;
  for (int64_t v = team_rank<Team>() * V; dlogits && v < classes; v += Team * V) {
    auto part = load_run<V>(row + v);
    for (int k = 0; k < V; ++k) {
      const float p = vector_exp(to_float(part.v[k]) - most) * inverse;
      part.v[k] = static_cast<T>(v + k == right ? p - 1 : p);
    }
    store_run(dlogits + n * classes + v, part);
  }
}

struct Candidate {
  float value;
  int32_t index;
};
struct LargerCandidate {
  __device__ Candidate operator()(Candidate a, Candidate b) const {
    return row::larger(a.value, a.index, b.value, b.index) ? a : b;
  }
};
// The largest candidate of a warp; a shuffle moves value and index separately.
__device__ Candidate warp_largest(Candidate mine) {
  for (int step = 16; step > 0; step /= 2) {
    const Candidate other{__shfl_xor_sync(kAllLanes, mine.value, step),
                          __shfl_xor_sync(kAllLanes, mine.index, step)};
    mine = LargerCandidate{}(mine, other);
  }
  return mine;
}

// index[n] = the first c at which x[n,c] is largest; NaN is never largest
// in: x [N,C], C >= 1   out: index i32 [N], written
// A warp owns a row, a lane every 32nd element.
template <class T>
__global__ void argmax_kernel(int32_t* index, const T* x, int64_t N, int64_t C) {
  const int64_t n = team_row<32>();
  if (n >= N) return;
  // Lanes beyond the end of a short row keep its first element.
  Candidate best{to_float(x[n * C]), 0};
  for (int64_t c = team_rank<32>(); c < C; c += 32)
    best = LargerCandidate{}(best, {to_float(x[n * C + c]), static_cast<int32_t>(c)});
  best = warp_largest(best);
  if (team_rank<32>() == 0) index[n] = best.index;
}

}  // namespace

void softmax(Tensor& y, const Tensor& x) {
  const int64_t C = channels(x), N = C == 0 ? 0 : leading(x);
  check_same("softmax", "y", y, "x", x);
  visit_device("softmax", x.dtype(), [&]<class T>(T) {
    visit_team(C, [&]<int Team>(std::integral_constant<int, Team>) {
      launch("softmax", softmax_kernel<Team, T>, teams<Team>(N), device_data<T>(y), device_data<T>(x), N, C);
    });
  });
}

void softmax_backward(Tensor& dx, const Tensor& dy, const Tensor& y) {
  const int64_t C = channels(y), N = leading(y);
  check_same("softmax_backward", "dy", dy, "y", y);
  check_same("softmax_backward", "dx", dx, "y", y);
  visit_device("softmax_backward", y.dtype(), [&]<class T>(T) {
    visit_team(C, [&]<int Team>(std::integral_constant<int, Team>) {
      launch("softmax_backward", softmax_backward_kernel<Team, T>, teams<Team>(N), device_data<T>(dx),
             device_data<T>(dy), device_data<T>(y), N, C);
    });
  });
}

void cross_entropy(Tensor& loss, Tensor& dlogits, const Tensor& logits, const Tensor& target) {
  const char* op = "cross_entropy";
  const int64_t V = channels(logits), N = leading(logits);
  check_vector(op, "loss", loss, DType::f32, N);
  check_vector(op, "target", target, DType::i32, N);
  if (dlogits.defined()) check_same(op, "dlogits", dlogits, "logits", logits);
  visit_device(op, logits.dtype(), [&]<class T>(T) {
    visit_team(V, [&]<int Team>(std::integral_constant<int, Team>) {
      visit_runs<T>(
          V,
          [&]<int Width>(std::integral_constant<int, Width>) {
            launch(op, cross_entropy_kernel<Team, Width, T>, teams<Team>(N), device_data<float>(loss),
                   device_data<T>(dlogits), device_data<T>(logits), device_data<int32_t>(target), N, V);
          },
          dlogits, logits);
    });
  });
}

void argmax(Tensor& index, const Tensor& x) {
  const int64_t C = channels(x), N = leading(x);
  check_vector("argmax", "index", index, DType::i32, N);
  BURROW_CHECK(C > 0 || N == 0, "[argmax] x {} has rows without elements", x.shape());
  visit_device("argmax", x.dtype(), [&]<class T>(T) {
    launch("argmax", argmax_kernel<T>, teams<32>(N), device_data<int32_t>(index), device_data<T>(x), N, C);
  });
}

}  // namespace burrow::cuda
