#pragma once
// Shape and Tensor. Tensors are contiguous and row-major, with PyTorch's order of dimensions; gradients and
// the graph are in autograd/.
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/storage.h"

namespace burrow {

struct Shape : std::vector<int64_t> {  // a type of its own, so that fmt finds its formatter
  using vector::vector;
  int64_t numel() const;
};

// Contiguous elements in row-major order: a shape, a dtype and an offset into a Storage. A copy shares the
// storage; clone() copies the elements.
class Tensor {
 public:
  Tensor() = default;  // undefined; as an output of a kernel it means "not wanted"
  // Compiled in tensor.cpp, because inlined they are a quarter of the code of what owns tensors.
  Tensor(const Tensor&);
  Tensor(Tensor&&) noexcept;
  Tensor& operator=(const Tensor&);
  Tensor& operator=(Tensor&&) noexcept;
  ~Tensor();

  // `what` names the allocation in the memory report.
  static Tensor empty(Shape shape, DType dtype, Device device = Device::cpu, const char* what = "tensor");
  static Tensor zeros(Shape shape, DType dtype, Device device = Device::cpu, const char* what = "tensor");
  static Tensor full(Shape shape, double value, DType dtype, Device device = Device::cpu);
  // Copies `values` (f32, f64, bf16 or i32 elements) into a new CPU tensor; the count must match.
  template <class T>
  static Tensor of(Shape shape, std::span<const T> values);
  template <class T>
  static Tensor of(Shape shape, const std::vector<T>& values) {
    return of(std::move(shape), std::span<const T>(values));
  }
  // A view of `shape` at `byte_offset` of existing storage (an arena, a mapped file).
  static Tensor view(std::shared_ptr<Storage> storage, size_t byte_offset, Shape shape, DType dtype);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int rank() const { return static_cast<int>(shape_.size()); }
  int64_t dim(int i) const;  // negative counts from the back
  int64_t numel() const { return numel_; }
  int64_t rows() const { return rank() == 0 ? 1 : dim(0); }
  int64_t cols() const {
    return rows() == 0 ? (rank() < 2 ? 1 : Shape(shape_.begin() + 1, shape_.end()).numel()) : numel_ / rows();
  }
  size_t nbytes() const { return static_cast<size_t>(numel_) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_ ? storage_->device() : Device::cpu; }
  const std::shared_ptr<Storage>& storage() const { return storage_; }

  // Typed access on the CPU; throws if the tensor has another dtype or device.
  template <class T>
  T* data() {
    check_type(DTypeOf<T>::value);
    return reinterpret_cast<T*>(bytes());
  }
  template <class T>
  const T* data() const {
    check_type(DTypeOf<T>::value);
    return reinterpret_cast<const T*>(bytes());
  }
  std::byte* bytes() const { return storage_->bytes() + offset_; }
  double item() const;  // the value of a one-element tensor, from any device

  Tensor slice_rows(int64_t begin, int64_t end) const;  // a view of rows [begin, end)
  Tensor reshape(Shape shape) const;                    // a view with the same number of elements
  Tensor clone(const char* what = "clone") const;
  Tensor to(DType dtype) const;    // a copy unless it has that dtype
  Tensor to(Device device) const;  // a copy unless it is on that device

  void copy_from(const Tensor& other);  // same shape and dtype, any devices
  void zero();
  bool same_window(const Tensor& other) const;  // the same bytes of the same storage

 private:
  void check_type(DType asked) const;
  Shape shape_;
  int64_t numel_ = 0;
  DType dtype_ = DType::f32;
  size_t offset_ = 0;  // in bytes
  std::shared_ptr<Storage> storage_;
};

extern template Tensor Tensor::of<float>(Shape, std::span<const float>);
extern template Tensor Tensor::of<double>(Shape, std::span<const double>);
extern template Tensor Tensor::of<int32_t>(Shape, std::span<const int32_t>);
extern template Tensor Tensor::of<bf16>(Shape, std::span<const bf16>);

}  // namespace burrow

template <>
struct fmt::formatter<burrow::Shape> : fmt::formatter<std::string_view> {
  appender format(const burrow::Shape& s, format_context& c) const;
};
