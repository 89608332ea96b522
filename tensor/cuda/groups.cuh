#pragma once
// Device views of ExpertGroups: an expert's places, and its side, which is its part of a LoRA factor.
// A block of a grouped product owns tiles of one expert's places.
#include "tensor/cuda/values.cuh"

namespace burrow::cuda {

// Expert e has the places j with offsets[e] <= j < offsets[e+1]; place j stands for row order[j].
struct Groups {
  const int32_t *order, *offsets;
  int64_t experts;

  __device__ int64_t begin(int64_t e) const { return offsets[e]; }
  __device__ int64_t end(int64_t e) const { return offsets[e + 1]; }
  __device__ int64_t row(int64_t j) const { return order[j]; }
  __device__ int64_t expert_of(int64_t j) const {
    int64_t e = 0;
    while (e + 1 < experts && j >= offsets[e + 1]) ++e;
    return e;
  }
};

// The places [first, last) of an expert, in tiles of `size`.
struct Places {
  int64_t first, last, tiles;
};
__device__ inline Places places_of(const Groups& g, int64_t e, int64_t size) {
  return {g.begin(e), g.end(e), (g.end(e) - g.begin(e) + size - 1) / size};
}

// The sides of all experts, in either layout: rank r < R and channel c < C of expert e's side are in
// a [E*R,C] at [e*R + r, c] or, if turned, in b [C,E*R] at [c, e*R + r].
struct Sides {
  Floats p;
  bool turned;
  int64_t R, C, stride;  // of a row of the tensor

  __device__ int64_t at(int64_t e, int64_t r, int64_t c) const {
    return turned ? c * stride + e * R + r : (e * R + r) * stride + c;
  }
};

inline Groups groups_of(const char* op, const ExpertGroups& groups) {
  const int64_t E = groups.offsets.numel() - 1;
  check_vector(op, "order", groups.order, DType::i32, groups.order.numel());
  check_vector(op, "offsets", groups.offsets, DType::i32, E + 1);
  BURROW_CHECK(E >= 1, "[{}] offsets {} has no expert", op, groups.offsets.shape());
  return {device_data<int32_t>(groups.order), device_data<int32_t>(groups.offsets), E};
}

}  // namespace burrow::cuda
