#include "nn/pass.h"

#include <limits>

namespace burrow::nn {

std::vector<Var*> vars_of(Routing& r) {
  std::vector<Var*> vars;
  for (Var* v :
       {&r.probs, &r.weights, &r.entropy, &r.mean_probs, &r.mean_weights, &r.lambda, &r.margin, &r.prior}) {
    if (v->defined()) vars.push_back(v);
  }
  return vars;
}

KvCache::KvCache(int64_t sequences, int64_t capacity)
    : sequences(sequences), capacity(capacity), length(static_cast<size_t>(sequences), 0) {
  positions = Tensor::full({sequences * capacity}, std::numeric_limits<int32_t>::max(), DType::i32);
  std::vector<int32_t> at;
  for (int64_t b = 0; b <= sequences; ++b) at.push_back(static_cast<int32_t>(b * capacity));
  offsets = Tensor::of({sequences + 1}, at);
}

Pass::Pass(const Segments& s, Device device) : segments(&s) {
  const int64_t N = s.rows();
  std::vector<int32_t> row_ordinal(static_cast<size_t>(N));
  for (size_t n = 0; n < row_ordinal.size(); ++n) {
    row_ordinal[n] = static_cast<int32_t>(s.ordinal[static_cast<size_t>(s.sequence[n])]);
  }
  position = Tensor::of({N}, s.position).to(device);
  sequence = Tensor::of({N}, s.sequence).to(device);
  ordinal = Tensor::of({N}, row_ordinal).to(device);
  const Tensor offsets = Tensor::of({s.count() + 1}, s.offsets).to(device);
  ranges = {offsets, offsets, position, position, known_ranges(s.offsets, s.offsets, s.position, s.position)};
}

Pass Pass::without_routings() const {
  Pass copy = *this;
  copy.routings.clear();
  return copy;
}

}  // namespace burrow::nn
