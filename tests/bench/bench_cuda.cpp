// How fast each kernel is on the GPU at LLaVA-1.5-7B's sizes: 8192 packed tokens in sequences of 832, 4096
// channels, 32 heads of 128, 11008 channels in the FFN, 32000 words, LoRA of rank 32 with 8 experts. Not a
// test:
//   bench_cuda [--json FILE] [part of a name]
// Shares are of what this very run measured: memory-bound kernels against a copy, products against a large
// product.
#include <fmt/format.h>

#include <string_view>

#include "tensor/device.h"
#include "tensor/files.h"
#include "tensor/kernels.h"
#include "tensor/rng.h"

using namespace burrow;

namespace {

constexpr int64_t N = 8192, C = 4096, F = 11008, H = 32, D = 128, V = 32000, E = 8, R = 32, T = 832;

std::string_view only;
std::string json;
double copy_rate = 0, product_rate = 0;  // bytes and FLOPs a second

// Random values in a block that is repeated: seven billion draws on the host would take minutes.
Tensor random_tensor(Shape shape, DType dtype = DType::bf16) {
  constexpr int64_t kBlock = 1 << 16;
  static const Tensor block = [] {
    Tensor t = Tensor::empty({kBlock}, DType::f32);
    Random random(1);
    for (int64_t i = 0; i < kBlock; ++i) t.data<float>()[i] = static_cast<float>(random.normal());
    return t;
  }();
  Tensor host = Tensor::empty(std::move(shape), DType::f32);
  for (int64_t i = 0; i < host.numel(); i += kBlock)
    std::copy_n(block.data<float>(), std::min(kBlock, host.numel() - i), host.data<float>() + i);
  return host.to(dtype).to(Device::cuda);
}
Tensor index_of(int64_t n, int32_t (*value)(int64_t)) {
  Tensor t = Tensor::empty({n}, DType::i32);
  for (int64_t i = 0; i < n; ++i) t.data<int32_t>()[i] = value(i);
  return t.to(Device::cuda);
}

// Seconds of one call: the median of 7 batches, each at least 20 ms long.
template <class F>
double seconds_of(F&& f) {
  const auto batch = [&](int times) {
    cuda::synchronise();
    const double begin = seconds_now();
    for (int i = 0; i < times; ++i) f();
    cuda::synchronise();
    return seconds_now() - begin;
  };
  batch(2);  // plans are made, memory is there
  const int times = std::max(1, static_cast<int>(0.02 / std::max(batch(3) / 3, 1e-7)));
  std::vector<double> found;
  for (int i = 0; i < 7; ++i) found.push_back(batch(times) / times);
  std::sort(found.begin(), found.end());
  return found[3];
}

// The seconds of a call, 0 where the name is not asked for.
template <class F>
double bench(const std::string& name, double amount, bool bytes, F&& f) {
  if (name.find(only) == std::string::npos) return 0;
  const double seconds = seconds_of(f), rate = amount / seconds,
               share = rate / (bytes ? copy_rate : product_rate);
  fmt::print("{:<44}{:>10.1f} us {:>9.2f} {} {:>6.1f} % of {}\n", name, seconds * 1e6, rate * 1e-12,
             bytes ? "TB/s  " : "TFLOP/s", 100 * share, bytes ? "a copy" : "a product");
  json += fmt::format("{}\n  {{\"name\": \"{}\", \"seconds\": {}, \"{}\": {}, \"share\": {}}}",
                      json.empty() ? "" : ",", name, seconds, bytes ? "bytes" : "flops", amount, share);
  return seconds;
}

void measure_peaks() {
  const Tensor from = random_tensor({int64_t{1} << 28});
  Tensor to = Tensor::empty(from.shape(), from.dtype(), Device::cuda);
  copy_rate = 2.0 * static_cast<double>(from.nbytes()) / seconds_of([&] { to.copy_from(from); });
  const Tensor x = random_tensor({N, N}), w = random_tensor({N, N});
  Tensor y = Tensor::empty({N, N}, DType::bf16, Device::cuda);
  product_rate = 2.0 * N * N * N / seconds_of([&] { kernel::matmul_nt(y, x, w, {}, false); });
  fmt::print("a copy: {:.2f} TB/s; a bf16 product of {}^3: {:.1f} TFLOP/s\n\n", copy_rate * 1e-12, N,
             product_rate * 1e-12);
}

void products() {
  for (const auto& [O, I] : {std::pair{C, C}, {F, C}, {C, F}, {E * R, C}, {C, E * R}, {int64_t{R}, C}}) {
    const Tensor x = random_tensor({N, I}), w = random_tensor({O, I});
    Tensor y = random_tensor({N, O}), dx = random_tensor({N, I}), dw = random_tensor({O, I}, DType::f32);
    const double flops = 2.0 * N * static_cast<double>(O * I);
    const std::string size = fmt::format(" {} x {} x {}", N, O, I);
    bench("matmul_nt" + size, flops, false, [&] { kernel::matmul_nt(y, x, w, {}, false); });
    bench("matmul_nn" + size, flops, false, [&] { kernel::matmul_nn(dx, y, w, false); });
    bench("matmul_tn" + size, flops, false, [&] { kernel::matmul_tn(dw, y, x, false); });
  }
}

void rows() {
  const double row = 2.0 * N * C, wide = 2.0 * N * F;
  const Tensor x = random_tensor({N, C}), g = random_tensor({N, C}), w = random_tensor({C}),
               gate = random_tensor({N, F}), up = random_tensor({N, F}), dy = random_tensor({N, F});
  const Tensor position = index_of(N, [](int64_t i) { return static_cast<int32_t>(i % T); });
  Tensor y = random_tensor({N, C}), rstd = random_tensor({N}, DType::f32), wide_y = random_tensor({N, F}),
         wide_z = random_tensor({N, F}), stream = random_tensor({N, C}), none;
  bench("add", 3 * row, true, [&] { kernel::add(y, x, g); });
  bench("rms_norm", 2 * row, true, [&] { kernel::rms_norm(y, rstd, none, x, {}, w, 1e-5); });
  bench("rms_norm of a sum", 4 * row, true, [&] { kernel::rms_norm(y, rstd, stream, x, g, w, 1e-5); });
  bench("rms_norm_backward, dx", 3 * row, true,
        [&] { kernel::rms_norm_backward(y, none, g, {}, x, w, rstd); });
  bench("rope", 2 * row, true, [&] { kernel::rope(y, x, position, H, 10000, false); });
  bench("dropout", 2 * row, true, [&] { kernel::dropout(y, x, position, position, 7, 0.05); });
  bench("swiglu", 3 * wide, true, [&] { kernel::swiglu(wide_y, gate, up); });
  bench("swiglu_backward", 5 * wide, true, [&] { kernel::swiglu_backward(wide_y, wide_z, dy, gate, up); });
  const Tensor table = random_tensor({V, C});
  bench("embedding", 2 * row, true, [&] { kernel::embedding(y, table, none, position); });
  constexpr int64_t E = 8, kSequences = N / T + 1;
  const auto f32 = [](const Shape& s) { return random_tensor(s, DType::f32); };
  RouteTensors routed{.probs = f32({N, E}), .chosen = f32({N, E}), .weights = f32({N, E})};
  routed.mean_probs = f32({kSequences, E});
  routed.mean_weights = f32({kSequences, E});
  routed.mean_chosen = f32({kSequences, E});
  routed.mean_rows = f32({kSequences});
  routed.sums = f32({kSequences, E + 3});
  const Tensor scores = f32({N, E}),
               sequence = index_of(N, [](int64_t i) { return static_cast<int32_t>(i / T); });
  bench("route, top-1, E = 8", 16.0 * N * E, true, [&] { kernel::route(routed, scores, sequence, {}); });
  Tensor logits = random_tensor({1024, V}), loss = random_tensor({1024}, DType::f32);
  const Tensor target = index_of(1024, [](int64_t i) { return static_cast<int32_t>(i); });
  bench("cross_entropy, 1024 rows", 4.0 * 1024 * V, true,
        [&] { kernel::cross_entropy(loss, logits, logits, target); });
  constexpr int64_t kParameters = 80'000'000;
  Tensor value = random_tensor({kParameters}, DType::f32), m = value.clone(),
         v = random_tensor({kParameters}, DType::f32);
  v.zero();
  const Tensor grad = value.clone();
  bench("adamw, 80 M parameters", 28.0 * kParameters, true,
        [&] { kernel::adamw(value, m, v, grad, {}, 1, 1e-4, 1); });
  Tensor sum = Tensor::empty({1}, DType::f64, Device::cuda);
  bench("sum_squares, 80 M", 4.0 * kParameters, true, [&] { kernel::sum_squares(sum, grad); });
}

void attention() {
  const Tensor q = random_tensor({N, H * D}), k = random_tensor({N, H * D}), v = random_tensor({N, H * D}),
               dy = random_tensor({N, H * D});
  const Tensor offsets =
      index_of((N + T - 1) / T + 1, [](int64_t i) { return static_cast<int32_t>(std::min(N, i * T)); });
  const Tensor position = index_of(N, [](int64_t i) { return static_cast<int32_t>(i % T); });
  const AttentionRanges ranges{offsets, offsets, position, position, {T, true}};
  const AttentionShape shape{H, H, D, true, 0.088};
  Tensor y = Tensor::empty(q.shape(), q.dtype(), Device::cuda),
         lse = Tensor::empty({N, H}, DType::f32, Device::cuda);
  Tensor dq = y.clone(), dk = y.clone(), dv = y.clone();
  const double flops = 4.0 * H * D * (N / T * (T * (T + 1.0) / 2) + N % T * (N % T + 1.0) / 2);
  const auto both = [&](const std::string& by) {
    const double forward = bench("attention" + by + ", causal", flops, false,
                                 [&] { kernel::attention(y, lse, q, k, v, ranges, shape); });
    const double backward = bench("attention_backward" + by + ", causal", 2.5 * flops, false, [&] {
      kernel::attention_backward(dq, dk, dv, dy, y, lse, q, k, v, ranges, shape);
    });
    return std::pair{forward, backward};
  };
  const auto [own, own_backward] = both("");
  const cuda::CudnnInfo cudnn = cuda::cudnn_info();
  if (!cudnn.absent.empty()) {
    fmt::print("SKIPPED ({}): attention by cuDNN\n", cudnn.absent);
    return;
  }
  cuda::options().attention = cuda::AttentionBy::cudnn;
  const auto [library, library_backward] = both(" by cuDNN");
  cuda::options().attention = cuda::AttentionBy::own;
  if (own > 0 && library > 0 && own_backward > 0 && library_backward > 0) {
    fmt::print("own attention runs at {:.1f} % of cuDNN's speed forward, {:.1f} % backward\n",
               100 * library / own, 100 * library_backward / own_backward);
  }
}

void experts() {
  Tensor chosen = Tensor::zeros({N, E}, DType::f32);
  for (int64_t n = 0; n < N; ++n) chosen.data<float>()[n * E + (n * 7919 >> 3) % E] = 1;
  const Tensor mask = chosen.to(Device::cuda), weights = random_tensor({N, E}, DType::f32);
  ExpertGroups groups{Tensor::empty({N}, DType::i32, Device::cuda),
                      Tensor::empty({E + 1}, DType::i32, Device::cuda)};
  bench("group_by_expert", 4.0 * N * (2 * E + 1), true,
        [&] { kernel::group_by_expert(groups.order, groups.offsets, mask); });
  kernel::group_by_expert(groups.order, groups.offsets, mask);
  const Tensor x = random_tensor({N, C});
  Tensor y = random_tensor({N, C}), z = random_tensor({N, C});
  for (const int64_t rank : {R, int64_t{128}}) {  // the second above the E*R that is masked
    const Tensor a = random_tensor({E * rank, C}), b = random_tensor({C, E * rank});
    Tensor h = random_tensor({N, rank}), da = random_tensor({E * rank, C}, DType::f32);
    const double side = 2.0 * N * (C + rank);
    const std::string of = fmt::format(", top-1, R = {}", rank);
    bench("gather_matmul_nt" + of, side, true, [&] { kernel::gather_matmul_nt(h, x, a, groups); });
    bench("scatter_matmul_nt" + of, side + 2.0 * N * C, true,
          [&] { kernel::scatter_matmul_nt(y, h, b, groups); });
    bench("spread_matmul_nt" + of, side + 2.0 * N * C, true,
          [&] { kernel::spread_matmul_nt(z, y, h, b, groups); });
    bench("gather_matmul_tn_a" + of, side, true, [&] { kernel::gather_matmul_tn_a(da, h, x, groups); });
  }
  const Tensor masked = random_tensor({N, E * R});
  Tensor scaled = random_tensor({N, E * R});
  bench("scale_experts, masked", 4.0 * N * E * R, true,
        [&] { kernel::scale_experts(scaled, masked, weights, 2); });
}

}  // namespace

int main(int argc, char** argv) {
  std::string file;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--json" && i + 1 < argc)
      file = argv[++i];
    else
      only = argv[i];
  }
  const cuda::DeviceInfo info = cuda::device_info();
  if (!info.absent.empty()) {
    fmt::print("SKIPPED (no CUDA device): bench_cuda: {}\n", info.absent);
    return 77;
  }
  fmt::print("{}\n", info.name);
  measure_peaks();
  products();
  rows();
  attention();
  experts();
  if (!file.empty()) {
    write_file_atomically(
        file, fmt::format("{{\"device\": \"{}\", \"copy\": {}, \"product\": {}, \"kernels\": [{}\n]}}\n",
                          info.name, copy_rate, product_rate, json));
  }
  return 0;
}
