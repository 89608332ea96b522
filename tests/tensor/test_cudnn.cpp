// cuDNN's attention against our own kernels; and two runs of the library, which must give equal bits even in
// memory filled with NaN. Exits with 77, skipped, if there is no device or no cuDNN. With --graphs it prints
// the library's objections to the graphs, which needs no device.
#include <numeric>

#include "tensor/cuda/cudnn.h"
#include "tests/support/guarded_memory.h"
#include "tests/support/numbers.h"

using namespace burrow;
using namespace burrow::testing;

namespace {

struct Case {
  const char* name;
  int64_t heads, kv_heads, head_size;
  bool causal;
  std::vector<int32_t> queries, keys;  // rows of each sequence
};

std::vector<Case> cases() {
  const std::vector<int32_t> mixed{1, 63, 64, 65, 129, 300, 2};
  return {
      {"heads of 128, causal", 4, 4, 128, true, mixed, mixed},
      {"heads of 64, causal", 3, 3, 64, true, mixed, mixed},
      {"grouped, causal", 8, 2, 128, true, mixed, mixed},
      {"one key head, causal", 4, 1, 64, true, {200, 7}, {200, 7}},
      {"bidirectional", 2, 2, 64, false, mixed, mixed},
      {"bidirectional, other keys", 4, 2, 128, false, {5, 200, 64, 1}, {130, 3, 64, 40}},
      {"one sequence", 2, 2, 128, true, {1}, {1}},
      {"one long sequence", 2, 2, 128, true, {1500}, {1500}},
      {"a batch that is filled up", 2, 2, 64, true, std::vector<int32_t>(37, 20),
       std::vector<int32_t>(37, 20)},
  };
}

struct Inputs {
  Tensor q, k, v, dy;
  AttentionRanges ranges;
  AttentionShape shape;
};

Inputs inputs_of(const Case& c, DType dtype = DType::bf16) {
  std::vector<int32_t> cuts[2]{{0}, {0}}, at[2];
  for (const int side : {0, 1}) {
    for (const int32_t n : side == 0 ? c.queries : c.keys) {
      cuts[side].push_back(cuts[side].back() + n);
      for (int32_t i = 0; i < n; ++i) at[side].push_back(i);
    }
  }
  const auto there = [&](const char* name, int64_t rows, int64_t heads) {
    return normal(fmt::format("{}.{}", c.name, name), {rows, heads * c.head_size}, dtype).to(Device::cuda);
  };
  const int64_t Nq = cuts[0].back(), Nk = cuts[1].back();
  const auto column = [](const std::vector<int32_t>& values) { return index_of(values).to(Device::cuda); };
  return {there("q", Nq, c.heads),
          there("k", Nk, c.kv_heads),
          there("v", Nk, c.kv_heads),
          there("dy", Nq, c.heads),
          {column(cuts[0]), column(cuts[1]), column(at[0]), column(at[1]),
           known_ranges(cuts[0], cuts[1], at[0], at[1])},
          {c.heads, c.kv_heads, c.head_size, c.causal, 1 / std::sqrt(static_cast<double>(c.head_size))}};
}

constexpr const char* kNames[] = {"y", "lse", "dq", "dk", "dv"};

// The five results on the host, forward and backward each by cuDNN or by us, in memory filled with `fill`.
std::vector<Tensor> run(const Inputs& in, cuda::AttentionBy forward, cuda::AttentionBy backward,
                        unsigned char fill = kFillNan) {
  const GuardedMemory memory(fill);
  const auto like = [](const Tensor& t) { return Tensor::empty(t.shape(), t.dtype(), Device::cuda); };
  Tensor y = like(in.q), dq = like(in.q), dk = like(in.k), dv = like(in.v),
         lse = Tensor::empty({in.q.dim(0), in.shape.heads}, DType::f32, Device::cuda);
  cuda::options().attention = forward;
  kernel::attention(y, lse, in.q, in.k, in.v, in.ranges, in.shape);
  cuda::options().attention = backward;
  kernel::attention_backward(dq, dk, dv, in.dy, y, lse, in.q, in.k, in.v, in.ranges, in.shape);
  cuda::options().attention = cuda::AttentionBy::own;
  std::vector<Tensor> all;
  for (const Tensor& t : {y, lse, dq, dk, dv}) all.push_back(t.to(Device::cpu));
  return all;
}

constexpr auto kOwn = cuda::AttentionBy::own, kCudnn = cuda::AttentionBy::cudnn;

// Both sides round outputs to the 8 bits of bf16; cuDNN rounds its weights, too.
void check_close(const std::vector<Tensor>& got, const std::vector<Tensor>& want, const std::string& what) {
  for (size_t i = 0; i < want.size(); ++i)
    check_below(i == 1 ? "lse" : "attention in bf16", relative_error(got[i], want[i]), i == 1 ? 1e-4 : 1e-2,
                fmt::format("{}, {}", what, kNames[i]));
}

}  // namespace

TEST_CASE("cuDNN's attention equals our own") {
  for (const Case& c : cases()) {
    const Inputs in = inputs_of(c);
    const std::vector<Tensor> own = run(in, kOwn, kOwn);
    const int64_t before = cuda::attention_calls_by_cudnn();
    const std::vector<Tensor> library = run(in, kCudnn, kCudnn);
    CHECK_MESSAGE(cuda::attention_calls_by_cudnn() == before + 2, c.name);
    check_close(library, own, c.name);
  }
}

TEST_CASE("cuDNN and our own kernels accept each other's lse") {
  for (const Case& c : cases()) {
    const Inputs in = inputs_of(c);
    const std::vector<Tensor> own = run(in, kOwn, kOwn);
    check_close(run(in, kCudnn, kOwn), own, fmt::format("{}, own gradient", c.name));
    check_close(run(in, kOwn, kCudnn), own, fmt::format("{}, cuDNN's gradient", c.name));
  }
}

// Our own kernels have this property; --attention cudnn stays optional until it is shown on a GPU.
TEST_CASE("two runs of cuDNN's attention give the same bits, whatever the memory held before") {
  for (const Case& c : cases()) {
    const Inputs in = inputs_of(c);
    const std::vector<Tensor> first = run(in, kCudnn, kCudnn, kFillNan);
    for (const unsigned char fill : {kFillFinite, kFillNan, kFillFinite, kFillNan}) {
      const std::vector<Tensor> again = run(in, kCudnn, kCudnn, fill);
      for (size_t i = 0; i < first.size(); ++i)
        CHECK_MESSAGE(same_bits(first[i], again[i]), c.name, ": two runs differ in ", kNames[i]);
    }
  }
}

TEST_CASE("gradients that are not wanted") {
  const Inputs in = inputs_of(cases()[0]);
  const std::vector<Tensor> all = run(in, kCudnn, kCudnn);
  Tensor y = all[0].to(Device::cuda), lse = all[1].to(Device::cuda), none,
         dk = Tensor::empty(in.k.shape(), in.k.dtype(), Device::cuda);
  cuda::options().attention = kCudnn;
  kernel::attention_backward(none, dk, none, in.dy, y, lse, in.q, in.k, in.v, in.ranges, in.shape);
  cuda::options().attention = kOwn;
  CHECK(same_bits(dk.to(Device::cpu), all[3]));
}

TEST_CASE("calls that cuDNN may not compute run our own kernel, to the bit") {
  std::vector<Inputs> inputs{inputs_of({"f32", 2, 2, 64, true, {9, 4}, {9, 4}}, DType::f32),
                             inputs_of({"heads of 32", 2, 2, 32, true, {9, 4}, {9, 4}}),
                             inputs_of({"fewer queries", 2, 2, 64, true, {2, 4}, {9, 4}}),
                             inputs_of({"an empty sequence", 2, 2, 64, true, {9, 0, 4}, {9, 0, 4}}),
                             inputs_of({"nothing known", 2, 2, 64, true, {9, 4}, {9, 4}})};
  inputs.back().ranges.known = {};
  const int64_t before = cuda::attention_calls_by_cudnn();
  for (const Inputs& in : inputs) {
    const std::vector<Tensor> own = run(in, kOwn, kOwn), asked = run(in, kCudnn, kCudnn);
    for (size_t i = 0; i < own.size(); ++i) CHECK(same_bits(own[i], asked[i]));
  }
  CHECK(cuda::attention_calls_by_cudnn() == before);
}

namespace {

// Without a device the library can reject a graph; only a device shows that it supports one.
int check_graphs() {
  int bad = 0;
  for (const Case& c : cases()) {
    const auto sum = [](const std::vector<int32_t>& n) {
      return std::accumulate(n.begin(), n.end(), int64_t{0});
    };
    const auto most = [](const std::vector<int32_t>& n) { return int64_t{*std::ranges::max_element(n)}; };
    for (const bool backward : {false, true}) {
      const cuda::FusedProblem problem{
          cuda::fused_sizes(static_cast<int64_t>(c.queries.size()), std::max(most(c.queries), most(c.keys)),
                            sum(c.queries), sum(c.keys)),
          c.heads,
          c.kv_heads,
          c.head_size,
          c.causal,
          backward,
          0.125f};
      for (const int capability : {90, 100}) {
        const std::string why = cuda::cudnn_objections(problem, capability);
        fmt::print("{}, {}, {}: {}\n", c.name, backward ? "backward" : "forward", capability,
                   why.empty() ? "no objection" : why);
        bad += !why.empty();
      }
    }
  }
  return bad == 0 ? 0 : 1;
}

int skipped(const std::string& why) {
  fmt::print("SKIPPED ({}): test_cudnn\n", why);
  return 77;
}

}  // namespace

int main(int argc, char** argv) {
  const cuda::CudnnInfo info = cuda::cudnn_info();
  if (!info.absent.empty()) return skipped(info.absent);
  fmt::print("cuDNN {}\n", info.version);
  if (argc == 2 && std::string_view(argv[1]) == "--graphs") return check_graphs();
  if (cuda::device_count() == 0) return skipped("no CUDA device");
  return run_and_print_worst(argc, argv);
}
