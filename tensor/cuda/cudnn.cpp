// cuDNN's fused attention: loads the library on first use, builds a plan per rounded size, and runs it.
// The library divides the work.
#include "tensor/cuda/cudnn.h"

#include <dlfcn.h>

#include <map>

#include "tensor/checks.h"
#include "tensor/cuda/cudnn_graph.h"

// The frontend looks cuDNN's functions up here. Nothing is linked, so that the program starts without the
// library.
namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}

namespace burrow::cuda {
namespace {

constexpr size_t kOldest = 90600;  // the first version that supports packed lse
int64_t calls = 0;

CudnnInfo open_library() {
  for (const char* name : {"libcudnn.so.9", "libcudnn.so"}) {
    if (!cudnn_frontend::cudnn_dlhandle) cudnn_frontend::cudnn_dlhandle = dlopen(name, RTLD_NOW);
  }
  if (!cudnn_frontend::cudnn_dlhandle) {
    const char* why = dlerror();
    return {.absent = fmt::format("cuDNN 9 was not found: {}", why ? why : "libcudnn.so.9 cannot be opened")};
  }
  if (!dlsym(cudnn_frontend::cudnn_dlhandle, "cudnnGetVersion"))
    return {.absent = "libcudnn.so.9 has no cudnnGetVersion"};
  CudnnInfo info{.version = cudnn_frontend::detail::get_backend_version()};
  if (info.version < kOldest)
    info.absent = fmt::format("cuDNN {} is installed, but packed lse needs 9.6 or newer", info.version);
  return info;
}

[[noreturn]] void refuse(const FusedProblem& p, const char* step, const std::string& why) {
  fail(
      "[{}] cuDNN does not support {} heads of {} over {} key heads, {} sequences of at most {} rows, {}: "
      "{}: {}. "
      "Use --attention own instead",
      p.backward ? "attention_backward" : "attention", p.heads, p.head_size, p.kv_heads, p.sizes.batch,
      p.sizes.longest, p.causal ? "causal" : "bidirectional", step, why);
}

// Runs f and reports its failure: the frontend returns most errors and throws some.
template <class F>
void attempt(const FusedProblem& p, const char* step, F&& f) {
  std::string why;
  try {
    const cudnn_frontend::error_t status = f();
    if (status.is_good()) return;
    why = status.err_msg;
  } catch (const std::exception& e) {
    why = e.what();
  }
  refuse(p, step, why);
}

// Created once and never destroyed: the driver may be unloaded before static destructors run.
struct Library {
  cudnnHandle_t handle = nullptr;
  int capability = 0;
  Library() {
    const CudnnInfo info = cudnn_info();
    BURROW_CHECK(info.absent.empty(), "[attention] {}", info.absent);
    const DeviceInfo device = device_info();
    capability = 10 * device.major + device.minor;
    const cudnnStatus_t status = cudnn_frontend::detail::create_handle(&handle);
    BURROW_CHECK(status == CUDNN_STATUS_SUCCESS, "[attention] cudnnCreate: {}",
                 cudnn_frontend::detail::get_error_string(status));
  }
};
Library& library() {
  static auto* made = new Library;
  return *made;
}

struct Plan {
  std::shared_ptr<cudnn_frontend::graph::Graph> graph;
  int64_t workspace = 0;  // bytes
};

Plan make_plan(const FusedProblem& p) {
  Plan plan{fused_graph(p, library().capability)};
  auto& graph = *plan.graph;
  attempt(p, "validate", [&] { return graph.validate(); });
  attempt(p, "build_operation_graph", [&] { return graph.build_operation_graph(library().handle); });
  attempt(p, "create_execution_plans",
          [&] { return graph.create_execution_plans({cudnn_frontend::HeurMode_t::A}); });
  attempt(p, "check_support", [&] { return graph.check_support(); });
  attempt(p, "build_plans", [&] { return graph.build_plans(); });
  attempt(p, "get_workspace_size", [&] { return graph.get_workspace_size(plan.workspace); });
  return plan;
}

FusedProblem problem_of(const Tensor& q, const Tensor& k, const AttentionRanges& r, const AttentionShape& s,
                        bool backward) {
  FusedSizes sizes = fused_sizes(r.q_offsets.numel() - 1, r.known.longest, leading(q), leading(k));
  if (!backward) sizes.q_rows = sizes.k_rows = 0;  // unused by the forward graph: fewer plans
  return {sizes, s.heads, s.kv_heads, s.head_size, s.causal, backward, static_cast<float>(s.scale)};
}

bool takes(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionRanges& r,
           const AttentionShape& s) {
  if (options().attention != AttentionBy::cudnn || why_own_attention(q, k, r, s)) return false;
  const char* op = "attention";
  check_matrix(op, "q", q, DType::bf16, leading(q), s.heads * s.head_size);
  check_matrix(op, "k", k, DType::bf16, leading(k), s.kv_heads * s.head_size);
  check_same(op, "v", v, "k", k);
  return true;
}

using Places = std::unordered_map<int64_t, void*>;

// Runs the plan, creating it if new. Adds the sequences' begins and lengths to `places`. Workspace and ragged
// rows are freed in stream order.
void execute(const FusedProblem& p, Places& places, const AttentionRanges& ranges,
             const AttentionShape& shape) {
  static auto* plans = new std::map<FusedProblem, Plan>;
  auto plan = plans->find(p);
  if (plan == plans->end()) plan = plans->emplace(p, make_plan(p)).first;
  const RaggedRows rows = ragged_rows(ranges, shape, p.sizes.batch);
  places.insert({{kQBegins, rows.q_begins},
                 {kKBegins, rows.k_begins},
                 {kLseBegins, rows.lse_begins},
                 {kQLengths, rows.q_lengths},
                 {kKLengths, rows.k_lengths}});
  const auto workspace =
      Storage::allocate(static_cast<size_t>(plan->second.workspace), Device::cuda, "cuDNN workspace");
  attempt(p, "execute",
          [&] { return plan->second.graph->execute(library().handle, places, workspace->bytes()); });
  ++calls;
}

Tensor or_scratch(const Tensor& gradient, const Tensor& like) {
  return gradient.defined() ? gradient : Tensor::empty(like.shape(), like.dtype(), Device::cuda, "scratch");
}

}  // namespace

CudnnInfo cudnn_info() {
  static const CudnnInfo info = open_library();
  return info;
}

int64_t attention_calls_by_cudnn() { return calls; }

std::string cudnn_objections(const FusedProblem& problem, int capability) {
  const CudnnInfo info = cudnn_info();
  if (!info.absent.empty()) return info.absent;
  try {
    attempt(problem, "validate", [&] { return fused_graph(problem, capability)->validate(); });
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

// The library writes all of y and lse because each row is in a sequence with keys; see why_own_attention.
bool attention_by_cudnn(const Tensor& y, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                        const AttentionRanges& ranges, const AttentionShape& shape) {
  if (!takes(q, k, v, ranges, shape)) return false;
  Places places{{kQ, q.bytes()}, {kK, k.bytes()}, {kV, v.bytes()}, {kY, y.bytes()}, {kLse, lse.bytes()}};
  execute(problem_of(q, k, ranges, shape, false), places, ranges, shape);
  return true;
}

// The library always computes all three gradients; unwanted ones go to scratch memory.
bool attention_backward_by_cudnn(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dy,
                                 const Tensor& y, const Tensor& lse, const Tensor& q, const Tensor& k,
                                 const Tensor& v, const AttentionRanges& ranges,
                                 const AttentionShape& shape) {
  if (!takes(q, k, v, ranges, shape)) return false;
  const Tensor to_q = or_scratch(dq, q), to_k = or_scratch(dk, k), to_v = or_scratch(dv, v);
  Places places{{kQ, q.bytes()},     {kK, k.bytes()},     {kV, v.bytes()},
                {kY, y.bytes()},     {kLse, lse.bytes()}, {kDy, dy.bytes()},
                {kDq, to_q.bytes()}, {kDk, to_k.bytes()}, {kDv, to_v.bytes()}};
  execute(problem_of(q, k, ranges, shape, true), places, ranges, shape);
  return true;
}

}  // namespace burrow::cuda
