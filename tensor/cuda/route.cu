// A router's decisions for every row, the sums of groups of rows, and the gradient of the logits.
// A thread owns a row; a block sums 128 rows per group, then a warp adds up the blocks' sums of one number.
#include "tensor/cuda/team.cuh"
#include "tensor/cuda/values.cuh"
#include "tensor/route_checks.h"
#include "tensor/route_rows.h"

namespace burrow::cuda {
namespace {

constexpr int kRows = 128;  // of a block, one per thread

struct RoutePointers {
  float *probs, *chosen, *weights, *entropy, *mean_probs, *mean_weights, *mean_chosen, *mean_rows, *sums;
};
RoutePointers pointers_of(const RouteTensors& t) {
  const auto p = [](const Tensor& x) { return device_data<float>(x); };
  return {p(t.probs),        p(t.chosen),      p(t.weights),   p(t.entropy), p(t.mean_probs),
          p(t.mean_weights), p(t.mean_chosen), p(t.mean_rows), p(t.sums)};
}

// The number of columns of a group's sums: probs [E], weights [E], chosen [E], active experts, entropy, rows.
BURROW_HD int64_t sum_columns(int64_t E) { return 3 * E + 3; }

// probs, chosen, weights and entropy (if wanted) of row n.
__device__ void decide_row(const RoutePointers& out, const float* logits, int64_t n, int64_t E,
                           const RouteRule& rule) {
  const float* z = logits + n * E;
  float *p = out.probs + n * E, *chosen = out.chosen + n * E;
  float most = z[0], sum = 0;
  for (int64_t e = 1; e < E; ++e) most = Largest{}(z[e], most);
  for (int64_t e = 0; e < E; ++e) sum += p[e] = vector_exp(z[e] - most);
  const float inverse = 1 / sum;
  for (int64_t e = 0; e < E; ++e) p[e] *= inverse;
  const auto score = [=](int64_t e) { return p[e]; };
  const float h = out.entropy ? row::entropy<float>(score, E, rule.entropy) : 0.0f;
  if (out.entropy) out.entropy[n] = h;
  row::choose_experts<float>(score, E, h, rule, [=](int64_t e, bool is) { chosen[e] = is ? 1.0f : 0.0f; });
  row::weigh_experts(out.weights + n * E, p, chosen, E, rule);
}

// partial[b,g] = the sums over the rows of block b that are in group g, which the block's threads have just
// written: partial [blocks,G,sum_columns(E)]. A thread owns some of the sums and adds the rows in order.
__device__ void sum_block(double* partial, const RoutePointers& t, const int32_t* group, int64_t G, int64_t N,
                          int64_t E) {
  __shared__ int32_t of[kRows];
  __shared__ float active[kRows], entropy[kRows];
  const int64_t first = int64_t{blockIdx.x} * kRows, n = first + threadIdx.x;
  const int rows = static_cast<int>(N - first < kRows ? N - first : kRows);
  if (n < N) {
    float count = 0;
    for (int64_t e = 0; e < E; ++e) count += t.weights[n * E + e] != 0.0f;
    of[threadIdx.x] = group[n];
    active[threadIdx.x] = count;
    entropy[threadIdx.x] = row::entropy<float>([=](int64_t e) { return t.probs[n * E + e]; }, E, {});
  }
  __syncthreads();  // all rows of the block are written
  const int64_t width = sum_columns(E);
  for (int64_t i = threadIdx.x; i < G * width; i += kRows) {
    const int64_t g = i / width, c = i % width;
    const float* column = c < E ? t.probs + c : c < 2 * E ? t.weights + c - E : t.chosen + c - 2 * E;
    double sum = 0;
    for (int r = 0; r < rows; ++r) {
      if (of[r] != g) continue;
      const float x = c < 3 * E        ? column[(first + r) * E]
                      : c == 3 * E     ? active[r]
                      : c == 3 * E + 1 ? entropy[r]
                                       : 1.0f;
      sum += static_cast<double>(x);
    }
    partial[blockIdx.x * G * width + i] = sum;
  }
}

// probs = softmax(logits); chosen, weights and entropy by the rule;  partial[b] as sum_block
// in: logits f32 [N,E], group i32 [N] in [-1, G) or null
// out: probs chosen weights [N,E], entropy [N] or null, partial f64 [blocks,G,3E+3] or null, written
// A thread owns a row, a block 128 rows; a row's sums in f32, a group's in f64.
__global__ void route_kernel(RoutePointers out, const float* logits, const int32_t* group, double* partial,
                             int64_t G, int64_t N, int64_t E, RouteRule rule) {
  const int64_t n = int64_t{blockIdx.x} * kRows + threadIdx.x;
  if (n < N) decide_row(out, logits, n, E, rule);
  if (partial) sum_block(partial, out, group, G, N, E);
}

// partial[b] = sums over the rows of block b (sum_block)
// in: probs chosen weights f32 [N,E], group i32 [N] in [-1, G)   out: partial f64 [blocks,G,3E+3], written
// A block owns 128 rows, a thread some of their sums; sums in f64.
__global__ void route_sums_kernel(RoutePointers in, const int32_t* group, double* partial, int64_t G,
                                  int64_t N, int64_t E) {
  sum_block(partial, in, group, G, N, E);
}

// The sum of one column over all blocks and the groups [first, first + groups); every lane gets it.
__device__ double sum_of_blocks(const double* partial, int64_t blocks, int64_t G, int64_t first,
                                int64_t groups, int64_t column, int64_t width) {
  double sum = 0;
  for (int64_t i = team_rank<32>(); i < blocks * groups; i += 32)
    sum += partial[(i / groups * G + first + i % groups) * width + column];
  return team_sum<32>(sum);
}

// sums[g] = sum over blocks of partial[b,g];  mean_x[m] = sum over blocks and the groups of m / rows of m
// in: partial f64 [blocks,G,3E+3]   out: sums [G,E+3], mean_probs mean_weights mean_chosen [means,E],
// mean_rows [means], written; means is G, 1 (all groups together) or 0
// A warp owns a number: first those of sums, then those of the means; sums in f64.
__global__ void finish_kernel(RoutePointers out, const double* partial, int64_t blocks, int64_t G,
                              int64_t means, int64_t E) {
  const int64_t i = team_row<32>(), width = sum_columns(E), of_sums = G * (E + 3);
  const bool writes = team_rank<32>() == 0;
  if (i < of_sums) {
    const double sum = sum_of_blocks(partial, blocks, G, i / (E + 3), 1, 2 * E + i % (E + 3), width);
    if (writes) out.sums[i] = static_cast<float>(sum);
    return;
  }
  const int64_t j = i - of_sums, m = j / (3 * E), c = j % (3 * E), groups = means == G ? 1 : G;
  if (m >= means) return;
  const double sum = sum_of_blocks(partial, blocks, G, m * groups, groups, c, width),
               rows = sum_of_blocks(partial, blocks, G, m * groups, groups, 3 * E + 2, width);
  if (!writes) return;
  float* kind = c < E ? out.mean_probs : c < 2 * E ? out.mean_weights : out.mean_chosen;
  kind[m * E + c % E] = static_cast<float>(rows > 0 ? sum * (1 / rows) : 0);
  if (c == 0) out.mean_rows[m] = static_cast<float>(rows);
}

void finish(const char* op, const RoutePointers& out, const Scratch<double>& partial, int64_t blocks,
            int64_t G, int64_t means, int64_t E) {
  launch(op, finish_kernel, teams<32>(G * (E + 3) + means * 3 * E), out, partial.data(), blocks, G, means, E);
}

// dlogits[n,e] = p_e (dp_e - sum_j p_j dp_j),  dp the gradient reaching p by all outputs
// in: gradients d of the outputs (each may be null), outputs of the forward, group i32 [N] or null; f32
// out: dlogits f32 [N,E], written
// A thread owns every (grid size)-th row; sums in f32.
__global__ void route_backward_kernel(float* dlogits, row::RouteGradients<float> d, RoutePointers out,
                                      const int32_t* group, bool one_mean, int64_t N, int64_t E,
                                      RouteRule rule) {
  for (int64_t n = first_element(); n < N; n += element_stride()) {
    const int64_t mean = !group || group[n] < 0 ? -1 : one_mean ? 0 : group[n];
    row::route_backward(dlogits + n * E, d.row(n, mean, out.mean_rows, E), out.probs + n * E,
                        out.chosen + n * E, out.weights + n * E, out.entropy ? out.entropy[n] : 0.0f, E,
                        rule);
  }
}

void check_f32(const char* op, const Tensor& t) {
  BURROW_CHECK(t.dtype() == DType::f32, "[{}] tensors are {}, expected f32", op, t.dtype());
}

}  // namespace

// probs, chosen, weights and entropy; with groups also their sums and means, finished by a second kernel.
void route(RouteTensors& out, const Tensor& logits, const Tensor& group, const RouteRule& rule) {
  const int64_t N = leading(logits), E = channels(logits), blocks = ceil_div(N, kRows);
  check_f32("route", logits);
  check_route("route", out, logits, group, rule);
  const int64_t G = group.defined() ? leading(out.sums) : 0;
  const Scratch<double> partial(blocks * G * sum_columns(E));
  const RoutePointers p = pointers_of(out);
  launch("route", route_kernel, {blocks, 1, 1, kRows}, p, device_data<float>(logits),
         device_data<int32_t>(group), G > 0 ? partial.data() : nullptr, G, N, E, rule);
  if (G > 0) finish("route", p, partial, blocks, G, leading(out.mean_probs), E);
}

// sums[g] = over the rows of group g; see RouteTensors
void route_sums(Tensor& sums, const Tensor& probs, const Tensor& chosen, const Tensor& weights,
                const Tensor& group) {
  const int64_t N = leading(probs), E = channels(probs), G = leading(sums), blocks = ceil_div(N, kRows);
  check_f32("route_sums", probs);
  check_route_sums("route_sums", sums, probs, chosen, weights, group);
  const Scratch<double> partial(blocks * G * sum_columns(E));
  const RoutePointers p = pointers_of({.probs = probs, .chosen = chosen, .weights = weights, .sums = sums});
  launch("route_sums", route_sums_kernel, {blocks, 1, 1, kRows}, p, device_data<int32_t>(group),
         partial.data(), G, N, E);
  finish("route_sums", p, partial, blocks, G, 0, E);
}

void route_backward(Tensor& dlogits, const RouteTensors& dout, const RouteTensors& out, const Tensor& group,
                    const RouteRule& rule) {
  const int64_t N = leading(out.probs), E = channels(out.probs);
  check_f32("route_backward", dlogits);
  check_route_backward("route_backward", dlogits, dout, out, group);
  const RoutePointers d = pointers_of(dout);
  const bool one_mean = out.mean_rows.defined() && out.mean_rows.numel() == 1;
  launch("route_backward", route_backward_kernel, elements(N), device_data<float>(dlogits),
         row::RouteGradients<float>{d.probs, d.weights, d.entropy, d.mean_probs, d.mean_weights, 0.0f},
         pointers_of(out), device_data<int32_t>(group), one_mean, N, E, rule);
}

}  // namespace burrow::cuda
