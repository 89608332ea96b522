#pragma once
// Var = Tensor + how it was made. Ops (autograd/ops.h) build Vars; backward(loss) adds to the gradients
// of the leaves. The graph keeps shapes and what the closures captured, never values: an intermediate
// that no gradient needs dies with its last Var. Closures capture Tensors, never Vars, so that the graph
// cannot own itself.
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace burrow {

class Grads;
struct Node;

// Where a gradient goes: one output of a node. No node means that no gradient is wanted.
struct Edge {
  std::shared_ptr<Node> node;
  int output = 0;
};

// A value in the graph: a constant, a leaf whose gradient the caller owns, or the output of an op.
class Var {
 public:
  Var() = default;
  explicit Var(Tensor value) : value_(std::move(value)) {}  // a constant
  // A parameter. backward adds to `grad`, which the caller owns (a slice of an arena): same shape, f32 for
  // f32 and bf16 values, f64 for f64.
  static Var leaf(Tensor value, Tensor grad);

  bool defined() const { return value_.defined(); }
  const Tensor& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  int64_t dim(int i) const { return value_.dim(i); }
  bool needs_grad() const { return edge_.node != nullptr; }
  // Made by leaf(), not by an op.
  bool is_leaf() const;
  const Tensor& grad() const;  // of a leaf; throws otherwise
  const Edge& edge() const { return edge_; }

 private:
  friend std::vector<Var> record(const char*, std::vector<Tensor>, const std::vector<Var>&,
                                 std::function<void(std::span<const Tensor>, Grads&)>);
  Tensor value_;
  Edge edge_;
};

// What a backward closure sees of its inputs.
class Grads {
 public:
  explicit Grads(Node& node) : node_(node) {}
  // Whether anybody needs the gradient of input i.
  bool wants(int i) const;
  Tensor like(int i) const;  // uninitialised, shaped like input i; undefined when i wants no gradient
  // Hands over a gradient of input i (ignored when undefined or unwanted). The tensor may be shared with
  // other edges: it is never written to.
  void add(int i, const Tensor& gradient);
  // A tensor that a kernel writes the gradient of input i to, or adds it to where `adds` says so: spares the
  // pass that add() would take. Undefined when i wants no gradient. To be filled before the next call.
  struct Target {
    Tensor tensor;
    bool adds = false;
  };
  Target target(int i);  // of input i
  // For kernels that only add: the same, with zeros at first.
  Tensor accumulator(int i);

 private:
  Node& node_;
};

using BackwardFn = std::function<void(const Tensor& dy, Grads&)>;
using MultiBackwardFn = std::function<void(std::span<const Tensor> dy, Grads&)>;

// The single place where edges of the graph are made. `op` must be a string literal. In the closure of
// several outputs, dy[i] is undefined where no gradient reached output i.
Var record(const char* op, Tensor output, const std::vector<Var>& inputs, BackwardFn);
std::vector<Var> record(const char* op, std::vector<Tensor> outputs, const std::vector<Var>& inputs,
                        MultiBackwardFn);

// A leaf that nobody adds to: as one of record's inputs it has a node made whoever else needs a gradient.
const Var& demand();

// Whether record would make a node for these inputs: an op asks in its forward what to keep.
bool any_needs_grad(std::initializer_list<const Var*> inputs);

// Adds d(scale * root)/d(leaf) to every leaf's gradient. root has one element. Consumes the graph:
// closures and gradients are freed as they are used, and a second call on it throws.
void backward(const Var& root, double scale = 1);
// The same from a given cotangent of any shape.
void backward(const Var& root, const Tensor& cotangent);
// Where a backward begins.
struct Root {
  Var output;
  Tensor cotangent;  // of output's shape
};
// The same from several at once: what leads to more than one of them runs once. The values of the roots may
// be freed before what leads to them is run.
void backward(std::vector<Root> roots);

// What record makes of ops on a thread: nodes; none; or none either, but outputs that say whether they need a
// gradient, so that what they would lead to is known without being kept.
enum class Recording { on, off, needs };
Recording recording();

// While one lives on this thread, it records so.
class RecordingScope {
 public:
  explicit RecordingScope(Recording mode);
  ~RecordingScope();
  RecordingScope(const RecordingScope&) = delete;
  RecordingScope& operator=(const RecordingScope&) = delete;

 private:
  Recording before_;
};
// While one lives on this thread, record makes no nodes.
struct NoGrad : RecordingScope {
  NoGrad() : RecordingScope(Recording::off) {}
};

// recompute.cpp: activation checkpointing (Chen et al. 2016, arXiv 1604.06174).
//
// f(inputs), keeping in the graph the inputs alone: its backward runs f again, now recorded, and that graph
// backward at once. f adds to the gradients of the leaves that it captured as if it were recorded, and to the
// inputs' where they need one; `again` says which of its two runs it is. Both must do the same: the values
// and the order of the outputs may not depend on anything that changes in between. What it captures must live
// until the backward. An output that no gradient reached is not led back, and one that needs none is a
// constant. Not recorded, f is just called.
using RecomputedFn = std::function<std::vector<Var>(const std::vector<Var>& inputs, bool again)>;
std::vector<Var> recompute(RecomputedFn f, const std::vector<Var>& inputs);

}  // namespace burrow
