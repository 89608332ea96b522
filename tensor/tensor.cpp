#include "tensor/tensor.h"

#include <algorithm>
#include <cstring>

#include "tensor/device.h"

namespace burrow {

int64_t Shape::numel() const {
  int64_t n = 1;
  for (int64_t d : *this) {
    BURROW_CHECK(d >= 0, "[shape] negative size in {}", *this);
    BURROW_CHECK(!__builtin_mul_overflow(n, d, &n), "[shape] {} has too many elements", *this);
  }
  return n;
}

Tensor::Tensor(const Tensor&) = default;
Tensor::Tensor(Tensor&&) noexcept = default;
Tensor& Tensor::operator=(const Tensor&) = default;
Tensor& Tensor::operator=(Tensor&&) noexcept = default;
Tensor::~Tensor() = default;

Tensor Tensor::empty(Shape shape, DType dtype, Device device, const char* what) {
  Tensor t;
  t.numel_ = shape.numel();
  t.shape_ = std::move(shape);
  t.dtype_ = dtype;
  t.storage_ = Storage::allocate(t.nbytes(), device, what);
  return t;
}

Tensor Tensor::zeros(Shape shape, DType dtype, Device device, const char* what) {
  Tensor t = empty(std::move(shape), dtype, device, what);
  t.zero();
  return t;
}

Tensor Tensor::full(Shape shape, double value, DType dtype, Device device) {
  Tensor t = empty(std::move(shape), dtype);
  visit_any(dtype, [&]<class T>(T) {
    T element;
    if constexpr (std::is_same_v<T, bf16>)
      element = bf16(static_cast<float>(value));
    else
      element = static_cast<T>(value);
    std::fill_n(t.data<T>(), t.numel(), element);
  });
  return t.to(device);
}

template <class T>
// NOLINTNEXTLINE(performance-unnecessary-value-param): moved from, which the check does not see in a template
Tensor Tensor::of(Shape shape, std::span<const T> values) {
  Tensor t = empty(std::move(shape), DTypeOf<T>::value);
  BURROW_CHECK(t.numel() == static_cast<int64_t>(values.size()), "[tensor] shape {} needs {} values, got {}",
               t.shape(), t.numel(), values.size());
  std::copy(values.begin(), values.end(), t.data<T>());
  return t;
}
template Tensor Tensor::of<float>(Shape, std::span<const float>);
template Tensor Tensor::of<double>(Shape, std::span<const double>);
template Tensor Tensor::of<int32_t>(Shape, std::span<const int32_t>);
template Tensor Tensor::of<bf16>(Shape, std::span<const bf16>);

Tensor Tensor::view(std::shared_ptr<Storage> storage, size_t byte_offset, Shape shape, DType dtype) {
  Tensor t;
  t.numel_ = shape.numel();
  t.shape_ = std::move(shape);
  t.dtype_ = dtype;
  t.offset_ = byte_offset;
  BURROW_CHECK(byte_offset + t.nbytes() <= storage->size(),
               "[tensor] a view of {} {} at byte {} exceeds the storage of {} bytes", t.shape_, dtype,
               byte_offset, storage->size());
  t.storage_ = std::move(storage);
  return t;
}

int64_t Tensor::dim(int i) const {
  const int j = i < 0 ? i + rank() : i;
  BURROW_CHECK(0 <= j && j < rank(), "[tensor] dimension {} of shape {}", i, shape_);
  return shape_[static_cast<size_t>(j)];
}

void Tensor::check_type(DType asked) const {
  BURROW_CHECK(defined(), "[tensor] data of an undefined tensor");
  BURROW_CHECK(dtype_ == asked, "[tensor] {} {} read as {}", dtype_, shape_, asked);
  BURROW_CHECK(device() == Device::cpu, "[tensor] host access to a tensor {} on {}", shape_, device());
}

double Tensor::item() const {
  BURROW_CHECK(defined() && numel_ == 1, "[tensor] item() of shape {}", shape_);
  const Tensor host = to(Device::cpu);
  double value = 0;
  visit_any(dtype_, [&]<class T>(T) {
    if constexpr (std::is_same_v<T, bf16>)
      value = static_cast<float>(*host.data<T>());
    else
      value = static_cast<double>(*host.data<T>());
  });
  return value;
}

Tensor Tensor::slice_rows(int64_t begin, int64_t end) const {
  BURROW_CHECK(rank() >= 1 && 0 <= begin && begin <= end && end <= dim(0),
               "[slice_rows] rows {} to {} of shape {}", begin, end, shape_);
  Tensor t = *this;
  t.shape_[0] = end - begin;
  t.numel_ = (end - begin) * cols();
  t.offset_ += static_cast<size_t>(begin * cols()) * size_of(dtype_);
  return t;
}

Tensor Tensor::reshape(Shape shape) const {
  BURROW_CHECK(shape.numel() == numel_, "[reshape] {} to {}: element counts differ", shape_, shape);
  Tensor t = *this;
  t.shape_ = std::move(shape);
  return t;
}

Tensor Tensor::clone(const char* what) const {
  Tensor t = empty(shape_, dtype_, device(), what);
  t.copy_from(*this);
  return t;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  BURROW_CHECK(dtype_ != DType::i32 && dtype != DType::i32, "[to] no conversion from {} to {}", dtype_,
               dtype);
  const Tensor host = to(Device::cpu);
  Tensor t = empty(shape_, dtype);
  visit_any(dtype_, [&]<class From>(From) {
    visit_any(dtype, [&]<class To>(To) {
      const From* in = host.data<From>();
      To* out = t.data<To>();
      for (int64_t i = 0; i < numel_; ++i) {
        if constexpr (std::is_same_v<From, bf16>)
          out[i] = static_cast<To>(static_cast<float>(in[i]));
        else if constexpr (std::is_same_v<To, bf16>)
          out[i] = bf16(static_cast<float>(in[i]));
        else
          out[i] = static_cast<To>(in[i]);
      }
    });
  });
  return t.to(device());
}

Tensor Tensor::to(Device target) const {
  if (!defined() || target == device()) return *this;
  Tensor t = empty(shape_, dtype_, target);
  t.copy_from(*this);
  return t;
}

void Tensor::copy_from(const Tensor& other) {
  BURROW_CHECK(shape_ == other.shape_ && dtype_ == other.dtype_, "[copy] {} {} from {} {}", dtype_, shape_,
               other.dtype_, other.shape_);
  if (nbytes() == 0) return;
  if (cuda::options().planned && (device() == Device::cuda || other.device() == Device::cuda)) {
    if (device() == Device::cpu) std::memset(bytes(), 0, nbytes());
    return;
  }
  const bool to_cpu = device() == Device::cpu, from_cpu = other.device() == Device::cpu;
  if (to_cpu && from_cpu)
    std::memcpy(bytes(), other.bytes(), nbytes());
  else if (from_cpu)
    cuda::copy_to_device(bytes(), other.bytes(), nbytes());
  else if (to_cpu)
    cuda::copy_to_host(bytes(), other.bytes(), nbytes());
  else
    cuda::copy_on_device(bytes(), other.bytes(), nbytes());
}

void Tensor::zero() {
  if (device() == Device::cpu)
    std::memset(bytes(), 0, nbytes());
  else if (!cuda::options().planned)
    cuda::fill(bytes(), 0, nbytes());
}

bool Tensor::same_window(const Tensor& other) const {
  return storage_ == other.storage_ && offset_ == other.offset_ && numel_ == other.numel_;
}

}  // namespace burrow

fmt::appender fmt::formatter<burrow::DType>::format(burrow::DType t, format_context& c) const {
  return formatter<std::string_view>::format(burrow::name_of(t), c);
}
fmt::appender fmt::formatter<burrow::Device>::format(burrow::Device d, format_context& c) const {
  return formatter<std::string_view>::format(burrow::name_of(d), c);
}
fmt::appender fmt::formatter<burrow::Shape>::format(const burrow::Shape& s, format_context& c) const {
  return formatter<std::string_view>::format(fmt::format("({})", fmt::join(s.begin(), s.end(), ", ")), c);
}
