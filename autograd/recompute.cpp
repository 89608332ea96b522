#include "autograd/var.h"
#include "tensor/check.h"

namespace burrow {
namespace {

// Runs f on the kept inputs with recording on, then backward from the cotangents dy of its outputs. Each
// input is the output of a node "input", whose closure passes the complete gradient of the input on to g.
void run_again(const RecomputedFn& f, const std::vector<Tensor>& kept, std::span<const Tensor> dy, Grads& g) {
  const RecordingScope scope(Recording::on);
  std::vector<Root> roots;
  {
    std::vector<Var> inputs;
    for (size_t i = 0; i < kept.size(); ++i) {
      const int input = static_cast<int>(i);
      inputs.push_back(g.wants(input) ? record("input", kept[i], {demand()},
                                               [&g, input](const Tensor& dx, Grads&) { g.add(input, dx); })
                                      : Var(kept[i]));
    }
    const std::vector<Var> outputs = f(inputs, true);
    BURROW_CHECK(outputs.size() == dy.size(), "[recompute] {} outputs, but {} when recomputed", dy.size(),
                 outputs.size());
    for (size_t i = 0; i < dy.size(); ++i) {
      if (dy[i].defined()) roots.push_back({outputs[i], dy[i]});
    }
  }
  backward(std::move(roots));
}

}  // namespace

std::vector<Var> recompute(RecomputedFn f, const std::vector<Var>& inputs) {
  if (recording() != Recording::on) return f(inputs, false);
  std::vector<Var> outputs;
  {
    const RecordingScope scope(Recording::needs);
    outputs = f(inputs, false);
  }
  std::vector<Tensor> values, kept;
  for (const Var& v : outputs) values.push_back(v.value());
  for (const Var& v : inputs) kept.push_back(v.value());
  std::vector<Var> leads_here = inputs;
  leads_here.push_back(
      demand());  // forces a node: leaves that f captured may need gradients even if no input does
  const std::vector<Var> recorded =
      record("recompute", std::move(values), leads_here,
             [f = std::move(f), kept = std::move(kept)](std::span<const Tensor> dy, Grads& g) {
               run_again(f, kept, dy, g);
             });
  for (size_t i = 0; i < outputs.size(); ++i)
    outputs[i] = outputs[i].needs_grad() ? recorded[i] : Var(outputs[i].value());
  return outputs;
}

}  // namespace burrow
