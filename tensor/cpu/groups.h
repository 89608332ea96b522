#pragma once
// Views of ExpertGroups: an expert's places, and those of them whose rows a thread owns.
#include <algorithm>

#include "tensor/checks.h"
#include "tensor/kernels.h"

namespace burrow::cpu {

// Expert e has the places j with offsets[e] <= j < offsets[e+1]; place j stands for row order[j].
struct Groups {
  const int32_t *order, *offsets;
  int64_t experts;

  int64_t operator()(int64_t j) const { return order[j]; }  // the row of place j
};

// Checks what the searches of rows_of rely on: experts tile the places, and rows ascend within an expert.
inline Groups checked(const char* op, const ExpertGroups& groups, int64_t N) {
  const int64_t M = groups.order.numel(), E = groups.offsets.numel() - 1;
  check_vector(op, "order", groups.order, DType::i32, M);
  check_vector(op, "offsets", groups.offsets, DType::i32, E + 1);
  check_range(op, "order", groups.order, 0, N);
  const Groups g{groups.order.data<int32_t>(), groups.offsets.data<int32_t>(), E};
  BURROW_CHECK(E >= 1 && g.offsets[0] == 0 && g.offsets[E] == M,
               "[{}] offsets {} do not run from 0 to the {} places of order", op, groups.offsets.shape(), M);
  for (int64_t e = 0; e < E; ++e) {
    BURROW_CHECK(g.offsets[e] <= g.offsets[e + 1], "[{}] offsets[{}] is {}, above the next offset", op, e,
                 g.offsets[e]);
  }
  for (int64_t e = 0; e < E; ++e) {
    for (int64_t j = g.offsets[e] + 1; j < g.offsets[e + 1]; ++j) {
      BURROW_CHECK(g.order[j - 1] < g.order[j], "[{}] order[{}] is {}: the rows of expert {} do not ascend",
                   op, j, g.order[j], e);
    }
  }
  return g;
}

// Calls f(e, begin, end) for every expert that has places [begin, end) with rows in [first, last). A thread
// that owns these rows adds to each in the order of the experts, without locks and in a fixed order.
template <class F>
void rows_of(const Groups& g, int64_t first, int64_t last, F f) {
  for (int64_t e = 0; e < g.experts; ++e) {
    const int32_t *begin = g.order + g.offsets[e], *end = g.order + g.offsets[e + 1];
    const int32_t* low = std::lower_bound(begin, end, first);
    const int32_t* high = std::lower_bound(low, end, last);
    if (low < high) f(e, low - g.order, high - g.order);
  }
}

}  // namespace burrow::cpu
