#include "tensor/profile.h"

#include <algorithm>
#include <chrono>

#include "tensor/kernels.h"

namespace burrow {
namespace {

struct Sum {
  int64_t calls = 0;
  double seconds = 0, flops = 0;
};
std::array<Sum, static_cast<size_t>(KernelId::count_)> sums;

// The number of (query, key) pairs in which the query sees the key.
double visible_pairs(const AttentionRanges& r, bool causal) {
  const Tensor q = r.q_offsets.to(Device::cpu), k = r.k_offsets.to(Device::cpu);
  const Tensor q_at = r.q_positions.to(Device::cpu), k_at = r.k_positions.to(Device::cpu);
  double pairs = 0;
  for (int64_t b = 0; b + 1 < q.numel(); ++b) {
    const int32_t *qo = q.data<int32_t>() + b, *ko = k.data<int32_t>() + b;
    if (!causal) pairs += static_cast<double>(qo[1] - qo[0]) * (ko[1] - ko[0]);
    int32_t seen = ko[0];  // positions ascend within a sequence
    for (int32_t n = qo[0]; causal && n < qo[1]; ++n) {
      while (seen < ko[1] && k_at.data<int32_t>()[seen] <= q_at.data<int32_t>()[n]) ++seen;
      pairs += seen - ko[0];
    }
  }
  return pairs;
}

double flops_of(KernelId id, const detail::CallArguments& a) {
  const auto numel = [&](size_t i) { return static_cast<double>(a.tensors[i]->numel()); };
  const auto defined = [&](size_t i) { return a.tensors[i]->defined() ? 1.0 : 0.0; };
  switch (id) {
    case KernelId::matmul_nt:
    case KernelId::matmul_nn:  // y, x: the inner size is x's columns
      return 2 * numel(0) * static_cast<double>(a.tensors[1]->cols());
    case KernelId::matmul_tn:  // y, a: the inner size is a's rows
      return 2 * numel(0) * static_cast<double>(a.tensors[1]->rows());
    case KernelId::gather_matmul_nt:
    case KernelId::gather_matmul_nn:  // h, x
      return 2 * numel(0) * static_cast<double>(a.tensors[1]->cols());
    case KernelId::scatter_matmul_nt:
    case KernelId::scatter_matmul_nn:
    case KernelId::gather_matmul_tn_a:  // y, h; a, h
      return 2 * numel(1) * static_cast<double>(a.tensors[0]->cols());
    case KernelId::gather_matmul_tn_b:
    case KernelId::spread_matmul_nt:  // b, y, h; z, y, h
      return 2 * numel(2) * static_cast<double>(a.tensors[1]->cols());
    case KernelId::attention:  // q kᵀ and p v
      return 4 * visible_pairs(*a.ranges, a.shape->causal) *
             static_cast<double>(a.shape->heads * a.shape->head_size);
    case KernelId::attention_backward:  // q kᵀ again, dy vᵀ, and each defined gradient
      return (4 + 2 * (defined(0) + defined(1) + defined(2))) * visible_pairs(*a.ranges, a.shape->causal) *
             static_cast<double>(a.shape->heads * a.shape->head_size);
    default:
      return 0;
  }
}

}  // namespace

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

namespace detail {

bool profiling = false;

void add_to_profile(KernelId id, double seconds, const CallArguments& arguments) {
  Sum& sum = sums[static_cast<size_t>(id)];
  sum.calls += 1;
  sum.seconds += seconds;
  sum.flops += flops_of(id, arguments);
}

}  // namespace detail

void start_profile() {
  sums.fill({});
  detail::profiling = true;
}

std::vector<KernelProfile> stop_profile() {
  detail::profiling = false;
  const auto names = kernel_calls();
  std::vector<KernelProfile> all;
  for (size_t i = 0; i < sums.size(); ++i) {
    if (sums[i].calls) all.push_back({names[i].first, sums[i].calls, sums[i].seconds, sums[i].flops});
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  return all;
}

}  // namespace burrow
