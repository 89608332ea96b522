// The table of test cases of differentiable ops, one row each; those of routing are in op_cases_routing.cpp.
#include "tests/autograd/op_harness.h"
#include "tests/support/numbers.h"

namespace burrow::testing {
namespace {

constexpr const char* kExact = "one rounding to f32 a value";

OpFunction unary_function(Unary op) {
  return [op](X x, I) { return unary(x[0], op); };
}

Var one_more(const Var& x) {
  return add(x, Var(Tensor::full(x.shape(), 1, x.value().dtype(), x.value().device())));
}

// Ranges for attention: in each sequence the positions of keys count from 0, and the last query is at the
// last key.
AttentionRanges ranges_of(const Tensor& q_offsets, const Tensor& k_offsets) {
  const Tensor q = q_offsets.to(Device::cpu), k = k_offsets.to(Device::cpu);
  std::vector<int32_t> q_position, k_position;
  for (int64_t b = 0; b + 1 < q.numel(); ++b) {
    const int32_t *qo = q.data<int32_t>() + b, *ko = k.data<int32_t>() + b;
    const int32_t queries = qo[1] - qo[0], keys = ko[1] - ko[0];
    for (int32_t i = 0; i < queries; ++i) q_position.push_back(keys - queries + i);
    for (int32_t i = 0; i < keys; ++i) k_position.push_back(i);
  }
  const Device device = q_offsets.device();
  const std::span<const int32_t> q_cuts(q.data<int32_t>(), static_cast<size_t>(q.numel())),
      k_cuts(k.data<int32_t>(), static_cast<size_t>(k.numel()));
  return {q_offsets, k_offsets, index_of(q_position).to(device), index_of(k_position).to(device),
          known_ranges(q_cuts, k_cuts, q_position, k_position)};
}

std::vector<OpSize> same_shapes(size_t inputs) {
  std::vector<OpSize> sizes;
  for (const auto& [label, shape] : {std::pair{"aligned", Shape{8, 32}},
                                     {"odd", {7, 33}},
                                     {"of rank 3", {2, 3, 5}},
                                     {"one", {1}},
                                     {"empty", {0, 4}}}) {
    sizes.push_back({label, std::vector<Shape>(inputs, shape), {}});
  }
  return sizes;
}

// -log softmax(logits)[target] per row: the kernel inside linear_cross_entropy as an op.
Var row_cross_entropy(X x, I i) {
  const Tensor& logits = x[0].value();
  Tensor loss = Tensor::empty({logits.dim(0)}, sum_type(logits.dtype()), logits.device());
  Tensor d = Tensor::empty(logits.shape(), logits.dtype(), logits.device());
  kernel::cross_entropy(loss, d, logits, i[0]);
  return record("row_cross_entropy", loss, {x[0]}, [d](const Tensor& dy, Grads& g) {
    Tensor dx = g.like(0);  // each row times its element of dy: scale_experts with E = 1
    kernel::scale_experts(dx, d, dy.reshape({dy.dim(0), 1}), 1);
    g.add(0, dx);
  });
}

// Uses two of the three outputs; one of them depends on one input only.
Var recomputed(X x, I) {
  const auto outputs = recompute(
      [](X inputs, bool) {
        const Var h = swiglu(inputs[0], inputs[1]);
        return std::vector<Var>{mul(h, h), unary(inputs[1], Unary::exp), unary(inputs[0], Unary::silu)};
      },
      x);
  return add(outputs[0], outputs[2]);
}

// ---- the table

std::vector<OpCase> linear_cases() {
  const auto f = [](X x, I) { return linear(x[0], x[1], x.size() > 2 ? x[2] : Var{}); };
  const auto ce = [](X x, I i) { return linear_cross_entropy(x[0], x[1], i[0], 4); };
  return {
      {.name = "linear without bias",
       .inputs = {"x", "w"},
       .function = f,
       .sizes = {{"aligned", {{16, 32}, {64, 32}}, {}},
                 {"odd", {{33, 65}, {47, 65}}, {}},
                 {"one", {{1, 1}, {1, 1}}, {}},
                 {"no rows", {{0, 8}, {4, 8}}, {}},
                 {"several threads", {{120, 96}, {80, 96}}, {}}},
       .golden = "matmul",
       .why = kSums,
       .own_kernels = true},
      {.name = "linear",
       .inputs = {"x", "w", "b"},
       .function = f,
       .sizes = {{"aligned", {{16, 32}, {64, 32}, {64}}, {}},
                 {"odd", {{31, 17}, {9, 17}, {9}}, {}},
                 {"one", {{1, 1}, {1, 1}, {1}}, {}},
                 {"rows of several chunks", {{300, 3}, {2, 3}, {2}}, {}},
                 {"no rows", {{0, 8}, {4, 8}, {4}}, {}},
                 {"no inner size", {{3, 0}, {4, 0}, {4}}, {}}},
       .golden = "linear",
       .why = kSums,
       .own_kernels = true,
       .parameters = {"b"}},
      {.name = "linear_to_sums",
       .inputs = {"x", "w", "b"},
       .function = [](X x, I) { return linear_to_sums(x[0], x[1], x[2]); },
       .sizes = {{"aligned", {{16, 32}, {8, 32}, {8}}, {}},
                 {"odd", {{31, 70}, {3, 70}, {3}}, {}},
                 {"no rows", {{0, 8}, {4, 8}, {4}}, {}}},
       .golden = "linear",
       .why = kSums,
       .own_kernels = true,
       .parameters = {"b"}},
      {.name = "linear_with_lora",
       .inputs = {"x", "w", "bias", "h", "b"},
       .function = [](X x, I) { return linear_with_lora(x[0], x[1], x[2], x[3], x[4]); },
       .sizes = {{"aligned", {{16, 32}, {64, 32}, {64}, {16, 8}, {64, 8}}, {}},
                 {"odd", {{7, 9}, {11, 9}, {11}, {7, 3}, {11, 3}}, {}},
                 {"no rows", {{0, 4}, {5, 4}, {5}, {0, 2}, {5, 2}}, {}}},
       .why = kSums,
       .own_kernels = true,
       .parameters = {"bias"}},
      {.name = "linear_cross_entropy",
       .inputs = {"x", "w"},
       .function = ce,
       .sizes = {{"one chunk", {{4, 16}, {32, 16}}, {index_of({0, 31, 5, 5})}},
                 {"a last chunk of one row", {{9, 7}, {13, 7}}, {random_index(9, 0, 13)}},
                 {"no rows", {{0, 3}, {5, 3}}, {index_of({})}}},
       .golden = "linear_cross_entropy",
       .golden_index = {"target"},
       .why = kSums,
       .own_kernels = true},
      {.name = "row_cross_entropy",
       .inputs = {"logits"},
       .function = row_cross_entropy,
       .sizes = {{"odd", {{6, 37}}, {random_index(6, 0, 37)}},
                 {"one class", {{2, 1}}, {index_of({0, 0})}},
                 {"long rows", {{3, 1100}}, {random_index(3, 0, 1100)}}},
       .golden = "cross_entropy",
       .golden_index = {"target"}},
  };
}

std::vector<OpCase> pointwise_cases() {
  constexpr const char* kFunctions = "exp and erf are polynomials, good to some roundings";
  std::vector<OpCase> cases;
  for (const auto& [name, op] : {std::pair{"silu", Unary::silu},
                                 {"gelu", Unary::gelu},
                                 {"quick_gelu", Unary::quick_gelu},
                                 {"relu", Unary::relu},
                                 {"exp", Unary::exp},
                                 {"log_sigmoid", Unary::log_sigmoid}}) {
    cases.push_back({.name = name,
                     .inputs = {"x"},
                     .function = unary_function(op),
                     .sizes = same_shapes(1),
                     .golden = name,
                     .why = kFunctions});
  }
  for (const auto& [name, op] : {std::pair{"log", Unary::log}, {"reciprocal", Unary::reciprocal}}) {
    cases.push_back({.name = name,  // applied to 1 + e^x
                     .inputs = {"x"},
                     .function = [op](X x, I) { return unary(one_more(unary(x[0], Unary::exp)), op); },
                     .sizes = same_shapes(1),
                     .golden = name,
                     .why = kFunctions});
  }
  const std::vector<OpCase> others{
      {.name = "swiglu",
       .inputs = {"gate", "up"},
       .function = [](X x, I) { return swiglu(x[0], x[1]); },
       .sizes = same_shapes(2),
       .golden = "swiglu",
       .why = kFunctions},
      {.name = "add",
       .inputs = {"a", "b"},
       .function = [](X x, I) { return add(x[0], x[1]); },
       .sizes = same_shapes(2),
       .golden = "add",
       .f32 = 1e-7,
       .why = kExact},
      {.name = "mul",
       .inputs = {"a", "b"},
       .function = [](X x, I) { return mul(x[0], x[1]); },
       .sizes = same_shapes(2),
       .golden = "mul",
       .f32 = 1e-7,
       .why = kExact,
       .own_kernels = true},
      {.name = "scale",
       .inputs = {"x"},
       .function = [](X x, I) { return scale(x[0], -1.7); },
       .sizes = same_shapes(1),
       .f32 = 2e-7,
       .why = kExact},
      {.name = "cast",
       .inputs = {"x"},
       .function = [](X x, I) { return cast(x[0], x[0].value().dtype()); },
       .sizes = same_shapes(1),
       .f32 = 1e-300,
       .why = "nothing is rounded"},
      {.name = "reshape",
       .inputs = {"x"},
       .function =
           [](X x, I) {
             return reshape(x[0], Shape{x[0].value().numel(), 1});
           },
       .sizes = same_shapes(1),
       .f32 = 1e-300,
       .why = "nothing is computed"},
      {.name = "dot",
       .inputs = {"a", "b"},
       .function = [](X x, I) { return dot(x[0], x[1], 0.3); },
       .sizes = same_shapes(2),
       .f32 = 2e-7,
       .why = "summed in f64",
       .own_kernels = true},
      {.name = "dropout",
       .inputs = {"x"},
       .function = [](X x, I i) { return dropout(x[0], i[0], i[1], 77, 0.3); },
       .sizes = {{"aligned", {{4, 32}}, {index_of({1, 1, 2, 2}), index_of({0, 1, 0, 1})}},
                 {"odd", {{3, 7}}, {index_of({9, 9, 9}), index_of({0, 5, 6})}},
                 {"no rows", {{0, 4}}, {index_of({}), index_of({})}}},
       .f32 = 2e-7,
       .why = kExact},
  };
  cases.insert(cases.end(), others.begin(), others.end());
  return cases;
}

std::vector<OpCase> norm_cases() {
  const auto sizes = [](size_t vectors) {
    std::vector<OpSize> all;
    for (const auto& [label, N, C] : {std::tuple{"aligned", 4, 64},
                                      {"odd", 5, 37},
                                      {"one", 1, 1},
                                      {"long rows", 3, 1100},
                                      {"no rows", 0, 8}}) {
      OpSize size{label, {{N, C}}, {}};
      size.shapes.resize(1 + vectors, {C});
      all.push_back(size);
    }
    return all;
  };
  return {
      {.name = "rms_norm",
       .inputs = {"x", "w"},
       .function = [](X x, I) { return rms_norm(x[0], x[1], 1e-5); },
       .sizes = sizes(1),
       .golden = "rms_norm",
       .why = kSums},
      // The result is both outputs, concatenated, so that the gradient of the sum has two sources.
      {.name = "add_rms_norm",
       .inputs = {"x", "w"},
       .function =
           [](X x, I) {
             const NormedSum s = add_rms_norm(x[0], scale(x[0], 0.5), x[1], 1e-5);
             return concat_rows({s.sum, s.normed});
           },
       .sizes = sizes(1),
       .golden = "add_rms_norm",
       .why = kSums},
      {.name = "add_rms_norm, the sum unread",
       .inputs = {"x", "w"},
       .function = [](X x, I) { return add_rms_norm(unary(x[0], Unary::silu), x[0], x[1], 1e-5).normed; },
       .sizes = sizes(1),
       .f32 = 2e-6,
       .why = "with one channel, dx is a difference of equal numbers"},
      {.name = "layer_norm",
       .inputs = {"x", "w", "b"},
       .function = [](X x, I) { return layer_norm(x[0], x[1], x[2], 1e-5); },
       .sizes = sizes(2),
       .golden = "layer_norm",
       .why = kSums},
  };
}

// Attention with these heads, at sizes of so many queries and keys in each sequence.
struct AttentionCase {
  struct Size {
    const char* label;
    std::vector<int32_t> queries, keys;
  };
  struct Heads {
    int64_t heads, kv_heads, size;
    bool causal;
  };
  const char* name;
  Heads of;
  std::vector<Size> sizes;
  const char* golden = "";
};

OpCase attention_case(const AttentionCase& c) {
  const auto& [heads, kv_heads, size, causal] = c.of;
  const AttentionShape shape{heads, kv_heads, size, causal, 1 / std::sqrt(static_cast<double>(size))};
  OpCase op{
      .name = c.name,
      .inputs = {"q", "k", "v"},
      .function = [shape](X x, I i) { return attention(x[0], x[1], x[2], ranges_of(i[0], i[1]), shape); },
      .sizes = {},
      .golden = c.golden,
      .golden_index = {"query_offsets", "key_offsets"},
      .f32 = 2e-6,
      .why = kSums};
  for (const auto& [label, queries, keys] : c.sizes) {
    const Tensor q = offsets_of(queries), k = offsets_of(keys);
    const Shape kv{k.data<int32_t>()[k.numel() - 1], kv_heads * size};
    op.sizes.push_back({label, {{q.data<int32_t>()[q.numel() - 1], heads * size}, kv, kv}, {q, k}});
  }
  return op;
}

std::vector<OpCase> attention_cases() {
  std::vector<OpCase> cases{{.name = "rope",
                             .inputs = {"x"},
                             .function = [](X x, I i) { return rope(x[0], i[0], 3, 10000); },
                             .sizes = {{"aligned", {{3, 96}}, {index_of({0, 7, 300})}},
                                       {"one pair", {{2, 6}}, {index_of({5, 0})}},
                                       {"no rows", {{0, 6}}, {index_of({})}}},
                             .golden = "rope",
                             .golden_index = {"position"},
                             .why = "angles are taken in f64"}};
  for (const AttentionCase& c : std::vector<AttentionCase>{
           {"attention, causal",
            {3, 3, 5, true},
            {{"a sequence of one", {1, 3}, {1, 3}}, {"an empty sequence", {2, 0, 3}, {2, 0, 3}}},
            "attention_causal"},
           {"attention, aligned",
            {2, 2, 32, true},
            {{"two sequences", {33, 17}, {33, 17}}, {"longer than a block", {150}, {150}}}},
           {"attention, heads of 128",
            {2, 1, 128, true},
            {{"keys before the queries", {20, 3}, {45, 3}},
             {"several blocks, queries without keys", {150, 0, 40}, {150, 2, 30}},
             {"the queries' rows", {70, 1, 30}, {70, 1, 30}}}},
           {"attention, causal heads of 64", {3, 3, 64, true}, {{"longer than a tile", {3, 140}, {3, 140}}}},
           {"attention, wide heads", {2, 1, 300, true}, {{"keys before the queries", {4, 2}, {6, 2}}}},
           {"attention, wide head, bidirectional",
            {1, 1, 130, false},
            {{"images and prompts", {1, 1, 0}, {5, 3, 0}}}},
           {"attention, heads of 64",
            {2, 2, 64, false},
            {{"other lengths", {3, 40}, {35, 7}}, {"several blocks", {130}, {70}}}},
           {"attention, heads of 80", {2, 1, 80, true}, {{"two sequences", {18, 35}, {40, 35}}}},
           {"attention, bidirectional",
            {3, 3, 5, false},
            {{"three sequences", {1, 4, 2}, {1, 4, 2}}},
            "attention_bidirectional"},
           {"attention, grouped", {4, 2, 5, true}, {{"two sequences", {6, 3}, {6, 3}}}, "attention_grouped"},
           {"attention, cached", {4, 2, 5, true}, {{"one query each", {1, 1}, {5, 2}}}, "attention_cached"}})
    cases.push_back(attention_case(c));
  return cases;
}

std::vector<OpCase> rows_cases() {
  const Tensor mixed = index_of({3, -1, -1, 0, 3, -2}), text = index_of({2, 2, 0}), none = index_of({});
  return {
      {.name = "embedding",
       .inputs = {"table", "visual"},
       .function = [](X x, I i) { return embedding(x[0], x[1], i[0]); },
       .sizes = {{"aligned", {{5, 32}, {2, 32}}, {mixed}},
                 {"odd", {{5, 7}, {3, 7}}, {mixed}},
                 {"no rows", {{5, 4}, {2, 4}}, {none}}},
       .golden = "embedding",
       .golden_index = {"id"},
       .why = kExact},
      {.name = "embedding of text",
       .inputs = {"table"},
       .function = [](X x, I i) { return embedding(x[0], {}, i[0]); },
       .sizes = {{"odd", {{4, 5}}, {text}}},
       .why = kExact},
      {.name = "gather_rows",
       .inputs = {"x"},
       .function = [](X x, I i) { return gather_rows(x[0], i[0]); },
       .sizes = {{"aligned", {{3, 32}}, {text}}, {"odd", {{4, 7}}, {text}}, {"no rows", {{3, 4}}, {none}}},
       .why = kExact},
      {.name = "scatter_rows",
       .inputs = {"x"},
       .function = [](X x, I i) { return scatter_rows(x[0], i[0], 4); },
       .sizes = {{"aligned", {{6, 32}}, {index_of({0, 1, 1, 3, 3, 0})}},
                 {"odd", {{3, 7}}, {index_of({2, 2, 0})}},
                 {"many rows", {{600, 3}}, {random_index(600, 0, 4)}},
                 {"no rows", {{0, 3}}, {none}}}},
      {.name = "concat_rows",
       .inputs = {"x", "y", "z"},
       .function = [](X x, I) { return concat_rows(x); },
       .sizes = {{"aligned", {{4, 32}, {2, 32}, {8, 32}}, {}}, {"odd", {{3, 7}, {1, 7}, {0, 7}}, {}}},
       .golden = "concat_rows",
       .f32 = 1e-300,
       .why = "nothing is computed"},
      {.name = "recompute",
       .inputs = {"a", "b"},
       .function = recomputed,
       .sizes = same_shapes(2),
       .why = "a few roundings of 6e-8, none of them amplified"},
      {.name = "columns",
       .inputs = {"x"},
       .function = [](X x, I) { return add(columns(x[0], 1, 3), columns(x[0], 2, 3)); },
       .sizes = {{"aligned", {{16, 32}}, {}},
                 {"odd", {{5, 7}}, {}},
                 {"to the end", {{3, 5}}, {}},
                 {"no rows", {{0, 8}}, {}}},
       .golden = "columns",
       .f32 = 1e-7,
       .why = kExact},
      {.name = "group_mean",
       .inputs = {"x"},
       .function = [](X x, I i) { return group_mean(x[0], i[0], 4); },
       .sizes = {{"aligned", {{6, 32}}, {index_of({0, 1, 1, -1, 3, 0})}},
                 {"several chunks of rows", {{300, 5}}, {random_index(300, -1, 4)}},
                 {"many channels", {{1100, 257}}, {random_index(1100, -1, 4)}},
                 {"no rows", {{0, 3}}, {none}}},
       .golden = "group_mean",
       .golden_index = {"group"},
       .why = kExact},
  };
}

}  // namespace

const std::vector<OpCase>& op_cases() {
  static const std::vector<OpCase> table = [] {
    std::vector<OpCase> all;
    for (auto part :
         {linear_cases, pointwise_cases, norm_cases, attention_cases, rows_cases, routing_cases}) {
      for (OpCase& op : part()) all.push_back(std::move(op));
    }
    return all;
  }();
  return table;
}

}  // namespace burrow::testing
