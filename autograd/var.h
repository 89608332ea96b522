#pragma once
// Reverse-mode automatic differentiation. A Var is a Tensor and an edge to the graph node that computed it.
// Ops (autograd/ops.h) create Vars; backward(loss) adds to the gradients of the leaves. Nodes keep shapes and
// the tensors captured by their closures, not values: an intermediate that no gradient needs is freed with
// its last Var. Closures capture Tensors, never Vars, so that the graph has no reference cycles.
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace burrow {

class Grads;
struct Node;

// The destination of a gradient: one output of a node; a null node if no gradient is needed.
struct Edge {
  std::shared_ptr<Node> node;
  int output = 0;
};

// A value in the graph: a constant, a leaf whose gradient the caller owns, or the output of an op.
class Var {
 public:
  Var() = default;
  explicit Var(Tensor value) : value_(std::move(value)) {}  // a constant
  // A parameter. backward adds to `grad`, which the caller owns (such as a slice of an arena): same shape as
  // value, f64 for f64 values, else f32.
  static Var leaf(Tensor value, Tensor grad);

  bool defined() const { return value_.defined(); }
  const Tensor& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  int64_t dim(int i) const { return value_.dim(i); }
  bool needs_grad() const { return edge_.node != nullptr; }
  // Whether leaf() made it, not an op.
  bool is_leaf() const;
  const Tensor& grad() const;  // the leaf's gradient; throws if this is not a leaf
  const Edge& edge() const { return edge_; }

 private:
  friend std::vector<Var> record(const char*, std::vector<Tensor>, const std::vector<Var>&,
                                 std::function<void(std::span<const Tensor>, Grads&)>);
  Tensor value_;
  Edge edge_;
};

// Gradients of a node's inputs, which its backward closure computes.
class Grads {
 public:
  explicit Grads(Node& node) : node_(node) {}
  // Whether the gradient of input i is needed.
  bool wants(int i) const;
  Tensor like(int i) const;  // uninitialised, with the shape of input i; undefined if wants(i) is false
  // Adds a gradient of input i; ignored if it is undefined or wants(i) is false. The tensor is never written
  // to, so it may be shared with other edges.
  void add(int i, const Tensor& gradient);
  // A tensor to which a kernel writes the gradient of input i, or adds it if `adds`; saves the extra pass
  // over memory of add(). Undefined if wants(i) is false. It must be filled before the next call.
  struct Target {
    Tensor tensor;
    bool adds = false;
  };
  Target target(int i);  // for input i
  // The same for kernels that can only add: the tensor is zeroed if it holds no gradient yet.
  Tensor accumulator(int i);

 private:
  Node& node_;
};

using BackwardFn = std::function<void(const Tensor& dy, Grads&)>;
using MultiBackwardFn = std::function<void(std::span<const Tensor> dy, Grads&)>;

// Creates an op's node with edges to its inputs; no other function creates edges. `op` must be a string
// literal. A closure of several outputs receives an undefined dy[i] if no gradient reached output i.
Var record(const char* op, Tensor output, const std::vector<Var>& inputs, BackwardFn);
std::vector<Var> record(const char* op, std::vector<Tensor> outputs, const std::vector<Var>& inputs,
                        MultiBackwardFn);

// A leaf without gradient tensor. As an input of record(), it forces a node even if no other input needs a
// gradient.
const Var& demand();

// Whether record() would create a node for these inputs, for ops that decide in the forward what to keep.
bool any_needs_grad(std::initializer_list<const Var*> inputs);

// Adds d(scale * root)/d(leaf) to every leaf's gradient; root must have one element. Consumes the graph:
// closures and gradients are freed after use, and a second call throws.
void backward(const Var& root, double scale = 1);
// The same for a root of any shape, with the gradient `cotangent` of that shape.
void backward(const Var& root, const Tensor& cotangent);
// An output and its gradient, from which backward starts.
struct Root {
  Var output;
  Tensor cotangent;  // of output's shape
};
// The same from several roots; nodes that lead to more than one of them run once. Values of the roots may be
// freed before nodes run.
void backward(std::vector<Root> roots);

// The recording mode of a thread. on: record() creates nodes. off: it creates none. needs: it creates none,
// but marks outputs that would need a gradient.
enum class Recording { on, off, needs };
Recording recording();

// Sets the thread's recording mode for the lifetime of the object.
class RecordingScope {
 public:
  explicit RecordingScope(Recording mode);
  ~RecordingScope();
  RecordingScope(const RecordingScope&) = delete;
  RecordingScope& operator=(const RecordingScope&) = delete;

 private:
  Recording before_;
};
// Disables recording on this thread for the lifetime of the object.
struct NoGrad : RecordingScope {
  NoGrad() : RecordingScope(Recording::off) {}
};

// Activation checkpointing (Chen et al. 2016, arXiv 1604.06174), in recompute.cpp. Returns f(inputs), but the
// graph keeps only the inputs: the backward runs f again with recording on, and then the backward of that
// graph, which adds to the gradients of the inputs and of leaves that f captured. `again` is true in the
// second run. Both runs must compute the same outputs in the same order, and what f captures must live until
// the backward. With recording off, f is just called.
using RecomputedFn = std::function<std::vector<Var>(const std::vector<Var>& inputs, bool again)>;
std::vector<Var> recompute(RecomputedFn f, const std::vector<Var>& inputs);

}  // namespace burrow
