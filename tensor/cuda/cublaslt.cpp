// gemm.h by cuBLASLt: the library divides the work; algorithms are chosen by its heuristic and cached by
// size. The library is column-major. It computes a row-major c = op(a) op(b) as c^T = op(b)^T op(a)^T: the
// operands are swapped and every matrix is described by its transpose, whose leading dimension is the length
// of a row.
#include <cublasLt.h>
#include <cuda_runtime.h>

#include <array>
#include <bit>
#include <map>
#include <optional>
#include <tuple>

#include "tensor/check.h"
#include "tensor/cuda/gemm.h"
#include "tensor/device.h"
#include "tensor/storage.h"

namespace burrow::cuda {
namespace {

constexpr size_t kWorkspace = 32 << 20;  // as NVIDIA recommends for Hopper

void check(cublasStatus_t status, const char* call, const Gemm& g) {
  BURROW_CHECK(status == CUBLAS_STATUS_SUCCESS, "[matmul] {} of sizes {}, {}, {} in {}: {}", call, g.M, g.N,
               g.K, name_of(g.inputs), cublasLtGetStatusString(status));
}
#define BURROW_LT(call, g) check((call), #call, g)

cudaDataType_t type_of(DType t) { return t == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

// Created once and never destroyed: the driver may be unloaded before static destructors run.
struct Library {
  cublasLtHandle_t handle = nullptr;
  std::shared_ptr<Storage> workspace = Storage::allocate(kWorkspace, Device::cuda, "cublasLt workspace");
  Library() {
    const cublasStatus_t status = cublasLtCreate(&handle);
    BURROW_CHECK(status == CUBLAS_STATUS_SUCCESS, "[matmul] cublasLtCreate: {}",
                 cublasLtGetStatusString(status));
  }
};
Library& library() {
  static auto* made = new Library;
  return *made;
}

struct Layout {
  cublasLtMatrixLayout_t layout = nullptr;
  // A row-major matrix [rows,columns], described as its column-major transpose.
  Layout(DType type, int64_t rows, int64_t columns, const Gemm& g) {
    BURROW_LT(cublasLtMatrixLayoutCreate(&layout, type_of(type), static_cast<uint64_t>(columns),
                                         static_cast<uint64_t>(rows), columns),
              g);
  }
  ~Layout() { cublasLtMatrixLayoutDestroy(layout); }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
};

// The library's description of a product. It holds no pointers but the bias: the library's epilogue adds a
// vector to each column, which is a row of y. The bias has the dtype of y, as is the default.
struct Problem {
  cublasLtMatmulDesc_t operation = nullptr;
  Layout a, b, c;  // named as in Gemm
  explicit Problem(const Gemm& g)
      : a(g.inputs, g.a_transposed ? g.K : g.M, g.a_transposed ? g.M : g.K, g),
        b(g.inputs, g.b_transposed ? g.N : g.K, g.b_transposed ? g.K : g.N, g),
        c(g.output, g.M, g.N, g) {
    const bool fast = may_round(g, options().tf32);
    BURROW_LT(cublasLtMatmulDescCreate(&operation, fast ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                                       CUDA_R_32F),
              g);
    // The library's A is our b.
    const cublasOperation_t first = g.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                            second = g.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    BURROW_LT(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first),
              g);
    BURROW_LT(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second),
              g);
    if (!g.bias) return;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    BURROW_LT(
        cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue),
        g);
    BURROW_LT(
        cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &g.bias, sizeof g.bias),
        g);
  }
  ~Problem() { cublasLtMatmulDescDestroy(operation); }
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;
};

// The largest power of two up to 16 that divides the address: the alignment that vector loads may assume.
uint32_t alignment_of(const void* p) {
  return static_cast<uint32_t>(
      std::min<uintptr_t>(16, uintptr_t{1} << std::countr_zero(reinterpret_cast<uintptr_t>(p) | 16)));
}

// Empty if the library has no algorithm for these sizes, dtypes and alignments.
std::optional<cublasLtMatmulAlgo_t> choose(const Gemm& g) {
  const Problem p(g);
  cublasLtMatmulPreference_t preference = nullptr;
  BURROW_LT(cublasLtMatmulPreferenceCreate(&preference), g);
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
    BURROW_LT(cublasLtMatmulPreferenceSetAttribute(preference, name, &value, sizeof value), g);
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
  // Only deterministic split-K: partial sums in the workspace, added in order, never atomics in the output.
  const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(g.b));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(g.a));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(g.c));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(g.c));
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(library().handle, p.operation, p.b.layout, p.a.layout, p.c.layout,
                                     p.c.layout, preference, 1, &found, &count);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || count == 0) return {};
  check(status, "cublasLtMatmulAlgoGetHeuristic", g);
  return found.algo;
}

cublasStatus_t run(const Gemm& g, const cublasLtMatmulAlgo_t& algorithm) {
  const Problem p(g);
  const float one = 1, beta = g.add ? 1 : 0;
  return cublasLtMatmul(library().handle, p.operation, &one, g.b, p.b.layout, g.a, p.a.layout, &beta, g.c,
                        p.c.layout, g.c, p.c.layout, &algorithm, library().workspace->bytes(), kWorkspace,
                        nullptr);
}

// The size by which an algorithm is chosen: above 64, n rounded up to a multiple of 2^floor(log2 n) / 8. The
// number of tokens changes in every step, so few sizes keep the cache small. The choice, and with it the bits
// of the result, depends on the size alone, not on which size came first.
int64_t bucket(int64_t n) {
  if (n <= 64) return n;
  const auto step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(n)) / 8);
  return (n + step - 1) / step * step;
}

using Key = std::tuple<int64_t, int64_t, int64_t, unsigned, std::array<uint32_t, 4>>;

}  // namespace

void gemm(const Gemm& g) {
  static auto* plans = new std::map<Key, std::optional<cublasLtMatmulAlgo_t>>;
  Gemm rounded = g;
  (g.a_transposed ? rounded.K : rounded.M) = bucket(g.a_transposed ? g.K : g.M);  // the number of tokens
  const unsigned kind = unsigned{g.a_transposed} | unsigned{g.b_transposed} << 1 | unsigned{g.add} << 2 |
                        unsigned{g.inputs == DType::bf16} << 3 | unsigned{g.output == DType::bf16} << 4 |
                        unsigned{options().tf32} << 5 | unsigned{g.bias != nullptr} << 6;
  // The heuristic reads the alignment of the bias from its address.
  const Key key{rounded.M,
                rounded.N,
                rounded.K,
                kind,
                {alignment_of(g.a), alignment_of(g.b), alignment_of(g.c), alignment_of(g.bias)}};
  auto plan = plans->find(key);
  if (plan == plans->end()) plan = plans->emplace(key, choose(rounded)).first;
  if (plan->second && run(g, *plan->second) == CUBLAS_STATUS_SUCCESS) return;
  // The bucket's algorithm may not support this size: choose one for the size itself, else use our kernel.
  const auto own = choose(g);
  if (!own) return plain_gemm(g);
  check(run(g, *own), "cublasLtMatmul", g);
}

}  // namespace burrow::cuda
