// Converts the offsets of packed sequences to the arrays that cuDNN reads, on the device.
// A thread owns a sequence.
#include "tensor/cuda/cudnn.h"
#include "tensor/cuda/launch.cuh"
#include "tensor/cuda/values.cuh"

namespace burrow::cuda {
namespace {

// begins[b] = offsets[b] * elements of a row,  lengths[b] = offsets[b+1] - offsets[b]; sequences from B on
// are empty and begin at the end
// in: q_offsets k_offsets i32 [B+1]   out: begins i64 [batch+1], lengths i32 [batch], written
// A thread owns a sequence, one more thread the last begin.
__global__ void ragged_kernel(RaggedPointers to, const int32_t* q_offsets, const int32_t* k_offsets,
                              int64_t B, int64_t batch, int64_t q_row, int64_t k_row, int64_t lse_row) {
  for (int64_t b = first_element(); b <= batch; b += element_stride()) {
    const int64_t q_begin = q_offsets[b < B ? b : B], k_begin = k_offsets[b < B ? b : B];
    to.q_begins[b] = q_begin * q_row;
    to.k_begins[b] = k_begin * k_row;
    to.lse_begins[b] = q_begin * lse_row;
    if (b == batch) continue;
    to.q_lengths[b] = b < B ? static_cast<int32_t>(q_offsets[b + 1] - q_begin) : 0;
    to.k_lengths[b] = b < B ? static_cast<int32_t>(k_offsets[b + 1] - k_begin) : 0;
  }
}

// The library may load 16 bytes at once, so each array is aligned to that.
constexpr size_t aligned(size_t bytes) { return (bytes + 15) / 16 * 16; }

}  // namespace

RaggedRows ragged_rows(const AttentionRanges& ranges, const AttentionShape& shape, int64_t batch) {
  const int64_t B = ranges.q_offsets.numel() - 1;
  BURROW_CHECK(B >= 0 && B <= batch && ranges.k_offsets.numel() == B + 1,
               "[attention] {} query offsets and {} key offsets for at most {} sequences", B + 1,
               ranges.k_offsets.numel(), batch);
  const size_t begins = aligned(static_cast<size_t>(batch + 1) * sizeof(int64_t)),
               lengths = aligned(static_cast<size_t>(batch) * sizeof(int32_t));
  RaggedRows rows;
  rows.block = Storage::allocate(3 * begins + 2 * lengths, Device::cuda, "ragged rows");
  std::byte* at = rows.block->bytes();
  for (int64_t** begin : {&rows.q_begins, &rows.k_begins, &rows.lse_begins}) {
    *begin = reinterpret_cast<int64_t*>(at);
    at += begins;
  }
  for (int32_t** length : {&rows.q_lengths, &rows.k_lengths}) {
    *length = reinterpret_cast<int32_t*>(at);
    at += lengths;
  }
  launch("attention", ragged_kernel, elements(batch + 1), static_cast<RaggedPointers>(rows),
         device_data<int32_t>(ranges.q_offsets), device_data<int32_t>(ranges.k_offsets), B, batch,
         shape.heads * shape.head_size, shape.kv_heads * shape.head_size, shape.heads);
  return rows;
}

}  // namespace burrow::cuda
