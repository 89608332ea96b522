#include "moe/attach.h"

#include "moe/lora.h"
#include "moe/mixed.h"
#include "moe/shards.h"
#include "moe/visual.h"

namespace burrow::moe {
namespace {

int64_t experts_of(const MethodConfig& method, int64_t layer, int64_t layers) {
  const auto blocks = static_cast<int64_t>(method.experts_by_layer.size());
  if (blocks == 0) return method.experts;
  BURROW_CHECK(layers % blocks == 0, "method.experts_by_layer: {} values do not divide {} layers evenly",
               blocks, layers);
  return method.experts_by_layer[static_cast<size_t>(layer * blocks / layers)];
}

void install_on_ffn(nn::DecoderBlock& block, Install& install) {
  const MethodConfig& method = install.method;
  if (method.expert == ExpertKind::shard) return install_shards(block, install);
  BURROW_CHECK(
      !block.ffn->router_weight.defined(),
      "[attach] '{}' was split into {} blocks by `burrow factorize`, which method '{}' does not support: set "
      "method.expert = 'shard', as method 'factorllm' does",
      block.ffn->name, block.ffn->router_weight.dim(0), method.name);
  if (method.expert == ExpertKind::ffn && install.experts > 1) return install_mixed_ffns(block, install);
  install_lora_on_ffn(block, install);
}

}  // namespace

Attachment attach(nn::Llava& model, const MethodConfig& method, uint64_t seed) {
  check(method);
  model.freeze();
  Install install{method, seed};
  const auto layers = static_cast<int64_t>(model.decoder.blocks.size());
  for (nn::DecoderBlock& block : model.decoder.blocks) {
    install.experts = experts_of(method, install.layer, layers);
    install_lora_on_attention(block, install);
    install_on_ffn(block, install);
    ++install.layer;
  }
  if (method.expert == ExpertKind::visual) install_visual_experts(model, install);
  install.inventory.check_all_matched();
  Attachment result{method, {}, {}, {}};
  model.parameters([&](const nn::Parameter& p) {
    if (p.role != nn::Role::teacher) result.counts.total += p.var->value().numel();
    if (!is_trained(method, p.role)) return;
    result.trainable.push_back(p);
    result.counts.trainable += p.var->value().numel();
  });
  BURROW_CHECK(result.counts.trainable > 0,
               "method '{}' trains nothing: method.expert_targets and method.lora_targets are empty and "
               "method.full, train_projector and train_decoder are false",
               method.name);
  result.counts.active = result.counts.trainable - install.inventory.inactive();
  result.report = install.inventory.report() +
                  fmt::format("  parameters: {} in all, {} trainable, {} of these active per token\n",
                              result.counts.total, result.counts.trainable, result.counts.active);
  return result;
}

}  // namespace burrow::moe
