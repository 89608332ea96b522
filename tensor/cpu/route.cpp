// A router's decisions for every row, the sums of groups of rows, and the gradient of the logits.
// A thread owns blocks of 256 rows, whose sums are added in order on one thread.
#include <algorithm>

#include "tensor/cpu/parallel.h"
#include "tensor/cpu/vec.h"
#include "tensor/route_checks.h"
#include "tensor/route_rows.h"

namespace burrow::cpu {
namespace {

constexpr int64_t kRows = 256;  // of a block; blocks are added in order, whatever the threads

// The number of columns of a group's sums: probs [E], weights [E], chosen [E], active experts, entropy, rows.
int64_t sum_columns(int64_t E) { return 3 * E + 3; }

// Adds a row to the sums of its group.
template <class T>
void add_row(double* sums, const T* p, const T* weights, const T* chosen, int64_t E) {
  for (int64_t e = 0; e < E; ++e) {
    sums[e] += static_cast<double>(p[e]);
    sums[E + e] += static_cast<double>(weights[e]);
    sums[2 * E + e] += static_cast<double>(chosen[e]);
    sums[3 * E] += weights[e] != T(0);
  }
  sums[3 * E + 1] += static_cast<double>(row::entropy<T>([=](int64_t e) { return p[e]; }, E, {}));
  sums[3 * E + 2] += 1;
}

// Calls f(begin, end), which computes t, on blocks of rows, and returns the sums over each group's rows,
// [G,sum_columns(E)], in this thread's scratch memory.
template <class T, class F>
const double* sums_of_blocks(const RouteTensors& t, const Tensor& group, int64_t G, int64_t N, int64_t E,
                             F f) {
  struct Partial;
  struct Total;
  const int64_t width = G * sum_columns(E), blocks = (N + kRows - 1) / kRows;
  double* partial = scratch<double, Partial>(blocks * width);
  const int32_t* of = group.defined() ? group.data<int32_t>() : nullptr;
  const T *p = t.probs.data<T>(), *w = t.weights.data<T>(), *chosen = t.chosen.data<T>();
  parallel_rows(blocks, 60 * N * E, [=](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      const int64_t begin = b * kRows, end = std::min(N, begin + kRows);
      f(begin, end);
      std::fill_n(partial + b * width, width, 0.0);
      for (int64_t n = begin; of && n < end; ++n) {
        if (of[n] >= 0)
          add_row(partial + b * width + of[n] * sum_columns(E), p + n * E, w + n * E, chosen + n * E, E);
      }
    }
  });
  double* total = scratch<double, Total>(width);
  std::fill_n(total, width, 0.0);
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t i = 0; i < width; ++i) total[i] += partial[b * width + i];
  }
  return total;
}

template <class T>
void write_sums(Tensor& sums, const double* total, int64_t G, int64_t E) {
  T* out = sums.data<T>();
  for (int64_t g = 0; g < G; ++g) {
    for (int64_t c = 0; c < E + 3; ++c)
      out[g * (E + 3) + c] = static_cast<T>(total[g * sum_columns(E) + 2 * E + c]);
  }
}

// The means of each group, or of all groups together if mean_probs has one row.
template <class T>
void write_means(RouteTensors& out, const double* total, int64_t G, int64_t E) {
  const int64_t means = leading(out.mean_probs), groups = means == G ? 1 : G;
  for (int64_t m = 0; m < means; ++m) {
    const auto sum = [=](int64_t column) {
      double all = 0;
      for (int64_t g = m * groups; g < (m + 1) * groups; ++g) all += total[g * sum_columns(E) + column];
      return all;
    };
    const double rows = sum(3 * E + 2), inverse = rows > 0 ? 1 / rows : 0;
    out.mean_rows.data<T>()[m] = static_cast<T>(rows);
    for (int64_t e = 0; e < E; ++e) {
      out.mean_probs.data<T>()[m * E + e] = static_cast<T>(sum(e) * inverse);
      out.mean_weights.data<T>()[m * E + e] = static_cast<T>(sum(E + e) * inverse);
      out.mean_chosen.data<T>()[m * E + e] = static_cast<T>(sum(2 * E + e) * inverse);
    }
  }
}

}  // namespace

// probs = softmax(logits); chosen, weights and entropy by the rule; means and sums over each group's rows
// in: logits [N,E], group i32 [N] in [-1, G) or undefined   out: RouteTensors, written
// A thread owns blocks of 256 rows; a row's sums in the dtype, a group's in f64.
void route(RouteTensors& out, const Tensor& logits, const Tensor& group, const RouteRule& rule) {
  const int64_t N = leading(logits), E = channels(logits);
  check_route("route", out, logits, group, rule);
  if (group.defined()) check_range("route", "group", group, -1, leading(out.sums));
  visit_float("route", logits.dtype(), [&]<class T>(T) {
    const T* z = logits.data<T>();
    T *p = out.probs.data<T>(), *chosen = out.chosen.data<T>(), *weights = out.weights.data<T>();
    T* entropy = out.entropy.defined() ? out.entropy.data<T>() : nullptr;
    const auto decide = [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        T *mine = p + n * E, *mask = chosen + n * E;
        softmax_run(mine, z + n * E, E);
        const auto score = [=](int64_t e) { return mine[e]; };
        const T h = entropy ? row::entropy<T>(score, E, rule.entropy) : T(0);
        if (entropy) entropy[n] = h;
        row::choose_experts<T>(score, E, h, rule, [=](int64_t e, bool is) { mask[e] = is ? T(1) : T(0); });
        row::weigh_experts(weights + n * E, mine, mask, E, rule);
      }
    };
    const int64_t G = group.defined() ? leading(out.sums) : 0;
    const double* total = sums_of_blocks<T>(out, group, G, N, E, decide);
    if (!group.defined()) return;
    write_sums<T>(out.sums, total, G, E);
    write_means<T>(out, total, G, E);
  });
}

// sums[g] = over the rows of group g, see RouteTensors
// in: probs chosen weights [N,E], group i32 [N] in [-1, G)   out: sums [G,E+3], written
// A thread owns blocks of 256 rows; sums in f64.
void route_sums(Tensor& sums, const Tensor& probs, const Tensor& chosen, const Tensor& weights,
                const Tensor& group) {
  const int64_t N = leading(probs), E = channels(probs), G = leading(sums);
  check_route_sums("route_sums", sums, probs, chosen, weights, group);
  check_range("route_sums", "group", group, -1, G);
  visit_float("route_sums", probs.dtype(), [&]<class T>(T) {
    const RouteTensors t{.probs = probs, .chosen = chosen, .weights = weights};
    write_sums<T>(sums, sums_of_blocks<T>(t, group, G, N, E, [](int64_t, int64_t) {}), G, E);
  });
}

// dlogits[n,e] = p_e (dp_e - sum_j p_j dp_j), dp the gradient reaching p by all outputs
// in: dout and out, see kernels.def; group i32 [N] in [-1, G) or undefined   out: dlogits [N,E], written
// A thread owns rows; sums in the dtype.
void route_backward(Tensor& dlogits, const RouteTensors& dout, const RouteTensors& out, const Tensor& group,
                    const RouteRule& rule) {
  const int64_t N = leading(out.probs), E = channels(out.probs);
  check_route_backward("route_backward", dlogits, dout, out, group);
  visit_float("route_backward", dlogits.dtype(), [&]<class T>(T) {
    const auto data = [](const Tensor& t) { return t.defined() ? t.data<T>() : nullptr; };
    const T *p = data(out.probs), *chosen = data(out.chosen), *weights = data(out.weights),
            *entropy = data(out.entropy), *mean_rows = data(out.mean_rows);
    const row::RouteGradients<T> d{data(dout.probs),      data(dout.weights),      data(dout.entropy),
                                   data(dout.mean_probs), data(dout.mean_weights), T(0)};
    const int32_t* of = group.defined() ? group.data<int32_t>() : nullptr;
    const bool one_mean = out.mean_rows.defined() && out.mean_rows.numel() == 1;
    T* dz = dlogits.data<T>();
    parallel_rows(N, 30 * N * E, [=](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const int64_t mean = !of || of[n] < 0 ? -1 : one_mean ? 0 : of[n];
        row::route_backward(dz + n * E, d.row(n, mean, mean_rows, E), p + n * E, chosen + n * E,
                            weights + n * E, entropy ? entropy[n] : T(0), E, rule);
      }
    });
  });
}

}  // namespace burrow::cpu
