// RMSNorm (with or without a residual addition) and LayerNorm, forward and backward.
// A warp or block (team.cuh) owns a row; gradients of weights are column sums (columns.cuh).
#include "tensor/cuda/columns.cuh"

namespace burrow::cuda {
namespace {

// y[n,c] = s[n,c] rstd[n] w[c],  rstd[n] = 1 / sqrt(mean_c s[n,c]^2 + eps),  s = x, or x + added
// in: x [N,C], w [C] f32 or bf16, added [N,C] or null
// out: y [N,C], rstd f32 [N] (kept for backward), sum [N,C] (s as rounded, if `added` is not null), written
// A warp owns a row of up to 1024 channels, a block a longer one, a thread packets of 16 bytes; sums in f32.
// Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
template <int Team, int V, class T>
__global__ void rms_norm_kernel(T* y, float* rstd, T* sum, const T* x, const T* added, Floats w, float eps,
                                int64_t N, int64_t C) {
  const int64_t n = team_row<Team>(), first = n * C;
  if (n >= N) return;
  const T* row = (added ? sum : x) + first;  // with `added`, a thread reads back its own stores
  float squares = 0;
  for (int64_t c = team_rank<Team>() * V; c < C; c += Team * V) {
    auto part = load_run<V>(x + first + c);
    if (added) {
      const auto more = load_run<V>(added + first + c);
      for (int k = 0; k < V; ++k) part.v[k] = static_cast<T>(to_float(part.v[k]) + to_float(more.v[k]));
      store_run(sum + first + c, part);
    }
    for (int k = 0; k < V; ++k) squares += to_float(part.v[k]) * to_float(part.v[k]);
  }
  const float r = 1 / std::sqrt(team_sum<Team>(squares) / static_cast<float>(C) + eps);
  if (team_rank<Team>() == 0) rstd[n] = r;
  for (int64_t c = team_rank<Team>() * V; c < C; c += Team * V) {
    auto part = load_run<V>(row + c);
    for (int k = 0; k < V; ++k) part.v[k] = static_cast<T>(to_float(part.v[k]) * r * w[c + k]);
    store_run(y + first + c, part);
  }
}

// dx = rstd (g - xhat mean_c(g xhat)) + dsum,  with xhat = x rstd and g = dy w
// in: dy x [N,C], w [C] f32 or bf16, rstd f32 [N], dsum [N,C] or null (0)   out: dx [N,C], written
// A warp owns a row of up to 1024 channels, a block a longer one, a thread packets of 16 bytes; sums in f32.
template <int Team, int V, class T>
__global__ void rms_norm_backward_kernel(T* dx, const T* dy, const T* dsum, const T* x, Floats w,
                                         const float* rstd, int64_t N, int64_t C) {
  const int64_t n = team_row<Team>(), first = n * C;
  if (n >= N) return;
  float sum = 0;
  for (int64_t c = team_rank<Team>() * V; c < C; c += Team * V) {
    const auto g = load_run<V>(dy + first + c), row = load_run<V>(x + first + c);
    for (int k = 0; k < V; ++k) sum += to_float(g.v[k]) * w[c + k] * to_float(row.v[k]);
  }
  const float r = rstd[n], slope = team_sum<Team>(sum) * r * r / static_cast<float>(C);
  for (int64_t c = team_rank<Team>() * V; c < C; c += Team * V) {
    const auto g = load_run<V>(dy + first + c), row = load_run<V>(x + first + c);
    Run<T, V> more{}, out;
    if (dsum) more = load_run<V>(dsum + first + c);
    for (int k = 0; k < V; ++k) {
      const float own = r * (to_float(g.v[k]) * w[c + k] - to_float(row.v[k]) * slope);
      out.v[k] = static_cast<T>(own + to_float(more.v[k]));
    }
    store_run(dx + first + c, out);
  }
}

// y[n,c] = (x[n,c] - mean[n]) rstd[n] w[c] + b[c],  rstd[n] = 1 / sqrt(mean_c (x - mean)^2 + eps)
// in: x [N,C], w b [C] f32 or bf16   out: y [N,C], mean rstd f32 [N] (kept for backward), written
// A warp owns a row of up to 1024 channels, a block a longer one; two passes, sums in f32.
// Source: Ba, Kiros and Hinton, Layer Normalization, 2016.
template <int Team, class T>
__global__ void layer_norm_kernel(T* y, float* mean, float* rstd, const T* x, Floats w, Floats b, float eps,
                                  int64_t N, int64_t C) {
  const int64_t n = team_row<Team>();
  if (n >= N) return;
  const T* row = x + n * C;
  float sum = 0, squares = 0;
  for (int64_t c = team_rank<Team>(); c < C; c += Team) sum += to_float(row[c]);
  const float m = team_sum<Team>(sum) / static_cast<float>(C);
  for (int64_t c = team_rank<Team>(); c < C; c += Team)
    squares += (to_float(row[c]) - m) * (to_float(row[c]) - m);
  const float r = 1 / std::sqrt(team_sum<Team>(squares) / static_cast<float>(C) + eps);
  if (team_rank<Team>() == 0) {
    mean[n] = m;
    rstd[n] = r;
  }
  for (int64_t c = team_rank<Team>(); c < C; c += Team)
    y[n * C + c] = static_cast<T>((to_float(row[c]) - m) * r * w[c] + b[c]);
}

// dx = rstd (g - mean_c(g) - xhat mean_c(g xhat)),  with xhat = (x - mean) rstd and g = dy w
// in: dy x [N,C], w [C] f32 or bf16, mean rstd f32 [N]   out: dx [N,C], written
// A warp owns a row of up to 1024 channels, a block a longer one; sums in f32.
template <int Team, class T>
__global__ void layer_norm_backward_kernel(T* dx, const T* dy, const T* x, Floats w, const float* mean,
                                           const float* rstd, int64_t N, int64_t C) {
  const int64_t n = team_row<Team>();
  if (n >= N) return;
  const T *row = x + n * C, *g = dy + n * C;
  const float m = mean[n], r = rstd[n];
  float sum = 0, sum_xhat = 0;
  for (int64_t c = team_rank<Team>(); c < C; c += Team) {
    const float d = to_float(g[c]) * w[c];
    sum += d;
    sum_xhat += d * ((to_float(row[c]) - m) * r);
  }
  sum = team_sum<Team>(sum) / static_cast<float>(C);
  sum_xhat = team_sum<Team>(sum_xhat) / static_cast<float>(C);
  for (int64_t c = team_rank<Team>(); c < C; c += Team) {
    const float xhat = (to_float(row[c]) - m) * r;
    dx[n * C + c] = static_cast<T>(r * (to_float(g[c]) * w[c] - sum - xhat * sum_xhat));
  }
}

// The terms whose sums over n are the gradients of w, dy[n,c] xhat[n,c], and of b, dy[n,c]. A null mean is 0.
template <class T>
struct WeightTerm {
  const T *dy, *x;
  const float *mean, *rstd;
  int64_t C;
  __device__ float operator()(int64_t n, int64_t c) const {
    return to_float(dy[n * C + c]) * ((to_float(x[n * C + c]) - (mean ? mean[n] : 0)) * rstd[n]);
  }
};
template <class T>
struct BiasTerm {
  const T* dy;
  int64_t C;
  __device__ float operator()(int64_t n, int64_t c) const { return to_float(dy[n * C + c]); }
};

}  // namespace

void rms_norm(Tensor& y, Tensor& rstd, Tensor& sum, const Tensor& x, const Tensor& added, const Tensor& w,
              double eps) {
  const int64_t C = channels(x), N = leading(x);
  check_residual("rms_norm", sum, x, added);
  check_same("rms_norm", "y", y, "x", x);
  check_vector("rms_norm", "rstd", rstd, DType::f32, N);
  const Floats weight = floats_of("rms_norm", "w", w, C);
  visit_device("rms_norm", x.dtype(), [&]<class T>(T) {
    visit_team(C, [&]<int Team>(std::integral_constant<int, Team>) {
      visit_runs<T>(
          C,
          [&]<int V>(std::integral_constant<int, V>) {
            launch("rms_norm", rms_norm_kernel<Team, V, T>, teams<Team>(N), device_data<T>(y),
                   device_data<float>(rstd), device_data<T>(sum), device_data<T>(x), device_data<T>(added),
                   weight, static_cast<float>(eps), N, C);
          },
          y, sum, x, added);
    });
  });
}

// dw[c] += sum_n dy xhat by column_sums, then dx; each may be undefined
void rms_norm_backward(Tensor& dx, Tensor& dw, const Tensor& dy, const Tensor& dsum, const Tensor& x,
                       const Tensor& w, const Tensor& rstd) {
  const char* op = "rms_norm_backward";
  const int64_t C = channels(x), N = leading(x);
  if (dsum.defined()) check_same(op, "dsum", dsum, "x", x);
  check_same(op, "dy", dy, "x", x);
  check_vector(op, "rstd", rstd, DType::f32, N);
  if (dx.defined()) check_same(op, "dx", dx, "x", x);
  const Floats weight = floats_of(op, "w", w, C), out_w = floats_of(op, "dw", dw, C);
  visit_device(op, x.dtype(), [&]<class T>(T) {
    const T *in = device_data<T>(x), *g = device_data<T>(dy);
    const float* r = device_data<float>(rstd);
    if (dw.defined()) column_sums(op, out_w, WeightTerm<T>{g, in, nullptr, r, C}, N, C, true);
    if (!dx.defined()) return;
    visit_team(C, [&]<int Team>(std::integral_constant<int, Team>) {
      visit_runs<T>(
          C,
          [&]<int V>(std::integral_constant<int, V>) {
            launch(op, rms_norm_backward_kernel<Team, V, T>, teams<Team>(N), device_data<T>(dx), g,
                   device_data<T>(dsum), in, weight, r, N, C);
          },
          dx, dy, dsum, x);
    });
  });
}

void layer_norm(Tensor& y, Tensor& mean, Tensor& rstd, const Tensor& x, const Tensor& w, const Tensor& b,
                double eps) {
  const char* op = "layer_norm";
  const int64_t C = channels(x), N = leading(x);
  check_same(op, "y", y, "x", x);
  check_vector(op, "mean", mean, DType::f32, N);
  check_vector(op, "rstd", rstd, DType::f32, N);
  const Floats weight = floats_of(op, "w", w, C), bias = floats_of(op, "b", b, C);
  visit_device(op, x.dtype(), [&]<class T>(T) {
    visit_team(C, [&]<int Team>(std::integral_constant<int, Team>) {
      launch(op, layer_norm_kernel<Team, T>, teams<Team>(N), device_data<T>(y), device_data<float>(mean),
             device_data<float>(rstd), device_data<T>(x), weight, bias, static_cast<float>(eps), N, C);
    });
  });
}

// dw[c] += sum_n dy xhat and db[c] += sum_n dy by column_sums, then dx; each may be undefined
void layer_norm_backward(Tensor& dx, Tensor& dw, Tensor& db, const Tensor& dy, const Tensor& x,
                         const Tensor& w, const Tensor& mean, const Tensor& rstd) {
  const char* op = "layer_norm_backward";
  const int64_t C = channels(x), N = leading(x);
  check_same(op, "dy", dy, "x", x);
  check_vector(op, "mean", mean, DType::f32, N);
  check_vector(op, "rstd", rstd, DType::f32, N);
  if (dx.defined()) check_same(op, "dx", dx, "x", x);
  const Floats weight = floats_of(op, "w", w, C), out_w = floats_of(op, "dw", dw, C),
               out_b = floats_of(op, "db", db, C);
  visit_device(op, x.dtype(), [&]<class T>(T) {
    const T *in = device_data<T>(x), *g = device_data<T>(dy);
    const float *m = device_data<float>(mean), *r = device_data<float>(rstd);
    if (dw.defined()) column_sums(op, out_w, WeightTerm<T>{g, in, m, r, C}, N, C, true);
    if (db.defined()) column_sums(op, out_b, BiasTerm<T>{g, C}, N, C, true);
    if (!dx.defined()) return;
    visit_team(C, [&]<int Team>(std::integral_constant<int, Team>) {
      launch(op, layer_norm_backward_kernel<Team, T>, teams<Team>(N), device_data<T>(dx), g, in, weight, m, r,
             N, C);
    });
  });
}

}  // namespace burrow::cuda
