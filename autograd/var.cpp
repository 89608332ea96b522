#include "autograd/var.h"

#include <algorithm>
#include <unordered_set>

#include "tensor/kernels.h"

namespace burrow {

struct OutputMeta {
  Shape shape;
  DType dtype = DType::f32;
  Device device = Device::cpu;
};
struct OutputGrad {
  Tensor tensor;
  bool own = false;  // not shared with other edges, so that gradients may be added in place
};
struct Node {
  const char* op = "";
  std::vector<Edge> inputs;
  std::vector<OutputMeta> outputs;
  std::vector<OutputGrad> grads;  // one per output
  MultiBackwardFn backward;       // empty in a leaf and after it was consumed
  bool leaf = false, consumed = false;
};

namespace {

thread_local Recording mode = Recording::on;

OutputMeta meta_of(const Tensor& t) { return {t.shape(), t.dtype(), t.device()}; }
Tensor empty_like(const OutputMeta& m) { return Tensor::empty(m.shape, m.dtype, m.device, "gradient"); }

void add_gradient(const Edge& edge, const Tensor& gradient, const char* op, int input) {
  Node& n = *edge.node;
  const OutputMeta& meta = n.outputs[static_cast<size_t>(edge.output)];
  BURROW_CHECK(gradient.shape() == meta.shape, "[{}] gradient {} for input {} of shape {}", op,
               gradient.shape(), input, meta.shape);
  OutputGrad& slot = n.grads[static_cast<size_t>(edge.output)];
  if (!slot.tensor.defined()) {
    slot = {gradient, false};
  } else if (slot.own) {
    kernel::accumulate(slot.tensor, gradient, 1);
  } else {  // another edge may read the tensor in the slot
    Tensor sum = empty_like(meta);
    kernel::add(sum, slot.tensor, gradient);
    slot = {sum, true};
  }
}

}  // namespace

Var Var::leaf(Tensor value, Tensor grad) {
  BURROW_CHECK(grad.shape() == value.shape(), "[leaf] value {} and gradient {}", value.shape(), grad.shape());
  auto node = std::make_shared<Node>();
  node->op = "leaf";
  node->leaf = true;
  node->outputs = {meta_of(value)};
  node->grads = {{std::move(grad), true}};
  Var v(std::move(value));
  v.edge_ = {std::move(node), 0};
  return v;
}

bool Var::is_leaf() const { return edge_.node && edge_.node->leaf; }

const Tensor& Var::grad() const {
  BURROW_CHECK(is_leaf(), "[grad] only leaves have a gradient");
  return edge_.node->grads[0].tensor;
}

const Var& demand() {
  static const Var leaf = Var::leaf({}, {});
  return leaf;
}

bool any_needs_grad(std::initializer_list<const Var*> inputs) {
  return mode == Recording::on &&
         std::any_of(inputs.begin(), inputs.end(), [](const Var* v) { return v->needs_grad(); });
}

std::vector<Var> record(const char* op, std::vector<Tensor> outputs, const std::vector<Var>& inputs,
                        MultiBackwardFn backward) {
  std::vector<Var> vars;
  vars.reserve(outputs.size());
  for (Tensor& t : outputs) vars.emplace_back(std::move(t));
  if (mode == Recording::off ||
      std::none_of(inputs.begin(), inputs.end(), [](const Var& v) { return v.needs_grad(); }))
    return vars;
  if (mode == Recording::needs) {
    for (Var& v : vars) v.edge_ = demand().edge();
    return vars;
  }
  auto node = std::make_shared<Node>();
  node->op = op;
  node->backward = std::move(backward);
  for (const Var& v : inputs) node->inputs.push_back(v.edge());
  for (size_t i = 0; i < vars.size(); ++i) {
    node->outputs.push_back(meta_of(vars[i].value()));
    vars[i].edge_ = {node, static_cast<int>(i)};
  }
  node->grads.resize(vars.size());
  return vars;
}

Var record(const char* op, Tensor output, const std::vector<Var>& inputs, BackwardFn backward) {
  return record(op, std::vector<Tensor>{std::move(output)}, inputs,
                [f = std::move(backward)](std::span<const Tensor> dy, Grads& g) { f(dy[0], g); })[0];
}

bool Grads::wants(int i) const { return node_.inputs[static_cast<size_t>(i)].node != nullptr; }

Tensor Grads::like(int i) const {
  if (!wants(i)) return {};
  const Edge& edge = node_.inputs[static_cast<size_t>(i)];
  return empty_like(edge.node->outputs[static_cast<size_t>(edge.output)]);
}

void Grads::add(int i, const Tensor& gradient) {
  if (gradient.defined() && wants(i))
    add_gradient(node_.inputs[static_cast<size_t>(i)], gradient, node_.op, i);
}

Grads::Target Grads::target(int i) {
  if (!wants(i)) return {};
  const Edge& edge = node_.inputs[static_cast<size_t>(i)];
  OutputGrad& slot = edge.node->grads[static_cast<size_t>(edge.output)];
  if (slot.own) return {slot.tensor, true};
  Tensor mine = empty_like(edge.node->outputs[static_cast<size_t>(edge.output)]);
  const bool adds = slot.tensor.defined();
  if (adds) mine.copy_from(slot.tensor);  // another edge may read the tensor in the slot
  slot = {mine, true};
  return {mine, adds};
}

Tensor Grads::accumulator(int i) {
  auto [tensor, adds] = target(i);
  if (tensor.defined() && !adds) tensor.zero();
  return tensor;
}

void backward(std::vector<Root> roots) {
  std::vector<std::shared_ptr<Node>> order;  // inputs before outputs
  std::unordered_set<Node*> seen;
  auto visit = [&](auto&& self, const std::shared_ptr<Node>& n) -> void {
    if (!n || n->leaf || !seen.insert(n.get()).second) return;
    BURROW_CHECK(!n->consumed, "[backward] {}: this graph was already consumed by an earlier backward",
                 n->op);
    for (const Edge& e : n->inputs) self(self, e.node);
    order.push_back(n);
  };
  for (const Root& root : roots) {
    BURROW_CHECK(root.output.needs_grad(), "[backward] the root needs no gradient");
    visit(visit, root.output.edge().node);
  }
  for (const Root& root : roots) add_gradient(root.output.edge(), root.cotangent, "backward", 0);
  roots.clear();
  while (!order.empty()) {
    const std::shared_ptr<Node> n = std::move(order.back());
    order.pop_back();
    std::vector<Tensor> dy;
    bool reached = false;
    for (OutputGrad& slot : n->grads) {
      reached = reached || slot.tensor.defined();
      dy.push_back(std::move(slot.tensor));
      slot = {};
    }
    if (reached) {
      Grads grads(*n);
      n->backward(dy, grads);
    }
    n->backward = nullptr;
    n->inputs.clear();
    n->consumed = true;
  }
}

void backward(const Var& root, const Tensor& cotangent) { backward(std::vector<Root>{{root, cotangent}}); }

void backward(const Var& root, double scale) {
  BURROW_CHECK(root.value().numel() == 1, "[backward] the root has shape {}; pass a cotangent", root.shape());
  backward(root, Tensor::full(root.shape(), scale, root.value().dtype(), root.value().device()));
}

Recording recording() { return mode; }

RecordingScope::RecordingScope(Recording now) : before_(mode) { mode = now; }
RecordingScope::~RecordingScope() { mode = before_; }

}  // namespace burrow
