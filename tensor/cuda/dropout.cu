// Dropout with the Philox generator, whose draws depend on seed, sample, position and channel alone.
// A thread owns four channels of a row, which share one Philox block.
#include <cmath>

#include "tensor/cuda/values.cuh"
#include "tensor/rng.h"

namespace burrow::cuda {
namespace {

// y[n,c] = x[n,c] gain where (draw >> 8) >= threshold, else 0; gain = 1 / (1 - p), threshold = p 2^24. The
// draw of (n, c) is lane c % 4 of Philox at counter (ordinal[n], 0, position[n], c / 4). The backward is the
// same kernel on dy.
// in: x [N,C], ordinal position i32 [N]   out: y [N,C], written; y may be x
// A thread owns the four channels of a Philox block, and every (grid size)-th such block; computed in f32.
// Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC'11.
template <class T>
__global__ void dropout_kernel(T* y, const T* x, const int32_t* ordinal, const int32_t* position,
                               uint64_t key, uint32_t threshold, float gain, int64_t N, int64_t C) {
  const int64_t blocks = (C + 3) / 4;
  for (int64_t i = first_element(); i < N * blocks; i += element_stride()) {
    const int64_t n = i / blocks, block = i % blocks;
    const PhiloxBlock draw = philox(key, static_cast<uint32_t>(ordinal[n]), 0,
                                    static_cast<uint32_t>(position[n]), static_cast<uint32_t>(block));
    for (int64_t lane = 0; lane < 4 && 4 * block + lane < C; ++lane) {
      const int64_t at = n * C + 4 * block + lane;
      const bool kept = (draw.v[lane] >> 8) >= threshold;
      y[at] = kept ? static_cast<T>(to_float(x[at]) * gain) : static_cast<T>(0.0f);
    }
  }
}

}  // namespace

void dropout(Tensor& y, const Tensor& x, const Tensor& ordinal, const Tensor& position, uint64_t key,
             double p) {
  const int64_t C = channels(x), N = leading(x);
  check_same("dropout", "y", y, "x", x);
  check_vector("dropout", "ordinal", ordinal, DType::i32, N);
  check_vector("dropout", "position", position, DType::i32, N);
  BURROW_CHECK(p >= 0 && p < 1, "[dropout] p is {}, expected 0 <= p < 1", p);
  // uniform(draw) = (draw >> 8) / 2^24, so that comparing integers is exactly uniform(draw) >= p.
  const auto threshold = static_cast<uint32_t>(std::ceil(p * 0x1p24));
  visit_device("dropout", x.dtype(), [&]<class T>(T) {
    launch("dropout", dropout_kernel<T>, elements(N * ((C + 3) / 4)), device_data<T>(y), device_data<T>(x),
           device_data<int32_t>(ordinal), device_data<int32_t>(position), key, threshold,
           static_cast<float>(1 / (1 - p)), N, C);
  });
}

}  // namespace burrow::cuda
