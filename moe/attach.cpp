#include "moe/attach.h"

#include <algorithm>
#include <map>

#include "moe/shards.h"
#include "moe/visual.h"
#include "tensor/rng.h"

namespace burrow::moe {
namespace {

using Gathered = std::shared_ptr<std::vector<Routing>>;

// An FFN whose three Linears obey one router: the decision is made once, from the FFN's input.
class RoutedFeedForward : public nn::FeedForward {
 public:
  RoutedFeedForward(nn::FeedForward base, Router router, std::shared_ptr<RoutingSlot> slot, Gathered gathered)
      : nn::FeedForward(std::move(base)),
        router_(std::move(router)),
        slot_(std::move(slot)),
        gathered_(std::move(gathered)) {}

  Var operator()(const Var& x, const nn::Pass& pass) const override {
    slot_->routing = router_.route(x, pass);
    gathered_->push_back(slot_->routing);
    Var y = nn::FeedForward::operator()(x, pass);
    slot_->routing = {};
    return y;
  }
  void parameters(const nn::ParameterVisit& visit) override {
    nn::FeedForward::parameters(visit);
    router_.parameters(visit);
  }

 private:
  Router router_;
  std::shared_ptr<RoutingSlot> slot_;
  Gathered gathered_;
};

// A Linear with a router of its own.
class RoutedLinear : public AdaptedLinear {
 public:
  RoutedLinear(nn::Linear base, LoraExperts experts, Router router, std::shared_ptr<RoutingSlot> slot,
               Gathered gathered)
      : AdaptedLinear(std::move(base), std::move(experts), slot),
        router_(std::move(router)),
        slot_(std::move(slot)),
        gathered_(std::move(gathered)) {}

  Var operator()(const Var& x, const nn::Pass& pass) const override {
    slot_->routing = router_.route(x, pass);
    gathered_->push_back(slot_->routing);
    Var y = AdaptedLinear::operator()(x, pass);
    slot_->routing = {};
    return y;
  }
  void parameters(const nn::ParameterVisit& visit) override {
    AdaptedLinear::parameters(visit);
    router_.parameters(visit);
  }

 private:
  Router router_;
  std::shared_ptr<RoutingSlot> slot_;
  Gathered gathered_;
};

bool is_adapter(const std::string& name) {
  return name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight") ||
         name.find(".router.") != std::string::npos || name.starts_with("visual_experts.");
}
// What of a block is trained.
bool is_block(const std::string& name, const MethodConfig& c) {
  const bool weight = !is_adapter(name);
  return name.find(".mlp.experts.") != std::string::npos && weight == (c.shard.train == BlockTraining::full);
}

// Replaces Linears of one model, keeping count of which pattern matched what.
class Adapter {
 public:
  Adapter(const MethodConfig& config, uint64_t seed, Gathered gathered, std::vector<std::string>& lines,
          std::shared_ptr<Teacher> teacher)
      : config_(config),
        seed_(seed),
        gathered_(std::move(gathered)),
        lines_(lines),
        teacher_(std::move(teacher)) {}

  void adapt(nn::DecoderBlock& block, int64_t layer, int64_t layers) {
    const int64_t experts = experts_of(layer, layers);
    for (auto* linear : {&block.q, &block.k, &block.v, &block.o})
      adapt_linear(*linear, layer, experts, nullptr);
    share_input({block.q.get(), block.k.get(), block.v.get()});
    nn::FeedForward& ffn = *block.ffn;
    if (config_.expert == ExpertKind::shard) return shard(block, layer, experts);
    BURROW_CHECK(
        !ffn.router_weight.defined(),
        "[attach] '{}' is cut into {} blocks (burrow factorize), which method '{}' does not mix: it needs "
        "method.expert = 'shard', as factorllm has it",
        ffn.name, ffn.router_weight.dim(0), config_.name);
    if (config_.expert == ExpertKind::ffn && experts > 1) {
      const auto bank = [&](const nn::Linear& linear) {
        LoraExperts lora(linear.name, linear, experts, config_, seed_);
        count(linear.name.substr(linear.name.rfind('.') + 1), lora);
        return lora;
      };
      LoraExperts gate = bank(*ffn.gate), up = bank(*ffn.up), down = bank(*ffn.down);
      Router router = make_router(ffn.name, layer, ffn.gate->in(), experts, ffn.gate->weight.value().dtype());
      block.ffn = std::make_unique<MixedFeedForward>(std::move(ffn), std::move(gate), std::move(up),
                                                     std::move(down), std::move(router), gathered_);
      return;
    }
    const bool shares = config_.router.placement == RouterPlacement::ffn && experts > 1;
    const auto slot = shares ? std::make_shared<RoutingSlot>() : nullptr;
    bool routed = false;
    for (auto* linear : {&ffn.gate, &ffn.up, &ffn.down})
      routed = adapt_linear(*linear, layer, experts, slot) || routed;
    share_input({ffn.gate.get(), ffn.up.get()});
    if (!shares || !routed) return;
    Router router = make_router(ffn.name, layer, ffn.gate->in(), experts, ffn.gate->weight.value().dtype());
    block.ffn = std::make_unique<RoutedFeedForward>(std::move(ffn), std::move(router), slot, gathered_);
  }

  // Puts the module of visual experts before the decoder.
  void add_visual(nn::Llava& model) {
    BURROW_CHECK(model.tower,
                 "[attach] method.expert = 'visual' needs a model with a vision tower, and "
                 "model.vision.layers is 0");
    BURROW_CHECK(model.config.vision.class_token || config_.visual.guidance == Guidance::constant,
                 "[attach] method.visual.guidance = '{}' reads an image's class token: set "
                 "model.vision.class_token = true, or guidance 'constant'",
                 config_.visual.guidance == Guidance::text ? "text" : "image");
    const int64_t E = config_.experts, K = most_used(E);
    auto module = std::make_unique<VisualExperts>(model.config, config_,
                                                  model.projector->second.weight.value(), seed_, gathered_);
    int64_t parameters = 0;
    for (const Var* w : {&module->gate, &module->up, &module->down}) parameters += w->value().numel();
    inactive_ += parameters / E * (E - K);
    lines_.push_back(
        fmt::format("{:<10} {} expert{} of inner width {} on visual tokens, {} parameters, {} active",
                    "visual", E, E == 1 ? "" : "s", module->gate.dim(0) / E, parameters, parameters / E * K));
    if (module->router) {
      ++routers_;
      module->router->parameters(
          [&](const std::string&, const Var& p) { router_parameters_ += p.value().numel(); });
    }
    model.visual_module = std::move(module);
  }

  void check_all_matched() const {
    for (const auto* patterns : {&config_.expert_targets, &config_.lora_targets}) {
      if (config_.expert == ExpertKind::shard && patterns == &config_.expert_targets) continue;
      for (const std::string& p : *patterns) {
        BURROW_CHECK(matches_.contains(p),
                     "[attach] target '{}' matches no Linear of the decoder (q_proj, k_proj, v_proj, o_proj, "
                     "gate_proj, up_proj, down_proj)",
                     p);
      }
    }
  }
  void report() {
    for (const auto& [pattern, m] : matches_) {
      lines_.push_back(fmt::format("{:<10} {} Linears, {} expert{} of rank {}, {} parameters, {} active",
                                   pattern, m.linears, m.experts, m.experts == "1" ? "" : "s", config_.rank,
                                   m.parameters, m.active));
    }
    if (blocks_.linears)
      lines_.push_back(fmt::format("{:<10} {} FFNs in {} blocks of {} channels, {} parameters, {} active",
                                   "blocks", blocks_.linears, blocks_.experts, block_size_,
                                   blocks_.parameters, blocks_.active));
    if (routers_)
      lines_.push_back(
          fmt::format("{:<10} {} routers, {} parameters", "router", routers_, router_parameters_));
  }
  int64_t inactive() const { return inactive_; }

 private:
  struct Match {
    int64_t linears = 0, parameters = 0, active = 0;
    std::string experts;
  };

  int64_t experts_of(int64_t layer, int64_t layers) const {
    const auto blocks = static_cast<int64_t>(config_.experts_by_layer.size());
    return blocks == 0 ? config_.experts
                       : config_.experts_by_layer[static_cast<size_t>(layer * blocks / layers)];
  }

  // Experts of E that a row uses, at most.
  int64_t most_used(int64_t E) const {
    return config_.router.selection == Selection::top_k ? std::min(E, config_.router.top_k) : E;
  }

  static bool names(const std::vector<std::string>& patterns, const std::string& last) {
    return std::find(patterns.begin(), patterns.end(), last) != patterns.end();
  }

  Router make_router(const std::string& site, int64_t layer, int64_t width, int64_t experts, DType dtype) {
    Router router(site + ".router", layer, width, experts, config_,
                  dtype == DType::f64 ? DType::f64 : DType::f32, seed_);
    if (config_.router.selection == Selection::sparsegen) {
      std::shared_ptr<LambdaNetwork>& shared = lambda_[width];
      router.owns_lambda = !shared;
      if (!shared)
        shared = std::make_shared<LambdaNetwork>(width, config_.router.lambda_width,
                                                 dtype == DType::f64 ? DType::f64 : DType::f32, seed_);
      router.lambda = shared;
    }
    ++routers_;
    router.parameters([&](const std::string&, const Var& p) { router_parameters_ += p.value().numel(); });
    return router;
  }

  // Deals the FFN's channels to blocks, unless its file has them dealt, and lets a router choose among these.
  void shard(nn::DecoderBlock& block, int64_t layer, int64_t E) {
    nn::FeedForward& ffn = *block.ffn;
    const Tensor& gate = ffn.gate->weight.value();
    const int64_t F = gate.dim(0);
    const bool dealt = ffn.router_weight.defined(), as_it_is = config_.shard.split == Split::contiguous;
    BURROW_CHECK(F % E == 0, "[attach] method.experts: {} blocks do not cut the {} channels of '{}' evenly",
                 E, F, ffn.name);
    BURROW_CHECK(!dealt || ffn.router_weight.dim(0) == E,
                 "[attach] '{}' is cut into {} blocks (burrow factorize), but method.experts asks for {}",
                 ffn.name, ffn.router_weight.dim(0), E);
    BURROW_CHECK(!dealt || as_it_is,
                 "[attach] method.shard.split: '{}' has its channels dealt already (burrow factorize)",
                 ffn.name);
    // What is saved would be of an order that nobody saved.
    BURROW_CHECK(
        as_it_is || config_.shard.train == BlockTraining::full,
        "[attach] method.shard.train = 'lora' needs split 'contiguous', or a file of `burrow factorize`");
    if (!as_it_is && gate.bytes())
      reorder(ffn, split_order(gate, E, config_.shard.split, random_key(seed_, 0, ffn.name + ".split")));
    Router router = make_router(ffn.name, layer, ffn.gate->in(), E, gate.dtype());
    if (dealt) {
      router.weight = Var(ffn.router_weight.value().to(router.weight.value().dtype()));
      if (config_.router.bias) router.bias = Var(ffn.router_bias.value().to(router.bias.value().dtype()));
    }
    const int64_t K = router.top_k();
    block.ffn = std::make_unique<ShardedFeedForward>(std::move(ffn), std::move(router), config_, seed_,
                                                     teacher_, gathered_);
    const int64_t before = blocks_.parameters;
    block.ffn->parameters([&](const std::string& name, const Var& p) {
      if (is_block(name, config_)) blocks_.parameters += p.value().numel();
    });
    const int64_t mine = blocks_.parameters - before;
    blocks_.linears += 1;
    blocks_.active += mine / E * K;
    inactive_ += mine / E * (E - K);
    blocks_.experts = std::to_string(E);
    block_size_ = F / E;
  }

  // Lets the experts of Linears on one input compute once what they have in common.
  static void share_input(const std::vector<nn::Linear*>& linears) {
    std::vector<LoraExperts*> readers;
    for (nn::Linear* linear : linears) {
      if (auto* adapted = dynamic_cast<AdaptedLinear*>(linear)) readers.push_back(&adapted->experts);
    }
    SharedInput::among(readers);
  }

  // Returns whether the Linear now obeys the FFN's slot.
  bool adapt_linear(std::unique_ptr<nn::Linear>& linear, int64_t layer, int64_t experts,
                    const std::shared_ptr<RoutingSlot>& slot) {
    const std::string last = linear->name.substr(linear->name.rfind('.') + 1);
    const bool expert = names(config_.expert_targets, last), plain = names(config_.lora_targets, last);
    BURROW_CHECK(!(expert && plain),
                 "[attach] '{}' is both in method.expert_targets and in method.lora_targets", last);
    if (!expert && !plain) return false;
    const int64_t E = plain ? 1 : experts;
    LoraExperts bank(linear->name, *linear, E, config_, seed_);
    count(last, bank);
    if (E > 1 && !slot) {
      auto own = std::make_shared<RoutingSlot>();
      Router router = make_router(linear->name, layer, linear->in(), E, linear->weight.value().dtype());
      linear = std::make_unique<RoutedLinear>(std::move(*linear), std::move(bank), std::move(router), own,
                                              gathered_);
      return false;
    }
    const bool shares = E > 1;
    linear = std::make_unique<AdaptedLinear>(std::move(*linear), std::move(bank), shares ? slot : nullptr);
    return shares;
  }

  void count(const std::string& last, const LoraExperts& bank) {
    const int64_t parameters = bank.a.value().numel() + bank.b.value().numel(), E = bank.experts();
    const int64_t used = most_used(E);
    Match& m = matches_[last];
    m.linears += 1;
    m.parameters += parameters;
    m.active += parameters / E * used;
    inactive_ += parameters / E * (E - used);
    const std::string mine = std::to_string(E);
    if (m.experts.empty())
      m.experts = mine;
    else if (m.experts.substr(m.experts.rfind('-') + 1) != mine)
      m.experts += "-" + mine;
  }

  const MethodConfig& config_;
  uint64_t seed_;
  Gathered gathered_;
  std::vector<std::string>& lines_;
  std::map<std::string, Match> matches_;
  Match blocks_;  // of FFNs
  int64_t block_size_ = 0;
  std::shared_ptr<Teacher> teacher_;
  std::map<int64_t, std::shared_ptr<LambdaNetwork>> lambda_;  // by the width of a router's input
  int64_t routers_ = 0, router_parameters_ = 0, inactive_ = 0;
};

}  // namespace

Attachment attach(nn::Llava& model, const MethodConfig& config, uint64_t seed) {
  check(config);
  model.freeze();
  Attachment result;
  result.config_ = config;
  if (config.prior.weight > 0) result.teacher_ = std::make_shared<Teacher>();
  Adapter adapter(result.config_, seed, result.gathered_, result.lines_, result.teacher_);
  const auto layers = static_cast<int64_t>(model.decoder.blocks.size());
  if (const auto blocks = static_cast<int64_t>(config.experts_by_layer.size()); blocks > 0) {
    BURROW_CHECK(layers % blocks == 0,
                 "method.experts_by_layer: {} values do not cut {} layers into equal blocks", blocks, layers);
  }
  for (int64_t i = 0; i < layers; ++i) adapter.adapt(model.decoder.blocks[static_cast<size_t>(i)], i, layers);
  if (config.expert == ExpertKind::visual) adapter.add_visual(model);
  adapter.check_all_matched();
  adapter.report();
  const bool all = config.name == "full";
  model.parameters([&](const std::string& name, Var& p) {
    result.counts_.total += p.value().numel();
    const bool projector = config.train_projector && name.starts_with("multi_modal_projector.");
    const bool decoder = config.train_decoder && name.starts_with("language_model.");
    if (all || projector || decoder || is_adapter(name) || is_block(name, config)) {
      result.trainable_.emplace_back(name, &p);
      result.counts_.trainable += p.value().numel();
    }
  });
  BURROW_CHECK(result.counts_.trainable > 0,
               "method '{}' trains nothing: method.expert_targets and method.lora_targets are empty and "
               "method.train_projector and train_decoder are false",
               config.name);
  result.counts_.active = result.counts_.trainable - adapter.inactive();
  return result;
}

std::vector<Var*> Attachment::vars_from(size_t first) {
  std::vector<Var*> vars;
  for (Routing& r : std::span(*gathered_).subspan(first)) {
    for (Var* v :
         {&r.probs, &r.weights, &r.entropy, &r.mean_probs, &r.mean_weights, &r.lambda, &r.margin, &r.prior}) {
      if (v->defined()) vars.push_back(v);
    }
  }
  return vars;
}

void Attachment::teach(const std::function<void()>& forward) const {
  if (!teacher_) return;
  const NoGrad no_grad;
  struct Running {
    Teacher& teacher;
    explicit Running(Teacher& t) : teacher(t) { teacher.running = true; }
    ~Running() { teacher.running = false; }
  } running(*teacher_);
  forward();
}

std::string Attachment::report() const {
  std::string text;
  for (const std::string& line : lines_) text += "  " + line + "\n";
  text += fmt::format("  parameters: {} in all, {} trainable, {} of these active per token\n", counts_.total,
                      counts_.trainable, counts_.active);
  return text;
}

}  // namespace burrow::moe
