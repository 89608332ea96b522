// Rotary position embedding, with a table of angles that is kept between calls.
// A thread owns rows; the table is extended by the calling thread.
#include <cmath>
#include <vector>

#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/kernels.h"
#include "tensor/row_ops.h"

namespace burrow::cpu {
namespace {

// cos and sin of position * theta^(-2i/D), i < D/2: for each position from 0 a row of D values (cosines, then
// sines), computed once, in f64.
class RotaryTable {
 public:
  // The rows of all positions below `count`; another theta or D starts a new table.
  const double* rows(int64_t count, double theta, int64_t D) {
    if (theta != theta_ || D != D_) rows_.clear();
    theta_ = theta;
    D_ = D;
    int64_t have = D == 0 ? count : static_cast<int64_t>(rows_.size()) / D;
    if (have < count) rows_.resize(static_cast<size_t>(count * D));
    for (; have < count; ++have) fill(rows_.data() + have * D, have, theta, D);
    return rows_.data();
  }
  static void fill(double* row, int64_t position, double theta, int64_t D) {
    for (int64_t i = 0; i < D / 2; ++i) {
      const double angle = row::rotary_angle(position, i, theta, D);
      row[i] = std::cos(angle);
      row[D / 2 + i] = std::sin(angle);
    }
  }

 private:
  double theta_ = 0;
  int64_t D_ = 0;
  std::vector<double> rows_;
};

constexpr int64_t kTablePositions = 1 << 16;  // 64 MB at D = 128; angles of later positions are not kept

}  // namespace

// (y[i], y[i + D/2]) = (x[i], x[i + D/2]) rotated by position * theta^(-2i/D), in each head, i < D/2: the
// halves of a head are the pairs, as in LLaMA's published weights. `inverse` is the backward.
// in: x [N,H*D], position i32 [N]   out: y [N,H*D], written; y may be x
// A thread owns rows; angles in f64, the rotation in the dtype.
// Source: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021.
void rope(Tensor& y, const Tensor& x, const Tensor& position, int64_t heads, double theta, bool inverse) {
  const int64_t N = leading(x), C = channels(x), D = heads > 0 ? C / heads : 0;
  check_same("rope", "y", y, "x", x);
  check_vector("rope", "position", position, DType::i32, N);
  BURROW_CHECK(heads > 0 && D * heads == C && D % 2 == 0,
               "[rope] x {} does not split into {} heads of even size", x.shape(), heads);
  const int32_t* at = position.data<int32_t>();
  int64_t highest = -1;
  for (int64_t n = 0; n < N; ++n) {
    if (at[n] < kTablePositions) highest = std::max<int64_t>(highest, at[n]);
  }
  thread_local RotaryTable table;
  const double* rows = table.rows(highest + 1, theta, D);
  visit_float("rope", x.dtype(), [&]<class T>(T) {
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_rows(N, 4 * N * C, [=](int64_t begin, int64_t end) {
      struct Angles;
      struct Fresh;
      T* angle = scratch<T, Angles>(D);
      for (int64_t n = begin; n < end; ++n) {
        const double* row = rows + at[n] * D;
        if (at[n] < 0 || at[n] >= kTablePositions) {
          double* fresh = scratch<double, Fresh>(D);
          RotaryTable::fill(fresh, at[n], theta, D);
          row = fresh;
        }
        const T sign = inverse ? T(-1) : T(1);
        for (int64_t i = 0; i < D / 2; ++i) {
          angle[i] = static_cast<T>(row[i]);
          angle[D / 2 + i] = sign * static_cast<T>(row[D / 2 + i]);
        }
        for (int64_t base = n * C; base < (n + 1) * C; base += D) {
          const T *a = in + base, *b = a + D / 2;
          T *ya = out + base, *yb = ya + D / 2;
#pragma omp simd
          for (int64_t i = 0; i < D / 2; ++i) {
            const T u = a[i], v = b[i];  // y may be x
            ya[i] = u * angle[i] - v * angle[D / 2 + i];
            yb[i] = v * angle[i] + u * angle[D / 2 + i];
          }
        }
      }
    });
  });
}

}  // namespace burrow::cpu
