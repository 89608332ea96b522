#pragma once
// Element types. The dtype of a tensor is a run-time property; visit_dtype turns it into a C++ type.
#include <bit>
#include <cstdint>
#include <string_view>

#include "tensor/check.h"
#include "tensor/host_device.h"

namespace burrow {

// f64 is for gradient checks, on the CPU; bf16 is a storage type on the CPU (arithmetic is f32, rounded at
// the outputs); i32 holds token ids, offsets and indices.
enum class DType : uint8_t { f32, f64, bf16, i32 };
enum class Device : uint8_t { cpu, cuda };

struct bf16 {
  uint16_t bits = 0;
  bf16() = default;
  BURROW_HD explicit bf16(float x) {  // round to nearest, ties to even; NaN stays NaN
    auto u = std::bit_cast<uint32_t>(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<uint16_t>((u >> 16) | 0x40u);
    } else {
      bits = static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
    }
  }
  BURROW_HD explicit operator float() const {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
};

// Bytes of an element.
constexpr size_t size_of(DType t) {
  switch (t) {
    case DType::f32:
      return 4;
    case DType::f64:
      return 8;
    case DType::bf16:
      return 2;
    case DType::i32:
      return 4;
  }
  return 0;
}
// The name in errors and configs: "f32", "f64", "bf16", "i32".
constexpr std::string_view name_of(DType t) {
  switch (t) {
    case DType::f32:
      return "f32";
    case DType::f64:
      return "f64";
    case DType::bf16:
      return "bf16";
    case DType::i32:
      return "i32";
  }
  return "?";
}
// The dtype of sums over elements of `t`: statistics, losses and counts of bf16 tensors are f32.
constexpr DType sum_type(DType t) { return t == DType::bf16 ? DType::f32 : t; }
constexpr std::string_view name_of(Device d) { return d == Device::cpu ? "cpu" : "cuda"; }

// The DType of a C++ element type: DTypeOf<float>::value.
template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::i32;
};

// Calls f(T{}) with T = float or double; `op` names the caller in the error for any other dtype.
template <class F>
void visit_float(const char* op, DType t, F&& f) {
  switch (t) {
    case DType::f32:
      return f(float{});
    case DType::f64:
      return f(double{});
    default:
      fail("[{}] dtype {} is not supported (f32, f64 are)", op, name_of(t));
  }
}
// Calls f(T{}) with T = float, double, bf16 or int32_t.
template <class F>
void visit_any(DType t, F&& f) {
  switch (t) {
    case DType::f32:
      return f(float{});
    case DType::f64:
      return f(double{});
    case DType::bf16:
      return f(bf16{});
    case DType::i32:
      return f(int32_t{});
  }
}

}  // namespace burrow

// Formatted in tensor.cpp: in a header, every file would compile fmt's writing of strings.
template <>
struct fmt::formatter<burrow::DType> : fmt::formatter<std::string_view> {
  appender format(burrow::DType t, format_context& c) const;
};
template <>
struct fmt::formatter<burrow::Device> : fmt::formatter<std::string_view> {
  appender format(burrow::Device d, format_context& c) const;
};
